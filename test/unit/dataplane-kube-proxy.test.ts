import { expect, test } from 'vitest';
import { isKubeProxyChain, removal } from '../../agent/dataplane/iptables.ts';
import { portSign } from '../../agent/dataplane/kube-proxy.ts';
import { FOREIGN_IPTABLES, KUBE_PROXY_IPTABLES } from '../support/kube-proxy-rules.ts';

/** As iptables-save prints it: every chain with its policy, every rule appended. */
const printed = (text: string): string => text.replaceAll(/^-I (\S+)/gm, '-A $1');
const builtIn = (table: string): string => `*${table}\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [3:180]\n:POSTROUTING ACCEPT [0:0]\n`;

test("kube-proxy's chains are known by their names in their tables; kubelet's and others' are not among them", () => {
  expect(isKubeProxyChain('nat', 'KUBE-SVC-TCOU7JCQXEZGVUNU')).toBe(true);
  expect(isKubeProxyChain('filter', 'KUBE-FORWARD')).toBe(true);
  for (const [table, name] of [
    ['filter', 'KUBE-FIREWALL'],
    ['filter', 'KUBE-SVC-TCOU7JCQXEZGVUNU'],
    ['nat', 'KUBE-SVC-MINE'],
    ['nat', 'KUBE-ROUTER-SVC'],
    ['mangle', 'KUBE-IPTABLES-HINT'],
    ['raw', 'KUBE-SERVICES'],
  ] as const)
    expect(isKubeProxyChain(table, name), `${table} ${name}`).toBe(false);
});

test('nothing is done to the rules of others', () => {
  expect(removal(FOREIGN_IPTABLES)).toEqual({ script: '', chains: [], jumps: 0, kept: [] });
  expect(removal('')).toEqual({ script: '', chains: [], jumps: 0, kept: [] });
});

test('jumps go out of built-in chains, then the chains: empty, so that none still uses another', () => {
  const saved = `${builtIn('nat')}${printed(KUBE_PROXY_IPTABLES.split('*nat\n')[1]!.split('*filter')[0]!)}`;
  const { script, chains, jumps, kept } = removal(saved);
  expect(chains.map(({ name }) => name)).toEqual([
    'KUBE-MARK-MASQ',
    'KUBE-NODEPORTS',
    'KUBE-POSTROUTING',
    'KUBE-PROXY-CANARY',
    'KUBE-SEP-AAAAAAAAAAAAAAA2',
    'KUBE-SERVICES',
    'KUBE-SVC-AAAAAAAAAAAAAAAB',
  ]);
  expect({ jumps, kept }).toEqual({ jumps: 3, kept: [] });
  expect(script.split('\n')).toEqual([
    '*nat',
    ...chains.map(({ name }) => `:${name} - [0:0]`),
    '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-D OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-D POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    ...chains.map(({ name }) => `-X ${name}`),
    'COMMIT',
    '',
  ]);
});

test("a chain that somebody else's rule uses stays, with what it uses itself", () => {
  const saved = `${builtIn('nat')}:MINE - [0:0]\n:KUBE-SEP-AAAAAAAAAAAAAAA2 - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A MINE -g KUBE-SEP-AAAAAAAAAAAAAAA2
-A KUBE-SEP-AAAAAAAAAAAAAAA2 -j KUBE-MARK-MASQ
COMMIT\n`;
  const { script, chains, kept } = removal(saved);
  expect(chains).toEqual([{ table: 'nat', name: 'KUBE-SERVICES' }]);
  expect(kept.map(({ name }) => name)).toEqual(['KUBE-SEP-AAAAAAAAAAAAAAA2', 'KUBE-MARK-MASQ']);
  expect(script).not.toMatch(/KUBE-SEP|MARK-MASQ/);
});

test('a comment that looks like a jump is none', () => {
  expect(removal(`${builtIn('nat')}:KUBE-SERVICES - [0:0]\n-A OUTPUT -m comment --comment "say \\" -j KUBE-SERVICES" -j ACCEPT\nCOMMIT\n`).jumps).toBe(0);
});

test('the port is taken when somebody listens there, not when somebody connects to it or from it', () => {
  const line = (local: string, remote: string, state: string): string =>
    `  sl  local_address\n   0: ${local} ${remote} ${state} 00000000:00000000 00:0 0 0 0 1\n`;
  expect(portSign([line('00000000:2810', '00000000:0000', '0A')])).toMatchObject([{ kind: 'port' }]);
  expect(portSign(['', line('00000000000000000000000000000000:2810', '00000000000000000000000000000000:0000', '0A')])).toHaveLength(1);
  expect(portSign([line('0100007F:2810', '0100007F:9999', '01'), line('0100007F:2811', '00000000:0000', '0A')])).toEqual([]);
});

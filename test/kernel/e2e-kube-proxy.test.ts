/** A kube-proxy beside the agent: told, and what it left removed, with nothing else touched. Rules written by hand, in its layout. */
import { spawn } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FOREIGN_IPTABLES, FOREIGN_NFT, KUBE_PROXY_IPTABLES, KUBE_PROXY_NFT } from '../support/kube-proxy-rules.ts';
import { MAGLANE } from '../support/lab/node.ts';
import type { LabNode } from '../support/lab/node.ts';
import { run } from '../support/lab/shell.ts';
import { Cluster, metric, until } from './e2e-cluster.ts';

const VARIANTS = ['iptables-nft', 'ip6tables-nft', 'iptables-legacy', 'ip6tables-legacy'] as const;

let cluster: Cluster;
let node: LabNode;
beforeEach(async () => {
  cluster = await Cluster.start({ agentsOn: [], pods: [] });
  node = cluster.nodeA;
});
afterEach(() => cluster?.destroy());

const inside = (command: readonly string[], input = ''): Promise<string> => run(['nsenter', `--net=/run/netns/${node.netns}`, ...command], { input });

/** Every rule there is, in nftables, iptables-nft's among them, and in the older tables; without what they have counted. */
async function rules(): Promise<string> {
  const texts = await Promise.all([inside(['nft', 'list', 'ruleset']), ...VARIANTS.map((variant) => inside([`${variant}-save`]))]);
  return texts.join('').replaceAll(/^#.*$|\[\d+:\d+\]|packets \d+ bytes \d+/gm, '');
}

/** ICMP has no extension there that the rules need: they serve both families. */
async function fill(nft: string, iptables: string): Promise<void> {
  await inside(['nft', '-f', '-'], nft);
  for (const variant of VARIANTS) await inside([`${variant}-restore`, '--noflush'], iptables);
}

test('what kube-proxy left is told at start, in status and in the metrics; cleanup removes it and nothing else, twice', async () => {
  await fill(FOREIGN_NFT, FOREIGN_IPTABLES);
  await run(['ip', '-n', node.netns, 'link', 'add', 'not-ipvs0', 'type', 'bridge']);
  const before = await rules();
  const nothing = await node.maglane(['cleanup', '--kube-proxy']);
  expect(nothing).toMatchObject({ status: 0, stdout: 'nothing of kube-proxy is here\n' });

  await fill(KUBE_PROXY_NFT, KUBE_PROXY_IPTABLES);
  await run(['ip', '-n', node.netns, 'link', 'add', 'kube-ipvs0', 'type', 'bridge']);
  const agent = await cluster.startAgent(node);
  const signs = [
    'nftables table ip kube-proxy',
    'nftables table ip6 kube-proxy',
    'KUBE-* chains of iptables (nft)',
    'KUBE-* chains of ip6tables (nft)',
    'KUBE-* chains of iptables (legacy)',
    'KUBE-* chains of ip6tables (legacy)',
    'ipvs device kube-ipvs0',
  ];
  for (const sign of signs) expect(agent.log.join('\n')).toContain(`kube-proxy: ${sign}`);
  expect((await node.inspect<{ kubeProxy: string[] }>('status')).kubeProxy).toEqual(signs);
  expect((await node.maglane(['status'])).stdout).toMatch(/^beside +kube-proxy: nftables table ip kube-proxy \(maglane cleanup --kube-proxy/m);
  expect(await metric(node, 'maglane_kube_proxy_signs{kind="iptables"}')).toBe(4);

  const done = await node.maglane(['cleanup', '--kube-proxy']);
  expect(done.stderr).toBe('');
  expect(done.status).toBe(0);
  const lines = done.stdout.trim().split('\n');
  expect(lines).toContain('removed nftables table ip6 kube-proxy');
  expect(lines).toContain('removed chain KUBE-SVC-AAAAAAAAAAAAAAAB of ip6tables (legacy) nat');
  expect(lines).toContain('removed 7 jumps to them of iptables (nft)');
  expect(lines).toContain('removed ipvs device kube-ipvs0');
  // 14 chains, and a line for the jumps, in each of the four rule sets.
  expect(lines).toHaveLength(2 + 4 * 15 + 1);
  expect(await rules()).toBe(before);
  expect(await run(['ip', '-n', node.netns, '-o', 'link'])).toMatch(/not-ipvs0/);

  expect(await node.maglane(['cleanup', '--kube-proxy'])).toMatchObject({ status: 0, stdout: 'nothing of kube-proxy is here\n' });
  expect((await node.inspect<{ kubeProxy: string[] }>('status')).kubeProxy).toEqual([]);
  expect(agent.running).toBe(true);
});

test('a chain that a rule of others uses stays and is told: exit code 1', async () => {
  await inside(['iptables-nft-restore', '--noflush'], KUBE_PROXY_IPTABLES);
  await inside(['iptables-nft-restore', '--noflush'], '*nat\n:MINE - [0:0]\n-A MINE -j KUBE-MARK-MASQ\nCOMMIT\n');
  const done = await node.maglane(['cleanup', '--kube-proxy']);
  expect(done.status).toBe(1);
  expect(done.stderr).toMatch(/^maglane: not removed: chain KUBE-MARK-MASQ of iptables \(nft\) nat: rules of others use it: remove those first\n$/);
  const saved = await inside(['iptables-nft-save']);
  expect(saved).toMatch(/^-A MINE -j KUBE-MARK-MASQ$/m);
  expect(saved.match(/^:KUBE-\S+/gm)).toEqual([':KUBE-MARK-MASQ']);
});

test('without the privilege to read the older tables the rest is done, and they are told', async () => {
  await inside(['iptables-legacy-restore', '--noflush'], KUBE_PROXY_IPTABLES);
  await inside(['nft', '-f', '-'], KUBE_PROXY_NFT);
  const drop = ['setpriv', '--bounding-set=-net_raw', '--inh-caps=-net_raw'];
  const done = await node.run([...drop, MAGLANE, 'cleanup', '--kube-proxy']);
  expect(done.status).toBe(1);
  expect(done.stdout).toBe('removed nftables table ip kube-proxy\nremoved nftables table ip6 kube-proxy\n');
  expect(done.stderr).toMatch(/^maglane: not removed: KUBE-\* chains of iptables \(legacy\), if any: .*Permission denied.*\n$/);
  expect(await node.maglane(['cleanup', '--kube-proxy'])).toMatchObject({ status: 0 });
});

test('while a kube-proxy runs it is told, and nothing is removed', async () => {
  // The name of a process is its file's.
  const program = join(cluster.lab.folder, 'kube-proxy');
  copyFileSync('/bin/sleep', program);
  await inside(['nft', '-f', '-'], KUBE_PROXY_NFT);
  const before = await rules();
  const proxy = spawn('nsenter', [`--net=/run/netns/${node.netns}`, program, '600'], { stdio: 'ignore' });
  try {
    await until('it runs', async () => (await node.maglane(['cleanup', '--kube-proxy'])).stderr.includes(`pid ${proxy.pid}`));
    const refused = await node.maglane(['cleanup', '--kube-proxy']);
    expect(refused).toMatchObject({ status: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^maglane: kube-proxy runs here, pid \d+, and would put its rules back: delete its DaemonSet, or stop it, first\n$/);
    expect(await rules()).toBe(before);
    const agent = await cluster.startAgent(node);
    expect(agent.log.join('\n')).toContain(`kube-proxy: a running kube-proxy, pid ${proxy.pid}`);
    // Another namespace's is not this node's.
    expect((await cluster.nodeB.maglane(['cleanup', '--kube-proxy'])).status).toBe(0);
  } finally {
    proxy.kill('SIGKILL');
  }
});

test('ports that sockets of the node may get are refused for forwarding, in one line', async () => {
  await inside(['sysctl', '-qw', 'net.ipv4.ip_local_port_range=1024 65535']);
  const refused = await node.startAgent({ manifests: cluster.manifests.folder, ready: false });
  expect(await refused.exited).toBe(1);
  expect(refused.log.at(-1)).toMatch(/^maglane: --snat-ports 61000-65535 lie in net\.ipv4\.ip_local_port_range \(1024 to 65535\)/);
  await inside(['sysctl', '-qw', 'net.ipv4.ip_local_reserved_ports=61000-65535', 'net.ipv4.ip_forward=0']);
  const agent = await node.startAgent({ manifests: cluster.manifests.folder });
  expect(agent.log.join('\n')).toMatch(/net\.ipv4\.ip_forward is 0: /);
  expect(agent.log.join('\n')).not.toMatch(/ipv6\.conf/);
});

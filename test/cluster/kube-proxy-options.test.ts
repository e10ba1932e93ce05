/** What the real kube-proxy takes is what the agent takes, and what docs/kube-proxy.md lists: no flag, field or gate is missing. */
import { readFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { FEATURE_GATES } from '../../agent/config/feature-gates.ts';
import { readConfigFile } from '../../agent/config/file.ts';
import { kubeProxyFields } from '../../agent/config/kube-proxy.ts';
import { readOptions } from '../../agent/config/options.ts';
import { binaries } from '../support/controlplane/control-plane.ts';
import { run } from '../support/lab/shell.ts';

const folder = mkdtempSync(join(tmpdir(), 'maglane-kube-proxy-'));
const written = join(folder, 'config.yaml');
afterAll(() => rmSync(folder, { recursive: true }));

const kubeProxy = (...args: string[]): Promise<string> => run([join(binaries(), 'kube-proxy'), ...args]);

let help: string;
beforeAll(async () => {
  help = await kubeProxy('--help');
  await kubeProxy('--kubeconfig=/etc/kubeconfig', `--write-config-to=${written}`);
});

test('every flag of its help is in the table, and the table has no other', () => {
  const page = readFileSync(new URL('../../docs/kube-proxy.md', import.meta.url), 'utf8');
  const section = page.split(/^(?=## )/m).find((part) => part.startsWith('## Its flags\n')) ?? '';
  const listed = [...section.matchAll(/^\| `(--?[\w-]+)`/gm)].map(([, flag]) => flag);
  const real = [...help.matchAll(/^ +(?:(-\w), )?(--[\w-]+) /gm)].map(([, short, long]) => (short === '-v' ? short : long));
  expect(real.length).toBeGreaterThan(50);
  // Hidden in the help, for they are deprecated.
  expect(listed.sort()).toEqual([...real, '--healthz-port', '--metrics-port'].sort());
});

test('every field of the configuration that it writes is known, and read without a warning', async () => {
  const paths = (value: object, prefix = ''): string[] =>
    Object.entries(value).flatMap(([name, inner]: [string, unknown]) => {
      const path = `${prefix}${name}`;
      const isSection = typeof inner === 'object' && inner !== null && !['logging.options', 'winkernel'].includes(path);
      return isSection ? paths(inner, `${path}.`) : [path];
    });
  const { apiVersion, kind, ...fields } = parse(readFileSync(written, 'utf8')) as Record<string, unknown>;
  expect([apiVersion, kind]).toEqual(['kubeproxy.config.k8s.io/v1alpha1', 'KubeProxyConfiguration']);
  // It leaves these out while they are empty.
  const known = kubeProxyFields().map(({ path }) => path);
  expect([...paths(fields), 'featureGates', 'logging.vmodule', 'windowsRunAsService'].sort()).toEqual(known.sort());

  const { warnings, given } = await readConfigFile(written);
  expect(warnings).toEqual([]);
  expect(readOptions(given)).toMatchObject({
    kubeconfig: '/etc/kubeconfig',
    healthzBindAddress: { host: '0.0.0.0', port: 10256 },
    detectLocalMode: 'ClusterCIDR',
  });
});

test('every gate that it offers is taken', async () => {
  const gates = [...help.matchAll(/^ +([A-Z]\w+)=true\|false/gm)].map(([, gate = '']) => gate);
  expect(gates.length).toBeGreaterThan(100);
  expect(gates.filter((gate) => !FEATURE_GATES.has(gate))).toEqual([]);
});

test.each(['mode: ebpf', 'clusterCIDR: 10.0.0.0/8,10.1.0.0/16', 'iptables: {masqueradeBit: 32}', 'featureGates: {NoSuchGate: true}', 'hostnameOverride: 5'])(
  'what it refuses is refused: %s',
  async (content) => {
    const config = join(folder, 'bad.yaml');
    writeFileSync(config, `apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclientConnection: {kubeconfig: /none}\n${content}\n`);
    const [field = ''] = content.split(':');
    // It reads a file before it looks for a cluster: what it says is of the file, not of the kubeconfig.
    await expect(kubeProxy(`--config=${config}`)).rejects.toThrow(
      new RegExp(field === 'mode' ? 'ProxyMode' : field === 'featureGates' ? 'NoSuchGate' : field, 'i'),
    );
    await expect(readConfigFile(config)).rejects.toThrow(field);
  },
);

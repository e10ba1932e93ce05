/** kube-proxy's process surface: its pages, its file, its flags, its exit codes. */
import { existsSync, mkdtempSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { Lab } from '../support/lab/lab.ts';
import type { Agent, LabNode } from '../support/lab/node.ts';
import { MAGLANE } from '../support/lab/node.ts';
import { Manifests, metric, service, until } from './e2e-cluster.ts';

const HEAD = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';

let lab: Lab;
let node: LabNode;
let manifests: Manifests;
let config: string;

beforeAll(async () => {
  lab = await Lab.create({ nodes: 1 });
  node = lab.node('node-a');
  manifests = new Manifests(lab);
  manifests.put('web.json', service('web', { ips: ['10.96.0.1', 'fd00:96::1'], tcp: 80, endpoints: ['10.244.1.11'] }));
  config = join(mkdtempSync(join(lab.folder, 'config-')), 'kube-proxy.conf');
});
afterAll(() => lab?.destroy());

/** As a ConfigMap is replaced: at once. */
function putConfig(text: string): void {
  writeFileSync(`${config}.new`, HEAD + text);
  renameSync(`${config}.new`, config);
}

async function startAgent(...args: string[]): Promise<Agent> {
  const agent = await node.startAgent({ manifests: manifests.folder, args });
  onTestFinished(async () => {
    await agent.stop();
    await node.maglane(['cleanup']);
  });
  return agent;
}

const get = async (url: string): Promise<[number, string]> => {
  const { status, body } = await node.get(url);
  return [status, body];
};

test("kube-proxy's pages", async () => {
  await startAgent('--cluster-cidr', '10.244.0.0/16');
  const pages = 'http://127.0.0.1:10249';
  expect(await get(`${pages}/healthz`)).toEqual([200, 'ok']);
  expect(await get(`${pages}/proxyMode`)).toEqual([200, 'ebpf']);
  const [status, body] = await get(`${pages}/configz`);
  expect([status, JSON.parse(body)]).toMatchObject([
    200,
    { 'kubeproxy.config.k8s.io': { mode: 'ebpf', clusterCIDR: '10.244.0.0/16', hostnameOverride: 'node-a', nodePortAddresses: ['primary'] } },
  ]);
  expect((await get(`${pages}/statusz`))[1]).toMatch(/Paths: .*\/metrics.*\/proxyMode/);
  expect((await get(`${pages}/flagz`))[1]).toContain('\ncluster-cidr=10.244.0.0/16\n');
  expect((await get(`${pages}/nothing`))[0]).toBe(404);

  for (const page of ['/healthz', '/livez']) {
    const [code, text] = await get(`http://172.30.0.11:10256${page}`);
    const status = { healthy: true, lastUpdated: expect.stringMatching(/^\d{4}-/) };
    expect([code, JSON.parse(text)]).toMatchObject([200, { healthy: true, status: { IPv4: status, IPv6: status } }]);
  }
  expect(await metric(node, 'kubeproxy_proxy_livez_total{code="200"}')).toBe(1);
  expect(await metric(node, 'kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}')).toBe(1);
  const partial = 'kubeproxy_sync_partial_proxy_rules_duration_seconds_count';
  manifests.put('other.json', service('other', { ips: ['10.96.0.2'], tcp: 80 }));
  onTestFinished(() => manifests.remove('other.json'));
  await until('the change is written', async () => (await metric(node, `${partial}{ip_family="IPv4"}`)) >= 1);
  expect(await metric(node, `${partial}{ip_family="IPv6"}`)).toBe(0);
});

test('--version says what it is, and starts nothing', async () => {
  const { stdout: ours } = await node.run([MAGLANE, 'version']);
  expect(ours).toMatch(/^maglane \S+ \(node \S+, abi \d+\)\n$/);
  for (const flag of ['--version', '--version=true', '--version=raw'])
    expect(await node.run([MAGLANE, 'agent', flag, '--node-ip', 'not read'])).toEqual({ status: 0, stdout: ours, stderr: '' });
});

describe('a KubeProxyConfiguration', () => {
  test("takes a DaemonSet's command line as it is, and says what means nothing", async () => {
    putConfig('mode: iptables\nhostnameOverride: other\nmetricsBindAddress: 127.0.0.1:10333\nconntrack: {maxPerCore: 32768}\nclusterCidr: typo\n');
    const agent = await startAgent('--config', config, '--hostname-override', 'Node-A', '-v=4', '--node-name', 'node-a');
    expect(await get('http://127.0.0.1:10333/proxyMode')).toEqual([200, 'ebpf']);
    const log = agent.log.join('\n');
    expect(log).toMatch(/these mean nothing to eBPF and have no effect options=mode,conntrack\.maxPerCore/);
    expect(log).toContain('unknown field "clusterCidr" is passed over');
    const [, configz] = await get('http://127.0.0.1:10333/configz');
    expect(JSON.parse(configz)).toMatchObject({ 'kubeproxy.config.k8s.io': { hostnameOverride: 'node-a', logging: { verbosity: 4 } } });
  });

  test('rewritten with other options it ends the agent with exit code 1; one that is the same, or broken, does not', { timeout: 90_000 }, async () => {
    putConfig('clusterCIDR: 10.244.0.0/16\n');
    const agent = await startAgent('--config', config);
    putConfig('clusterCIDR: "10.244.0.0/16"\nmode: nftables\n');
    putConfig('clusterCIDR: [\n');
    await until('the broken file is told', () => agent.log.some((line) => line.includes('the rewritten --config is not taken')));
    expect(agent.running).toBe(true);
    putConfig('clusterCIDR: 10.245.0.0/16\n');
    expect(await agent.exited).toBe(1);
    expect(agent.log.at(-1)).toMatch(/^maglane: --config .* has been rewritten: a fresh start is due/);
  });

  test.each([
    ['a wrong type', 'hostnameOverride: 5', 'hostnameOverride 5: expected a text'],
    ['an unknown gate', 'featureGates: {NoSuchGate: true}', 'featureGates "NoSuchGate": expected a feature gate of Kubernetes'],
  ])('%s is fatal', async (_, text, message) => {
    putConfig(text);
    const { status, stderr } = await node.run([MAGLANE, 'agent', '--config', config]);
    expect([status, stderr]).toEqual([2, expect.stringContaining(message)]);
  });
});

test('maglane config prints what is in force, and --write-config-to what is not the default', async () => {
  putConfig('clusterCIDR: 10.244.0.0/16\nnftables: {syncPeriod: 1m}\n');
  const { stdout, stderr, status } = await node.run([MAGLANE, 'config', '--config', config, '--node-name', 'n1', '-o', 'json']);
  expect(status).toBe(0);
  expect(stderr).toContain('nftables.syncPeriod means nothing to eBPF');
  expect(JSON.parse(stdout)).toEqual(
    expect.arrayContaining([
      { option: 'clusterCidr', flag: '--cluster-cidr', value: '10.244.0.0/16', from: `${config}: clusterCIDR` },
      { option: 'nodeName', flag: '--node-name', value: 'n1', from: '--node-name' },
      { option: 'xdpMode', flag: '--xdp-mode', value: 'auto', from: 'default' },
    ]),
  );
  expect((await node.run([MAGLANE, 'config', '--node-name', 'n1'])).stdout).toMatch(/^--node-name +n1 +--node-name$/m);

  const written = join(lab.folder, 'written.yaml');
  const args = [MAGLANE, 'agent', '--config', config, '--source', 'manifests', '--manifests', manifests.folder, '--write-config-to', written];
  expect(await node.run(args)).toMatchObject({ status: 0, stderr: '' });
  expect(readFileSync(written, 'utf8')).toMatch(/^clusterCidr: "10\.244\.0\.0\/16"$/m);
});

test('--init-only reserves the ports and makes the folder, --cleanup takes the pins away; neither stays', async () => {
  const reserved = async (): Promise<string> => (await node.run(['sysctl', '-n', 'net.ipv4.ip_local_reserved_ports'])).stdout.trim();
  const places = ['--bpffs', node.bpffs, '--cgroup', node.agentCgroup];
  expect(await node.run([MAGLANE, 'agent', '--init-only', '--snat-ports', '50000-50999', ...places])).toEqual({ status: 0, stdout: '', stderr: '' });
  expect(await reserved()).toBe('50000-50999');
  expect(existsSync(node.bpffs)).toBe(true);

  const agent = await node.startAgent({ manifests: manifests.folder });
  await agent.stop();
  const { status, stdout } = await node.run([MAGLANE, 'agent', '--cleanup', ...places]);
  expect([status, stdout]).toEqual([0, expect.stringContaining('removed pin')]);
  expect(existsSync(node.bpffs)).toBe(false);
});

test('told to stop at any moment of its start, it ends at once, and well', async () => {
  onTestFinished(async () => void (await node.maglane(['cleanup'])));
  const own = ['--source', 'manifests', '--manifests', manifests.folder, '--node-name', node.name, '--bpffs', node.bpffs, '--cgroup', node.agentCgroup];
  for (const seconds of ['0.1', '0.2', '0.3', '0.4', '0.5', '0.7', '0.9', '1.2', '2']) {
    const { status, stderr } = await node.run(['timeout', '--preserve-status', '--kill-after=20', seconds, MAGLANE, 'agent', ...own]);
    // 143: it was not listening yet, and had begun nothing.
    expect([0, 143], `after ${seconds} s: ${stderr}`).toContain(status);
  }
});

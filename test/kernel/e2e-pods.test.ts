/** Devices of pods: the running agent has its programs on each as soon as it comes, and nothing of one that is gone. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { AttachedDevice } from '../../agent/dataplane/device-map.ts';
import { Host } from '../support/lab/host.ts';
import type { LabNode } from '../support/lab/node.ts';
import { run } from '../support/lab/shell.ts';
import { PATIENCE } from '../support/patience.ts';
import { addressesOf, Cluster, until } from './e2e-cluster.ts';

let cluster: Cluster;
afterEach(() => cluster?.destroy());

const indexOf = async (node: LabNode, device: string): Promise<number> =>
  (JSON.parse(await run(['ip', '-n', node.netns, '-j', 'link', 'show', device])) as { ifindex: number }[])[0]!.ifindex;

const devices = async (node: LabNode): Promise<readonly AttachedDevice[]> => (await node.inspect<{ devices: AttachedDevice[] }>('status')).devices;

/** Whether the kernel has the programs of a pod's device: at tcx, or at clsact where there is none. */
const hasPrograms = async (node: LabNode, device: string, index: number): Promise<boolean> => {
  if (existsSync(join(node.bpffs, 'links', `dev_${index}_tcx_ingress`))) return existsSync(join(node.bpffs, 'links', `dev_${index}_tcx_egress`));
  return (await run(['tc', '-n', node.netns, 'filter', 'show', 'dev', device, 'egress'])).includes('mg_pod_egress');
};

test.each(['bridge', 'ptp'] as const)('%s: a pod that comes has its programs within milliseconds, one that goes leaves nothing', async (podAttach) => {
  cluster = await Cluster.start({ podAttach, agentsOn: ['node-a'], pods: ['a1'] });
  const { nodeA } = cluster;
  const uplink = { name: 'eth0', pod: false };
  const node = { pod: true, why: 'pod', mode: 'tc', addr4: nodeA.addresses[0], addr6: nodeA.addresses[1] };
  expect((await devices(nodeA)).toSorted((a, b) => Number(a.pod) - Number(b.pod))).toMatchObject([uplink, node]);

  const waits: number[] = [];
  for (const number of [21, 22, 23]) {
    await run(['ip', 'netns', 'add', `${nodeA.netns}-${number}`]);
    try {
      const begun = performance.now();
      await run(['ip', '-n', nodeA.netns, 'link', 'add', `new${number}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', `${nodeA.netns}-${number}`]);
      const index = await indexOf(nodeA, `new${number}`);
      await until(`new${number} has programs`, () => hasPrograms(nodeA, `new${number}`, index));
      waits.push(performance.now() - begun);
      expect((await devices(nodeA)).map(({ name }) => name)).toContain(`new${number}`);
      await run(['ip', '-n', nodeA.netns, 'link', 'del', `new${number}`]);
      await until(`new${number} is forgotten`, async () => (await devices(nodeA)).length === 2);
      expect(existsSync(join(nodeA.bpffs, 'links', `dev_${index}_tcx_ingress`))).toBe(false);
    } finally {
      await run(['ip', 'netns', 'del', `${nodeA.netns}-${number}`]);
    }
  }
  console.info(`from "ip link add" to programs: ${waits.map((ms) => ms.toFixed(0)).join(', ')} ms`);
  // Two commands, and two RCU grace periods, are in this.
  expect(Math.min(...waits)).toBeLessThan(500 * PATIENCE);
});

/** In the pod's network, but no socket of the agent's cgroup: as a virtual machine's, which no socket hook sees. */
const bare = (pod: Host): Host => new Host(pod.name, pod.netns, cluster.client.cgroup, pod.addresses);

const servers = async (host: Host, address: string): Promise<string[]> => {
  const answers = await host.connect(address, 80, { count: 20, timeoutMs: 2_000 * PATIENCE });
  return [...new Set(answers.map(({ server, error }) => error ?? server))].sort();
};

test.each(['bridge', 'ptp'] as const)(
  '%s: a pod whose sockets no hook sees is served by its device: at once, across restarts, and not without',
  async (podAttach) => {
    cluster = await Cluster.start({ podAttach, pods: ['a2', 'b1'] });
    const vips = ['10.96.0.10', 'fd00:96::10'];
    const endpoints = addressesOf(cluster.pod('a2'), cluster.pod('b1'));
    await cluster.apply('web', { ips: vips, tcp: 80, endpoints, algorithm: 'random' });
    const machine = bare(await cluster.addPod('a1'));
    try {
      for (const vip of vips) expect(await servers(machine, vip), vip).toEqual(['a2', 'b1']);

      const held = await machine.hold(vips[0]!, 80);
      await cluster.agentOf(cluster.nodeA).kill();
      expect(await held.echo()).toBe('ok');
      for (const vip of vips) expect(await servers(machine, vip), vip).toEqual(['a2', 'b1']);
      await cluster.startAgent(cluster.nodeA);
      expect(await held.echo()).toBe('ok');
      await held.release();
      for (const vip of vips) expect(await servers(machine, vip), vip).toEqual(['a2', 'b1']);

      await cluster.agentOf(cluster.nodeA).stop();
      await cluster.nodeA.startAgent({ manifests: cluster.manifests.folder, args: ['--pod-devices', 'none'] });
      for (const vip of vips) expect(await servers(machine, vip), vip).not.toContain('a2');
      // The others have their sockets.
      expect(await servers(cluster.pod('a1'), vips[0]!)).toEqual(['a2', 'b1']);
    } finally {
      machine.close();
    }
  },
);

test('a device without Ethernet headers is told, and so is one that is not there', async () => {
  cluster = await Cluster.start({ agentsOn: [], pods: ['a1'] });
  const { nodeA } = cluster;
  await run(['ip', '-n', nodeA.netns, 'tuntap', 'add', 'dev', 'tun0', 'mode', 'tun']);
  const args = ['--devices', 'eth0,tun0,eth9', '--pod-devices', 'none'];
  const agent = await nodeA.startAgent({ manifests: cluster.manifests.folder, args });
  expect((await devices(nodeA)).map(({ name }) => name)).toEqual(['eth0']);
  expect(agent.log.join('\n')).toMatch(/device tun0: has no Ethernet headers and gets no programs/);
  expect(agent.log.join('\n')).toMatch(/device eth9: is not there/);
  await run(['ip', '-n', nodeA.netns, 'link', 'add', 'eth9', 'type', 'veth', 'peer', 'name', 'eth9p']);
  await until('eth9 is attached to', async () => (await devices(nodeA)).some(({ name }) => name === 'eth9'));
});

test('status shows devices of pods in one line', async () => {
  cluster = await Cluster.start({ agentsOn: ['node-a'], pods: ['a1', 'a2', 'a3'] });
  const { stdout } = await cluster.nodeA.maglane(['status']);
  expect(stdout).toMatch(/^eth0 +tc /m);
  expect(stdout).toMatch(new RegExp(`^\\(3 to pods\\) +tc +\\w+ +${cluster.nodeA.addresses.join(', ')} +XDP is for what comes from outside$`, 'm'));
  expect(stdout).not.toMatch(/^pod\d/m);
});

/** Agents that are killed, stopped, replaced and removed: the kernel goes on by itself, and what is under way is not cut. */
import { existsSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import type { Agent } from '../support/lab/node.ts';
import { run } from '../support/lab/shell.ts';
import { PATIENCE } from '../support/patience.ts';
import { addressesOf, Cluster, until } from './e2e-cluster.ts';

const VIPS = ['10.96.0.10', 'fd00:96::10'];
const NODE_PORT = 30_080;
const POD_RATE = 1_000 / PATIENCE;
const CLIENT_RATE = 50 / PATIENCE;

let cluster: Cluster;
let agent: Agent;

beforeAll(async () => {
  // With XDP on the uplinks every kind of link is there: cgroup, XDP and tc.
  cluster = await Cluster.start({ xdp: true, args: ['--xdp-mode', 'native'], agentsOn: ['node-b'], pods: ['a1', 'a2', 'a9', 'b1', 'b2'] });
  agent = await cluster.startAgent(cluster.nodeA);
  const everyone = ['a1', 'a2', 'b1', 'b2'].map((name) => cluster.pod(name));
  await cluster.apply('web', { ips: VIPS, tcp: 80, udp: 53, nodePort: NODE_PORT, endpoints: addressesOf(...everyone), algorithm: 'random' });
});
afterAll(() => cluster?.destroy());

/** Backends by address: their ids are theirs as long as they serve. */
async function ids(): Promise<Record<string, number>> {
  const rows = await cluster.nodeA.inspect<{ address: string; backendPort: number; protocol: string; id: number }[]>('backends');
  return Object.fromEntries(rows.map(({ address, backendPort, protocol, id }) => [`${protocol} ${address} ${backendPort}`, id]));
}

/** Ids and tags of what the links of node-a run. */
async function links(): Promise<{ pin: string; id: number; tag: string }[]> {
  const folder = join(cluster.nodeA.bpffs, 'links');
  return Promise.all(
    readdirSync(folder)
      .sort()
      .map(async (pin) => {
        const link = JSON.parse(await run(['bpftool', '-j', 'link', 'show', 'pinned', join(folder, pin)])) as { id: number; prog_id: number };
        const program = JSON.parse(await run(['bpftool', '-j', 'prog', 'show', 'id', String(link.prog_id)])) as { tag: string };
        return { pin, id: link.id, tag: program.tag };
      }),
  );
}

/** Runs `disturb` under steady new connections from a pod and from outside, with others held; none may notice. */
async function undisturbed(disturb: (meetsMore: () => Promise<void>) => Promise<void>): Promise<void> {
  const [pod, client] = [cluster.pod('a9'), cluster.client];
  const [nodePort, nodePort6] = cluster.nodeA.addresses as [string, string];
  const targets: [Host, string, number][] = [0, 1, 2, 3, 4, 5].flatMap(() => [
    [pod, VIPS[0]!, 80],
    [pod, VIPS[1]!, 80],
    [client, nodePort, NODE_PORT],
    [client, nodePort6, NODE_PORT],
  ]);
  const held = await Promise.all(targets.map(([host, address, port]) => host.hold(address, port)));
  const traffics = await Promise.all([
    pod.traffic(VIPS[0]!, 80, POD_RATE),
    client.traffic(nodePort, NODE_PORT, CLIENT_RATE),
    client.traffic(nodePort6, NODE_PORT, CLIENT_RATE),
  ]);
  const answers = async (): Promise<number[]> => Promise.all(traffics.map(async (traffic) => (await traffic.tally()).answers));
  // A busy machine falls behind the rates, so what is waited for is counted.
  const enough = [POD_RATE / 2, 10, 10];
  await disturb(async () => {
    const before = await answers();
    await until('all traffic has been answered again', async () => (await answers()).every((count, i) => count >= before[i]! + enough[i]!));
  });
  const tallies = await Promise.all(traffics.map((traffic) => traffic.stop()));
  expect(tallies.map(({ errors }) => errors)).toEqual([{}, {}, {}]);
  for (const { servers } of tallies) expect(Object.keys(servers).sort()).toEqual(['a1', 'a2', 'b1', 'b2']);
  for (const [i, connection] of held.entries()) {
    const [host, address] = targets[i]!;
    expect(await connection.echo(), `${host.name} to ${address} at ${connection.answer.server}`).toBe('ok');
    await connection.release();
  }
}

test('ten kills and restarts under 1,000 connections a second: not one fails', { timeout: 120_000 * PATIENCE }, async () => {
  const before = { ids: await ids(), links: await links() };
  await undisturbed(async (meetsMore) => {
    for (let round = 0; round < 10; round++) {
      await agent.kill();
      await meetsMore();
      agent = await cluster.startAgent(cluster.nodeA);
      await meetsMore();
    }
  });
  expect(agent.log.filter((line) => /WARN|ERROR/i.test(line))).toEqual([]);
  expect({ ids: await ids(), links: await links() }).toEqual(before);
});

test('programs are replaced by a rebuilt version in the links that stand: not one connection fails', async () => {
  const object = await rebuilt();
  const before = await links();
  await undisturbed(async (meetsMore) => {
    await agent.stop();
    agent = await cluster.startAgent(cluster.nodeA, { MAGLANE_OBJECT: object });
    await meetsMore();
    const after = await links();
    expect(after.map(({ pin, id }) => ({ pin, id }))).toEqual(before.map(({ pin, id }) => ({ pin, id })));
    for (const [i, { pin, tag }] of after.entries()) expect(tag, pin).not.toBe(before[i]!.tag);
    await agent.stop();
    agent = await cluster.startAgent(cluster.nodeA);
    await meetsMore();
  });
  expect(await links()).toEqual(before);
});

test('changes made while no agent runs are caught up with at its start', async () => {
  await agent.kill();
  const web = { ips: VIPS, tcp: 80, udp: 53, nodePort: NODE_PORT, algorithm: 'random' } as const;
  const held = await cluster.pod('a9').hold(VIPS[0]!, 80);
  await cluster.apply('web', { ...web, endpoints: addressesOf(cluster.pod('a2'), cluster.pod('b2')) });
  agent = await cluster.startAgent(cluster.nodeA);
  const answers = await cluster.pod('a9').connect(VIPS[0]!, 80, { count: 40 });
  expect([...new Set(answers.map(({ server }) => server))].sort()).toEqual(['a2', 'b2']);
  expect(await held.echo()).toBe('ok');
});

test('a second agent on the same pins is refused with one line', async () => {
  const second = await cluster.nodeA.startAgent({
    manifests: cluster.manifests.folder,
    args: ['--healthz-bind-address', 'off', '--metrics-bind-address', 'off'],
    ready: false,
  });
  expect(await second.exited).toBe(1);
  expect(second.log.filter((line) => line.startsWith('maglane:'))).toEqual([expect.stringContaining(`pid ${agent.pid}`)]);
  expect(agent.running).toBe(true);
});

test('a stopped agent leaves traffic going; cleanup takes all away, once no agent runs', async () => {
  const { nodeA } = cluster;
  const pod = cluster.pod('a9');
  const refused = await nodeA.maglane(['cleanup']);
  expect(refused).toEqual({ status: 1, stdout: '', stderr: expect.stringMatching(/^maglane: .*\n$/) });
  expect(refused.stderr).toContain(String(agent.pid));

  expect(await agent.stop()).toBe(0);
  expect(agent.log.at(-1)).toMatch(/stopping/);
  for (const vip of VIPS) expect((await pod.connect(vip, 80))[0]!.error).toBeUndefined();
  for (const address of nodeA.addresses) expect((await cluster.client.connect(address, NODE_PORT))[0]!.error).toBeUndefined();
  const status = await nodeA.maglane(['status']);
  expect(status.stdout).toMatch(/not running/);

  const held = await pod.hold(VIPS[0]!, 80);
  expect((await nodeA.maglane(['cleanup'])).status).toBe(0);
  expect(existsSync(nodeA.bpffs)).toBe(false);
  // What is connected talks to its backend directly; new connections find no Service any more.
  expect(await held.echo()).toBe('ok');
  expect((await nodeA.connect('127.0.0.1', NODE_PORT))[0]!.error).toBe('ECONNREFUSED');
  for (const address of nodeA.addresses) expect((await cluster.client.connect(address, NODE_PORT))[0]!.error).toBe('ECONNREFUSED');
  expect(await run(['bpftool', 'cgroup', 'show', nodeA.agentCgroup])).not.toMatch(/connect4/);
  for (const command of ['services', 'backends', 'status'])
    expect(await nodeA.maglane([command])).toEqual({ status: 1, stdout: '', stderr: expect.stringMatching(/^maglane: nothing is pinned under .*\n$/) });
  expect(await nodeA.maglane(['cleanup'])).toEqual({ status: 0, stdout: expect.stringMatching(/^nothing to remove/), stderr: '' });
});

/** The same programs with a few instructions more, as another version would have. */
async function rebuilt(): Promise<string> {
  const folder = mkdtempSync(join(cluster.lab.folder, 'rebuilt-'));
  const header = join(folder, 'rebuilt.h');
  writeFileSync(
    header,
    `#include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    #define NEWER(call) ({ asm volatile("r0 = 0" ::: "r0"); call; })
    #define bpf_map_lookup_elem(map, key) NEWER(bpf_map_lookup_elem(map, key))
    #define bpf_sk_storage_get(map, sk, value, flags) NEWER(bpf_sk_storage_get(map, sk, value, flags))\n`,
  );
  await run(['make', '-s', '-C', join(import.meta.dirname, '../../bpf'), `BUILD=${folder}`, `CLANG=clang -include ${header}`]);
  return join(folder, 'maglane.bpf.o');
}

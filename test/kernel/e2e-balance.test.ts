/** least-connections with a real agent: counts outlive it, and an endpoint that comes back is as busy as it is. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Held } from '../support/lab/host.ts';
import { run } from '../support/lab/shell.ts';
import { addressesOf, Cluster, until } from './e2e-cluster.ts';

const VIP = '10.96.0.10';

let cluster: Cluster;
let held: Held[] = [];

beforeAll(async () => {
  cluster = await Cluster.start({ agentsOn: ['node-a'], pods: ['a1', 'a2', 'a9', 'b1'] });
  await serve('a1', 'a2');
});
afterAll(() => cluster?.destroy());

const serve = (...pods: string[]) =>
  cluster.apply('web', { ips: [VIP], tcp: 80, endpoints: addressesOf(...pods.map((name) => cluster.pod(name))), algorithm: 'least-connections' });

/** Ids and open sockets by pod, as `maglane backends` shows them; those on their way out, too. */
async function backends(): Promise<Record<string, { id: number; open: number }>> {
  const rows = await cluster.nodeA.inspect<{ address: string; id: number; open: number }[]>('backends');
  const nameOf = (address: string): string => ['a1', 'a2', 'b1'].find((name) => cluster.pod(name).addresses.includes(address)) ?? address;
  return Object.fromEntries(rows.map(({ address, id, open }) => [nameOf(address), { id, open }]));
}

async function open(): Promise<Record<string, number>> {
  return Object.fromEntries(Object.entries(await backends()).map(([name, backend]) => [name, backend.open]));
}

/** New connections one by one, which stay. @returns who answers them. */
async function hold(count: number): Promise<string[]> {
  const fresh: Held[] = [];
  for (let i = 0; i < count; i++) fresh.push(await cluster.pod('a9').hold(VIP, 80));
  held.push(...fresh);
  return fresh.map(({ answer }) => answer.server);
}

async function release(server: string): Promise<void> {
  for (const connection of held) if (connection.answer.server === server) await connection.release();
  held = held.filter(({ answer }) => answer.server !== server);
}

test('connections are even, and even again after those of one backend are closed', async () => {
  await hold(10);
  expect(await open()).toEqual({ a1: 5, a2: 5 });
  await release('a1');
  await until('a1 has none', async () => (await open())['a1'] === 0);
  expect(await open()).toEqual({ a1: 0, a2: 5 });
  expect(await hold(5)).toEqual(['a1', 'a1', 'a1', 'a1', 'a1']);
});

test('the kernel goes on counting while the agent is dead, and the next agent goes on from there', async () => {
  const before = await backends();
  await cluster.agentOf(cluster.nodeA).kill();
  await release('a2');
  await until('a2 has none', async () => (await open())['a2'] === 0);
  expect(new Set(await hold(3))).toEqual(new Set(['a2']));
  const agent = await cluster.startAgent(cluster.nodeA);
  expect(new Set(await hold(2))).toEqual(new Set(['a2']));
  expect(await backends()).toEqual(before);
  expect(agent.log.filter((line) => line.includes('put right'))).toEqual([]);
});

test('an agent that starts puts right what was counted wrong', async () => {
  await cluster.agentOf(cluster.nodeA).kill();
  const { a1 } = await backends();
  const bytes = (value: number): string[] => [...new Uint8Array(Uint32Array.of(value).buffer)].map(String);
  const pin = join(cluster.nodeA.bpffs, 'maps/open_sockets');
  await run(['bpftool', 'map', 'update', 'pinned', pin, 'key', ...bytes(a1!.id), 'value', ...bytes(50), ...bytes(0)]);
  expect(await open()).toEqual({ a1: 50, a2: 5 });
  const agent = await cluster.startAgent(cluster.nodeA);
  await until('the count is right', async () => (await open())['a1'] === 5);
  expect(agent.log.filter((line) => line.includes('counts of open sockets are put right'))).toHaveLength(1);
});

test('an endpoint that comes back late finds its slot and its connections, one without any does not', async () => {
  await serve('a1', 'a2', 'b1');
  const before = await backends();
  await serve('a2');
  // Both have left; only the one that nobody has open is cleared, when the time of grace is over.
  await until('b1 is cleared', async () => !('b1' in (await backends())));
  expect(await open()).toEqual({ a1: 5, a2: 5 });
  expect(new Set(await hold(3))).toEqual(new Set(['a2']));
  await serve('a1', 'a2');
  expect((await backends())['a1']).toEqual(before['a1']);
  expect(new Set(await hold(3))).toEqual(new Set(['a1']));
  for (const connection of held) expect(await connection.echo()).toBe('ok');

  await serve('a2');
  await release('a1');
  await until('a1 is cleared, too', async () => !('a1' in (await backends())));
});

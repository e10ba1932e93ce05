/** UDP clients whose servers come and go: what kube-proxy's conntrack cleanup does for packets, and more, for sockets. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { HeldUdp, Host } from '../support/lab/host.ts';
import { addressesOf, Cluster, metric, until } from './e2e-cluster.ts';
import type { ServiceInit } from './e2e-cluster.ts';

const VIPS = ['10.96.0.10', 'fd00:96::10'] as const;
const PORT = 53;
const NODE_PORT = 30_053;

let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start();
});
afterAll(() => cluster?.destroy());

const to = (...names: readonly string[]): string[] => addressesOf(...names.map((name) => cluster.pod(name)));
const endpoint = (host: string, port: number = PORT): string => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`);
const cuts = (): Promise<number> => metric(cluster.nodeA, 'maglane_sockets_cut_total');

/** Makes a Service, or changes it. Endpoints are names of pods. */
function apply(name: string, endpoints: readonly string[], init: Partial<ServiceInit> = {}): Promise<void> {
  return cluster.apply(name, { ips: VIPS, udp: PORT, endpoints: to(...endpoints), ...init });
}

/** A Service for the length of a test. */
async function given(name: string, endpoints: readonly string[], init: Partial<ServiceInit> = {}): Promise<void> {
  await apply(name, endpoints, init);
  onTestFinished(() => cluster.remove(name));
}

/** A connected socket for the length of a test. */
async function held(client: Host, host: string, port: number = PORT): Promise<HeldUdp> {
  const socket = await client.holdUdp(host, port);
  onTestFinished(() => socket.release());
  return socket;
}

/** The socket's next call fails, and nothing but connecting again helps: then this server answers. */
async function expectMoved(socket: HeldUdp, host: string, server: string, port: number = PORT): Promise<void> {
  expect(await socket.error(), endpoint(host, port)).toBe('ECONNABORTED');
  expect(await socket.connect(host, port)).toBe('');
  expect(await socket.ask()).toMatchObject({ server, replyFrom: endpoint(host, port) });
}

describe.each(['pod', 'node'] as const)('a connected client on a %s', (where) => {
  const client = (): Host => (where === 'pod' ? cluster.pod('a1') : cluster.nodeA);

  test.each(VIPS)('is told when its server goes and another takes over, and gets that one: %s', async (vip) => {
    await given('dns', ['b1']);
    const socket = await held(client(), vip);
    expect(await socket.ask()).toMatchObject({ server: 'b1', replyFrom: endpoint(vip) });
    await apply('dns', ['a2']);
    await expectMoved(socket, vip, 'a2');
    // Told once, and left alone from then on.
    await apply('dns', ['a2', 'b2']);
    expect(await socket.ask()).toMatchObject({ server: 'a2' });
  });

  test.each(VIPS)('is told when the last endpoint goes, and refused until there is one again: %s', async (vip) => {
    await given('dns', ['b1']);
    const socket = await held(client(), vip);
    await apply('dns', []);
    expect(await socket.error()).toBe('ECONNABORTED');
    expect(await socket.connect(vip, PORT)).toBe('ECONNREFUSED');
    await apply('dns', ['b2']);
    await until('there is an endpoint again', async () => (await socket.connect(vip, PORT)) === '');
    expect(await socket.ask()).toMatchObject({ server: 'b2' });
  });

  test.each(VIPS)('is told when the Service is deleted, and served again when it is made anew: %s', async (vip) => {
    await given('dns', ['b1']);
    const socket = await held(client(), vip);
    await cluster.remove('dns');
    expect(await socket.error()).toBe('ECONNABORTED');
    await apply('dns', ['b2']);
    expect(await socket.connect(vip, PORT)).toBe('');
    expect(await socket.ask()).toMatchObject({ server: 'b2' });
  });

  test.each(VIPS)('is told when the targetPort changes, on the same pod: %s', async (vip) => {
    const moved = 5_500 + VIPS.indexOf(vip) + (where === 'pod' ? 10 : 0);
    await cluster.pod('b1').serve({ name: 'b1 moved', udp: [moved] });
    await given('dns', ['b1']);
    const socket = await held(client(), vip);
    expect(await socket.ask()).toMatchObject({ server: 'b1' });
    await apply('dns', ['b1'], { udpTarget: moved });
    await expectMoved(socket, vip, 'b1 moved');
  });

  test.each(VIPS)('is told when only the Service has changed, and has another port: %s', async (vip) => {
    await given('dns', ['b1']);
    const socket = await held(client(), vip);
    await apply('dns', ['b1'], { udp: 54 });
    await expectMoved(socket, vip, 'b1', 54);
  });
});

test('the same holds for nodePorts, on localhost too, and for external IPs', async () => {
  const init = { nodePort: NODE_PORT, spec: { externalIPs: ['203.0.113.7', 'fd20::7'] } };
  await given('dns', ['b1'], init);
  const dialled = [
    ...['127.0.0.1', '::1', ...cluster.nodeA.addresses].map((host) => [host, NODE_PORT] as const),
    ['203.0.113.7', PORT] as const,
    ['fd20::7', PORT] as const,
  ];
  const sockets = await Promise.all(dialled.map(([host, port]) => held(cluster.nodeA, host, port)));
  const before = await cuts();
  await apply('dns', ['b2'], init);
  for (const [i, [host, port]] of dialled.entries()) await expectMoved(sockets[i]!, host, 'b2', port);
  expect((await cuts()) - before).toBe(dialled.length);
});

test.each(VIPS)('an unconnected client goes on without any error: %s', async (vip) => {
  await given('dns', ['b1']);
  const asking = [cluster.pod('a1'), cluster.nodeA].map((client) => client.send(vip, PORT, { count: 3_000, oneSocket: true }));
  await apply('dns', ['b2']);
  for (const answers of await Promise.all(asking)) {
    expect(answers.filter(({ error }) => error !== undefined)).toEqual([]);
    expect([answers[0]!.server, answers.at(-1)!.server]).toEqual(['b1', 'b2']);
    expect(new Set(answers.map(({ replyFrom }) => replyFrom))).toEqual(new Set([endpoint(vip)]));
  }
});

test("other Services' sockets, and those that dialled a pod directly, are not disturbed", async () => {
  const ips = ['10.96.0.20', 'fd00:96::20'];
  await given('steady', ['b1'], { ips });
  await apply('dns', ['b1']);
  const b1 = cluster.pod('b1');
  const clients = [cluster.pod('a1'), cluster.nodeA];
  const open = (hosts: readonly string[], port: number) => Promise.all(clients.flatMap((client) => hosts.map((host) => held(client, host, port))));
  const steady = [...(await open(ips, PORT)), ...(await open(b1.addresses, 5_353))];
  const told = await open(VIPS, PORT);
  const before = await cuts();

  await apply('dns', ['b2']);
  for (const socket of told) expect(await socket.error()).toBe('ECONNABORTED');
  await cluster.remove('dns');
  for (const socket of steady) expect(await socket.ask()).toMatchObject({ server: 'b1' });
  expect((await cuts()) - before).toBe(told.length);
  for (const socket of steady) expect(await socket.error(0)).toBe('');
});

test.each(VIPS)('an endpoint that terminates keeps its sockets as long as it serves, and gets no new ones: %s', async (vip) => {
  const ips = ['10.96.0.20', 'fd00:96::20'];
  await given('dns', ['b1']);
  await given('other', ['b1'], { ips });
  const clients = [cluster.pod('a1'), cluster.nodeA];
  const sockets = await Promise.all(clients.map((client) => held(client, vip)));
  const sentinel = await held(cluster.pod('a1'), ips[0]!);
  await apply('dns', ['b1', 'b2'], { leaving: to('b1') });
  for (const client of clients)
    for (const connected of [true, false])
      expect(new Set((await client.send(vip, PORT, { count: 10, connected })).map(({ server }) => server))).toEqual(new Set(['b2']));
  // Once a socket of another Service is told, everything before has been looked at.
  await apply('other', ['b2'], { ips });
  expect(await sentinel.error()).toBe('ECONNABORTED');
  for (const socket of sockets) expect(await socket.ask()).toMatchObject({ server: 'b1', replyFrom: endpoint(vip) });
  await apply('dns', ['b2']);
  for (const socket of sockets) await expectMoved(socket, vip, 'b2');
});

test('what an agent has missed while it was away, it makes up for when it starts', async () => {
  await given('dns', ['b1']);
  const [kept, lost] = ['10.96.0.20', VIPS[0]];
  await given('steady', ['b1'], { ips: [kept, 'fd00:96::20'] });
  const sockets = [await held(cluster.pod('a1'), lost), await held(cluster.nodeA, lost)];
  const steady = await held(cluster.pod('a1'), kept);
  await cluster.stopAgent(cluster.nodeA);
  await apply('dns', ['b2']);
  expect(await sockets[0]!.ask()).toMatchObject({ server: 'b1' });
  await cluster.startAgent(cluster.nodeA);
  for (const socket of sockets) await expectMoved(socket, lost, 'b2');
  expect(await steady.ask()).toMatchObject({ server: 'b1' });
});

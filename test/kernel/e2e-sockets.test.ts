/** What processes of a node and of its pods meet when they connect to Services: real agents, real sockets. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import type { Answer } from '../support/lab/protocol.ts';
import { addressesOf, Cluster, TCP } from './e2e-cluster.ts';
import type { ServiceInit } from './e2e-cluster.ts';

const VIPS = ['10.96.0.10', 'fd00:96::10'];
const LOCALHOSTS = ['127.0.0.1', '::1'];

let cluster: Cluster;
let everyone: readonly Host[];

beforeAll(async () => {
  cluster = await Cluster.start();
  everyone = ['a1', 'a2', 'b1', 'b2'].map((name) => cluster.pod(name));
});
afterAll(() => cluster?.destroy());

/** A Service for the length of a test. */
async function given(name: string, init: ServiceInit): Promise<void> {
  await cluster.apply(name, init);
  onTestFinished(() => cluster.remove(name));
}

const serversOf = (answers: readonly Answer[]): string[] => [...new Set(answers.map(({ server }) => server))].sort();
const errorsOf = (answers: readonly Answer[]): (string | undefined)[] => [...new Set(answers.map(({ error }) => error))];
const ofHost = (address: string): string => (address.includes(':') ? `[${address}]` : address);

describe.each(['pod', 'node'] as const)('from a %s', (where) => {
  const client = (): Host => (where === 'pod' ? cluster.pod('a1') : cluster.nodeA);

  test('a cluster IP reaches every backend, over TCP and UDP, IPv4 and IPv6', async () => {
    await given('web', { ips: VIPS, tcp: 80, udp: 53, endpoints: addressesOf(...everyone) });
    for (const vip of VIPS) {
      for (const answers of [
        await client().connect(vip, 80, { count: 80 }),
        await client().send(vip, 53, { count: 80 }),
        await client().send(vip, 53, { count: 80, connected: true }),
      ]) {
        expect(errorsOf(answers), vip).toEqual([undefined]);
        expect(serversOf(answers), vip).toEqual(['a1', 'a2', 'b1', 'b2']);
        // 20 each are expected: 4 or fewer come once in a million runs.
        for (const { length } of Map.groupBy(answers, ({ server }) => server).values()) expect(length).toBeGreaterThan(4);
      }
    }
  });

  test('the server sees who asked; the client sees whom it asked', async () => {
    await given('web', { ips: VIPS, tcp: 80, udp: 53, endpoints: addressesOf(cluster.pod('b1')) });
    for (const [family, vip] of VIPS.entries()) {
      const seen = client().addresses[family]!;
      const [answer] = await client().connect(vip, 80);
      expect(answer).toEqual({ server: 'b1', from: expect.stringContaining(`${ofHost(seen)}:`) });
      for (const datagram of await client().send(vip, 53, { count: 5, oneSocket: true }))
        expect(datagram).toEqual({ server: 'b1', from: expect.stringContaining(`${ofHost(seen)}:`), replyFrom: `${ofHost(vip)}:53` });
      const [connected] = await client().send(vip, 53, { connected: true });
      expect(connected).toMatchObject({ server: 'b1', replyFrom: `${ofHost(vip)}:53` });
    }
  });

  test('a Service without endpoints refuses at once', async () => {
    await given('web', { ips: VIPS, tcp: 80, udp: 53 });
    for (const vip of VIPS) {
      const started = performance.now();
      const answers = [...(await client().connect(vip, 80)), ...(await client().send(vip, 53)), ...(await client().send(vip, 53, { connected: true }))];
      expect(answers.map(({ error }) => error)).toEqual(['ECONNREFUSED', 'ECONNREFUSED', 'ECONNREFUSED']);
      expect(performance.now() - started).toBeLessThan(1_000);
    }
  });

  test('with ClientIP affinity one client stays with one backend, whatever it chose first', async () => {
    const affinity = { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } } };
    await given('web', { ips: VIPS, tcp: 80, udp: 53, endpoints: addressesOf(...everyone), spec: affinity });
    for (const vip of VIPS) {
      const tcp = await client().connect(vip, 80, { count: 30, parallel: 1 });
      expect(errorsOf(tcp)).toEqual([undefined]);
      expect(serversOf(tcp)).toHaveLength(1);
      expect(serversOf(await client().send(vip, 53, { count: 30 }))).toHaveLength(1);
    }
  });
});

describe('nodePorts', () => {
  beforeAll(() => cluster.apply('shop', { ips: VIPS, tcp: 80, udp: 53, nodePort: 30_080, endpoints: addressesOf(cluster.pod('b1'), cluster.pod('b2')) }));
  afterAll(() => cluster.remove('shop'));

  test.each(['172.30.0.11', 'fd00:30::11'])("answer the node's own processes on its address %s, and pods", async (address) => {
    for (const host of [cluster.nodeA, cluster.pod('a1')]) {
      expect(serversOf(await host.connect(address, 30_080, { count: 40 })), host.name).toEqual(['b1', 'b2']);
      expect(serversOf(await host.send(address, 30_080, { count: 40 })), host.name).toEqual(['b1', 'b2']);
    }
  });

  test.each(LOCALHOSTS)("answer the node's own processes on %s", async (localhost) => {
    expect(serversOf(await cluster.nodeA.connect(localhost, 30_080, { count: 40 }))).toEqual(['b1', 'b2']);
    for (const connected of [false, true])
      for (const answer of await cluster.nodeA.send(localhost, 30_080, { count: 20, connected }))
        expect(answer).toMatchObject({ server: expect.stringMatching(/^b[12]$/), replyFrom: `${ofHost(localhost)}:30080` });
  });

  test.each(LOCALHOSTS)("leave a pod's own %s alone", async (localhost) => {
    const pod = cluster.pod('a1');
    expect(errorsOf(await pod.connect(localhost, 30_080))).toEqual(['ECONNREFUSED']);
    const family = LOCALHOSTS.indexOf(localhost);
    const other = await cluster.lab.addPod(`own${family}`, cluster.nodeA, 100 + family);
    await other.serve({ tcp: [30_080], udp: [30_080], address: localhost });
    expect(serversOf([...(await other.connect(localhost, 30_080)), ...(await other.send(localhost, 30_080))])).toEqual([other.name]);
    expect(serversOf(await cluster.nodeA.connect(localhost, 30_080, { count: 10 }))).not.toContain(other.name);
  });

  test("other ports of the node's addresses are its own", async () => {
    for (const [i, address] of cluster.nodeA.addresses.entries()) {
      await cluster.nodeA.serve({ tcp: [7_000 + i], udp: [7_000 + i], address });
      for (const host of [cluster.nodeA, cluster.pod('a1'), cluster.pod('b1')])
        expect(serversOf([...(await host.connect(address, 7_000 + i)), ...(await host.send(address, 7_000 + i))]), host.name).toEqual(['node-a']);
      expect(errorsOf(await cluster.pod('a1').connect(address, 7_100))).toEqual(['ECONNREFUSED']);
    }
  });
});

test('a pod reaches itself through its own Service: by cluster IP, nodePort and external IP, over TCP and UDP', async () => {
  const a1 = cluster.pod('a1');
  const externalIPs = ['203.0.113.9', 'fd20::9'];
  await given('self', { ips: VIPS, tcp: 80, udp: 53, nodePort: 30_083, endpoints: addressesOf(a1), spec: { externalIPs } });
  for (const [family, own] of a1.addresses.entries()) {
    const dialled = [[VIPS[family]!, 80, 53] as const, [cluster.nodeA.addresses[family]!, 30_083, 30_083] as const, [externalIPs[family]!, 80, 53] as const];
    for (const [host, tcp, udp] of dialled) {
      const answers = [...(await a1.connect(host, tcp)), ...(await a1.send(host, udp)), ...(await a1.send(host, udp, { connected: true }))];
      for (const answer of answers) expect(answer, host).toMatchObject({ server: 'a1', from: expect.stringContaining(`${ofHost(own)}:`) });
    }
  }
});

test('an external IP is served on its ports alone: the machine that holds it keeps the others', async () => {
  const { addresses } = cluster.client;
  await given('outside', { ips: VIPS, tcp: 80, udp: 53, endpoints: addressesOf(cluster.pod('a2')), spec: { externalIPs: addresses } });
  await cluster.client.serve({ tcp: [80, 81] });
  for (const address of addresses) {
    expect(serversOf(await cluster.pod('a1').connect(address, 80))).toEqual(['a2']);
    expect(serversOf(await cluster.pod('a1').connect(address, 81))).toEqual(['client']);
  }
});

test('a pod that is not a backend any more gets no new connection; those it has live on', async () => {
  const [a1, b1] = [cluster.pod('a1'), cluster.pod('b1')];
  await given('web', { ips: VIPS, tcp: 80, udp: 53, endpoints: addressesOf(b1) });
  const held = await Promise.all(VIPS.map((vip) => a1.hold(vip, 80)));
  expect(held.map(({ answer }) => answer.server)).toEqual(['b1', 'b1']);
  const traffic = await a1.traffic(VIPS[0]!, 80, 200);

  await cluster.apply('web', { ips: VIPS, tcp: 80, udp: 53, endpoints: addressesOf(cluster.pod('a2'), cluster.pod('b2')) });
  for (const vip of VIPS) {
    expect(serversOf(await a1.connect(vip, 80, { count: 40 }))).toEqual(['a2', 'b2']);
    expect(serversOf(await a1.send(vip, 53, { count: 40 }))).toEqual(['a2', 'b2']);
  }
  const { errors, servers } = await traffic.stop();
  expect(errors).toEqual({});
  expect(Object.keys(servers).sort()).toEqual(['a2', 'b1', 'b2']);
  for (const connection of held) {
    expect(await connection.echo()).toBe('ok');
    await connection.release();
  }
});

test('an unconnected UDP socket goes on with the backends that are left', async () => {
  await given('dns', { ips: VIPS, udp: 53, endpoints: addressesOf(cluster.pod('b1')) });
  const asking = cluster.pod('a1').send(VIPS[0]!, 53, { count: 5_000, oneSocket: true });
  await cluster.apply('dns', { ips: VIPS, udp: 53, endpoints: addressesOf(cluster.pod('b2')) });
  const answers = await asking;
  expect(errorsOf(answers)).toEqual([undefined]);
  expect([answers[0]!.server, answers.at(-1)!.server]).toEqual(['b1', 'b2']);
});

test('changes of one Service disturb no other, nor what is no Service', async () => {
  const [a1, b2] = [cluster.pod('a1'), cluster.pod('b2')];
  await given('steady', { ips: ['10.96.0.20'], tcp: 80, endpoints: addressesOf(b2) });
  const held = await a1.hold('10.96.0.20', 80);
  const traffics = await Promise.all([a1.traffic('10.96.0.20', 80, 150), a1.traffic(b2.addresses[1]!, TCP, 50)]);
  for (let round = 0; round < 3; round++) {
    await cluster.apply('restless', { ips: VIPS, tcp: 80, nodePort: 30_081, endpoints: addressesOf(...everyone.slice(round)) });
    await cluster.remove('restless');
  }
  for (const traffic of traffics) {
    const { answers, servers, errors } = await traffic.stop();
    expect(errors).toEqual({});
    expect(servers).toEqual({ b2: answers });
    expect(answers).toBeGreaterThan(20);
  }
  expect(await held.echo()).toBe('ok');
});

test('a deleted Service is gone: its address leads nowhere, its nodePort is a free port again', async () => {
  await cluster.apply('gone', { ips: VIPS, tcp: 80, udp: 53, nodePort: 30_082, endpoints: addressesOf(...everyone) });
  expect(errorsOf(await cluster.nodeA.connect('127.0.0.1', 30_082))).toEqual([undefined]);
  await cluster.remove('gone');
  for (const host of [cluster.pod('a1'), cluster.nodeA]) {
    for (const vip of VIPS) expect((await host.connect(vip, 80, { timeoutMs: 500 }))[0]!.server, `${host.name} to ${vip}`).toBe('');
    for (const address of cluster.nodeA.addresses) expect(errorsOf(await host.connect(address, 30_082))).toEqual(['ECONNREFUSED']);
  }
  await cluster.nodeA.serve({ tcp: [30_082] });
  expect(serversOf(await cluster.nodeA.connect('127.0.0.1', 30_082))).toEqual(['node-a']);
  expect((await cluster.nodeA.inspect<{ name: string }[]>('services')).map(({ name }) => name)).not.toContain('gone');
});

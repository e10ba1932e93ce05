/** What a client outside of the cluster meets at a node: real agents, real packets, over each kind of pod network. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Answer } from '../support/lab/protocol.ts';
import type { ServiceInit } from './e2e-cluster.ts';
import { PATIENCE } from '../support/patience.ts';
import { addressesOf, Cluster, metric, TCP, until } from './e2e-cluster.ts';

const NODE_PORT = 30_080;

/** Everything that a Service can be reached at through node-a, IPv4 and IPv6. */
const FRONTENDS = [
  { kind: 'nodePort', addresses: ['172.30.0.11', 'fd00:30::11'], tcp: NODE_PORT, udp: NODE_PORT },
  { kind: 'LoadBalancer IP', addresses: ['203.0.113.10', 'fd00:203::10'], tcp: 80, udp: 53 },
  { kind: 'external IP', addresses: ['198.51.100.10', 'fd00:198::10'], tcp: 80, udp: 53 },
  { kind: 'cluster IP', addresses: ['10.96.0.10', 'fd00:96::10'], tcp: 80, udp: 53 },
] as const;

const [NODE_PORTS, LOAD_BALANCER] = [FRONTENDS[0], FRONTENDS[1]];

interface Reading {
  readonly devices: readonly { readonly name: string; readonly mode: string; readonly hook: string; readonly why: string; readonly pod: boolean }[];
  readonly counters: readonly { readonly reason: string; readonly packets: number }[];
}

const serversOf = (answers: readonly Answer[]): string[] => [...new Set(answers.map(({ server }) => server))].sort();
const errorsOf = (answers: readonly Answer[]): (string | undefined)[] => [...new Set(answers.map(({ error }) => error))];
const ofHost = (address: string): string => (address.includes(':') ? `[${address}]` : address);

/** What remote backends see: the address of the device that their packets leave through. */
const UPLINK = ['172.30.0.11', 'fd00:30::11'];
const TUNNEL = ['10.244.1.0', 'fd00:244:1::ffff'];

describe.each([
  { podNetwork: 'routed', podAttach: 'bridge', xdp: false, sees: UPLINK },
  { podNetwork: 'routed', podAttach: 'ptp', xdp: false, sees: UPLINK },
  { podNetwork: 'vxlan', podAttach: 'bridge', xdp: false, sees: TUNNEL },
  { podNetwork: 'vxlan', podAttach: 'ptp', xdp: false, sees: TUNNEL },
  { podNetwork: 'routed', podAttach: 'bridge', xdp: true, sees: UPLINK },
  { podNetwork: 'routed', podAttach: 'ptp', xdp: true, sees: UPLINK },
  { podNetwork: 'vxlan', podAttach: 'bridge', xdp: true, sees: TUNNEL },
  { podNetwork: 'vxlan', podAttach: 'ptp', xdp: true, sees: TUNNEL },
] as const)('$podNetwork pod network, pods on $podAttach, XDP $xdp', ({ podNetwork, podAttach, xdp, sees }) => {
  let cluster: Cluster;

  beforeAll(async () => {
    cluster = await Cluster.start({ podNetwork, podAttach, xdp, args: xdp ? ['--xdp-mode', 'native'] : [] });
    for (const cidr of ['203.0.113.0/24', '198.51.100.0/24', '10.96.0.0/16', 'fd00:203::/64', 'fd00:198::/64', 'fd00:96::/112'])
      await cluster.lab.routeThrough(cidr, cluster.nodeA);
  });
  afterAll(() => cluster?.destroy());

  const a1 = () => cluster.pod('a1');
  const b1 = () => cluster.pod('b1');
  const everyone = (): string[] => addressesOf(...['a1', 'a2', 'b1', 'b2'].map((name) => cluster.pod(name)));

  /** The Service of a test, with a frontend of each kind. */
  async function given(endpoints: readonly string[], spec: ServiceInit['spec'] = {}, more: Partial<ServiceInit> = {}): Promise<void> {
    await apply(endpoints, spec, more);
    onTestFinished(() => cluster.remove('web'));
  }

  function apply(endpoints: readonly string[], spec: ServiceInit['spec'] = {}, more: Partial<ServiceInit> = {}): Promise<void> {
    const [, balancer, external, clusterIp] = FRONTENDS;
    const init = { ips: clusterIp.addresses, tcp: 80, udp: 53, nodePort: NODE_PORT, ingress: balancer.addresses };
    return cluster.apply('web', { ...init, endpoints, spec: { externalIPs: external.addresses, ...spec }, ...more });
  }

  const verdicts = (reason: string): Promise<number> => metric(cluster.nodeA, `maglane_verdict_packets_total{reason="${reason}"}`);

  test('a backend on the node is reached at every kind of frontend, and sees the client', async () => {
    await given(addressesOf(a1()));
    for (const { kind, addresses, tcp, udp } of FRONTENDS)
      for (const [family, address] of addresses.entries()) {
        const from = expect.stringContaining(`${ofHost(cluster.client.addresses[family]!)}:`);
        expect(await cluster.client.connect(address, tcp), kind).toEqual([{ server: 'a1', from }]);
        expect(await cluster.client.send(address, udp), kind).toEqual([{ server: 'a1', from, replyFrom: `${ofHost(address)}:${udp}` }]);
      }
    expect(await verdicts('new_local')).toBeGreaterThanOrEqual(16);
  });

  test('a backend on another node is reached at every kind of frontend, and sees the node', async () => {
    const before = await verdicts('to_tc');
    await given(addressesOf(b1()));
    for (const { kind, addresses, tcp, udp } of FRONTENDS)
      for (const [family, address] of addresses.entries()) {
        const from = expect.stringContaining(`${ofHost(sees[family]!)}:`);
        expect(await cluster.client.connect(address, tcp), kind).toEqual([{ server: 'b1', from }]);
        expect(await cluster.client.send(address, udp), kind).toEqual([{ server: 'b1', from, replyFrom: `${ofHost(address)}:${udp}` }]);
      }
    const counts = { forward: (await verdicts('new_remote')) + (await verdicts('remote')), back: await verdicts('reply_remote') };
    expect(counts.forward).toBeGreaterThanOrEqual(16 + 8);
    expect(counts.back).toBeGreaterThanOrEqual(16 + 8);
    // XDP sends on by itself, but for a tunnel, and for a first packet that waits for its neighbour.
    const left = (await verdicts('to_tc')) - before;
    if (!xdp) expect(left).toBe(0);
    else if (podNetwork === 'routed') expect(left).toBeLessThan(8);
    else expect(left).toBeGreaterThanOrEqual(16);
  });

  test.each(['maglev', 'random'] as const)('connections are spread over all backends, near and far (%s)', async (algorithm) => {
    await given(everyone(), {}, { algorithm });
    for (const address of LOAD_BALANCER.addresses) {
      for (const answers of [await cluster.client.connect(address, 80, { count: 80 }), await cluster.client.send(address, 53, { count: 80 })]) {
        expect(errorsOf(answers)).toEqual([undefined]);
        expect(serversOf(answers)).toEqual(['a1', 'a2', 'b1', 'b2']);
        for (const { length } of Map.groupBy(answers, ({ server }) => server).values()) expect(length).toBeGreaterThan(4);
      }
    }
  });

  test('one socket stays with one backend', async () => {
    await given(everyone(), {}, { algorithm: 'random' });
    for (const address of NODE_PORTS.addresses) {
      const answers = await cluster.client.send(address, NODE_PORT, { count: 20, oneSocket: true });
      expect(errorsOf(answers)).toEqual([undefined]);
      expect(serversOf(answers)).toHaveLength(1);
    }
  });

  test('megabytes come back as they were sent, from near and far', async () => {
    await given(everyone(), {}, { algorithm: 'random' });
    for (const address of NODE_PORTS.addresses) {
      const servers = new Set<string>();
      while (servers.size < 2) {
        const held = await cluster.client.hold(address, NODE_PORT);
        const where = held.answer.server[0]!;
        if (!servers.has(where)) expect(await held.bulk(3 << 20), `${address} to ${held.answer.server}`).toBe('ok');
        servers.add(where);
        await held.release();
      }
    }
  });

  test('held connections outlive the removal of their backend from the Service; new ones go elsewhere', async () => {
    await given(addressesOf(a1(), b1()), {}, { algorithm: 'random' });
    const held = await Promise.all(Array.from({ length: 10 }, (_, i) => cluster.client.hold(LOAD_BALANCER.addresses[i % 2]!, 80)));
    await apply(addressesOf(cluster.pod('a2'), cluster.pod('b2')), {}, { algorithm: 'random' });
    for (const connection of held) {
      expect(await connection.echo(), connection.answer.server).toBe('ok');
      await connection.release();
    }
    for (const address of LOAD_BALANCER.addresses) {
      expect(serversOf(await cluster.client.connect(address, 80, { count: 40 }))).toEqual(['a2', 'b2']);
      expect(serversOf(await cluster.client.send(address, 53, { count: 40 }))).toEqual(['a2', 'b2']);
    }
  });

  test('flows lists a held connection: who, to what, by which backend, until it closes', async () => {
    await given(addressesOf(b1()));
    const mine = async (client: string): Promise<Record<string, unknown>[]> => {
      const flows = await cluster.nodeA.inspect<{ client: { address: string }; protocol: string; state: string }[]>('flows', 'web');
      return flows.filter((flow) => flow.client.address === client && flow.protocol === 'TCP' && flow.state === 'established');
    };
    for (const [family, address] of LOAD_BALANCER.addresses.entries()) {
      const client = cluster.client.addresses[family]!;
      const before = (await mine(client)).length;
      const held = await cluster.client.hold(address, 80);
      const flows = await mine(client);
      expect(flows).toHaveLength(before + 1);
      expect(flows).toContainEqual(
        expect.objectContaining({
          namespace: 'e2e',
          name: 'web',
          frontend: { address, port: 80 },
          backend: { address: b1().addresses[family], port: TCP },
          half: false,
        }),
      );
      await held.release();
      await until('the closed connection is not listed as established', async () => (await mine(client)).length === before);
    }
    expect((await cluster.nodeA.maglane(['flows', 'nobody'])).stderr).toMatch(/^maglane: no Service "nobody" is programmed here/);
  });

  test('with ClientIP affinity a client stays with its backend', async () => {
    await given(everyone(), { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } } }, { algorithm: 'random' });
    for (const address of LOAD_BALANCER.addresses) {
      const answers = await cluster.client.connect(address, 80, { count: 30, parallel: 1 });
      expect(errorsOf(answers)).toEqual([undefined]);
      expect(serversOf(answers)).toHaveLength(1);
    }
  });

  test('without endpoints a client is refused at once', async () => {
    await given([]);
    const asked = FRONTENDS.flatMap(({ addresses, tcp, udp }) =>
      addresses.flatMap((address) => [cluster.client.connect(address, tcp), cluster.client.send(address, udp, { connected: true })]),
    );
    expect(errorsOf((await Promise.all(asked)).flat())).toEqual(['ECONNREFUSED']);
    expect(await verdicts('reject_no_endpoints')).toBeGreaterThanOrEqual(16);
  });

  test('externalTrafficPolicy Local: the node without a backend drops, the one with a backend keeps the source', async () => {
    await given(addressesOf(b1()), { externalTrafficPolicy: 'Local' });
    const before = await verdicts('drop_no_local');
    const timeoutMs = 300 * PATIENCE;
    const asked = [NODE_PORTS, LOAD_BALANCER].flatMap(({ addresses, tcp, udp }) =>
      addresses.flatMap((address) => [cluster.client.connect(address, tcp, { timeoutMs }), cluster.client.send(address, udp, { connected: true, timeoutMs })]),
    );
    expect(errorsOf((await Promise.all(asked)).flat())).toEqual(['ETIMEDOUT']);
    expect(await verdicts('drop_no_local')).toBeGreaterThanOrEqual(before + 8);
    const { counters } = await cluster.nodeA.inspect<Reading>('status');
    expect(counters.find(({ reason }) => reason === 'drop_no_local')!.packets).toBeGreaterThanOrEqual(before + 8);

    for (const [family, address] of cluster.nodeB.addresses.entries()) {
      const from = expect.stringContaining(`${ofHost(cluster.client.addresses[family]!)}:`);
      expect(await cluster.client.connect(address, NODE_PORT)).toEqual([{ server: 'b1', from }]);
      expect(await cluster.client.send(address, NODE_PORT)).toEqual([{ server: 'b1', from, replyFrom: `${ofHost(address)}:${NODE_PORT}` }]);
    }
    // The cluster IP knows no external policy: it is answered by whoever is there.
    expect(serversOf(await cluster.client.connect('10.96.0.10', 80))).toEqual(['b1']);
  });

  test('what is no frontend passes untouched', async () => {
    await given(everyone());
    for (const [family, address] of cluster.nodeA.addresses.entries()) {
      await cluster.nodeA.serve({ tcp: [7_000], udp: [7_000], address });
      const from = expect.stringContaining(`${ofHost(cluster.client.addresses[family]!)}:`);
      expect(await cluster.client.connect(address, 7_000)).toEqual([{ server: 'node-a', from }]);
      expect(await cluster.client.send(address, 7_000)).toEqual([expect.objectContaining({ server: 'node-a', from })]);
      expect(errorsOf(await cluster.client.connect(address, 7_001))).toEqual(['ECONNREFUSED']);
    }
    if (podNetwork === 'routed') for (const address of b1().addresses) expect(serversOf(await cluster.client.connect(address, TCP))).toEqual(['b1']);
  });

  test('status says where it is attached, how, and why', async () => {
    const { devices } = await cluster.nodeA.inspect<Reading>('status');
    const uplink = xdp ? { name: 'eth0', mode: 'xdp', why: 'asked' } : { name: 'eth0', mode: 'tc', why: 'veth' };
    const tunnel = { name: 'vxlan0', mode: 'tc', why: 'tunnel' };
    expect(devices.filter(({ pod }) => !pod)).toEqual((podNetwork === 'vxlan' ? [uplink, tunnel] : [uplink]).map((device) => expect.objectContaining(device)));
    for (const { hook } of devices) expect(hook).toMatch(/^(tcx|clsact)$/);
  });
});

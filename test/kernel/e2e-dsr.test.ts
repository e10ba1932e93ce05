/** What a client outside of the cluster meets where nodes send each other its packets as they are (DSR): real agents on three nodes. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { FlowReading } from '../../agent/dataplane/flows.ts';
import native from '../../native/index.js';
import type { Host } from '../support/lab/host.ts';
import type { LabNode } from '../support/lab/node.ts';
import type { ServiceInit } from './e2e-cluster.ts';
import { addressesOf, Cluster, metric, nodes, until } from './e2e-cluster.ts';

const NODE_PORT = 30_080;
const PORT = 6091;
/** Everything that a Service can be reached at through node-a, IPv4 and IPv6, and packets to which go on as they are. */
const FRONTENDS = [
  { kind: 'nodePort', addresses: ['172.30.0.11', 'fd00:30::11'], tcp: NODE_PORT, udp: NODE_PORT },
  { kind: 'LoadBalancer IP', addresses: ['203.0.113.10', 'fd00:203::10'], tcp: 80, udp: 53 },
  { kind: 'external IP', addresses: ['198.51.100.10', 'fd00:198::10'], tcp: 80, udp: 53 },
] as const;
const CLUSTER_IPS = ['10.96.0.10', 'fd00:96::10'] as const;
const UPLINK = ['172.30.0.11', 'fd00:30::11'] as const;
const [, BALANCER, EXTERNAL] = FRONTENDS;

const ofHost = (address: string): string => (address.includes(':') ? `[${address}]` : address);
const seen = (address: string): unknown => expect.stringContaining(`${ofHost(address)}:`);

function forget(node: LabNode): void {
  const fd = native.openPin(join(node.bpffs, 'maps', 'flows'))!;
  const { keys, count } = native.mapEntries(fd);
  native.mapDeleteBatch(fd, keys, count);
  native.close(fd);
}

/** A datagram of a client to a backend, wrapped as a node would, from a host that says it is one. */
const FORGED = `
const [host, client, vip, port, backend] = process.argv.slice(1);
const be16 = (n) => [n >> 8, n & 255], v4 = (a) => a.split('.').map(Number);
const sum = (b) => { let s = 0; for (let i = 0; i < b.length; i += 2) s += b[i] * 256 + b[i + 1]; while (s > 65535) s = (s & 65535) + (s >>> 16); return ~s & 65535; };
const udp = [...be16(40000), ...be16(Number(port)), ...be16(12), 0, 0, ...Buffer.from('1 x\\n')];
const ip = [0x45, 0, ...be16(20 + udp.length), 0, 1, 0x40, 0, 64, 17, 0, 0, ...v4(client), ...v4(vip)];
ip.splice(10, 2, ...be16(sum(ip)));
const geneve = [3, 0x40, 8, 0, 0, 0, 0, 0, 0xff, 0x6d, 0x80, 2, ...v4(backend), ...be16(5353), 0, 0];
const socket = require('node:dgram').createSocket('udp4');
socket.send(Uint8Array.from([...geneve, ...ip, ...udp]), ${PORT}, host, () => socket.close());
`;

describe.each([
  { podNetwork: 'routed', podAttach: 'bridge', xdp: false },
  { podNetwork: 'vxlan', podAttach: 'ptp', xdp: false },
  { podNetwork: 'routed', podAttach: 'ptp', xdp: true },
] as const)('$podNetwork pod network, pods on $podAttach, XDP $xdp', ({ podNetwork, podAttach, xdp }) => {
  let cluster: Cluster;
  let nodeC: LabNode;

  beforeAll(async () => {
    const args = ['--forwarding', 'dsr', '--cluster-cidr', '10.244.0.0/16,fd00:244::/48', ...(xdp ? ['--xdp-mode', 'native'] : [])];
    cluster = await Cluster.start({ nodes: 3, podNetwork, podAttach, xdp, pods: ['a1', 'b1', 'c1'], args });
    nodeC = cluster.lab.node('node-c');
    await cluster.put('nodes', nodes(...cluster.lab.nodes));
    for (const cidr of ['203.0.113.0/24', '198.51.100.0/24', '10.96.0.0/16', 'fd00:203::/64', 'fd00:198::/64', 'fd00:96::/112'])
      await cluster.lab.routeThrough(cidr, cluster.nodeA);
  });
  afterAll(() => cluster?.destroy());

  /** The Service of a test. */
  async function given(endpoints: readonly string[]): Promise<void> {
    await apply(endpoints);
    onTestFinished(() => cluster.remove('web'));
  }

  function apply(endpoints: readonly string[], more: Partial<ServiceInit> = {}): Promise<void> {
    const [, balancer, external] = FRONTENDS;
    const init = { ips: CLUSTER_IPS, tcp: 80, udp: 53, nodePort: NODE_PORT, ingress: balancer.addresses, spec: { externalIPs: external.addresses } };
    return cluster.apply('web', { ...init, endpoints, ...more });
  }

  const b1 = (): Host => cluster.pod('b1');
  const verdicts = (node: LabNode, reason: string): Promise<number> => metric(node, `maglane_verdict_packets_total{reason="${reason}"}`);

  test('a backend on another node sees the client, and answers it under the address that was dialled, past the first node', async () => {
    await given(addressesOf(b1()));
    const before = await verdicts(cluster.nodeA, 'reply_remote');
    const leftBefore = await verdicts(cluster.nodeA, 'to_tc');
    for (const { kind, addresses, tcp, udp } of FRONTENDS)
      for (const [family, address] of addresses.entries()) {
        const from = seen(cluster.client.addresses[family]!);
        expect(await cluster.client.connect(address, tcp), kind).toEqual([{ server: 'b1', from }]);
        expect(await cluster.client.send(address, udp), kind).toEqual([{ server: 'b1', from, replyFrom: `${ofHost(address)}:${udp}` }]);
      }
    expect(await verdicts(cluster.nodeA, 'new_dsr')).toBeGreaterThanOrEqual(12);
    expect(await verdicts(cluster.nodeB, 'new_local')).toBeGreaterThanOrEqual(12);
    expect(await verdicts(cluster.nodeA, 'reply_remote')).toBe(before);
    // XDP sends on by itself, but for a first packet that waits for its neighbour.
    expect((await verdicts(cluster.nodeA, 'to_tc')) - leftBefore).toBeLessThan(xdp ? 8 : 1);
  });

  test('connections are spread over all backends, near and far, and each keeps its own', async () => {
    await given(addressesOf(cluster.pod('a1'), b1(), cluster.pod('c1')));
    for (const [family, address] of BALANCER.addresses.entries()) {
      const from = seen(cluster.client.addresses[family]!);
      const answers = await cluster.client.connect(address, 80, { count: 60 });
      for (const answer of answers) expect(answer).toMatchObject({ server: expect.stringMatching(/^[abc]1$/), from });
      expect(new Set(answers.map(({ server }) => server)).size).toBe(3);
      const datagrams = await cluster.client.send(address, 53, { count: 20, oneSocket: true });
      expect(new Set(datagrams.map(({ server }) => server)).size).toBe(1);
    }
  });

  test('cluster IPs from outside, and Services and nodes that ask for it, are masqueraded', async () => {
    await given(addressesOf(b1()));
    const masked = podNetwork === 'vxlan' ? ['10.244.1.0', 'fd00:244:1::ffff'] : UPLINK;
    for (const [family, address] of CLUSTER_IPS.entries())
      expect(await cluster.client.connect(address, 80)).toEqual([{ server: 'b1', from: seen(masked[family]!) }]);
    await apply(addressesOf(b1()), { forwarding: 'snat' });
    for (const [family, address] of BALANCER.addresses.entries())
      expect(await cluster.client.connect(address, 80)).toEqual([{ server: 'b1', from: seen(masked[family]!) }]);
    await apply(addressesOf(b1()));
    onTestFinished(() => cluster.put('nodes', nodes(...cluster.lab.nodes)));
    const labelled = nodes(cluster.nodeB).map((node) => ({ ...node, metadata: { name: 'node-b', labels: { 'maglane.io/forwarding': 'snat' } } }));
    await cluster.put('nodes', [...nodes(cluster.nodeA, nodeC), ...labelled]);
    expect(await cluster.client.connect(BALANCER.addresses[0], 80)).toEqual([{ server: 'b1', from: seen(masked[0]!) }]);
  });

  test('megabytes go both ways as they were sent', async () => {
    await given(addressesOf(b1()));
    for (const address of BALANCER.addresses) {
      const held = await cluster.client.hold(address, 80);
      expect(held.answer.server).toBe('b1');
      expect(await held.bulk(4_000_000)).toBe('ok');
      await held.release();
    }
    expect(await verdicts(cluster.nodeA, 'dsr')).toBeGreaterThan(0);
  });

  test('a datagram that is too long with its wrapping is answered all the same, and so are fragments', async () => {
    await given(addressesOf(b1()));
    // Not the address of the megabytes, for which the client has learned what fits.
    for (const [family, address] of EXTERNAL.addresses.entries()) {
      const replyFrom = `${ofHost(address)}:53`;
      const [asItIs, masked] = [cluster.client.addresses[family]!, UPLINK[family]!].map(seen);
      expect(await cluster.client.send(address, 53, { bytes: 1200 })).toEqual([{ server: 'b1', from: asItIs, replyFrom }]);
      // A tunnel between the nodes takes no packet as long as that.
      if (podNetwork === 'vxlan') continue;
      expect(await cluster.client.send(address, 53, { bytes: 1440 })).toEqual([{ server: 'b1', from: masked, replyFrom }]);
      expect(await cluster.client.send(address, 53, { bytes: 6000 })).toEqual([{ server: 'b1', from: masked, replyFrom }]);
    }
  });

  test('agents that restart disturb nothing', async () => {
    await given(addressesOf(b1()));
    const held = await Promise.all(BALANCER.addresses.map((address) => cluster.client.hold(address, 80)));
    for (const node of [cluster.nodeA, cluster.nodeB]) {
      await cluster.agentOf(node).kill();
      for (const one of held) expect(await one.echo()).toBe('ok');
      await cluster.startAgent(node);
      for (const one of held) expect(await one.echo()).toBe('ok');
    }
    for (const [family, address] of BALANCER.addresses.entries())
      expect(await cluster.client.connect(address, 80)).toEqual([{ server: 'b1', from: seen(cluster.client.addresses[family]!) }]);
    await Promise.all(held.map((one) => one.release()));
  });

  test('a connection goes on when all nodes forget their flows', async () => {
    await given(addressesOf(cluster.pod('a1'), b1(), cluster.pod('c1')));
    const held = await Promise.all(Array.from({ length: 6 }, (_, i) => cluster.client.hold(BALANCER.addresses[i % 2]!, 80)));
    for (const node of cluster.lab.nodes) forget(node);
    for (const one of held) expect(await one.echo()).toBe('ok');
    await Promise.all(held.map((one) => one.release()));
  });

  test('what others than nodes send wrapped is not opened', async () => {
    await given(addressesOf(b1()));
    onTestFinished(() => cluster.put('nodes', nodes(...cluster.lab.nodes)));
    const { client, nodeB } = cluster;
    const forge = async (): Promise<void> => {
      const { status, stderr } = await client.run([
        process.execPath,
        '-e',
        FORGED,
        nodeB.addresses[0]!,
        client.addresses[0]!,
        BALANCER.addresses[0],
        '53',
        b1().addresses[0]!,
      ]);
      expect([status, stderr]).toEqual([0, '']);
    };
    const before = await verdicts(nodeB, 'new_local');
    await forge();
    expect(await verdicts(nodeB, 'new_local')).toBe(before);
    // The very same is, once its sender is a node.
    await cluster.put('nodes', nodes(...cluster.lab.nodes, client));
    await until('the packet is opened', async () => (await forge(), (await verdicts(nodeB, 'new_local')) > before));
  });

  test('the commands tell', async () => {
    await given(addressesOf(b1()));
    const held = await cluster.client.hold(BALANCER.addresses[0], 80);
    const flows = await cluster.nodeA.inspect<FlowReading[]>('flows');
    expect(flows).toContainEqual(
      expect.objectContaining({ host: cluster.nodeB.addresses[0], half: false, state: 'one-way', backend: { address: b1().addresses[0], port: 8080 } }),
    );
    const backends = await cluster.nodeA.inspect<{ address: string; host?: string }[]>('backends');
    expect(backends.find(({ address }) => address === b1().addresses[1])?.host).toBe(cluster.nodeB.addresses[1]);
    const { stdout } = await cluster.nodeA.maglane(['explain', `${BALANCER.addresses[0]}:80`, '--from', 'outside']);
    expect(stdout).toMatch(/10\.244\.2\.11:8080 +at 172\.30\.0\.12 \(dsr\) +ready +the client/);
    expect((await cluster.nodeA.maglane(['status'])).stdout).toContain('dsr       from and to 4 addresses of other nodes');
    expect((await cluster.nodeA.maglane(['verify'])).status).toBe(0);
    await held.release();
  });
});

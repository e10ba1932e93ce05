/** Whose packets may use a frontend, and what becomes of those that no frontend takes: single packets. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BackendFlag, DeviceFlag, FrontendFlag, FrontendKind, NodeFlag, ServiceFlag } from '../../agent/dataplane/generated/abi.ts';
import { buildPacket, joinEndpoint } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, startBench } from './packet-bench.ts';
import type { Bench, Hook } from './packet-bench.ts';

const FAMILIES = [4, 6] as const;
const CIDRS = { 4: '10.96.0.0/16', 6: 'fd00:96::/112' } as const;
const CLUSTER_IP = { 4: '10.96.0.10', 6: 'fd00:96::10' } as const;
const NOBODY = { 4: '10.96.0.99', 6: 'fd00:96::99' } as const;
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('owned');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

describe.each(FAMILIES)('addresses that are ours as a whole, IPv%i', (family) => {
  const ip = IP[family];
  const macs = (): NonNullable<PacketSpec['macs']> => ({ source: bench.toRouter.destination, destination: bench.toRouter.source });
  const to = (address: string, port = 81, proto: PacketSpec['proto'] = 'tcp'): PacketSpec => ({
    proto,
    from: joinEndpoint(ip.client, 40_000),
    to: joinEndpoint(address, port),
    macs: macs(),
  });
  const address = (at: string, flags: number): void => bench.lab.frontend(0, joinEndpoint(at, 0), 0, { kind: FrontendKind.ADDRESS, flags });

  beforeEach(() => {
    bench.lab.node({ serviceCidrs: ['192.168.0.0/24', 'fd99::/64', ...Object.values(CIDRS)] });
    address(CLUSTER_IP[family], FrontendFlag.OWNED);
    bench.lab.backend(1, joinEndpoint(ip.local, 8080), 1, BackendFlag.SERVING | BackendFlag.LOCAL);
    bench.lab.service(1, { cluster: [1] });
    bench.lab.frontend('tcp', joinEndpoint(CLUSTER_IP[family], 80), 1, { kind: FrontendKind.CLUSTER_IP });
  });

  it.each(['tc', 'pod', 'egress'] as const)('refuse unknown ports and protocols, and ping, at %s', async (hook) => {
    for (const packet of [to(CLUSTER_IP[family]), to(CLUSTER_IP[family], 80, 'udp'), to(CLUSTER_IP[family], 80, 'sctp'), to(CLUSTER_IP[family], 0, 'icmp')]) {
      const { action, reason, data } = await bench.run(hook, packet);
      expect({ action, reason }, String(packet.proto)).toEqual({ action: 'redirect', reason: 'REJECT_UNKNOWN_PORT' });
      // ICMP(v6) destination unreachable, port; the quote is another test's.
      expect([...data.slice(family === 4 ? 34 : 54).slice(0, 2)]).toEqual(family === 4 ? [3, 3] : [1, 4]);
    }
    expect(bench.lab.flows()).toEqual([]);
  });

  it('leave their frontends alone', async () => {
    expect((await bench.run('tc', { ...to(CLUSTER_IP[family], 80), flags: 'S' })).reason).toBe('NEW_LOCAL');
  });

  it.each(['tc', 'pod', 'egress', 'xdp'] as const)('drop at %s what is nobody’s in a ServiceCIDR, ping too', async (hook) => {
    expect(await bench.run(hook, to(NOBODY[family]))).toMatchObject({ action: 'drop', reason: 'DROP_UNALLOCATED' });
    const ping = await bench.run(hook, to(NOBODY[family], 0, 'icmp'));
    expect(ping).toMatchObject(hook === 'xdp' ? { action: 'pass', reason: 'TO_TC' } : { action: 'drop', reason: 'DROP_UNALLOCATED' });
  });

  it('are left to tc by XDP when they must be refused', async () => {
    expect(await bench.run('xdp', to(CLUSTER_IP[family]))).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(to(CLUSTER_IP[family])) });
  });

  it('pass where an interface holds them', async () => {
    bench.lab.node({ flags: NodeFlag.OWNS_BEYOND, serviceCidrs: [`${ip.up}/${family === 4 ? 32 : 128}`] });
    for (const hook of ['xdp', 'tc', 'pod'] as const) {
      expect(await bench.run(hook, to(ip.up, 22)), hook).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(to(ip.up, 22)) });
      address(ip.mesh, FrontendFlag.OWNED);
      expect(await bench.run(hook, to(ip.mesh, 22)), hook).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
    }
  });

  it('are refused beyond the ServiceCIDRs only where that is said, and where they are owned', async () => {
    address(ip.vip, FrontendFlag.OWNED);
    address(ip.vip2, FrontendFlag.PING);
    expect(await bench.run('tc', to(ip.vip))).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
    bench.lab.node({ flags: NodeFlag.OWNS_BEYOND });
    expect(await bench.run('tc', to(ip.vip))).toMatchObject({ action: 'redirect', reason: 'REJECT_UNKNOWN_PORT' });
    expect(await bench.run('tc', to(ip.vip2))).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
    expect(await bench.run('tc', to(ip.client))).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
  });

  it('in a ServiceCIDR, with an address but not owned, pass', async () => {
    address(NOBODY[family], 0);
    expect(await bench.run('tc', to(NOBODY[family]))).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
  });

  it('are not looked at in what this node forwards, nor in what goes to a pod', async () => {
    for (const hook of ['passing', 'topod'] as const) expect(await bench.run(hook, to(NOBODY[family]))).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
  });
});

describe.each(FAMILIES)('source ranges, IPv%i', (family) => {
  const ip = IP[family];
  const vip = joinEndpoint(ip.vip, 80);
  const from = (source: string, flags = 'S'): PacketSpec => ({ proto: 'tcp', from: joinEndpoint(source, 40_000), to: vip, flags });
  const [range, neighbour] = family === 4 ? ['203.0.113.0/29', '203.0.113.8'] : ['2001:db8:c::/125', '2001:db8:c::8'];

  beforeEach(() => {
    bench.lab.backend(1, joinEndpoint(ip.local, 8080), 1, BackendFlag.SERVING | BackendFlag.LOCAL);
    bench.lab.service(1, { cluster: [1] });
    bench.lab.frontend('tcp', vip, 1, { flags: FrontendFlag.SOURCE_RANGES });
    bench.lab.sourceRange(1, range);
    bench.lab.sourceRange(2, family === 4 ? '0.0.0.0/0' : '::/0');
  });

  it.each(['tc', 'xdp', 'pod', 'egress'] as const)('let in at %s whom they hold, and drop all others', async (hook) => {
    expect((await bench.run(hook, from(neighbour))).action).toBe('drop');
    expect((await bench.run(hook, from(neighbour))).reason).toBe('DROP_SOURCE_RANGES');
    expect(bench.lab.flows()).toEqual([]);
    if (hook !== 'egress' && hook !== 'xdp') expect((await bench.run(hook, from(ip.client))).reason).toBe('NEW_LOCAL');
  });

  it('of another service, or without the flag, mean nothing', async () => {
    bench.lab.frontend('tcp', vip, 1);
    expect((await bench.run('tc', from(neighbour))).reason).toBe('NEW_LOCAL');
  });

  it('come before all else: they drop where no endpoint would refuse', async () => {
    bench.lab.service(1, {});
    expect((await bench.run('tc', from(neighbour))).reason).toBe('DROP_SOURCE_RANGES');
    const macs = { source: bench.toRouter.destination, destination: bench.toRouter.source };
    expect((await bench.run('tc', { ...from(ip.client), macs })).reason).toBe('REJECT_NO_ENDPOINTS');
  });

  it('do not end what is established', async () => {
    bench.lab.frontend('tcp', vip, 1);
    await bench.run('tc', from(neighbour));
    bench.lab.frontend('tcp', vip, 1, { flags: FrontendFlag.SOURCE_RANGES });
    expect((await bench.run('tc', from(neighbour, 'A'))).reason).toBe('LOCAL');
    expect((await bench.run('tc', { ...from(neighbour), from: joinEndpoint(neighbour, 40_001) })).reason).toBe('DROP_SOURCE_RANGES');
  });
});

describe.each(FAMILIES)('policy Local knows who comes from inside, IPv%i', (family) => {
  const ip = IP[family];
  const byRange = family === 4 ? NodeFlag.DETECTS_V4 : NodeFlag.DETECTS_V6;
  const otherFamily = family === 4 ? NodeFlag.DETECTS_V6 : NodeFlag.DETECTS_V4;
  const pods = ['10.0.0.0/8', '2001:db8:40::/44'];
  const packet = (source: string): PacketSpec => ({ proto: 'tcp', from: joinEndpoint(source, 40_000), to: joinEndpoint(ip.vip, 80), flags: 'S' });

  beforeEach(() => {
    bench.lab.backend(1, joinEndpoint(ip.remote, 8080), 1);
    bench.lab.service(1, { cluster: [1], flags: ServiceFlag.EXTERNAL_LOCAL | ServiceFlag.HAS_ANY });
    bench.lab.frontend('tcp', joinEndpoint(ip.vip, 80), 1);
  });

  it.each<readonly [string, number, Hook, 'client' | 'remote2' | 'up', number, boolean]>([
    ['a client outside', byRange, 'tc', 'client', 0, false],
    ['a pod of another node, by its range', byRange, 'tc', 'remote2', 0, true],
    ['a pod of another node, at XDP', byRange, 'xdp', 'remote2', 0, true],
    ['a pod of another node, where the other family alone has a detector', otherFamily, 'tc', 'remote2', 0, false],
    ['whatever comes in by a device that the detector knows', NodeFlag.DETECTS_DEVICE, 'tc', 'client', DeviceFlag.DETECTED, true],
    ['whatever comes in by another device', NodeFlag.DETECTS_DEVICE, 'tc', 'remote2', 0, false],
    ['a pod of this node, where its family has a detector', byRange, 'pod', 'client', 0, true],
    ['a pod of this node, where devices are the detector', NodeFlag.DETECTS_DEVICE, 'pod', 'client', 0, true],
    ['a pod of this node, where its family has none', otherFamily, 'pod', 'client', 0, false],
    ['this node', 0, 'egress', 'up', 0, true],
  ])('%s', async (_, flags, hook, source, device, inside) => {
    bench.lab.node({ flags, pods });
    bench.lab.device(bench.up, { addr4: IP[4].up as never, addr6: IP[6].up as never, flags: device | DeviceFlag.XDP_TX });
    expect((await bench.run(hook, packet(ip[source]))).reason).toBe(inside ? 'NEW_REMOTE' : 'DROP_NO_LOCAL');
  });
});

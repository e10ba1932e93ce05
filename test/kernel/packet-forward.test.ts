/** Single packets that this node sends on to another, or must not. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BackendFlag, DeviceFlag, FrontendKind, ServiceFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { buildPacket, checksum, joinEndpoint, sourcePort } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench, Family, Hook } from './packet-bench.ts';
import { SNAT } from './packet-lab.ts';
import { NONE, tuple } from './packet-maps.ts';

const HOOKS = ['xdp', 'tc'] as const;
const ALL = HOOKS.flatMap((hook) => ([4, 6] as const).flatMap((family) => (['tcp', 'udp'] as const).map((proto) => ({ hook, family, proto }))));
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('forward');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

/** The packet that is to leave. tc leaves the link-layer addresses to the kernel, after the program. */
function leaving(hook: Hook, spec: PacketSpec, macs: { source: string; destination: string }): Uint8Array {
  return buildPacket(hook === 'xdp' ? { ...spec, macs } : spec);
}

function request(family: Family, proto: 'tcp' | 'udp', more: Partial<PacketSpec> = {}): PacketSpec {
  return { proto, from: joinEndpoint(IP[family].client, 40_000), to: joinEndpoint(IP[family].vip, 80), ...more };
}

describe.each(ALL)('$proto over IPv$family at $hook', ({ hook, family, proto }) => {
  const ip = IP[family];
  const remote = (): void => serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);

  it('goes to another node from the address of the device it leaves by, and its answer back', async () => {
    remote();
    const sent = await bench.run(hook, request(family, proto));
    const port = sourcePort(sent.data);
    expect(port).toBeGreaterThanOrEqual(SNAT.min);
    expect(port).toBeLessThanOrEqual(SNAT.max);
    const [here, backend] = [joinEndpoint(ip.mesh, port), joinEndpoint(ip.remote, 8080)];
    const forwarded = leaving(hook, { proto, from: here, to: backend, ttl: 63 }, bench.toNode2);
    expect(sent).toMatchObject({ action: 'redirect', reason: 'NEW_REMOTE', data: forwarded });
    // What is redirected passes egress, which must know nothing of it.
    expect(await bench.run('egress', forwarded, 'mesh0')).toMatchObject({ action: 'pass', reason: 'FOREIGN' });

    const answer = { proto, from: backend, to: here } as const;
    const answered = leaving(hook, { proto, from: joinEndpoint(ip.vip, 80), to: joinEndpoint(ip.client, 40_000), ttl: 63 }, bench.toRouter);
    expect(await bench.run(hook, answer, 'mesh0')).toMatchObject({ action: 'redirect', reason: 'REPLY_REMOTE', data: answered });
    expect(await bench.run('egress', answered)).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
    expect(await bench.run(hook, request(family, proto))).toMatchObject({ action: 'redirect', reason: 'REMOTE', data: forwarded });
    expect(bench.lab.connections(1)).toBe(1);
  });

  it('goes from the address of the device it came in by where the other has none', async () => {
    remote();
    bench.lab.device(bench.mesh, { flags: DeviceFlag.XDP_TX });
    const { data } = await bench.run(hook, request(family, proto));
    expect(data).toEqual(leaving(hook, { proto, from: joinEndpoint(ip.up, sourcePort(data)), to: joinEndpoint(ip.remote, 8080), ttl: 63 }, bench.toNode2));
  });

  it('is dropped where there is no address to send it from', async () => {
    remote();
    for (const index of [bench.up, bench.mesh])
      bench.lab.device(index, { flags: DeviceFlag.XDP_TX, ...(family === 4 ? { addr6: IP[6].up as Address } : { addr4: IP[4].up as Address }) });
    expect(await bench.run(hook, request(family, proto))).toMatchObject({ action: 'drop', reason: 'DROP_NO_SOURCE' });
    expect(bench.lab.flows()).toEqual([]);
  });

  it('goes no further when its time to live is spent, on both ways', async () => {
    remote();
    const spent = hook === 'xdp' ? { action: 'pass', reason: 'TO_TC' } : { action: 'redirect', reason: 'DROP_TTL' };
    for (const ttl of [0, 1]) {
      const macs = { source: bench.toRouter.destination, destination: bench.toRouter.source };
      expect(await bench.run(hook, request(family, proto, { ttl, macs }))).toMatchObject(spent);
      expect(bench.lab.flows()).toEqual([]);
    }
    const port = sourcePort((await bench.run(hook, request(family, proto, { ttl: 2 }))).data);
    const macs = { source: bench.toNode2.destination, destination: bench.toNode2.source };
    const answer = { proto, from: joinEndpoint(ip.remote, 8080), to: joinEndpoint(ip.mesh, port), ttl: 1, macs } as const;
    expect(await bench.run(hook, answer, 'mesh0')).toMatchObject(spent);
  });

  it('stays untouched at XDP and goes on at tc when the neighbour is not known yet', async () => {
    serveOn(bench, proto, ip.vip, [{ at: ip.silent, local: false }]);
    const result = await bench.run(hook, request(family, proto));
    if (hook === 'tc') return expect(result).toMatchObject({ action: 'redirect', reason: 'NEW_REMOTE' });
    expect(result).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(request(family, proto)) });
    expect(bench.lab.flows()).toEqual([]);
    return expect(bench.lab.connections(1)).toBe(0);
  });

  it('is dropped when there is no route', async () => {
    serveOn(bench, proto, ip.vip, [{ at: ip.blackhole, local: false }]);
    const expected =
      hook === 'tc' ? { action: 'drop', reason: 'DROP_NO_ROUTE' } : { action: 'pass', reason: 'TO_TC', data: buildPacket(request(family, proto)) };
    expect(await bench.run(hook, request(family, proto))).toMatchObject(expected);
    expect(bench.lab.flows()).toEqual([]);
  });

  it('passes an answer that no flow knows', async () => {
    const stray = { proto, from: joinEndpoint(ip.remote, 8080), to: joinEndpoint(ip.mesh, SNAT.min + 5) } as const;
    expect(await bench.run(hook, stray, 'mesh0')).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(stray) });
  });

  it('obeys the traffic policy of its frontend', async () => {
    bench.lab.backend(1, joinEndpoint(ip.remote, 8080), 1);
    bench.lab.backend(2, joinEndpoint(ip.local, 8080), 1, BackendFlag.SERVING | BackendFlag.LOCAL);
    const { EXTERNAL_LOCAL, INTERNAL_LOCAL, HAS_ANY } = ServiceFlag;
    const { CLUSTER_IP, NODE_PORT } = FrontendKind;
    for (const [flags, kind, local, reason] of [
      [HAS_ANY | EXTERNAL_LOCAL, NODE_PORT, [2], 'NEW_LOCAL'],
      [HAS_ANY | EXTERNAL_LOCAL, NODE_PORT, [], 'DROP_NO_LOCAL'],
      [HAS_ANY | EXTERNAL_LOCAL, CLUSTER_IP, [], 'NEW_REMOTE'],
      [HAS_ANY | INTERNAL_LOCAL, CLUSTER_IP, [2], 'NEW_LOCAL'],
      [HAS_ANY | INTERNAL_LOCAL, CLUSTER_IP, [], 'DROP_NO_LOCAL'],
      [HAS_ANY | INTERNAL_LOCAL, NODE_PORT, [], 'NEW_REMOTE'],
    ] as const) {
      bench.lab.forget();
      bench.lab.service(1, { cluster: [1], local, flags });
      bench.lab.frontend(proto, joinEndpoint(ip.vip, 80), 1, { kind });
      expect((await bench.run(hook, request(family, proto))).reason, `${flags} ${kind}`).toBe(reason);
    }
  });

  it('is dropped when the maps point at nothing, or at the other IP', async () => {
    bench.lab.frontend(proto, joinEndpoint(ip.vip, 80), 77);
    expect(await bench.run(hook, request(family, proto))).toMatchObject({ action: 'drop', reason: 'DROP_INCONSISTENT' });
    serveOn(bench, proto, ip.vip, [{ at: IP[family === 4 ? 6 : 4].local, local: true }]);
    expect(await bench.run(hook, request(family, proto))).toMatchObject({ action: 'drop', reason: 'DROP_INCONSISTENT' });
  });
});

describe('XDP', () => {
  it('sends out of the device that the packet came in by', async () => {
    serveOn(bench, 'tcp', IP[4].vip, [{ at: '192.0.2.254', local: false }]);
    const { data, ...rest } = await bench.run('xdp', request(4, 'tcp'));
    expect(rest).toMatchObject({ action: 'tx', reason: 'NEW_REMOTE' });
    expect(data).toEqual(buildPacket({ proto: 'tcp', from: `${IP[4].up}:${sourcePort(data)}`, to: '192.0.2.254:8080', ttl: 63, macs: bench.toRouter }));
  });

  it.each([
    ['a device that XDP cannot send to', () => bench.lab.device(bench.mesh, { addr4: IP[4].mesh as Address }), {}],
    ['a frame with a VLAN tag', () => {}, { vlans: [5] }],
  ] as const)('leaves %s to tc, untouched', async (_, arrange, more) => {
    serveOn(bench, 'tcp', IP[4].vip, [{ at: IP[4].remote, local: false }]);
    arrange();
    const packet = request(4, 'tcp', more);
    expect(await bench.run('xdp', packet)).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(packet) });
    expect(bench.lab.flows()).toEqual([]);
    expect(await bench.run('tc', packet)).toMatchObject({ action: 'redirect', reason: 'NEW_REMOTE' });
    expect(await bench.run('xdp', packet)).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(packet) });
  });

  it('leaves a packet longer than the next MTU to tc, untouched', async () => {
    serveOn(bench, 'tcp', IP[4].vip, [{ at: IP[4].remote, local: false }]);
    const packet = request(4, 'tcp', { payload: 'x'.repeat(1480) });
    expect(await bench.run('xdp', packet)).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(packet) });
    expect(bench.lab.flows()).toEqual([]);
  });

  it('leaves a rejection to tc', async () => {
    bench.lab.service(1, {});
    bench.lab.frontend('tcp', `${IP[4].vip}:80`, 1);
    expect(await bench.run('xdp', request(4, 'tcp'))).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(request(4, 'tcp')) });
  });
});

describe('a VLAN tag at tc', () => {
  it.each([[[5]], [[5, 6]]])('%j is taken off what leaves for another device', async (vlans) => {
    serveOn(bench, 'udp', IP[4].vip, [{ at: IP[4].remote, local: false }]);
    const { data } = await bench.run('tc', request(4, 'udp', { vlans }));
    expect(data).toEqual(buildPacket({ proto: 'udp', from: `${IP[4].mesh}:${sourcePort(data)}`, to: `${IP[4].remote}:8080`, ttl: 63 }));
  });
});

describe.each(ALL.filter(({ hook }) => hook === 'tc'))('no endpoints: $proto over IPv$family', ({ family, proto }) => {
  const ip = IP[family];
  const header = proto === 'tcp' ? 20 : 8;
  const cases: readonly (readonly [string, Partial<PacketSpec>, number])[] = [
    ['a plain packet', {}, 0],
    ['one without payload', { payload: '' }, 0],
    ['a long one', { payload: 'x'.repeat(1400) }, 0],
    family === 4 ? ['one with options', { options: [1, 1, 1, 0] }, 4] : ['one with an extension', { extensions: [{ type: 60, body: [1, 4, 0, 0, 0, 0] }] }, 8],
  ];

  it.each(cases)('answers %s with ICMP port unreachable', async (_, more, extra) => {
    bench.lab.service(1, {});
    bench.lab.frontend(proto, joinEndpoint(ip.vip, 80), 1);
    const original = request(family, proto, { ...more, macs: { source: bench.toRouter.destination, destination: bench.toRouter.source } });
    const { action, reason, data } = await bench.run('tc', original);
    expect({ action, reason }).toEqual({ action: 'redirect', reason: 'REJECT_NO_ENDPOINTS' });

    const length = family === 4 ? 20 : 40;
    const [ip0, icmp] = [data.slice(14, 14 + length), data.slice(14 + length)];
    const sent = buildPacket(original);
    // Back to where it came from: all addresses change places.
    expect([...data.slice(0, 14)]).toEqual([...sent.slice(6, 12), ...sent.slice(0, 6), ...sent.slice(12, 14)]);
    const address = family === 4 ? 12 : 8;
    const size = family === 4 ? 4 : 16;
    const [source, destination] = [sent.slice(14 + address, 14 + address + size), sent.slice(14 + address + size, 14 + address + 2 * size)];
    expect([...ip0.slice(address)]).toEqual([...destination, ...source]);
    expect(ip0.slice(...(family === 4 ? ([2, 4] as const) : ([4, 6] as const)))).toEqual(Uint8Array.of(0, family === 4 ? data.length - 14 : icmp.length));
    if (family === 4) expect(checksum(ip0)).toBe(0);
    const pseudo = family === 4 ? [] : [...destination, ...source, 0, 0, 0, icmp.length, 0, 0, 0, 58];
    expect(checksum(pseudo, icmp)).toBe(0);
    expect([...icmp.slice(0, 2)]).toEqual(family === 4 ? [3, 3] : [1, 4]);
    // The quote: as it was, but for the transport checksum, which no receiver can verify.
    const quote = icmp.slice(8);
    expect(quote.length).toBe(length + extra + header);
    const field = length + extra + (proto === 'tcp' ? 16 : 6);
    const blank = (bytes: Uint8Array): number[] => [...bytes].map((byte, index) => (index === field || index === field + 1 ? 0 : byte));
    expect(blank(quote)).toEqual(blank(sent.slice(14, 14 + quote.length)));
    // Hardware that finishes a partial checksum must find it finished.
    const transport = quote.slice(length + extra);
    expect(checksum(transport)).toBe(quote[field]! * 256 + quote[field + 1]!);
    expect(bench.lab.flow(tuple(proto, original.from, original.to))).toBeUndefined();
  });

  it('does not answer a frame that was not for this device', async () => {
    bench.lab.service(1, {});
    bench.lab.frontend(proto, joinEndpoint(ip.vip, 80), 1);
    expect((await bench.run('tc', request(family, proto))).action).toBe('drop');
  });

  it('drops it without a word when there are endpoints, but none here', async () => {
    bench.lab.service(1, { flags: ServiceFlag.HAS_ANY });
    bench.lab.frontend(proto, joinEndpoint(ip.vip, 80), 1);
    expect(await bench.run('tc', request(family, proto))).toMatchObject({ action: 'drop', reason: 'DROP_NO_LOCAL' });
  });
});

it('knows a device without addresses by zeros', () => {
  expect(NONE).toBe('::');
});

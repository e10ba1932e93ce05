/** Single packets that go to another node's backend as they are, and those that come so: every byte of them. */
import ipaddr from 'ipaddr.js';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BackendFlag, FlowFlag, FrontendKind, NodeFlag } from '../../agent/dataplane/generated/abi.ts';
import { buildPacket, joinEndpoint, sourcePort } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench, Family, Hook } from './packet-bench.ts';
import { tuple } from './packet-maps.ts';

const PORT = 6091;
/** The other node, at mesh0. */
const HOST = { 4: '198.51.100.2', 6: '2001:db8:1::2' } as const;
/** What the wrapping adds. */
const WRAP = { 4: 48, 6: 80 } as const;
const ALL = (['xdp', 'tc'] as const).flatMap((hook) =>
  ([4, 6] as const).flatMap((family) => (['tcp', 'udp'] as const).map((proto) => ({ hook, family, proto }))),
);
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('dsr', { dsrPort: PORT });
});
beforeEach(() => {
  bench.reset();
  bench.lab.node(KNOWN);
  for (const host of Object.values(HOST)) bench.lab.peer(host);
});
afterAll(() => bench?.lab.close());

const KNOWN = { flags: NodeFlag.ADDRESS_V4 | NodeFlag.ADDRESS_V6, addr: [IP[4].mesh, IP[6].mesh] };
const be16 = (value: number): number[] => [value >> 8, value & 255];

function request(family: Family, proto: 'tcp' | 'udp', more: Partial<PacketSpec> = {}): PacketSpec {
  return { proto, from: joinEndpoint(IP[family].client, 40_000), to: joinEndpoint(IP[family].vip, 80), ...more };
}

/** Geneve with its one option, as docs/decisions/dsr.md has it: [offset in the header, byte] changes it. */
function geneve(family: Family, backend: string, port: number, change?: readonly [number, number]): number[] {
  const words = family === 4 ? 2 : 5;
  const type = family === 4 ? 0x0800 : 0x86dd;
  const bytes = [words + 1, 0x40, ...be16(type), 0, 0, 0, 0, 0xff, 0x6d, 0x80, words, ...ipaddr.parse(backend).toByteArray(), ...be16(port), 0, 0];
  if (change !== undefined) bytes[change[0]] = change[1];
  return bytes;
}

interface Wrapping {
  readonly from: string;
  readonly to: string;
  readonly sport: number;
  readonly backend: string;
  readonly change?: readonly [number, number];
}

function wrapped(family: Family, inner: PacketSpec, { from, to, sport, backend, change }: Wrapping): Uint8Array {
  const payload = [...geneve(family, backend, 8080, change), ...buildPacket(inner).subarray(14)];
  return buildPacket({ proto: 'udp', from: joinEndpoint(from, sport), to: joinEndpoint(to, PORT), payload, unchecked: true, id: 0 });
}

/** As the other node sends it to this one. */
function sentHere(family: Family, inner: PacketSpec, more: Partial<Wrapping> = {}): Uint8Array {
  return wrapped(family, inner, { from: HOST[family], to: IP[family].mesh, sport: 50_000, backend: IP[family].local, ...more });
}

/** XDP writes the link layer itself; at tc the kernel does, after the program. */
function leaving(hook: Hook, frame: Uint8Array): Uint8Array {
  if (hook === 'xdp') frame.set([bench.toNode2.destination, bench.toNode2.source].flatMap((mac) => mac.split(':').map((byte) => parseInt(byte, 16))));
  return frame;
}

describe.each(ALL)('$proto over IPv$family at $hook', ({ hook, family, proto }) => {
  const ip = IP[family];
  const remote = (kind?: number): void => {
    serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
    bench.lab.host(1, HOST[family]);
    if (kind !== undefined) bench.lab.frontend(proto, joinEndpoint(ip.vip, 80), 1, { kind });
  };
  const key = tuple(proto, joinEndpoint(ip.client, 40_000), joinEndpoint(ip.vip, 80));

  it("goes to the backend's node as it is, with the backend's address before it", async () => {
    remote();
    const sent = await bench.run(hook, request(family, proto));
    const sport = sourcePort(sent.data);
    expect(sport).toBeGreaterThanOrEqual(0xc000);
    const expected = leaving(hook, wrapped(family, request(family, proto), { from: ip.mesh, to: HOST[family], sport, backend: ip.remote }));
    expect(sent).toMatchObject({ action: 'redirect', reason: 'NEW_DSR', data: expected });
    expect(await bench.run(hook, request(family, proto))).toMatchObject({ action: 'redirect', reason: 'DSR', data: expected });
    expect(await bench.run('egress', expected, 'mesh0')).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
    expect(bench.lab.connections(1)).toBe(1);
    expect(bench.lab.flows()).toMatchObject([{ key, flow: { flags: FlowFlag.DSR, to: { saddr: HOST[family], daddr: ip.remote, dport: 8080 } } }]);
    // Another flow takes another port: so it may take another path.
    const other = await bench.run(hook, request(family, proto, { from: joinEndpoint(ip.client, 40_001) }));
    expect(sourcePort(other.data)).not.toBe(sport);
  });

  it('is opened where its backend is, which sees the client and answers it under the address that was dialled', async () => {
    const here = buildPacket({ ...request(family, proto), to: joinEndpoint(ip.local, 8080) });
    const inner = request(family, proto);
    expect(await bench.run(hook, sentHere(family, inner), 'mesh0')).toMatchObject({ action: 'pass', reason: 'NEW_LOCAL', data: here });
    expect(await bench.run(hook, sentHere(family, inner), 'mesh0')).toMatchObject({ action: 'pass', reason: 'LOCAL', data: here });
    const answer: PacketSpec = { proto, from: joinEndpoint(ip.local, 8080), to: joinEndpoint(ip.client, 40_000) };
    const answered = buildPacket({ ...answer, from: joinEndpoint(ip.vip, 80) });
    expect(await bench.run('passing', answer)).toMatchObject({ action: 'pass', reason: 'REPLY_LOCAL', data: answered });
    // The node's flow is one like any other: what comes without its wrapping belongs to it as well.
    expect(await bench.run(hook, inner)).toMatchObject({ action: 'pass', reason: proto === 'tcp' ? 'LOCAL' : 'FOREIGN' });
  });

  it("stays somebody else's when its sender is none of the other nodes, or it is not for this one, or it is another's wrapping", async () => {
    const inner = request(family, proto);
    const foreign = async (packet: Uint8Array): Promise<void> =>
      expect(await bench.run(hook, packet, 'mesh0')).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: packet });
    await foreign(sentHere(family, inner, { from: ip.client }));
    await foreign(sentHere(family, inner, { to: ip.up }));
    for (const [at, byte] of [
      [0, 4],
      [0, 0x43],
      [1, 0],
      [1, 0xc0],
      [2, 0x65],
      [8, 0],
      [9, 0],
      [10, 0],
      [11, 1],
    ] as const)
      await foreign(sentHere(family, inner, { change: [at, byte] }));
    const bare = buildPacket({ proto: 'udp', from: joinEndpoint(HOST[family], 50_000), to: joinEndpoint(ip.mesh, PORT), payload: 'ping' });
    await foreign(bare);
    bench.lab.node({});
    await foreign(sentHere(family, inner));
    expect(bench.lab.flows()).toEqual([]);
  });

  it('is dropped when what is inside is no packet of a flow; XDP leaves to tc what it does not know', async () => {
    for (const proto of ['icmp', 47] as const) {
      const packet = sentHere(family, { ...request(family, 'udp'), proto });
      const left = { action: 'pass', reason: 'FOREIGN', data: packet };
      expect(await bench.run(hook, packet, 'mesh0')).toMatchObject(hook === 'xdp' ? left : { action: 'drop', reason: 'DROP_DSR' });
    }
    // A header inside that says nonsense is none either.
    const packet = sentHere(family, request(family, proto));
    packet[14 + WRAP[family]] = 0xf5;
    expect(await bench.run(hook, packet, 'mesh0')).toMatchObject({ action: 'drop', reason: 'DROP_DSR' });
  });

  it('keeps the backend that it has here if it is a connection, and takes the new one if it is not', async () => {
    await bench.run(hook, sentHere(family, request(family, proto)), 'mesh0');
    const moved = await bench.run(hook, sentHere(family, request(family, proto), { backend: ip.local2 }), 'mesh0');
    const [reason, at] = proto === 'tcp' ? ['LOCAL', ip.local] : ['NEW_LOCAL', ip.local2];
    expect(moved).toMatchObject({ reason, data: buildPacket({ ...request(family, proto), to: joinEndpoint(at, 8080) }) });
    if (proto === 'udp') return;
    const again = request(family, proto, { flags: 'S' });
    expect(await bench.run(hook, sentHere(family, again, { backend: ip.local2 }), 'mesh0')).toMatchObject({
      reason: 'NEW_LOCAL',
      data: buildPacket({ ...again, to: joinEndpoint(ip.local2, 8080) }),
    });
  });

  it('stays with its way as long as its backend is reached so, and a connection for good', async () => {
    remote();
    await bench.run(hook, request(family, proto));
    serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
    expect(await bench.run(hook, request(family, proto))).toMatchObject({ reason: proto === 'tcp' ? 'DSR' : 'NEW_REMOTE' });
    expect(await bench.run(hook, request(family, proto, { flags: 'S' }))).toMatchObject({ reason: proto === 'tcp' ? 'NEW_REMOTE' : 'REMOTE' });
  });

  it('is masqueraded from pods, to cluster IPs and to backends whose node is not known to take it', async () => {
    remote();
    bench.lab.node({ ...KNOWN, flags: KNOWN.flags | NodeFlag.DETECTS_V4 | NodeFlag.DETECTS_V6, pods: [`${IP[4].client}/32`, `${IP[6].client}/128`] });
    expect(await bench.run(hook, request(family, proto))).toMatchObject({ reason: 'NEW_REMOTE' });
    bench.lab.node(KNOWN);
    for (const prepare of [() => remote(FrontendKind.CLUSTER_IP), () => serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }])]) {
      bench.lab.forget();
      prepare();
      expect(await bench.run(hook, request(family, proto))).toMatchObject({ reason: 'NEW_REMOTE' });
    }
  });

  it('is one as long as the way and its wrapping let it be', async () => {
    remote();
    const headers = (family === 4 ? 20 : 40) + (proto === 'tcp' ? 20 : 8);
    const macs = { source: bench.toRouter.destination, destination: bench.toRouter.source };
    const long = (length: number): PacketSpec => request(family, proto, { payload: Array.from({ length: length - headers }, () => 7), macs });
    const most = 1500 - WRAP[family];
    expect(await bench.run(hook, long(most))).toMatchObject({ action: 'redirect', reason: 'NEW_DSR' });
    const longer = await bench.run(hook, long(most + 1));
    if (hook === 'xdp') return expect(longer).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(long(most + 1)) });
    if (proto === 'udp') {
      // Masqueraded, and so is the flow from then on.
      expect(longer).toMatchObject({ action: 'redirect', reason: 'NEW_REMOTE' });
      return expect(await bench.run(hook, long(100))).toMatchObject({ action: 'redirect', reason: 'REMOTE' });
    }
    // Its sender hears what would do.
    expect(longer).toMatchObject({ action: 'redirect', reason: 'TOO_BIG' });
    const icmp = longer.data.subarray(14 + (family === 4 ? 20 : 40));
    expect([...icmp.subarray(0, 2)]).toEqual(family === 4 ? [3, 4] : [2, 0]);
    expect([...icmp.subarray(6, 8)]).toEqual(be16(most));
    bench.lab.forget();
    expect(await bench.run(hook, long(most + 1))).toMatchObject({ action: 'redirect', reason: 'TOO_BIG' });
    return expect(bench.lab.flows()).toEqual([]);
  });

  it('goes no further when its time to live is spent, or there is no way', async () => {
    remote();
    const macs = { source: bench.toRouter.destination, destination: bench.toRouter.source };
    const left = { action: 'pass', reason: 'TO_TC' };
    expect(await bench.run(hook, request(family, proto, { ttl: 1, macs }))).toMatchObject(hook === 'xdp' ? left : { action: 'redirect', reason: 'DROP_TTL' });
    bench.lab.host(1, ip.blackhole);
    expect(await bench.run(hook, request(family, proto))).toMatchObject(hook === 'xdp' ? left : { action: 'drop', reason: 'DROP_NO_ROUTE' });
    expect(bench.lab.flows()).toEqual([]);
  });

  it("takes along the errors about its answers, and the backend's node tells the backend", async () => {
    remote();
    await bench.run(hook, request(family, proto));
    const router = family === 4 ? '203.0.113.254' : '2001:db8:c::fe';
    const error = (from: string, fromPort: number): PacketSpec => {
      const quoted = buildPacket({ proto, from: joinEndpoint(from, fromPort), to: joinEndpoint(ip.client, 40_000) }).subarray(14);
      const icmp = family === 4 ? { type: 3, code: 4, rest: [0, 0, 5, 0] } : { type: 2, rest: [0, 0, 5, 0] };
      return { proto: 'icmp', from: joinEndpoint(router, 0), to: joinEndpoint(from, 0), icmp, payload: [...quoted] };
    };
    const sent = await bench.run('tc', error(ip.vip, 80));
    const expected = wrapped(family, error(ip.vip, 80), { from: ip.mesh, to: HOST[family], sport: sourcePort(sent.data), backend: ip.remote });
    expect(sent).toMatchObject({ action: 'redirect', reason: 'DSR', data: expected });

    bench.lab.forget();
    expect(await bench.run('tc', sentHere(family, error(ip.vip, 80)), 'mesh0')).toMatchObject({ action: 'drop', reason: 'DROP_DSR' });
    await bench.run(hook, sentHere(family, request(family, proto)), 'mesh0');
    const told = await bench.run('tc', sentHere(family, error(ip.vip, 80)), 'mesh0');
    expect(told).toMatchObject({ action: 'pass', reason: 'LOCAL', data: buildPacket(error(ip.local, 8080)) });
  });
});

describe('where it is switched off', () => {
  let off: Bench;
  beforeAll(async () => {
    off = await startBench('dsr-off');
  });
  afterAll(() => off?.lab.close());

  it('nothing goes so, flows of before start anew, and nothing is opened', async () => {
    off.reset();
    off.lab.node(KNOWN);
    off.lab.peer(HOST[4]);
    serveOn(off, 'udp', IP[4].vip, [{ at: IP[4].remote, local: false }]);
    off.lab.host(1, HOST[4]);
    const opened = sentHere(4, request(4, 'udp'));
    expect(await off.run('tc', opened, 'mesh0')).toMatchObject({ reason: 'FOREIGN', data: opened });
    expect(await off.run('tc', request(4, 'udp'))).toMatchObject({ action: 'redirect', reason: 'NEW_REMOTE' });
    const [{ key, flow }] = off.lab.flows().filter(({ flow: { flags } }) => (flags & FlowFlag.REPLY) === 0) as [ReturnType<Bench['lab']['flows']>[0]];
    off.lab.setFlow(key, { ...flow, flags: FlowFlag.DSR });
    expect(await off.run('tc', request(4, 'udp'))).toMatchObject({ action: 'redirect', reason: 'NEW_REMOTE' });
  });
});

it('a local backend needs none of it', async () => {
  serveOn(bench, 'tcp', IP[4].vip, [{ at: IP[4].local, local: true }]);
  bench.lab.host(1, HOST[4]);
  expect(await bench.run('tc', request(4, 'tcp'))).toMatchObject({ action: 'pass', reason: 'NEW_LOCAL' });
  expect(BackendFlag.HOSTED & BackendFlag.LOCAL).toBe(0);
});

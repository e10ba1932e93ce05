/** Fragments: those of a datagram go where the first of them went, and no others are touched. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FrontendFlag, FrontendKind } from '../../agent/dataplane/generated/abi.ts';
import { buildPacket, joinEndpoint, protocolNumber, sourcePort } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench } from './packet-bench.ts';

const ALL = ([4, 6] as const).flatMap((family) => (['tcp', 'udp'] as const).map((proto) => ({ family, proto })));
/** Offsets in 8 bytes, within one datagram. */
const LATER = [50, 20, 100] as const;
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('fragments');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

describe.each(ALL)('of $proto over IPv$family', ({ family, proto }) => {
  const ip = IP[family];
  const [client, vip] = [joinEndpoint(ip.client, 40_000), joinEndpoint(ip.vip, 80)];
  const part = (offset: number, more: boolean, id: number): Partial<PacketSpec> =>
    family === 4
      ? { fragment: { offset, more }, id }
      : { extensions: [{ type: 44, body: [(offset * 8) >> 8, ((offset * 8) & 255) | Number(more), 0, 0, id >> 8, id & 255] }] };
  const first = (from: string, to: string, id: number, more: Partial<PacketSpec> = {}): PacketSpec => ({
    proto,
    from,
    to,
    payload: 'x'.repeat(16),
    ...part(0, true, id),
    ...more,
  });
  /** No header, and data that would make a fine one of another flow. */
  const later = (offset: number, from: string, to: string, id: number, more: Partial<PacketSpec> = {}): PacketSpec => ({
    proto: protocolNumber(proto, family === 4),
    from,
    to,
    payload: [...buildPacket({ proto, from: joinEndpoint(ip.client, 1), to: joinEndpoint(ip.vip, 80) }).slice(family === 4 ? 34 : 54)],
    ...part(offset, offset !== 100, id),
    ...more,
  });

  it('reach a backend here in any order behind the first, and so do those of its answers', async () => {
    serveOn(bench, proto, ip.vip, [{ at: ip.local, local: true }]);
    const backend = joinEndpoint(ip.local, 8080);
    expect(await bench.run('tc', first(client, vip, 7))).toMatchObject({ action: 'pass', reason: 'NEW_LOCAL', data: buildPacket(first(client, backend, 7)) });
    for (const offset of LATER)
      expect(await bench.run('tc', later(offset, client, vip, 7))).toMatchObject({
        action: 'pass',
        reason: 'LOCAL',
        data: buildPacket(later(offset, client, backend, 7)),
      });
    for (const hook of ['egress', 'passing', 'topod'] as const) {
      expect(await bench.run(hook, first(backend, client, 8))).toMatchObject({ reason: 'REPLY_LOCAL', data: buildPacket(first(vip, client, 8)) });
      for (const offset of LATER)
        expect(await bench.run(hook, later(offset, backend, client, 8))).toMatchObject({
          action: 'pass',
          reason: 'REPLY_LOCAL',
          data: buildPacket(later(offset, vip, client, 8)),
        });
    }
  });

  it.each(['tc', 'pod', 'egress'] as const)('are sent on to another node from %s, and those of its answers back', async (hook) => {
    serveOn(bench, proto, ip.vip, [{ at: hook === 'pod' ? ip.local : ip.remote, local: hook === 'pod' }]);
    const from = hook === 'tc' ? client : joinEndpoint(hook === 'pod' ? ip.local : ip.up, 40_000);
    const sent = await bench.run(hook, first(from, vip, 7));
    const frame = sent.data;
    const at = 14 + (family === 4 ? 20 : 48);
    const port = family === 4 ? sourcePort(frame) : frame[at]! * 256 + frame[at + 1]!;
    const [here, backend] = [joinEndpoint(hook === 'pod' ? ip.up : ip.mesh, port), joinEndpoint(hook === 'pod' ? ip.local : ip.remote, 8080)];
    expect(sent).toMatchObject({ action: 'redirect', data: buildPacket(first(here, backend, 7, { ttl: 63 })) });
    for (const offset of LATER)
      expect(await bench.run(hook, later(offset, from, vip, 7))).toMatchObject({
        action: 'redirect',
        reason: 'REMOTE',
        data: buildPacket(later(offset, here, backend, 7, { ttl: 63 })),
      });
    if (hook !== 'tc') return;
    await bench.run('tc', first(backend, here, 9), 'mesh0');
    for (const offset of LATER)
      expect(await bench.run('tc', later(offset, backend, here, 9), 'mesh0')).toMatchObject({
        action: 'redirect',
        reason: 'REPLY_REMOTE',
        data: buildPacket(later(offset, vip, client, 9, { ttl: 63 })),
      });
  });

  it('stay as they are before their first one, after that of another datagram, and when they are not ours', async () => {
    serveOn(bench, proto, ip.vip, [{ at: ip.local, local: true }]);
    const untouched = async (spec: PacketSpec, reason = 'FRAGMENT'): Promise<void> =>
      expect(await bench.run('tc', spec)).toMatchObject({ action: 'pass', reason, data: buildPacket(spec) });
    await untouched(later(50, client, vip, 7));
    await bench.run('tc', first(client, vip, 7));
    await untouched(later(50, client, vip, 8));
    await untouched(later(50, joinEndpoint(ip.remote, 1), vip, 7));
    await untouched(later(50, client, vip, 7, { proto: 47 }));
    const foreign = joinEndpoint(ip.vip, 81);
    await untouched(first(client, foreign, 9), 'FOREIGN');
    await untouched(later(50, client, foreign, 9));
  });

  it.each(['tc', 'pod'] as const)('one before its first passes %s as it is, but a copy of it waits where it may be ours', async (hook) => {
    serveOn(bench, proto, ip.vip, [{ at: ip.local, local: true }]);
    const address = (at: string, flags: number): void => bench.lab.frontend(0, joinEndpoint(at, 0), 0, { kind: FrontendKind.ADDRESS, flags });
    const expectOne = async (spec: PacketSpec, reason: string, held: number, action = 'pass'): Promise<void> => {
      expect(await bench.run(hook, spec)).toMatchObject({ action, reason, data: buildPacket(spec) });
      expect(bench.lab.held()).toBe(held);
    };
    address(ip.vip, 0);
    address(ip.vip2, FrontendFlag.OWNED);
    const own = joinEndpoint(ip.up, 30_080);
    await expectOne(later(50, client, vip, 7), 'FRAGMENT_HELD', 1);
    await expectOne(later(20, client, vip, 9), 'FRAGMENT_HELD', 2);
    await expectOne(later(50, client, own, 7), 'FRAGMENT_HELD', 3);
    // Nothing passes to an address that is ours as a whole, unless it is translated.
    await expectOne(later(50, client, joinEndpoint(ip.vip2, 80), 7), 'FRAGMENT_HELD', 4, 'drop');
    for (const other of [
      later(50, client, joinEndpoint(ip.remote, 80), 7),
      later(50, client, vip, 7, { proto: 47 }),
      later(50, client, vip, 7, { proto: protocolNumber('sctp', family === 4) }),
      later(50, client, vip, 7, { payload: 'x'.repeat(2_048) }),
    ])
      await expectOne(other, 'FRAGMENT', 4);
    // The first one frees those of its datagram; one that is not translated says so to the others.
    expect(await bench.run(hook, first(client, vip, 7))).toMatchObject({
      action: 'pass',
      reason: 'NEW_LOCAL',
      data: buildPacket(first(client, joinEndpoint(ip.local, 8080), 7)),
    });
    expect(bench.lab.held()).toBe(3);
    await expectOne(first(client, own, 8), 'FOREIGN', 3);
    await expectOne(later(50, client, own, 8), 'FRAGMENT', 3);
  });

  it('none waits on the way out', async () => {
    bench.lab.frontend(0, joinEndpoint(ip.vip, 0), 0, { kind: FrontendKind.ADDRESS, flags: FrontendFlag.OWNED });
    for (const hook of ['egress', 'passing', 'topod', 'xdp'] as const)
      expect(await bench.run(hook, later(50, client, vip, 7))).toMatchObject({ action: 'pass', reason: hook === 'xdp' ? 'TO_TC' : 'FRAGMENT' });
    expect(bench.lab.held()).toBe(0);
  });

  it('XDP leaves them to tc', async () => {
    serveOn(bench, proto, ip.vip, [{ at: ip.local, local: true }]);
    for (const spec of [first(client, vip, 7), later(50, client, vip, 7)])
      expect(await bench.run('xdp', spec)).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(spec) });
  });
});

it.each([4, 6] as const)('SCTP’s are left alone over IPv%i: its sum is over all of them', async (family) => {
  const ip = IP[family];
  serveOn(bench, 'sctp', ip.vip, [{ at: ip.local, local: true }]);
  const spec: PacketSpec = {
    proto: 'sctp',
    from: joinEndpoint(ip.client, 40_000),
    to: joinEndpoint(ip.vip, 80),
    ...(family === 4 ? { fragment: { offset: 0, more: true } } : { extensions: [{ type: 44, body: [0, 1, 0, 0, 0, 9] }] }),
  };
  expect(await bench.run('tc', spec)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(spec) });
});

/** ICMP errors: those about translated packets tell each end of the packet that it sent; those of a router are sent by the programs. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { buildPacket, checksum, joinEndpoint, sourcePort } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench, Hook } from './packet-bench.ts';
import { tuple } from './packet-maps.ts';

const ALL = ([4, 6] as const).flatMap((family) => (['tcp', 'udp', 'sctp'] as const).map((proto) => ({ family, proto })));
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('errors');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

/** Type, code and the last four bytes of the header, by what they say. */
const ERRORS = {
  4: { 'needs fragments': [3, 4, 1300], 'is unreachable': [3, 3, 0], 'took too long': [11, 0, 0], 'is malformed': [12, 0, 0] },
  6: { 'is too big': [2, 0, 1300], 'is unreachable': [1, 4, 0], 'took too long': [3, 0, 0], 'is malformed': [4, 1, 40] },
} as const;

describe.each(ALL)('about $proto over IPv$family', ({ family, proto }) => {
  const ip = IP[family];
  const [client, vip] = [joinEndpoint(ip.client, 40_000), joinEndpoint(ip.vip, 80)];
  const header = family === 4 ? 20 : 40;
  const payload = [1, 0, 0, 8, ...Array.from({ length: 300 }, (_, i) => i & 255)];
  const packet = (from: string, to: string, more: Partial<PacketSpec> = {}): PacketSpec => ({ proto, from, to, flags: 'S', payload, ...more });
  /** What an error quotes: the IP header and so many bytes behind it. */
  const quote = (spec: PacketSpec, bytes: number): number[] => [...buildPacket(spec).slice(14, 14 + header + bytes)];
  const error = (
    from: string,
    to: string,
    [type, code, rest]: readonly [number, number, number],
    quoted: readonly number[],
    more: Partial<PacketSpec> = {},
  ): PacketSpec => ({
    proto: 'icmp',
    from: joinEndpoint(from, 0),
    to: joinEndpoint(to, 0),
    icmp: { type, code, rest: [0, 0, rest >> 8, rest & 255] },
    payload: quoted,
    ...more,
  });
  const router = family === 4 ? '198.51.100.77' : '2001:db8:1::77';
  const kinds = Object.entries(ERRORS[family]);
  // SCTP's checksum is of the whole packet, and nobody looks at a quoted one: it stays as it was sent.
  const lengths = proto === 'sctp' ? [8] : [8, 20, 200];

  it.each(kinds)('which says that it %s: one on the way to a backend elsewhere goes to the client, from the VIP', async (_, kind) => {
    serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
    const port = sourcePort((await bench.run('tc', packet(client, vip))).data);
    const [here, backend] = [joinEndpoint(ip.mesh, port), joinEndpoint(ip.remote, 8080)];
    for (const from of [router, ip.remote])
      for (const length of lengths) {
        const sent = error(from, ip.mesh, kind, quote(packet(here, backend, { ttl: 63 }), length));
        const wanted = error(ip.vip, ip.client, kind, quote(packet(client, vip, { ttl: 63 }), length), { ttl: 63 });
        expect(await bench.run('tc', sent, 'mesh0'), `${length} bytes`).toMatchObject({
          action: 'redirect',
          reason: 'REPLY_REMOTE',
          data: buildPacket(wanted),
        });
        expect(await bench.run('xdp', sent, 'mesh0')).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(sent) });
      }
  });

  it.each(kinds)('which says that it %s: one on the way to the client reaches the backend elsewhere', async (_, kind) => {
    serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
    const port = sourcePort((await bench.run('tc', packet(client, vip))).data);
    const [here, backend] = [joinEndpoint(ip.mesh, port), joinEndpoint(ip.remote, 8080)];
    for (const length of lengths) {
      const sent = error(router, ip.vip, kind, quote(packet(vip, client), length));
      const wanted = error(ip.mesh, ip.remote, kind, quote(packet(backend, here), length), { ttl: 63 });
      expect(await bench.run('tc', sent), `${length} bytes`).toMatchObject({ action: 'redirect', reason: 'REMOTE', data: buildPacket(wanted) });
    }
  });

  it.each(kinds)('which says that it %s: one on the way to the client reaches the backend here, from the router', async (_, kind) => {
    serveOn(bench, proto, ip.vip, [{ at: ip.local, local: true }]);
    await bench.run('tc', packet(client, vip));
    const backend = joinEndpoint(ip.local, 8080);
    for (const length of lengths) {
      const sent = error(router, ip.vip, kind, quote(packet(vip, client), length));
      const wanted = error(router, ip.local, kind, quote(packet(backend, client), length));
      expect(await bench.run('tc', sent), `${length} bytes`).toMatchObject({ action: 'pass', reason: 'LOCAL', data: buildPacket(wanted) });
    }
  });

  it.each<readonly [string, Hook]>([
    ['by an uplink', 'egress'],
    ['by an uplink, forwarded', 'passing'],
    ['into the pod that asked', 'topod'],
  ])('one from a backend here goes out %s as if from the VIP', async (_, hook) => {
    serveOn(bench, proto, ip.vip, [{ at: ip.local, local: true }]);
    await bench.run('tc', packet(client, vip));
    const backend = joinEndpoint(ip.local, 8080);
    for (const kind of Object.values(ERRORS[family]))
      for (const length of lengths) {
        const sent = error(ip.local, ip.client, kind, quote(packet(client, backend, { ttl: 63 }), length));
        const wanted = error(ip.vip, ip.client, kind, quote(packet(client, vip, { ttl: 63 }), length));
        expect(await bench.run(hook, sent), `${length} bytes`).toMatchObject({ action: 'pass', reason: 'REPLY_LOCAL', data: buildPacket(wanted) });
      }
  });

  it('outlives the frontend, begins no flow, and proves no answer', async () => {
    serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
    const port = sourcePort((await bench.run('tc', packet(client, vip))).data);
    bench.lab.removeFrontend(proto, vip);
    const flows = bench.lab.flows().map(({ flow }) => flow.flags);
    const sent = error(router, ip.mesh, ERRORS[family]['is unreachable'], quote(packet(joinEndpoint(ip.mesh, port), joinEndpoint(ip.remote, 8080)), 8));
    expect((await bench.run('tc', sent, 'mesh0')).reason).toBe('REPLY_REMOTE');
    expect(bench.lab.flows().map(({ flow }) => flow.flags)).toEqual(flows);
  });

  it('stays as it is when no flow knows it, when it is for another than it quotes, or when it quotes too little', async () => {
    serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
    const port = sourcePort((await bench.run('tc', packet(client, vip))).data);
    const [here, backend] = [joinEndpoint(ip.mesh, port), joinEndpoint(ip.remote, 8080)];
    const [kind, whole] = [ERRORS[family]['took too long'], quote(packet(here, backend), 8)];
    for (const stranger of [
      error(router, ip.mesh, kind, quote(packet(joinEndpoint(ip.mesh, port === 61_000 ? 61_001 : port - 1), backend), 8)),
      error(router, ip.up, kind, whole),
      error(router, ip.mesh, kind, whole.slice(0, -1)),
      error(router, ip.mesh, kind, whole.slice(0, header - 1)),
      error(router, ip.mesh, family === 4 ? [5, 1, 0] : [137, 0, 0], whole),
      error(router, ip.mesh, family === 4 ? [8, 0, 0] : [128, 0, 0], whole),
    ])
      expect(await bench.run('tc', stranger, 'mesh0')).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(stranger) });
  });

  describe('that a router sends', () => {
    const macs = (): NonNullable<PacketSpec['macs']> => ({ source: bench.toRouter.destination, destination: bench.toRouter.source });

    /** Checks all of an error but the quote's transport checksum, which no receiver can verify. */
    const expectError = (data: Uint8Array, from: string, sent: PacketSpec, [type, code, rest]: readonly [number, number, number]): void => {
      const [head, icmp] = [data.slice(14, 14 + header), data.slice(14 + header)];
      const wanted = buildPacket(error(from, ip.client, [type, code, rest], icmp.slice(8) as never, { macs: bench.toRouter }));
      // No fragment, no identification: these two fields the builder fills otherwise.
      if (family === 4) wanted.set(data.slice(18, 26), 18);
      expect([...data]).toEqual([...wanted]);
      if (family === 4) expect(checksum(head)).toBe(0);
      expect([...icmp.slice(8, 8 + header + 4)]).toEqual(quote(sent, 4));
    };

    beforeEach(() => serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]));

    it('tells the client of a TTL that is spent', async () => {
      const sent = packet(client, vip, { ttl: 1, macs: macs() });
      const { action, reason, data } = await bench.run('tc', sent);
      expect({ action, reason }).toEqual({ action: 'redirect', reason: 'DROP_TTL' });
      expectError(data, ip.up, sent, family === 4 ? [11, 0, 0] : [3, 0, 0]);
      expect(bench.lab.flow(tuple(proto, client, vip))).toBeUndefined();
    });

    it('tells the client of the MTU that its packet is too long for', async () => {
      const sent = packet(client, vip, { payload: [1, ...Array<number>(1480).fill(0)], macs: macs() });
      const { action, reason, data } = await bench.run('tc', sent);
      expect({ action, reason }).toEqual({ action: 'redirect', reason: 'TOO_BIG' });
      expectError(data, ip.up, sent, family === 4 ? [3, 4, 1500] : [2, 0, 1500]);
    });

    it('is not sent about another error, and not without bound', async () => {
      const port = sourcePort((await bench.run('tc', packet(client, vip))).data);
      const quoted = quote(packet(joinEndpoint(ip.mesh, port), joinEndpoint(ip.remote, 8080)), 8);
      const spent = error(router, ip.mesh, ERRORS[family]['is unreachable'], quoted, { ttl: 1, macs: macs() });
      expect((await bench.run('tc', spent, 'mesh0')).action).toBe('drop');
      for (let before = 0, after = 1; before !== after;) {
        before = bench.lab.spendIcmpBudget(1_000);
        const { action, reason } = await bench.run('tc', packet(client, vip, { ttl: 1, macs: macs() }));
        after = Math.floor(Number(process.hrtime.bigint()) / 1e9);
        if (before === after) expect({ action, reason }).toEqual({ action: 'drop', reason: 'DROP_TTL' });
      }
    });
  });
});

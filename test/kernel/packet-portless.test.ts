/** Packets without ports: ICMP, tunnels and whatever else. XDP leaves them to tc, which may refuse them. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { buildPacket, checksum, joinEndpoint } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, startBench } from './packet-bench.ts';
import type { Bench } from './packet-bench.ts';

const GRE = 47;
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('portless');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const ip = IP[family];
  const packet = (more: Partial<PacketSpec>): PacketSpec => ({
    proto: 'icmp',
    from: joinEndpoint(ip.client, 0),
    to: joinEndpoint(ip.vip, 0),
    macs: { source: bench.toRouter.destination, destination: bench.toRouter.source },
    ...more,
  });
  /** A frontend without endpoints whose port is 0: what comes to it is refused. */
  const refuse = (proto: PacketSpec['proto']): void => {
    bench.lab.service(1, {});
    bench.lab.frontend(proto, joinEndpoint(ip.vip, 0), 1);
  };

  it.each([['icmp'], [GRE], [50], [59], [132], [255]] as const)('%s is left to tc by XDP, and passes it when it is not ours', async (proto) => {
    const foreign = packet({ proto, payload: 'x'.repeat(30) });
    expect(await bench.run('xdp', foreign)).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(foreign) });
    for (const hook of ['tc', 'egress'] as const)
      expect(await bench.run(hook, foreign)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(foreign) });
  });

  it.each([0, 3, 7, 8, 100, 1400])('a protocol that is refused is answered with ICMP port unreachable, with %i bytes of it', async (length) => {
    refuse(GRE);
    const sent = packet({ proto: GRE, payload: 'x'.repeat(length) });
    const original = buildPacket(sent);
    const { action, reason, data } = await bench.run('tc', sent);
    expect({ action, reason }).toEqual({ action: 'redirect', reason: 'REJECT_NO_ENDPOINTS' });
    const header = family === 4 ? 20 : 40;
    const [head, icmp] = [data.slice(14, 14 + header), data.slice(14 + header)];
    const quote = original.slice(14, 14 + header + Math.min(length & ~3, 8));
    expect([...icmp.slice(0, 2), ...icmp.slice(4)]).toEqual([...(family === 4 ? [3, 3] : [1, 4]), 0, 0, 0, 0, ...quote]);
    const pseudo = family === 4 ? [] : [...head.slice(8, 40), 0, 0, 0, icmp.length, 0, 0, 0, 58];
    expect(checksum(pseudo, icmp)).toBe(0);
  });

  it('is not answered when it is an ICMP error itself', async () => {
    refuse('icmp');
    for (const type of family === 4 ? [3, 4, 5, 11, 12] : [1, 2, 3, 4, 100])
      expect(await bench.run('tc', packet({ icmp: { type }, payload: 'x'.repeat(60) })), `type ${type}`).toMatchObject({ action: 'drop' });
    expect(await bench.run('tc', packet({ icmp: { type: family === 4 ? 13 : 139 } }))).toMatchObject({ action: 'redirect' });
  });
});

const TO = { 4: { from: `${IP[4].client}:0`, to: `${IP[4].vip}:0` }, 6: { from: `[${IP[6].client}]:0`, to: `[${IP[6].vip}]:0` } } as const;

it('neighbour discovery is never refused', async () => {
  bench.lab.service(1, {});
  bench.lab.frontend('icmp', TO[6].to, 1);
  for (const type of [133, 134, 135, 136, 137]) {
    const discovery: PacketSpec = { proto: 'icmp', ...TO[6], icmp: { type }, payload: 'x'.repeat(24), ttl: 255 };
    expect(await bench.run('tc', discovery)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(discovery) });
  }
});

it('an IPv4 packet is left alone when its protocol number is that of an IPv6 extension header, or of an address entry', async () => {
  bench.lab.service(0, {});
  for (const proto of [0, 43, 44, 60]) {
    bench.lab.frontend(proto, TO[4].to, 0);
    const odd: PacketSpec = { proto, ...TO[4], payload: 'x'.repeat(40) };
    expect(await bench.run('tc', odd)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(odd) });
  }
});

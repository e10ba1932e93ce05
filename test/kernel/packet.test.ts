/** Single packets, to a local backend and back: bytes in, bytes out, at XDP and at tc. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FrontendFlag, FrontendKind } from '../../agent/dataplane/generated/abi.ts';
import { buildPacket, joinEndpoint } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench, Family } from './packet-bench.ts';
import { tuple } from './packet-maps.ts';

const HOOKS = ['xdp', 'tc'] as const;
const FAMILIES: readonly Family[] = [4, 6];
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('rewrite');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

/** A client's packet to the VIP, what the backend is to see, its answer, and what the client is to see. */
function conversation(family: Family, proto: 'tcp' | 'udp', more: Partial<PacketSpec> = {}) {
  const ip = IP[family];
  const [client, vip, backend] = [joinEndpoint(ip.client, 40_000), joinEndpoint(ip.vip, 80), joinEndpoint(ip.local, 8080)];
  return {
    request: { proto, from: client, to: vip, ...more },
    requestOut: { proto, from: client, to: backend, ...more },
    reply: { proto, from: backend, to: client, ...more },
    replyOut: { proto, from: vip, to: client, ...more },
  } as const;
}

const ALL = HOOKS.flatMap((hook) => FAMILIES.flatMap((family) => (['tcp', 'udp'] as const).map((proto) => ({ hook, family, proto }))));

describe.each(ALL)('$proto over IPv$family at $hook', ({ hook, family, proto }) => {
  const ip = IP[family];
  const { request, requestOut, reply, replyOut } = conversation(family, proto);

  beforeEach(() => serveOn(bench, proto, ip.vip, [{ at: ip.local, local: true }]));

  it('reaches a local backend with its source, and its answer comes from the VIP', async () => {
    const size = buildPacket(request).length;
    expect(await bench.run(hook, request)).toEqual({ action: 'pass', reason: 'NEW_LOCAL', bytes: size, data: buildPacket(requestOut) });
    expect(await bench.run('egress', reply)).toEqual({ action: 'pass', reason: 'REPLY_LOCAL', bytes: size, data: buildPacket(replyOut) });
    expect(await bench.run(hook, request)).toEqual({ action: 'pass', reason: 'LOCAL', bytes: size, data: buildPacket(requestOut) });
    expect(bench.lab.connections(1)).toBe(1);
  });

  it.each([[], [1], [1, 2]].map((vlans) => ({ vlans })))('keeps VLAN tags $vlans', async ({ vlans }) => {
    const tagged = conversation(family, proto, { vlans });
    expect(await bench.run(hook, tagged.request)).toMatchObject({ action: 'pass', data: buildPacket(tagged.requestOut) });
    expect(await bench.run('egress', tagged.reply)).toMatchObject({ action: 'pass', data: buildPacket(tagged.replyOut) });
  });

  it.each([0, 1, 2, 3, 4, 5, 100, 1000])('keeps the checksum right with a payload of %i bytes', async (length) => {
    const talk = conversation(family, proto, { payload: 'x'.repeat(length) });
    expect(await bench.run(hook, talk.request)).toMatchObject({ action: 'pass', data: buildPacket(talk.requestOut) });
    expect(await bench.run('egress', talk.reply)).toMatchObject({ action: 'pass', data: buildPacket(talk.replyOut) });
  });

  it('leaves other ports, other addresses, other protocols and frontends of the node itself alone', async () => {
    const other = proto === 'tcp' ? 'udp' : 'tcp';
    bench.lab.frontend(proto, joinEndpoint(ip.vip2, 80), 1, { kind: FrontendKind.NODE_PORT, flags: FrontendFlag.HOST_ONLY });
    for (const packet of [
      { ...request, to: joinEndpoint(ip.vip, 81) },
      { ...request, to: joinEndpoint(ip.up, 80) },
      { ...request, to: joinEndpoint(ip.vip2, 80) },
      { ...request, proto: other } as const,
    ]) {
      expect(await bench.run(hook, packet)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(packet) });
      expect(await bench.run('egress', packet)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(packet) });
    }
    expect(bench.lab.flows()).toEqual([]);
  });

  it('leaves alone what is cut off anywhere in its headers', async () => {
    const whole = buildPacket({ ...request, payload: '' });
    // An skb without a whole IP header is nothing that the kernel would hand to tc, nor run a test with.
    for (let length = hook === 'xdp' ? 14 : family === 4 ? 34 : 54; length < whole.length; length++) {
      const packet = whole.slice(0, length);
      expect(await bench.run(hook, packet), `${length} bytes`).toMatchObject({ action: 'pass', reason: 'UNPARSED', data: packet });
    }
    expect(bench.lab.flows()).toEqual([]);
  });

  it('does not take padding behind a short IP packet for a header', async () => {
    const packet = buildPacket(request);
    const length = family === 4 ? 20 + 7 : 7;
    packet.set([length >> 8, length & 255], family === 4 ? 16 : 18);
    expect(await bench.run(hook, packet)).toMatchObject({ action: 'pass', reason: 'UNPARSED', data: packet });
  });
});

describe.each(HOOKS)('headers at %s', (hook) => {
  it('steps over IPv4 options', async () => {
    const { request, requestOut } = conversation(4, 'tcp', { options: [0x94, 4, 0, 0, 1, 1, 1, 0] });
    serveOn(bench, 'tcp', IP[4].vip, [{ at: IP[4].local, local: true }]);
    expect(await bench.run(hook, request)).toMatchObject({ reason: 'NEW_LOCAL', data: buildPacket(requestOut) });
  });

  it('steps over IPv6 extension headers', async () => {
    const extensions = [
      { type: 0, body: [1, 4, 0, 0, 0, 0] },
      { type: 60, body: [1, 12, ...Array<number>(12).fill(0)] },
      { type: 43, body: [4, 0, 0, 0, 0, 0] },
      { type: 44, body: [0, 0, 0, 0, 0, 9] },
    ];
    const { request, requestOut } = conversation(6, 'udp', { extensions });
    serveOn(bench, 'udp', IP[6].vip, [{ at: IP[6].local, local: true }]);
    expect(await bench.run(hook, request)).toMatchObject({ reason: 'NEW_LOCAL', data: buildPacket(requestOut) });
  });

  it('leaves alone what it does not follow: too many extensions, a routing header on its way, fragments without their first', async () => {
    serveOn(bench, 'udp', IP[6].vip, [{ at: IP[6].local, local: true }]);
    serveOn(bench, 'udp', IP[4].vip, [{ at: IP[4].local, local: true }]);
    const [v4, v6] = [conversation(4, 'udp').request, conversation(6, 'udp').request];
    const options = { type: 60, body: [1, 4, 0, 0, 0, 0] };
    const [other, fragment] = hook === 'xdp' ? ['TO_TC', 'TO_TC'] : ['FOREIGN', 'FRAGMENT'];
    const cases: readonly [string, PacketSpec][] = [
      [other, { ...v6, extensions: Array.from({ length: 7 }, () => options) }],
      ['FOREIGN', { ...v6, extensions: [{ type: 43, body: [4, 1, 0, 0, 0, 0] }] }],
      [fragment, { ...v6, extensions: [{ type: 44, body: [1, 0, 0, 0, 0, 9] }] }],
      [fragment, { ...v4, fragment: { offset: 100, more: false } }],
    ];
    for (const [reason, packet] of cases) expect(await bench.run(hook, packet)).toMatchObject({ action: 'pass', reason, data: buildPacket(packet) });
    expect(bench.lab.flows()).toEqual([]);
  });

  it('leaves ARP and ICMP alone', async () => {
    const arp = buildPacket(conversation(4, 'udp').request);
    arp.set([0x08, 0x06], 12);
    expect(await bench.run(hook, arp)).toMatchObject({ action: 'pass', reason: 'NOT_IP', data: arp });
    const icmp = buildPacket(conversation(4, 'udp').request);
    icmp[23] = 1;
    expect(await bench.run(hook, icmp)).toMatchObject({ action: 'pass', reason: hook === 'xdp' ? 'TO_TC' : 'FOREIGN', data: icmp });
  });

  it('makes no UDP checksum where there was none', async () => {
    serveOn(bench, 'udp', IP[4].vip, [{ at: IP[4].local, local: true }]);
    const { request, requestOut, reply, replyOut } = conversation(4, 'udp', { unchecked: true });
    expect(await bench.run(hook, request)).toMatchObject({ data: buildPacket(requestOut) });
    expect(await bench.run('egress', reply)).toMatchObject({ data: buildPacket(replyOut) });
  });

  it('writes a UDP checksum that comes out as 0 as 0xffff', async () => {
    serveOn(bench, 'udp', IP[4].vip, [{ at: IP[4].local, local: true }]);
    const { request, requestOut } = conversation(4, 'udp', { payload: '' });
    // The payload that makes the rewritten packet's checksum 0: the one without it, as data.
    const payload = [...buildPacket({ ...requestOut, payload: [0, 0] }).slice(40, 42)];
    const expected = buildPacket({ ...requestOut, payload });
    expect([...expected.slice(40, 42)]).toEqual([255, 255]);
    expect(await bench.run(hook, { ...request, payload })).toMatchObject({ data: expected });
  });

  it('tells two VIPs of one backend apart, with one client port', async () => {
    const { client, vip, vip2, local } = IP[4];
    serveOn(bench, 'tcp', vip, [{ at: local, local: true }]);
    bench.lab.frontend('tcp', `${vip2}:80`, 1);
    const [from, backend] = [`${client}:40000`, `${local}:8080`];
    expect(await bench.run(hook, { proto: 'tcp', from, to: `${vip}:80`, flags: 'S' })).toMatchObject({
      data: buildPacket({ proto: 'tcp', from, to: backend, flags: 'S' }),
    });
    const second = await bench.run(hook, { proto: 'tcp', from, to: `${vip2}:80`, flags: 'S' });
    const moved = `${client}:${bench.lab.flow(tuple('tcp', from, `${vip2}:80`))!.to.sport}`;
    expect(moved).toMatch(/:61\d\d\d$/);
    expect(second).toMatchObject({ reason: 'NEW_LOCAL', data: buildPacket({ proto: 'tcp', from: moved, to: backend, flags: 'S' }) });
    expect(await bench.run('egress', { proto: 'tcp', from: backend, to: from })).toMatchObject({
      data: buildPacket({ proto: 'tcp', from: `${vip}:80`, to: from }),
    });
    expect(await bench.run('egress', { proto: 'tcp', from: backend, to: moved })).toMatchObject({
      data: buildPacket({ proto: 'tcp', from: `${vip2}:80`, to: from }),
    });
  });
});

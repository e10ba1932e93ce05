/** SCTP by single packets: ports and CRC32c are right after every translation, and associations are followed from INIT to the end. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FlowFlag } from '../../agent/dataplane/generated/abi.ts';
import { buildPacket, joinEndpoint, sourcePort } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench } from './packet-bench.ts';
import { tuple } from './packet-maps.ts';

const CHUNK = { data: 0, init: 1, initAck: 2, abort: 6, shutdownComplete: 14 } as const;
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('sctp');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const ip = IP[family];
  const [client, vip] = [joinEndpoint(ip.client, 40_000), joinEndpoint(ip.vip, 80)];
  const packet = (from: string, to: string, chunk: keyof typeof CHUNK, more: Partial<PacketSpec> = {}): PacketSpec => ({
    proto: 'sctp',
    from,
    to,
    payload: [CHUNK[chunk], 0, 0, 20, ...Array.from({ length: 16 }, (_, i) => i * 7)],
    ...more,
  });

  it('XDP leaves it to tc', async () => {
    serveOn(bench, 'sctp', ip.vip, [{ at: ip.remote, local: false }]);
    const init = packet(client, vip, 'init');
    expect(await bench.run('xdp', init)).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(init) });
  });

  it('reaches a backend here as the client, and is answered by the VIP', async () => {
    serveOn(bench, 'sctp', ip.vip, [{ at: ip.local, local: true }]);
    const backend = joinEndpoint(ip.local, 8080);
    for (const [chunk, reason] of [
      ['init', 'NEW_LOCAL'],
      ['data', 'LOCAL'],
    ] as const)
      expect(await bench.run('tc', packet(client, vip, chunk))).toMatchObject({ action: 'pass', reason, data: buildPacket(packet(client, backend, chunk)) });
    expect(await bench.run('egress', packet(backend, client, 'initAck'))).toMatchObject({
      action: 'pass',
      reason: 'REPLY_LOCAL',
      data: buildPacket(packet(vip, client, 'initAck')),
    });
  });

  it.each([0, 1, 2, 3, 4, 7, 100, 1399])('has a right CRC32c with %i bytes of chunks', async (length) => {
    serveOn(bench, 'sctp', ip.vip, [{ at: ip.remote, local: false }]);
    const payload = Array.from({ length }, (_, i) => (i * 31) & 255);
    const sent = await bench.run('tc', packet(client, vip, 'data', { payload }));
    const [here, backend] = [joinEndpoint(ip.mesh, sourcePort(sent.data)), joinEndpoint(ip.remote, 8080)];
    expect(sent).toMatchObject({ action: 'redirect', data: buildPacket(packet(here, backend, 'data', { payload, ttl: 63 })) });
    expect(await bench.run('tc', packet(backend, here, 'data', { payload }), 'mesh0')).toMatchObject({
      action: 'redirect',
      reason: 'REPLY_REMOTE',
      data: buildPacket(packet(vip, client, 'data', { payload, ttl: 63 })),
    });
  });

  it('keeps a CRC32c wrong that was, and leaves one of 0 to the hardware', async () => {
    serveOn(bench, 'sctp', ip.vip, [{ at: ip.local, local: true }]);
    const at = 14 + (family === 4 ? 20 : 40) + 8;
    for (const spoil of [(byte: number) => byte ^ 0x5a, () => 0]) {
      const [sent, wanted] = [buildPacket(packet(client, vip, 'init')), buildPacket(packet(client, joinEndpoint(ip.local, 8080), 'init'))];
      for (let i = at; i < at + 4; i++) [sent[i], wanted[i]] = [spoil(sent[i]!), spoil(wanted[i]!)];
      expect((await bench.run('tc', sent)).data).toEqual(wanted);
    }
  });

  it('of a pod and of the node goes the same way', async () => {
    serveOn(bench, 'sctp', ip.vip, [{ at: ip.remote, local: false }]);
    const backend = joinEndpoint(ip.remote, 8080);
    const pod = joinEndpoint(ip.local, 40_000);
    expect((await bench.run('pod', packet(pod, vip, 'init'))).data).toEqual(buildPacket(packet(pod, backend, 'init')));
    const { action, data } = await bench.run('egress', packet(joinEndpoint(ip.up, 40_000), vip, 'init'));
    expect(action).toBe('redirect');
    expect(data).toEqual(buildPacket(packet(joinEndpoint(ip.mesh, sourcePort(data)), backend, 'init', { ttl: 63 })));
  });

  it('stays with its backend whatever becomes of the Service; an INIT is free to go elsewhere', async () => {
    serveOn(bench, 'sctp', ip.vip, [{ at: ip.local, local: true }]);
    await bench.run('tc', packet(client, vip, 'init'));
    bench.lab.removeFrontend('sctp', vip);
    expect((await bench.run('tc', packet(client, vip, 'data'))).reason).toBe('LOCAL');
    expect(await bench.run('tc', packet(client, vip, 'init'))).toMatchObject({ reason: 'FOREIGN', data: buildPacket(packet(client, vip, 'init')) });
  });

  it.each(['abort', 'shutdownComplete'] as const)('ends with %s', async (chunk) => {
    serveOn(bench, 'sctp', ip.vip, [{ at: ip.local, local: true }]);
    await bench.run('tc', packet(client, vip, 'init'));
    await bench.run('tc', packet(client, vip, chunk));
    expect(bench.lab.flow(tuple('sctp', client, vip))!.flags & FlowFlag.RST).not.toBe(0);
  });

  it('is refused without endpoints, and left alone at other ports and as UDP', async () => {
    serveOn(bench, 'sctp', ip.vip, []);
    const macs = { source: bench.toRouter.destination, destination: bench.toRouter.source };
    expect(await bench.run('tc', packet(client, vip, 'init', { macs }))).toMatchObject({ action: 'redirect', reason: 'REJECT_NO_ENDPOINTS' });
    for (const other of [packet(client, joinEndpoint(ip.vip, 81), 'init'), packet(client, vip, 'init', { proto: 'udp' })])
      expect(await bench.run('tc', other)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(other) });
  });
});

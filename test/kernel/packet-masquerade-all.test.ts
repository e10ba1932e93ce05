/** masqueradeAll, packet by packet: backends see this node in place of whoever sends to a cluster IP; nothing else changes. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FrontendKind, NodeFlag } from '../../agent/dataplane/generated/abi.ts';
import { buildPacket, joinEndpoint, sourcePort } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench } from './packet-bench.ts';
import { SNAT } from './packet-lab.ts';

const ALL = ([4, 6] as const).flatMap((family) => (['tcp', 'udp'] as const).map((proto) => ({ family, proto })));
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('masquerade-all');
});
beforeEach(() => {
  bench.reset();
  bench.lab.node({ flags: NodeFlag.MASQUERADES_ALL });
});
afterAll(() => bench?.lab.close());

describe.each(ALL)('$proto over IPv$family', ({ family, proto }) => {
  const ip = IP[family];
  const vip = joinEndpoint(ip.vip, 80);
  const packet = (from: string, to: string, more: Partial<PacketSpec> = {}): PacketSpec => ({ proto, from, to, ...more });
  const SYN = { flags: 'S' } as const;
  const pod = joinEndpoint(ip.local2, 40_000);
  const client = joinEndpoint(ip.client, 40_000);

  function serve(at: string, local: boolean, kind: number = FrontendKind.CLUSTER_IP): void {
    serveOn(bench, proto, ip.vip, [{ at, local }]);
    bench.lab.frontend(proto, vip, 1, { kind });
  }

  it.each([
    ['a pod, to a pod here', 'pod', pod, 'local', 'up'],
    ['a pod, to another node', 'pod', pod, 'remote', 'mesh'],
    ['outside, to a pod here', 'tc', client, 'local', 'up'],
    ['outside, to another node', 'tc', client, 'remote', 'mesh'],
  ] as const)('hides %s, and brings the answer back', async (_, hook, from, which, seenAs) => {
    serve(ip[which], which === 'local');
    const backend = joinEndpoint(ip[which], 8080);
    const sent = await bench.run(hook, packet(from, vip, SYN));
    const masquerade = joinEndpoint(ip[seenAs], sourcePort(sent.data));
    expect(sourcePort(sent.data)).toBeGreaterThanOrEqual(SNAT.min);
    const reason = which === 'local' ? 'NEW_LOCAL' : 'NEW_REMOTE';
    expect(sent).toMatchObject({ action: 'redirect', reason, data: buildPacket(packet(masquerade, backend, { ...SYN, ttl: 63 })) });
    expect(await bench.run(hook, packet(from, vip))).toMatchObject({
      action: 'redirect',
      reason: 'REMOTE',
      data: buildPacket(packet(masquerade, backend, { ttl: 63 })),
    });
    // Into the pod it goes as it is, and the answer is told where it comes out.
    const entering = packet(masquerade, backend, { ttl: 63 });
    if (which === 'local') expect(await bench.run('topod', entering)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(entering) });
    const [door, device] = which === 'local' ? (['pod', 'pod0'] as const) : (['tc', 'mesh0'] as const);
    const answer = packet(vip, from, { ttl: 63 });
    expect(await bench.run(door, packet(backend, masquerade), device)).toMatchObject({ reason: 'REPLY_REMOTE', data: buildPacket(answer) });
    expect(await bench.run('topod', answer)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(answer) });
  });

  it('leaves to tc at XDP what goes to a pod here', async () => {
    serve(ip.local, true);
    const first = packet(client, vip, SYN);
    expect(await bench.run('xdp', first)).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(first) });
    expect(bench.lab.flows()).toEqual([]);
  });

  it.each([
    ['pod', pod],
    ['tc', client],
  ] as const)('a backend on the network of the node itself sees the client: %s', async (hook, from) => {
    serve(ip.mesh, true);
    const dnat = buildPacket(packet(from, joinEndpoint(ip.mesh, 8080), SYN));
    expect(await bench.run(hook, packet(from, vip, SYN))).toMatchObject({ action: 'pass', reason: 'NEW_LOCAL', data: dnat });
  });

  it.each([FrontendKind.NODE_PORT, FrontendKind.EXTERNAL_IP, FrontendKind.LOAD_BALANCER])('is for cluster IPs alone: kind %s', async (kind) => {
    serve(ip.local, true, kind);
    const backend = joinEndpoint(ip.local, 8080);
    for (const [hook, from] of [
      ['pod', pod],
      ['tc', client],
    ] as const)
      expect((await bench.run(hook, packet(from, vip, SYN))).data).toEqual(buildPacket(packet(from, backend, SYN)));
  });

  it('is off by default', async () => {
    bench.lab.node({});
    serve(ip.local, true);
    expect((await bench.run('tc', packet(client, vip, SYN))).data).toEqual(buildPacket(packet(client, joinEndpoint(ip.local, 8080), SYN)));
  });
});

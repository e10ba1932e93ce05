/** Single packets of this node's pods, and of the node itself: what they become, and their answers. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BackendFlag, FlowFlag } from '../../agent/dataplane/generated/abi.ts';
import { buildPacket, joinEndpoint, sourcePort } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench } from './packet-bench.ts';
import { SNAT } from './packet-lab.ts';
import { tuple } from './packet-maps.ts';

const ALL = ([4, 6] as const).flatMap((family) => (['tcp', 'udp'] as const).map((proto) => ({ family, proto })));
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('pods');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

describe.each(ALL)('$proto over IPv$family', ({ family, proto }) => {
  const ip = IP[family];
  const vip = joinEndpoint(ip.vip, 80);
  /** Begins a connection, or goes on with it. */
  const packet = (from: string, to: string, more: Partial<PacketSpec> = {}): PacketSpec => ({ proto, from, to, ...more });
  const SYN = { flags: 'S' } as const;
  const pod = joinEndpoint(ip.local, 40_000);

  describe('a pod', () => {
    it.each(['local2', 'remote'] as const)('reaches a backend as itself, and the VIP answers it: %s', async (which) => {
      serveOn(bench, proto, ip.vip, [{ at: ip[which], local: which === 'local2' }]);
      const backend = joinEndpoint(ip[which], 8080);
      const [first, next] = which === 'local2' ? (['NEW_LOCAL', 'LOCAL'] as const) : (['NEW_REMOTE', 'LOCAL'] as const);
      const dnat = buildPacket(packet(pod, backend, SYN));
      expect(await bench.run('pod', packet(pod, vip, SYN))).toMatchObject({ action: 'pass', reason: first, data: dnat });
      expect(await bench.run('pod', packet(pod, vip))).toMatchObject({ action: 'pass', reason: next, data: buildPacket(packet(pod, backend)) });
      // Where the answer comes in it stays as it is, for rp_filter's sake...
      const answer = packet(backend, pod);
      const door = which === 'local2' ? 'pod' : 'tc';
      expect(await bench.run(door, answer)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(answer) });
      // ... and where it enters the pod, it comes from the VIP.
      expect(await bench.run('topod', answer)).toMatchObject({ action: 'pass', reason: 'REPLY_LOCAL', data: buildPacket(packet(vip, pod)) });
      expect(bench.lab.connections(1)).toBe(1);
    });

    it('that is its own backend hears from the node, and answers it', async () => {
      serveOn(bench, proto, ip.vip, [{ at: ip.local, local: true }]);
      const sent = await bench.run('pod', packet(pod, vip, SYN));
      const masquerade = joinEndpoint(ip.up, sourcePort(sent.data));
      expect(sourcePort(sent.data)).toBeGreaterThanOrEqual(SNAT.min);
      const backend = joinEndpoint(ip.local, 8080);
      expect(sent).toMatchObject({ action: 'redirect', reason: 'NEW_LOCAL', data: buildPacket(packet(masquerade, backend, { ...SYN, ttl: 63 })) });
      const entering = packet(masquerade, backend, { ttl: 63 });
      expect(await bench.run('topod', entering)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(entering) });
      expect(await bench.run('pod', packet(backend, masquerade))).toMatchObject({
        action: 'redirect',
        reason: 'REPLY_REMOTE',
        data: buildPacket(packet(vip, pod, { ttl: 63 })),
      });
      expect(await bench.run('pod', packet(pod, vip))).toMatchObject({ action: 'redirect', reason: 'REMOTE' });
    });

    it('does not see the answers of its own connections changed, nor of others to that backend', async () => {
      serveOn(bench, proto, ip.vip, [{ at: ip.local2, local: true }]);
      await bench.run('pod', packet(pod, vip, SYN));
      for (const answer of [packet(joinEndpoint(ip.local2, 8080), joinEndpoint(ip.local, 40_001)), packet(joinEndpoint(ip.local2, 9090), pod)])
        expect(await bench.run('topod', answer)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(answer) });
    });

    it('asks two VIPs of one backend from one port', async () => {
      serveOn(bench, proto, ip.vip, [{ at: ip.local2, local: true }]);
      bench.lab.frontend(proto, joinEndpoint(ip.vip2, 80), 1);
      await bench.run('pod', packet(pod, vip, SYN));
      const second = await bench.run('pod', packet(pod, joinEndpoint(ip.vip2, 80), SYN));
      const moved = joinEndpoint(ip.local, sourcePort(second.data));
      expect(moved).not.toBe(pod);
      const answer = packet(joinEndpoint(ip.local2, 8080), moved);
      expect((await bench.run('topod', answer)).data).toEqual(buildPacket(packet(joinEndpoint(ip.vip2, 80), pod)));
    });
  });

  describe('the node', () => {
    const node = joinEndpoint(ip.up, 40_000);

    it('reaches a backend elsewhere from where it leaves, and is answered as if by the VIP', async () => {
      serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
      const sent = await bench.run('egress', packet(node, vip, SYN));
      const [here, backend] = [joinEndpoint(ip.mesh, sourcePort(sent.data)), joinEndpoint(ip.remote, 8080)];
      const forwarded = packet(here, backend, { ...SYN, ttl: 63 });
      expect(sent).toMatchObject({ action: 'redirect', reason: 'NEW_REMOTE', data: buildPacket(forwarded) });
      expect(await bench.run('egress', forwarded, 'mesh0')).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(forwarded) });
      expect(await bench.run('xdp', packet(backend, here), 'mesh0')).toMatchObject({
        action: 'pass',
        reason: 'TO_TC',
        data: buildPacket(packet(backend, here)),
      });
      const answered = await bench.run('tc', packet(backend, here), 'mesh0');
      // It comes in by the device that leads to the VIP, for that device.
      const macs = { source: '02:00:00:00:00:01', destination: bench.toRouter.source };
      expect(answered).toMatchObject({ action: 'redirect', reason: 'REPLY_REMOTE', data: buildPacket(packet(vip, node, { macs })) });
      expect(await bench.run('tc', answered.data)).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: answered.data });
      expect(await bench.run('egress', packet(node, vip))).toMatchObject({ action: 'redirect', reason: 'REMOTE' });
      expect(bench.lab.flow(tuple(proto, node, vip))!.flags & FlowFlag.NODE).not.toBe(0);
    });

    it('reaches a pod of its own, which answers it', async () => {
      serveOn(bench, proto, ip.vip, [{ at: ip.local, local: true }]);
      const sent = await bench.run('egress', packet(node, vip, SYN));
      const [here, backend] = [joinEndpoint(ip.up, sourcePort(sent.data)), joinEndpoint(ip.local, 8080)];
      expect(sent).toMatchObject({ action: 'redirect', reason: 'NEW_LOCAL', data: buildPacket(packet(here, backend, { ...SYN, ttl: 63 })) });
      const macs = { source: '02:00:00:00:00:01', destination: bench.toRouter.source };
      expect(await bench.run('pod', packet(backend, here))).toMatchObject({
        action: 'redirect',
        reason: 'REPLY_REMOTE',
        data: buildPacket(packet(vip, node, { macs })),
      });
    });

    it('reaches itself, which takes the VIP for its client', async () => {
      serveOn(bench, proto, ip.vip, [{ at: ip.mesh, local: true }]);
      const macs = { source: '02:00:00:00:00:01', destination: bench.toRouter.source };
      const sent = await bench.run('egress', packet(node, vip, SYN));
      const [client, backend] = [joinEndpoint(ip.vip, sourcePort(sent.data)), joinEndpoint(ip.mesh, 8080)];
      expect(sent).toMatchObject({ action: 'redirect', reason: 'NEW_LOCAL', data: buildPacket(packet(client, backend, { ...SYN, macs })) });
      expect(await bench.run('egress', packet(node, vip))).toMatchObject({
        action: 'redirect',
        reason: 'REMOTE',
        data: buildPacket(packet(client, backend, { macs })),
      });
      expect(await bench.run('egress', packet(backend, client))).toMatchObject({
        action: 'redirect',
        reason: 'REPLY_REMOTE',
        data: buildPacket(packet(vip, node, { macs })),
      });
    });

    it('is answered again when the half of a flow that answers was lost', async () => {
      serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
      const port = sourcePort((await bench.run('egress', packet(node, vip, SYN))).data);
      const answer = packet(joinEndpoint(ip.remote, 8080), joinEndpoint(ip.mesh, port));
      const before = await bench.run('tc', answer, 'mesh0');
      expect(bench.lab.forget((_, flow) => (flow.flags & FlowFlag.REPLY) !== 0)).toBe(1);
      bench.lab.age(1);
      await bench.run('egress', packet(node, vip));
      expect(await bench.run('tc', answer, 'mesh0')).toEqual(before);
    });

    it('does not have what it forwards taken for its own', async () => {
      serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
      expect(await bench.run('passing', packet(node, vip, SYN))).toMatchObject({
        action: 'pass',
        reason: 'FOREIGN',
        data: buildPacket(packet(node, vip, SYN)),
      });
    });
  });

  describe.each([
    ['tc', joinEndpoint(ip.client, 40_000)],
    ['xdp', joinEndpoint(ip.client, 40_000)],
    ['pod', pod],
    ['egress', joinEndpoint(ip.up, 40_000)],
  ] as const)('what is established at %s', (hook, client) => {
    const established = proto === 'tcp';

    beforeEach(async () => {
      serveOn(bench, proto, ip.vip, [{ at: ip.remote, local: false }]);
      expect((await bench.run(hook, packet(client, vip, SYN))).reason).toBe('NEW_REMOTE');
    });

    it(`${established ? 'outlives' : 'ends with'} its frontend, and nothing new begins`, async () => {
      const before = await bench.run(hook, packet(client, vip));
      bench.lab.removeFrontend(proto, vip);
      const after = await bench.run(hook, packet(client, vip));
      if (established) expect(after).toEqual(before);
      else expect(after).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(packet(client, vip)) });
      expect((await bench.run(hook, packet(client.replace('40000', '40001'), vip, SYN))).reason).toBe('FOREIGN');
      expect((await bench.run(hook, packet(client, vip, SYN))).reason).toBe('FOREIGN');
    });

    it(`${established ? 'outlives' : 'ends with'} the endpoints of its service`, async () => {
      const before = await bench.run(hook, packet(client, vip));
      bench.lab.backend(1, joinEndpoint(ip.remote, 8080), 1, 0);
      bench.lab.service(1, {});
      const { reason, ...after } = await bench.run(hook, packet(client, vip));
      if (established) expect({ reason, ...after }).toEqual(before);
      else expect(reason).toBe(hook === 'xdp' ? 'TO_TC' : hook === 'tc' ? 'DROP_WRITE' : 'REJECT_NO_ENDPOINTS');
    });

    it('stays with a backend that serves on, but is in no set', async () => {
      const before = await bench.run(hook, packet(client, vip));
      bench.lab.backend(1, joinEndpoint(ip.remote, 8080), 1, BackendFlag.SERVING);
      bench.lab.service(1, {});
      expect(await bench.run(hook, packet(client, vip))).toEqual(before);
    });
  });
});

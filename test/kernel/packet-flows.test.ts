/** What the packet path remembers, how it ends, and how it comes back when it is lost. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { BackendFlag, FlowFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { buildPacket, joinEndpoint, sourcePort } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench, Result } from './packet-bench.ts';
import { SNAT } from './packet-lab.ts';
import { tuple } from './packet-maps.ts';

const { client, vip, vip2, up, mesh, local, local2, remote, remote2 } = IP[4];
const [CLIENT, VIP, VIP2] = [`${client}:40000`, `${vip}:80`, `${vip2}:80`];
let bench: Bench;

beforeAll(async () => {
  bench = await startBench('flows');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

const send = (proto: 'tcp' | 'udp', more: Partial<PacketSpec> = {}): Promise<Result> => bench.run('tc', { proto, from: CLIENT, to: VIP, ...more });
/** Where a packet was sent to, by the flow that its client now has. */
const backendOf = (proto: 'tcp' | 'udp', from = CLIENT, to = VIP): string | undefined => {
  const flow = bench.lab.flow(tuple(proto, from, to));
  return flow && joinEndpoint(flow.to.daddr, flow.to.dport);
};

/** Service 1 chooses from these backends from now on; others stop serving. */
function serveBy(...ids: readonly number[]): void {
  [local, local2, remote, remote2].forEach((at, index) => {
    const serving = ids.includes(index + 1) ? BackendFlag.SERVING : 0;
    bench.lab.backend(index + 1, `${at}:8080`, 1, serving | (index < 2 ? BackendFlag.LOCAL : 0));
  });
  bench.lab.service(1, { cluster: ids });
  for (const proto of ['tcp', 'udp'] as const) bench.lab.frontend(proto, VIP, 1);
}

/** Both ends close, as TCP does. */
async function close(first: 'client' | 'backend', flag: 'FA' | 'R' = 'FA'): Promise<void> {
  if (first === 'client') await send('tcp', { flags: flag });
  await bench.run('egress', { proto: 'tcp', from: `${local}:8080`, to: CLIENT, flags: flag });
  if (first === 'backend') await send('tcp', { flags: flag });
}

describe('a flow', () => {
  it('has two halves, each the reverse of the other', async () => {
    serveBy(3);
    const sent = await send('tcp', { flags: 'S' });
    const here = `${mesh}:${sourcePort(sent.data)}`;
    const forward = bench.lab.flow(tuple('tcp', CLIENT, VIP))!;
    const reply = bench.lab.flow(tuple('tcp', `${remote}:8080`, here))!;
    expect(forward).toMatchObject({ to: tuple('tcp', here, `${remote}:8080`), service: 1, backend: 3, flags: FlowFlag.FORWARD });
    expect(reply).toMatchObject({ to: tuple('tcp', VIP, CLIENT), service: 1, backend: 3, flags: FlowFlag.FORWARD | FlowFlag.REPLY });
    await bench.run('tc', { proto: 'tcp', from: `${remote}:8080`, to: here, flags: 'SA' }, 'mesh0');
    expect(bench.lab.flow(tuple('tcp', `${remote}:8080`, here))!.flags & FlowFlag.ASSURED).not.toBe(0);
  });

  it.each(['client', 'backend'] as const)('ended by the %s first keeps its backend until a SYN begins another', async (first) => {
    serveBy(1);
    await send('tcp', { flags: 'S' });
    await close(first);
    serveBy(1, 2);
    bench.lab.service(1, { cluster: [2] }); // 1 still serves: that the flow is over is what counts
    // Late packets still go where the connection was...
    expect((await send('tcp', { flags: 'A' })).reason).toBe('LOCAL');
    expect(backendOf('tcp')).toBe(`${local}:8080`);
    // ... and a new connection from the same port to where it is sent now.
    expect((await send('tcp', { flags: 'S' })).reason).toBe('NEW_LOCAL');
    expect(backendOf('tcp')).toBe(`${local2}:8080`);
    expect((await send('tcp', { flags: 'S' })).reason).toBe('LOCAL');
  });

  it.each(['client', 'backend'] as const)('reset by the %s is over', async (who) => {
    serveBy(1);
    await send('tcp', { flags: 'S' });
    if (who === 'client') await send('tcp', { flags: 'R' });
    else await bench.run('egress', { proto: 'tcp', from: `${local}:8080`, to: CLIENT, flags: 'R' });
    expect((await send('tcp', { flags: 'S' })).reason).toBe('NEW_LOCAL');
  });

  it('of TCP stays with a backend that was removed; a new SYN goes elsewhere', async () => {
    serveBy(1);
    await send('tcp', { flags: 'S' });
    serveBy(2);
    expect((await send('tcp', { flags: 'A' })).reason).toBe('LOCAL');
    expect(backendOf('tcp')).toBe(`${local}:8080`);
    expect((await send('tcp', { flags: 'S' })).reason).toBe('NEW_LOCAL');
    expect(backendOf('tcp')).toBe(`${local2}:8080`);
  });

  const backend = (id: number, at: string, service: number): void => bench.lab.backend(id, at, service, BackendFlag.SERVING | BackendFlag.LOCAL);
  it.each([
    ['no longer serves', () => serveBy(2)],
    ['belongs to another service', () => (backend(1, `${local}:8080`, 9), backend(2, `${local2}:8080`, 1), bench.lab.service(1, { cluster: [2] }))],
    ['has another address', () => backend(1, `${local2}:8080`, 1)],
    ['has another port', () => backend(1, `${local}:9090`, 1)],
  ] as const)('of UDP leaves a backend that %s', async (_, change) => {
    serveBy(1);
    await send('udp');
    expect((await send('udp')).reason).toBe('LOCAL');
    change();
    expect((await send('udp')).reason).toBe('NEW_LOCAL');
    expect(backendOf('udp')).not.toBe(`${local}:8080`);
  });

  it('of UDP leaves a frontend that went to another service', async () => {
    serveBy(1);
    await send('udp');
    bench.lab.backend(5, `${local2}:8080`, 2, BackendFlag.SERVING | BackendFlag.LOCAL);
    bench.lab.service(2, { cluster: [5] });
    bench.lab.frontend('udp', VIP, 2);
    expect((await send('udp')).reason).toBe('NEW_LOCAL');
    expect(backendOf('udp')).toBe(`${local2}:8080`);
  });
});

describe('what is lost comes back', () => {
  /** The reverse half is looked after once a second. */
  const later = (): void => bench.lab.age(1);

  it.each(['xdp', 'tc'] as const)('all flows, at %s: same backend, same source port, in the middle of a connection', async (hook) => {
    serveBy(1, 2, 3, 4);
    for (let port = 40_000; port < 40_040; port++) {
      const packet = { proto: 'tcp', from: `${client}:${port}`, to: VIP } as const;
      const first = await bench.run(hook, { ...packet, flags: 'S' });
      const before = await bench.run(hook, packet);
      bench.lab.forget();
      const after = await bench.run(hook, packet);
      expect(after).toMatchObject({ reason: first.reason, data: before.data });
    }
  });

  it('the half that answers, by the next packet of the client', async () => {
    serveBy(3);
    const port = sourcePort((await send('tcp', { flags: 'S' })).data);
    const answer = { proto: 'tcp', from: `${remote}:8080`, to: `${mesh}:${port}` } as const;
    const { action, data } = await bench.run('tc', answer, 'mesh0');
    expect(bench.lab.forget((_, flow) => (flow.flags & FlowFlag.REPLY) !== 0)).toBe(1);
    later();
    await send('tcp');
    expect(await bench.run('tc', answer, 'mesh0')).toMatchObject({ action, reason: 'REPLY_REMOTE', data });
  });

  it('the half of the client, by the next answer', async () => {
    serveBy(1, 2);
    await send('tcp', { flags: 'S' });
    const backend = backendOf('tcp')!;
    expect(bench.lab.forget((_, flow) => (flow.flags & FlowFlag.REPLY) === 0)).toBe(1);
    later();
    await bench.run('egress', { proto: 'tcp', from: backend, to: CLIENT });
    serveBy(3);
    expect((await send('tcp')).reason).toBe('LOCAL');
    expect(backendOf('tcp')).toBe(backend);
  });

  it('the half of the client alone, by the next packet of the client: it finds its own port taken by itself', async () => {
    serveBy(3);
    const port = sourcePort((await send('tcp', { flags: 'S' })).data);
    bench.lab.forget((_, flow) => (flow.flags & FlowFlag.REPLY) === 0);
    expect(sourcePort((await send('tcp')).data)).toBe(port);
  });

  it('a flow whose port another one took begins anew', async () => {
    serveBy(3);
    const port = sourcePort((await send('tcp', { flags: 'S' })).data);
    const held = tuple('tcp', `${remote}:8080`, `${mesh}:${port}`);
    const reply = bench.lab.flow(held)!;
    bench.lab.setFlow(held, { ...reply, to: tuple('tcp', VIP, '203.0.113.99:5') });
    later();
    const again = await send('tcp');
    expect(again.reason).toBe('NEW_REMOTE');
    expect(sourcePort(again.data)).not.toBe(port);
  });

  it('an answer to a forgotten flow is no reason to reset the backend', async () => {
    serveBy(3);
    const port = sourcePort((await send('tcp', { flags: 'S' })).data);
    const reset = { proto: 'tcp', from: `${mesh}:${port}`, to: `${remote}:8080`, flags: 'R' } as const;
    // The client's own RST, sent on, passes...
    expect(await bench.run('passing', reset, 'mesh0')).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
    // ... the one with which this node answers for a port that it knows nothing of does not, nor when the client has been faster.
    expect(await bench.run('egress', reset, 'mesh0')).toMatchObject({ action: 'drop', reason: 'DROP_NO_FLOW' });
    bench.lab.forget();
    expect(await bench.run('egress', reset, 'mesh0')).toMatchObject({ action: 'drop', reason: 'DROP_NO_FLOW' });
    for (const other of [
      { ...reset, flags: 'A' },
      { ...reset, flags: 'RA' },
      { ...reset, from: `${mesh}:60999` },
    ])
      expect(await bench.run('egress', other, 'mesh0')).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
  });
});

it('a RST of the node itself to a backend goes out', async () => {
  serveBy(3);
  const own = { proto: 'tcp', from: `${up}:40000`, to: VIP } as const;
  await bench.run('egress', { ...own, flags: 'S' });
  const reset = await bench.run('egress', { ...own, flags: 'R' });
  expect(reset).toMatchObject({ action: 'redirect', reason: 'REMOTE' });
  // As it comes by again on the way that it was sent.
  expect(await bench.run('egress', reset.data, 'mesh0')).toMatchObject({ action: 'pass', reason: 'FOREIGN' });
});

describe('source ports', () => {
  /** Takes every port towards the backend for somebody else's flows. */
  function occupy(flags: number, idle: number): void {
    const now = bench.lab.flows()[0]!.flow.seen;
    for (let port = SNAT.min; port <= SNAT.max; port++) {
      const key = tuple('tcp', `${remote}:8080`, `${mesh}:${port}`);
      const to = tuple('tcp', VIP, `203.0.113.99:${port}`);
      bench.lab.setFlow(key, { to, service: 1, backend: 3, seen: now - idle, flags: FlowFlag.REPLY | FlowFlag.FORWARD | flags });
    }
  }
  const { ASSURED, RST, FIN } = FlowFlag;

  beforeEach(async () => {
    serveBy(3);
    await send('tcp', { flags: 'S' }); // something to read the clock from
  });

  it.each([
    ['live', ASSURED, 0, 'DROP_SNAT_FULL'],
    ['live for hours', ASSURED, 80_000, 'DROP_SNAT_FULL'],
    ['live for more than a day', ASSURED, 86_500, 'NEW_REMOTE'],
    ['young and never answered', 0, 50, 'DROP_SNAT_FULL'],
    ['old and never answered', 0, 70, 'NEW_REMOTE'],
    ['reset just now', ASSURED | RST, 0, 'NEW_REMOTE'],
    ['reset a moment ago', ASSURED | RST, 10, 'NEW_REMOTE'],
    ['closed a moment ago', ASSURED | FIN, 10, 'NEW_REMOTE'],
  ] as const)('held by flows that are %s', async (_, flags, idle, reason) => {
    occupy(flags, idle);
    const result = await send('tcp', { flags: 'S', from: '203.0.113.8:1234' });
    expect(result.reason).toBe(reason);
    expect(result.action).toBe(reason === 'NEW_REMOTE' ? 'redirect' : 'drop');
    expect(backendOf('tcp', '203.0.113.8:1234')).toBe(reason === 'NEW_REMOTE' ? `${remote}:8080` : undefined);
  });

  it('are not taken from a flow of which one end alone has closed', async () => {
    occupy(ASSURED | FIN, 100);
    for (const { key, flow } of bench.lab.flows()) {
      if (flow.to.saddr !== vip) continue;
      bench.lab.setFlow(
        { ...flow.to, saddr: flow.to.daddr, daddr: flow.to.saddr, sport: flow.to.dport, dport: flow.to.sport },
        { ...flow, flags: FlowFlag.FORWARD, to: { ...key, saddr: key.daddr, daddr: key.saddr, sport: key.dport, dport: key.sport } },
      );
    }
    expect((await send('tcp', { flags: 'S', from: '203.0.113.8:1234' })).reason).toBe('DROP_SNAT_FULL');
  });

  it('differ between all clients of one backend, and are used again towards another', async () => {
    const ports = new Set<number>();
    for (let host = 1; host <= 100; host++) {
      const { data } = await send('tcp', { from: `203.0.113.${host}:5000`, flags: 'S' });
      expect(data).toEqual(buildPacket({ proto: 'tcp', from: `${mesh}:${sourcePort(data)}`, to: `${remote}:8080`, flags: 'S', ttl: 63 }));
      ports.add(sourcePort(data));
    }
    expect(ports.size).toBe(100);
    for (const port of ports) {
      const { data } = await bench.run('tc', { proto: 'tcp', from: `${remote}:8080`, to: `${mesh}:${port}`, flags: 'SA' }, 'mesh0');
      expect(sourcePort(data)).toBe(80);
    }
  });
});

describe('affinity', () => {
  it('keeps a client on one backend, whatever its port, frontend and node path', async () => {
    serveBy(1, 2, 3, 4);
    bench.lab.service(1, { cluster: [1, 2, 3, 4], affinity: 100 });
    bench.lab.frontend('tcp', VIP2, 1);
    const seen = new Set<string | undefined>();
    for (let port = 1; port <= 20; port++) {
      const to = port % 2 ? VIP : VIP2;
      await bench.run(port % 3 ? 'tc' : 'xdp', { proto: 'tcp', from: `${client}:${port}`, to, flags: 'S' });
      seen.add(backendOf('tcp', `${client}:${port}`, to));
    }
    expect(seen.size).toBe(1);
    expect(bench.lab.affinityUsed()).toHaveLength(1);
  });

  it('lets clients without it spread', async () => {
    serveBy(1, 2, 3, 4);
    const seen = new Set<string | undefined>();
    for (let port = 1; port <= 60; port++) {
      await send('tcp', { from: `${client}:${port}`, flags: 'S' });
      seen.add(backendOf('tcp', `${client}:${port}`));
    }
    expect(seen.size).toBe(4);
    expect(bench.lab.affinityUsed()).toEqual([]);
  });
});

it('serves a backend that is this node itself', async () => {
  serveOn(bench, 'tcp', vip, [{ at: IP[4].up, local: true }]);
  expect(await send('tcp', { flags: 'S' })).toMatchObject({
    action: 'pass',
    data: buildPacket({ proto: 'tcp', from: CLIENT, to: `${IP[4].up}:8080`, flags: 'S' }),
  });
  expect(await bench.run('egress', { proto: 'tcp', from: `${IP[4].up}:8080`, to: CLIENT, flags: 'SA' })).toMatchObject({
    reason: 'REPLY_LOCAL',
    data: buildPacket({ proto: 'tcp', from: VIP, to: CLIENT, flags: 'SA' }),
  });
  expect(bench.lab.flow(tuple('tcp', CLIENT, VIP))!.to.daddr).toBe(IP[4].up as Address);
});

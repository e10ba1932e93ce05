/** The ways that packets have just gone: they spare the routing table, and follow it all the same. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { joinEndpoint } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, serveOn, startBench } from './packet-bench.ts';
import type { Bench, Hook, Result } from './packet-bench.ts';

let bench: Bench;

beforeAll(async () => {
  bench = await startBench('ways');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

interface Met extends Result {
  readonly neighbour: string | undefined;
}

const send = async (hook: Hook, packet: PacketSpec): Promise<Met> => ({ ...(await bench.run(hook, packet)), neighbour: bench.neighbour() });

/** Runs it until the outcome is the one, for 3 s at most: a way holds for about one. */
async function until(done: (result: Met) => boolean, run: () => Promise<Met>): Promise<Met> {
  const end = performance.now() + 3_000;
  for (;;) {
    const result = await run();
    if (done(result) || performance.now() > end) return result;
  }
}

describe.each([4, 6] as const)('over IPv%s', (family) => {
  const ip = IP[family];
  const route = (what: string): void => bench.lab.ip(bench.node, `route ${what}`);
  const request = (more: Partial<PacketSpec> = {}): PacketSpec => ({
    proto: 'udp',
    from: joinEndpoint(ip.client, 40_000),
    to: joinEndpoint(ip.vip, 80),
    ...more,
  });
  const remote = (): void => serveOn(bench, 'udp', ip.vip, [{ at: ip.remote, local: false }]);

  it('the kernel is asked for the neighbour now and then, and not in between', async () => {
    remote();
    const asked = await until(
      ({ neighbour }) => neighbour === undefined,
      () => send('tc', request()),
    );
    expect(asked).toMatchObject({ action: 'redirect' });
    expect(asked.neighbour).toBeUndefined();
    const known = await until(
      ({ neighbour }) => neighbour !== undefined,
      () => send('tc', request()),
    );
    expect(known).toMatchObject({ action: 'redirect', reason: 'REMOTE', neighbour: bench.toNode2.destination });
    expect(known.data).toEqual(asked.data);
  });

  it('a packet too long for the way is answered, though a shorter one has just gone it', async () => {
    remote();
    const long = request({ payload: Array<number>(1_480).fill(0x61), macs: { source: bench.toRouter.destination, destination: bench.toRouter.source } });
    await until(
      ({ neighbour }) => neighbour !== undefined,
      () => send('tc', request()),
    );
    expect(await send('tc', long)).toMatchObject({ action: 'redirect', reason: 'TOO_BIG' });
    await send('xdp', request());
    expect(await send('xdp', long)).toMatchObject({ action: 'pass', reason: 'TO_TC' });
  });

  it.each(['tc', 'xdp'] as const)('a route that changes is followed, from %s', async (hook) => {
    remote();
    expect(await send(hook, request())).toMatchObject({ action: 'redirect' });
    expect(await send(hook, request())).toMatchObject({ action: 'redirect', reason: 'REMOTE' });
    const bits = family === 4 ? 32 : 128;
    route(`add blackhole ${ip.remote}/${bits}`);
    try {
      const gone = await until(
        ({ action }) => action !== 'redirect',
        () => send(hook, request()),
      );
      expect(gone).toMatchObject(hook === 'tc' ? { action: 'drop', reason: 'DROP_NO_ROUTE' } : { action: 'pass', reason: 'TO_TC' });
    } finally {
      route(`del blackhole ${ip.remote}/${bits}`);
    }
    expect(
      await until(
        ({ action }) => action === 'redirect',
        () => send(hook, request()),
      ),
    ).toMatchObject({ action: 'redirect', reason: 'REMOTE' });
  });

  it('other addresses have ways of their own', async () => {
    remote();
    await send('tc', request());
    await until(
      ({ neighbour }) => neighbour !== undefined,
      () => send('tc', request()),
    );
    serveOn(bench, 'udp', ip.vip2, [{ at: ip.blackhole, local: false }]);
    expect(await send('tc', request({ to: joinEndpoint(ip.vip2, 80) }))).toMatchObject({ action: 'drop', reason: 'DROP_NO_ROUTE' });
  });
});

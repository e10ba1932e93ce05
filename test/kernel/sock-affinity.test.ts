/** sessionAffinity: ClientIP for sockets, whose client is their network namespace. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parseAddress } from '../../agent/model/address.ts';
import { LOCAL, SERVICE_FLAG, SERVING, SockLab, TCP, TERMINATING, UDP } from './sock-lab.ts';
import type { Affinity, Process } from './sock-lab.ts';

const VIP = '10.96.0.10';
const BACKENDS = ['10.1.0.1', '10.1.0.2', '10.1.0.3'];
const lab = new SockLab('aff');
let client: Process;

/** Dials, and gives the id of the backend that answered. */
async function dial(): Promise<number> {
  const { answer, error } = await client.tcp(VIP, 80);
  if (error !== undefined) throw new Error(error);
  return BACKENDS.indexOf(answer!) + 1;
}

async function dials(times: number): Promise<Set<number>> {
  const seen = new Set<number>();
  for (let i = 0; i < times; i++) seen.add(await dial());
  return seen;
}

function backend(id: number, flags: number): void {
  lab.backend(id, { address: BACKENDS[id - 1]!, port: 8080, service: 1, flags });
}

/** The one entry there is. */
function remembered(): Affinity {
  const entries = lab.affinities();
  expect(entries).toHaveLength(1);
  return entries[0]!;
}

beforeAll(async () => {
  const node = lab.namespace(
    'node',
    BACKENDS.map((address) => `${address}/32`),
  );
  client = lab.spawn(node, true);
  lab.start(0n);
  const server = lab.spawn(node, false);
  for (const address of BACKENDS) await server.ask({ op: 'serve', name: address, address, port: 8080 });
});
beforeEach(() => {
  for (const id of [1, 2, 3]) backend(id, SERVING);
  lab.service(1, { affinity: 100, cluster: { base: 0, members: [1, 2, 3] } });
  lab.frontend({ address: VIP, port: 80, proto: TCP, service: 1 });
});
afterAll(() => lab.close());

describe('affinity', () => {
  it('keeps a network namespace on one backend', async () => {
    const seen = await dials(20);
    expect(seen.size).toBe(1);
    const { answer: cookie } = await client.ask({ op: 'netns' });
    const groups = BigInt(cookie!)
      .toString(16)
      .padStart(16, '0')
      .replaceAll(/(?<=.)(?=(....)+$)/g, ':');
    expect(remembered()).toMatchObject({ service: 1, client: parseAddress(`ff00:0:0:0:${groups}`), backend: [...seen][0] });
  });

  it('holds for connected and unconnected UDP too', async () => {
    lab.frontend({ address: VIP, port: 80, proto: UDP, service: 1 });
    const expected = { answer: BACKENDS[(await dial()) - 1], peer: `${VIP}:80` };
    for (let id = 1; id <= 10; id++) {
      await client.ask({ op: 'udp.open', id, family: 4, ...(id % 2 ? { connect: { address: VIP, port: 80 } } : {}) });
      const to = id % 2 ? {} : { to: { address: VIP, port: 80 } };
      expect(await client.ask({ op: 'udp.send', id, ...to })).toEqual(expected);
      await client.ask({ op: 'udp.close', id });
    }
  });

  it('is refreshed by each connection and ends affinity_seconds after the last', async () => {
    const first = await dial();
    const { used } = remembered();
    lab.setAffinity({ ...remembered(), used: used - 90 });
    expect(await dial()).toBe(first);
    expect(remembered().used).toBeGreaterThanOrEqual(used);
    const seen = new Set<number>();
    for (let i = 0; i < 40; i++) {
      lab.setAffinity({ ...remembered(), used: remembered().used - 101 });
      seen.add(await dial());
    }
    expect(seen).toEqual(new Set([1, 2, 3]));
  });

  it('does not hold a client to a backend that left, and then keeps the new one', async () => {
    const gone = await dial();
    backend(gone, 0);
    lab.service(1, { affinity: 100, cluster: { base: 0, members: [1, 2, 3].filter((id) => id !== gone) } });
    const seen = await dials(10);
    expect(seen.size).toBe(1);
    expect(seen).not.toContain(gone);
  });

  it('leaves a backend that serves on, but is in the set no more', async () => {
    const out = await dial();
    backend(out, SERVING); // as a topology hint does that names another zone
    lab.service(1, { affinity: 100, cluster: { base: 0, members: [1, 2, 3].filter((id) => id !== out) } });
    expect(await dials(5)).not.toContain(out);
  });

  it('leaves a terminating backend when others are ready, and keeps it when all terminate', async () => {
    const leaving = await dial();
    backend(leaving, SERVING | TERMINATING);
    lab.service(1, { affinity: 100, cluster: { base: 0, members: [1, 2, 3].filter((id) => id !== leaving) } });
    const next = await dial();
    expect(next).not.toBe(leaving);

    for (const id of [1, 2, 3]) backend(id, SERVING | TERMINATING);
    lab.service(1, { affinity: 100, cluster: { base: 0, members: [1, 2, 3] } });
    expect(await dials(10)).toEqual(new Set([next]));
  });

  it('is kept within the Local set where that is the one in use', async () => {
    const first = await dial();
    const here = first === 1 ? 2 : 1;
    backend(here, SERVING | LOCAL);
    lab.service(1, {
      affinity: 100,
      flags: SERVICE_FLAG.internalLocal | SERVICE_FLAG.hasAny,
      cluster: { base: 0, members: [1, 2, 3] },
      local: { base: 8, members: [here] },
    });
    expect(await dials(3)).toEqual(new Set([here]));
  });

  it('remembers nothing for a service without it', async () => {
    lab.service(2, { cluster: { base: 16, members: [3] } });
    lab.backend(3, { address: BACKENDS[2]!, port: 8080, service: 2 });
    lab.frontend({ address: VIP, port: 80, proto: TCP, service: 2 });
    expect(await dial()).toBe(3);
    expect(lab.affinities().filter(({ service }) => service === 2)).toEqual([]);
  });
});

/** How sockets choose among backends, and how many of them each backend has. Real kernel, real sockets. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ALGORITHM, SockLab, TCP, UDP } from './sock-lab.ts';
import type { Process } from './sock-lab.ts';

const VIP = '10.96.0.10';
const OTHER_VIP = '10.96.0.11';
const PORT = 80;
const TARGET = 8080;
const ADDRESSES = ['10.1.0.1', '10.1.0.2', '10.1.0.3'];
/** Backends 1 to 3 are of service 1, 4 to 6 of service 2 on the other VIP, 7 to 9 of service 3, which is UDP. */
const [IDS, OTHER_IDS, UDP_IDS] = [
  [1, 2, 3],
  [4, 5, 6],
  [7, 8, 9],
] as const;

const lab = new SockLab('balance');
let node: string;
let client: Process;
let other: Process;

function fill(service: number, ids: readonly number[], algorithm: number): void {
  ids.forEach((id, i) => lab.backend(id, { address: ADDRESSES[i]!, port: TARGET, service }));
  // A table, as the planner writes one, that names but the first: whoever draws from it is found out.
  lab.service(service, { algorithm, cluster: { base: service * 100, members: ids, table: ids.map(() => ids[0]!) } });
}

beforeAll(async () => {
  node = lab.namespace(
    'node',
    ADDRESSES.map((address) => `${address}/32`),
  );
  client = lab.spawn(node, true);
  other = lab.spawn(node, true);
  const server = lab.spawn(node, false);
  lab.start(BigInt((await client.ask({ op: 'netns' })).answer!));
  for (const address of ADDRESSES) await server.ask({ op: 'serve', name: address, address, port: TARGET });
  lab.frontend({ address: VIP, port: PORT, proto: TCP, service: 1 });
  lab.frontend({ address: OTHER_VIP, port: PORT, proto: TCP, service: 2 });
  lab.frontend({ address: VIP, port: PORT, proto: UDP, service: 3 });
});
beforeEach(() => {
  for (const id of [...IDS, ...OTHER_IDS, ...UDP_IDS]) lab.setOpen(id, 0);
  return async () => {
    await client.ask({ op: 'tcp.drop' });
    await other.ask({ op: 'tcp.drop' });
  };
});
afterAll(() => lab.close());

/** So many connections that stay; who serves them, in order. */
async function hold(from: Process, count: number, address: string = VIP): Promise<string[]> {
  const { answer, error } = await from.ask({ op: 'tcp.hold', count, address, port: PORT });
  expect(error).toBeUndefined();
  return answer!.split(',');
}

const open = (ids: readonly number[] = IDS): number[] => ids.map((id) => lab.open(id));
const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

describe('round-robin', () => {
  it('goes around: after each comes the same next one, and none is left out', async () => {
    fill(1, IDS, ALGORITHM.roundRobin);
    const answers = await hold(client, 9);
    expect(new Set(answers.slice(0, 3))).toEqual(new Set(ADDRESSES));
    expect(answers.slice(3)).toEqual([...answers.slice(0, 3), ...answers.slice(0, 3)]);
  });

  it('gives each its share when many dial at once', async () => {
    fill(1, IDS, ALGORITHM.roundRobin);
    const answers = await Promise.all([client, other].flatMap((from) => Array.from({ length: 45 }, () => from.tcp(VIP, PORT))));
    for (const address of ADDRESSES) expect(answers.filter(({ answer }) => answer === address)).toHaveLength(30);
  });

  it('has a turn for each service', async () => {
    fill(1, IDS, ALGORITHM.roundRobin);
    fill(2, OTHER_IDS, ALGORITHM.roundRobin);
    const answers: string[] = [];
    for (let i = 0; i < 6; i++) {
      answers.push(...(await hold(client, 1)));
      await hold(client, i, OTHER_VIP).catch(() => undefined);
    }
    expect(answers.slice(3)).toEqual(answers.slice(0, 3));
  });
});

describe('source-hash', () => {
  it('gives a network namespace one backend, of the table, and namespaces different ones', async () => {
    fill(1, IDS, ALGORITHM.sourceHash);
    expect(new Set(await hold(client, 10))).toEqual(new Set(['10.1.0.1']));
    lab.service(1, { algorithm: ALGORITHM.sourceHash, cluster: { base: 100, members: IDS } });
    const ofNode = new Set([...(await hold(client, 10)), ...(await hold(other, 10))]);
    expect(ofNode.size).toBe(1);
    // Pods without a route: what the hook chose is counted, whether or not it can be reached.
    const chosen = new Set<number>();
    for (let pod = 0; pod < 12; pod++) {
      const process = lab.spawn(lab.namespace(`pod${pod}`, []), true);
      const before = IDS.map((id) => lab.connections(id));
      for (let i = 0; i < 5; i++) expect(await process.tcp(VIP, PORT)).toEqual({ error: 'ENETUNREACH' });
      const grown = IDS.filter((id, i) => lab.connections(id) > before[i]!);
      expect(grown).toHaveLength(1);
      chosen.add(grown[0]!);
      await process.stop();
    }
    // All twelve the same by chance: once in 177,147 times.
    expect(chosen.size).toBeGreaterThan(1);
  });
});

describe('least-connections', () => {
  beforeEach(() => fill(1, IDS, ALGORITHM.leastConnections));

  it('keeps all backends nearly even', async () => {
    await hold(client, 30);
    expect(sum(open())).toBe(30);
    // Two are drawn at a time, so that the third may fall behind by a little.
    expect(Math.max(...open()) - Math.min(...open())).toBeLessThanOrEqual(3);
  });

  it('avoids the busy one, and comes back to it once its connections are closed', async () => {
    lab.service(1, { algorithm: ALGORITHM.leastConnections, cluster: { base: 100, members: [1] } });
    expect(new Set(await hold(other, 20))).toEqual(new Set(['10.1.0.1']));
    fill(1, IDS, ALGORITHM.leastConnections);
    expect(await hold(client, 24)).not.toContain('10.1.0.1');
    expect(open()[0]).toBe(20);
    await other.ask({ op: 'tcp.drop' });
    expect(open()[0]).toBe(0);
    // Now it is the idle one: whenever it is drawn it is chosen, until it has as many as the others.
    expect(await hold(client, 12)).toContain('10.1.0.1');
    await client.ask({ op: 'tcp.drop' });
    expect(open()).toEqual([0, 0, 0]);
  });

  it('chooses the only member there is', async () => {
    lab.service(1, { algorithm: ALGORITHM.leastConnections, cluster: { base: 100, members: [2] } });
    expect(await hold(client, 3)).toEqual(['10.1.0.2', '10.1.0.2', '10.1.0.2']);
  });

  it('does not disturb another service with the same endpoints', async () => {
    fill(2, OTHER_IDS, ALGORITHM.random);
    const before = OTHER_IDS.map((id) => lab.connections(id));
    await hold(client, 12);
    expect(open(OTHER_IDS)).toEqual([0, 0, 0]);
    expect(OTHER_IDS.map((id) => lab.connections(id))).toEqual(before);
  });
});

describe('the count of open sockets', () => {
  beforeEach(() => fill(1, IDS, ALGORITHM.random));

  it('holds whatever the algorithm: a service that changes it knows who is busy', async () => {
    const answers = await hold(client, 20);
    expect(open()).toEqual(ADDRESSES.map((address) => answers.filter((answer) => answer === address).length));
  });

  it('lets go of what a killed process had open', async () => {
    const victim = lab.spawn(node, true);
    await hold(victim, 15);
    expect(sum(open())).toBe(15);
    await victim.stop();
    expect(open()).toEqual([0, 0, 0]);
  });

  it('lets go of connections that fail', async () => {
    const nobody = 10;
    lab.backend(nobody, { address: '10.1.0.1', port: TARGET + 1, service: 1 });
    lab.service(1, { cluster: { base: 100, members: [nobody] } });
    for (let i = 0; i < 5; i++) expect(await client.tcp(VIP, PORT)).toEqual({ error: 'ECONNREFUSED' });
    expect(lab.connections(nobody)).toBe(5);
    expect(lab.open(nobody)).toBe(0);
  });

  it('follows a UDP socket that connects again, to a VIP or elsewhere, and is closed', async () => {
    fill(3, UDP_IDS, ALGORITHM.roundRobin);
    const dial = (address: string, port: number) => client.ask({ op: 'udp.open', id: 1, family: 4, connect: { address, port } });
    const disconnect = () => client.ask({ op: 'udp.disconnect', id: 1 });
    await dial(VIP, PORT);
    const first = open(UDP_IDS);
    expect(sum(first)).toBe(1);
    await disconnect();
    await dial(VIP, PORT);
    expect(sum(open(UDP_IDS))).toBe(1);
    expect(open(UDP_IDS)).not.toEqual(first);
    await disconnect();
    await dial('10.1.0.1', TARGET);
    expect(open(UDP_IDS)).toEqual([0, 0, 0]);
    await disconnect();
    await dial(VIP, PORT);
    expect(sum(open(UDP_IDS))).toBe(1);
    await client.ask({ op: 'udp.close', id: 1 });
    expect(open(UDP_IDS)).toEqual([0, 0, 0]);
  });

  it('is put right by a recount, and by as much as is wrong', async () => {
    const answers = await hold(client, 12);
    const right = ADDRESSES.map((address) => answers.filter((answer) => answer === address).length);
    expect(await lab.recount()).toBe(0);
    expect(open()).toEqual(right);
    [right[0]! + 7, right[1]! + 1, -3].forEach((wrong, i) => lab.setOpen(IDS[i]!, wrong));
    lab.setOpen(OTHER_IDS[0], 5);
    expect(await lab.recount()).toBe(4);
    expect(open()).toEqual(right);
    expect(open(OTHER_IDS)).toEqual([0, 0, 0]);
    await client.ask({ op: 'tcp.drop' });
    expect(open()).toEqual([0, 0, 0]);
  });

  it('stands through a recount while sockets come and go', async () => {
    await hold(client, 10);
    const recounts = (async () => {
      for (let i = 0; i < 10; i++) await lab.recount();
    })();
    for (let i = 0; i < 5; i++) await Promise.all(Array.from({ length: 20 }, () => other.tcp(VIP, PORT)));
    await recounts;
    await lab.recount();
    expect(sum(open())).toBe(10);
    await client.ask({ op: 'tcp.drop' });
    expect(open()).toEqual([0, 0, 0]);
  });
});

/** Sockets that dial a VIP: what a program on the node or in a pod of it sees. Real kernel, real sockets. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ALGORITHM, FRONTEND_FLAG, KIND, LOCAL, NODE_FLAG, SERVICE_FLAG, SERVING, SockLab, TCP, UDP } from './sock-lab.ts';
import type { Process } from './sock-lab.ts';

/** One service in each family, with the same three servers behind TCP and UDP. */
const FAMILIES = [
  { name: 'IPv4', vip: '10.96.0.10', dial: '10.96.0.10', backends: ['10.1.0.1', '10.1.0.2', '10.1.0.3'], family: 4, base: 0 },
  { name: 'IPv6', vip: 'fd96::10', dial: 'fd96::10', backends: ['fd01::1', 'fd01::2', 'fd01::3'], family: 6, base: 100 },
  { name: 'v4-mapped', vip: '10.96.0.10', dial: '::ffff:10.96.0.10', backends: ['10.1.0.1', '10.1.0.2', '10.1.0.3'], family: 6, base: 0 },
] as const;
const PORT = 80;
const TARGET = 8080;
/** As no backend has it: a VIP whose service has no endpoints. */
const EMPTY = { 4: '10.96.0.20', 6: 'fd96::20' } as const;

const lab = new SockLab('dial');
let client: Process;
let pod: Process;
let server: Process;

/** Services 1 (TCP) and 2 (UDP), ids 1 to 3 and 4 to 6; in IPv6 100 more. */
function fill(): void {
  for (const { vip, backends, base } of FAMILIES.slice(0, 2)) {
    for (const [proto, service] of [
      [TCP, base + 1],
      [UDP, base + 2],
    ] as const) {
      const ids = backends.map((_, index) => base + (service - base - 1) * 3 + index + 1);
      backends.forEach((address, index) => lab.backend(ids[index]!, { address, port: TARGET, service }));
      lab.service(service, { cluster: { base: service * 8, members: ids } });
      lab.frontend({ address: vip, port: PORT, proto, service });
    }
  }
}

beforeAll(async () => {
  const addresses = [...FAMILIES[0].backends.map((a) => `${a}/32`), ...FAMILIES[1].backends.map((a) => `${a}/128`)];
  const node = lab.namespace('node', addresses);
  const other = lab.namespace('pod', []);
  client = lab.spawn(node, true);
  pod = lab.spawn(other, true);
  server = lab.spawn(node, false);
  lab.start(BigInt((await client.ask({ op: 'netns' })).answer!));
  for (const address of [...FAMILIES[0].backends, ...FAMILIES[1].backends]) {
    await server.ask({ op: 'serve', name: address, address, port: TARGET });
  }
});
beforeEach(fill);
afterAll(() => lab.close());

describe.each(FAMILIES)('$name', ({ vip, dial, backends, family }) => {
  const empty = EMPTY[vip.includes(':') ? 6 : 4];
  const mapped = dial.startsWith('::ffff:') ? '::ffff:' : '';

  it('connects TCP to a backend and shows the VIP as peer', async () => {
    let outcome;
    const counted = await lab.counted(async () => {
      outcome = await client.tcp(dial, PORT);
    });
    expect(outcome).toEqual({ answer: expect.toBeOneOf([...backends]), peer: `${dial}:${PORT}` });
    expect(counted).toEqual({ SOCK_TRANSLATED: 1 });
  });

  it('spreads TCP connections over all backends', async () => {
    const answers = await Promise.all(Array.from({ length: 60 }, () => client.tcp(dial, PORT)));
    expect(new Set(answers.map(({ answer }) => answer))).toEqual(new Set(backends));
  });

  it('connects UDP to a backend and shows the VIP as peer and as sender', async () => {
    expect(await client.ask({ op: 'udp.open', id: 1, family, connect: { address: dial, port: PORT } })).toEqual({ peer: `${dial}:${PORT}` });
    expect(await client.ask({ op: 'udp.send', id: 1 })).toEqual({ answer: expect.toBeOneOf([...backends]), peer: `${dial}:${PORT}` });
    await client.ask({ op: 'udp.close', id: 1 });
  });

  it('refuses TCP connect, UDP connect and UDP send when there are no endpoints', async () => {
    lab.service(50, {});
    for (const proto of [TCP, UDP]) lab.frontend({ address: empty, port: PORT, proto, service: 50 });
    const to = { address: mapped + empty, port: PORT };
    const counted = await lab.counted(async () => {
      expect(await client.tcp(to.address, to.port)).toEqual({ error: 'ECONNREFUSED' });
      expect(await client.ask({ op: 'udp.open', id: 2, family, connect: to })).toEqual({ error: 'ECONNREFUSED' });
      await client.ask({ op: 'udp.open', id: 3, family });
      expect(await client.ask({ op: 'udp.send', id: 3, to })).toEqual({ error: 'ECONNREFUSED' });
    });
    expect(counted).toEqual({ SOCK_REFUSED: 3 });
    for (const id of [2, 3]) await client.ask({ op: 'udp.close', id });
  });

  it('leaves other destinations alone', async () => {
    const to = { address: mapped + backends[1], port: TARGET };
    const counted = await lab.counted(async () => {
      expect(await client.tcp(to.address, to.port)).toEqual({ answer: backends[1], peer: `${to.address}:${TARGET}` });
      // A port of the VIP, and a protocol on its port, that no service has: no route, and no word of ours.
      expect(await client.tcp(dial, PORT + 1)).toEqual({ error: 'ENETUNREACH' });
      await client.ask({ op: 'udp.open', id: 4, family });
      expect(await client.ask({ op: 'udp.send', id: 4, to })).toEqual({ answer: backends[1], peer: `${to.address}:${TARGET}` });
    });
    expect(counted).toEqual({ SOCK_FOREIGN: 3 });
    await client.ask({ op: 'udp.close', id: 4 });
  });

  it('forgets the VIP of a UDP socket that is disconnected or connects elsewhere', async () => {
    const backend = { address: mapped + backends[0], port: TARGET };
    const toBackend = { answer: backends[0], peer: `${backend.address}:${TARGET}` };
    lab.service(vip.includes(':') ? 102 : 2, { cluster: { base: 900, members: [vip.includes(':') ? 104 : 4] } });
    await client.ask({ op: 'udp.open', id: 5, family, connect: { address: dial, port: PORT } });
    expect(await client.ask({ op: 'udp.send', id: 5 })).toEqual({ answer: backends[0], peer: `${dial}:${PORT}` });
    await client.ask({ op: 'udp.disconnect', id: 5 });
    expect(await client.ask({ op: 'udp.send', id: 5, to: backend })).toEqual(toBackend);
    expect(await client.ask({ op: 'udp.open', id: 5, family, connect: backend })).toEqual({ peer: toBackend.peer });
    expect(await client.ask({ op: 'udp.send', id: 5 })).toEqual(toBackend);
    await client.ask({ op: 'udp.close', id: 5 });
  });

  it('shows another VIP once the socket has connected to that, and its own address is never one', async () => {
    const [service, other] = vip.includes(':') ? [102, { address: 'fd96::11', seen: 'fd96::11' }] : [2, { address: '10.96.0.11', seen: `${mapped}10.96.0.11` }];
    lab.frontend({ address: other.address, port: PORT, proto: UDP, service });
    await client.ask({ op: 'udp.open', id: 8, family, connect: { address: dial, port: PORT } });
    for (const address of [other.seen, dial]) {
      await client.ask({ op: 'udp.disconnect', id: 8 });
      expect(await client.ask({ op: 'udp.open', id: 8, family, connect: { address, port: PORT } })).toEqual({ peer: `${address}:${PORT}` });
      expect(await client.ask({ op: 'udp.send', id: 8 })).toEqual({ answer: expect.toBeOneOf([...backends]), peer: `${address}:${PORT}` });
      const { answer } = await client.ask({ op: 'udp.own', id: 8 });
      expect([...backends].map((backend) => mapped + backend)).toContain(answer);
    }
    await client.ask({ op: 'udp.close', id: 8 });
    lab.removeFrontend({ address: other.address, port: PORT, proto: UDP, service });
  });
});

describe('the choice', () => {
  it('is uniform over the members, also across a page of the ring', async () => {
    lab.service(1, { cluster: { base: 1022, members: [1, 2, 3] } });
    for (const id of [1, 2, 3]) lab.backend(id, { address: '10.1.0.1', port: TARGET, service: 1 });
    for (let batch = 0; batch < 6; batch++) await Promise.all(Array.from({ length: 100 }, () => client.tcp('10.96.0.10', PORT)));
    const shares = [1, 2, 3].map((id) => lab.connections(id));
    expect(shares.reduce((sum, share) => sum + share)).toBe(600);
    // 200 each, standard deviation 11.5: five of them.
    for (const share of shares) expect(Math.abs(share - 200)).toBeLessThan(58);
  });

  it('draws from the Maglev table where there is one', async () => {
    lab.service(1, { algorithm: ALGORITHM.maglev, cluster: { base: 2040, members: [1, 2, 3], table: [2, 2, 2, 2, 2] } });
    for (let i = 0; i < 10; i++) expect(await client.tcp('10.96.0.10', PORT)).toMatchObject({ answer: '10.1.0.2' });
    lab.service(1, { algorithm: ALGORITHM.maglev, cluster: { base: 2040, members: [3] } });
    expect(await client.tcp('10.96.0.10', PORT)).toMatchObject({ answer: '10.1.0.3' });
  });

  it('follows internalTrafficPolicy Local for a cluster IP only', async () => {
    lab.backend(2, { address: '10.1.0.2', port: TARGET, service: 1, flags: SERVING | LOCAL });
    const sets = { cluster: { base: 8, members: [1] }, local: { base: 16, members: [2] } };
    lab.service(1, { flags: SERVICE_FLAG.internalLocal | SERVICE_FLAG.externalLocal | SERVICE_FLAG.hasAny, ...sets });
    const external = { address: '203.0.113.5', port: PORT, proto: TCP, service: 1 };
    expect(await client.tcp('10.96.0.10', PORT)).toMatchObject({ answer: '10.1.0.2' });
    for (const kind of [KIND.nodePort, KIND.externalIP, KIND.loadBalancer]) {
      lab.frontend({ ...external, kind });
      expect(await client.tcp(external.address, PORT)).toMatchObject({ answer: '10.1.0.1' });
    }
    lab.removeFrontend(external);
  });

  it('refuses at once where policy Local finds nobody on this node', async () => {
    lab.service(1, { flags: SERVICE_FLAG.internalLocal | SERVICE_FLAG.hasAny, cluster: { base: 8, members: [1] } });
    const counted = await lab.counted(async () => {
      expect(await client.tcp('10.96.0.10', PORT)).toEqual({ error: 'ECONNREFUSED' });
    });
    expect(counted).toEqual({ DROP_NO_LOCAL: 1 });
  });
});

describe.each([
  ['IPv4', '203.0.113.5', NODE_FLAG.detectsV4, NODE_FLAG.detectsV6, '10.1.0.1', '10.1.0.2', 0],
  ['IPv6', 'fd20::5', NODE_FLAG.detectsV6, NODE_FLAG.detectsV4, 'fd01::1', 'fd01::2', 100],
] as const)('externalTrafficPolicy Local, %s', (_, address, detected, other, cluster, local, base) => {
  const service = base + 1;

  beforeEach(() => {
    lab.backend(base + 2, { address: local, port: TARGET, service, flags: SERVING | LOCAL });
    const sets = { cluster: { base: 8, members: [base + 1] }, local: { base: 16, members: [base + 2] } };
    lab.service(service, { flags: SERVICE_FLAG.externalLocal | SERVICE_FLAG.hasAny, ...sets });
    return () => lab.node(0);
  });

  /** The backend that was chosen: the pod has no route to any, so the counts tell. */
  const dial = async (from: Process, kind: number) => {
    const frontend = { address, port: PORT, proto: TCP, service, kind };
    lab.frontend(frontend);
    const before = [1, 2].map((id) => lab.connections(base + id));
    await from.tcp(address, PORT);
    lab.removeFrontend(frontend);
    const after = [1, 2].map((id) => lab.connections(base + id));
    return [cluster, local].filter((_, i) => after[i] !== before[i]);
  };

  it.each([KIND.nodePort, KIND.externalIP, KIND.loadBalancer])(
    'does not bind the node itself, nor a pod that can be told to be one (kind %d)',
    async (kind) => {
      for (const flags of [0, detected, other, NODE_FLAG.detectsDevice]) {
        lab.node(flags);
        expect(await dial(client, kind), `the node, flags ${flags}`).toEqual([cluster]);
        const told = flags === detected || flags === NODE_FLAG.detectsDevice;
        expect(await dial(pod, kind), `a pod, flags ${flags}`).toEqual([told ? cluster : local]);
      }
    },
  );

  it('does not bind a cluster IP', async () => {
    expect(await dial(pod, KIND.clusterIP)).toEqual([cluster]);
  });

  it('refuses a pod that cannot be told when no endpoint is on this node', async () => {
    lab.service(service, { flags: SERVICE_FLAG.externalLocal | SERVICE_FLAG.hasAny, cluster: { base: 8, members: [base + 1] } });
    const frontend = { address, port: PORT, proto: TCP, service, kind: KIND.loadBalancer };
    lab.frontend(frontend);
    expect(await lab.counted(async () => expect(await pod.tcp(address, PORT)).toEqual({ error: 'ECONNREFUSED' }))).toEqual({ DROP_NO_LOCAL: 1 });
    expect(await client.tcp(address, PORT)).toMatchObject({ answer: cluster });
    lab.removeFrontend(frontend);
  });
});

describe('a frontend with source ranges', () => {
  it.each(FAMILIES)('is left to the packet path, over TCP and UDP, connected or not: $name', async ({ vip, dial, family }) => {
    const flags = FRONTEND_FLAG.sourceRanges;
    for (const proto of [TCP, UDP]) lab.frontend({ address: vip, port: PORT, proto, service: proto === TCP ? 1 : 2, kind: KIND.loadBalancer, flags });
    const to = { address: dial, port: PORT };
    const counted = await lab.counted(async () => {
      // No route leads to the VIP here: it is what the socket dials.
      expect(await client.tcp(dial, PORT)).toEqual({ error: 'ENETUNREACH' });
      expect(await client.ask({ op: 'udp.open', id: 6, family, connect: to })).toEqual({ error: 'ENETUNREACH' });
      await client.ask({ op: 'udp.open', id: 7, family });
      expect(await client.ask({ op: 'udp.send', id: 7, to })).toEqual({ error: 'ENETUNREACH' });
    });
    expect(counted).toEqual({ SOCK_FOREIGN: 3 });
    for (const id of [6, 7]) await client.ask({ op: 'udp.close', id });
  });
});

describe('a frontend for the node alone', () => {
  it.each([
    ['127.0.0.1', '0.0.0.0', '10.1.0.1', 1],
    ['::1', '::', 'fd01::1', 101],
  ] as const)('serves the node at %s and at %s, and leaves a pod its own loopback', async (loopback, any, backend, service) => {
    lab.service(service, { cluster: { base: 8, members: [service] } });
    const frontend = { address: loopback, port: 30080, proto: TCP, service, kind: KIND.nodePort, flags: FRONTEND_FLAG.hostOnly };
    lab.frontend(frontend);
    for (const address of [loopback, any]) expect(await client.tcp(address, 30080)).toMatchObject({ answer: backend });
    await pod.ask({ op: 'serve', name: 'its own', address: loopback, port: 30080 });
    const counted = await lab.counted(async () => {
      expect(await pod.tcp(loopback, 30080)).toEqual({ answer: 'its own', peer: `${loopback}:30080` });
    });
    expect(counted).toEqual({ SOCK_FOREIGN: 1 });
    lab.removeFrontend(frontend);
  });
});

describe('maps that point at nothing', () => {
  it.each([
    ['a frontend without a service', () => lab.frontend({ address: '10.96.0.10', port: PORT, proto: TCP, service: 77 })],
    ['a zero in the ring', () => lab.service(1, { cluster: { base: 3000, members: [0] } })],
    ['an id beyond the backends', () => lab.service(1, { cluster: { base: 3000, members: [0xffffffff] } })],
    ['a set beyond the ring', () => lab.moveSet(1, 0xfffffff0)],
    ['a backend of another service', () => lab.service(1, { cluster: { base: 3000, members: [4] } })],
    ['an IPv6 backend for an IPv4 VIP', () => lab.backend(1, { address: 'fd01::1', port: TARGET, service: 1 })],
  ])('%s is refused and counted', async (_, spoil) => {
    lab.service(1, { cluster: { base: 8, members: [1] } });
    spoil();
    const counted = await lab.counted(async () => {
      expect(await client.tcp('10.96.0.10', PORT)).toEqual({ error: 'ECONNREFUSED' });
    });
    expect(counted).toEqual({ SOCK_INCONSISTENT: 1 });
  });
});

/** UDP sockets that name a destination with each datagram: resolvers, syslog, QUIC. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { SERVING, SockLab, UDP } from './sock-lab.ts';
import type { Process } from './sock-lab.ts';

const PORT = 53;
const TARGET = 5353;
const lab = new SockLab('udp');
let client: Process;
let socket = 0;

const FAMILIES = [
  { name: 'IPv4', vips: ['10.96.0.10', '10.96.0.11'], backends: ['10.1.0.1', '10.1.0.2'], family: 4, mapped: '' },
  { name: 'IPv6', vips: ['fd96::10', 'fd96::11'], backends: ['fd01::1', 'fd01::2'], family: 6, mapped: '' },
  { name: 'v4-mapped', vips: ['10.96.0.10', '10.96.0.11'], backends: ['10.1.0.1', '10.1.0.2'], family: 6, mapped: '::ffff:' },
] as const;

beforeAll(async () => {
  const node = lab.namespace('node', ['10.1.0.1/32', '10.1.0.2/32', 'fd01::1/128', 'fd01::2/128']);
  client = lab.spawn(node, true);
  lab.start(0n);
  const server = lab.spawn(node, false);
  for (const address of ['10.1.0.1', '10.1.0.2', 'fd01::1', 'fd01::2']) {
    await server.ask({ op: 'serve', name: address, address, port: TARGET });
  }
});
afterAll(() => lab.close());

describe.each(FAMILIES)('$name', ({ vips, backends, family, mapped }) => {
  const [first, second] = vips.map((vip) => mapped + vip) as [string, string];

  /** Both VIPs lead to the same two backends, ids 1 and 2. */
  beforeEach(async () => {
    backends.forEach((address, index) => lab.backend(index + 1, { address, port: TARGET, service: 1 }));
    lab.service(1, { cluster: { base: 0, members: [1, 2] } });
    for (const address of vips) lab.frontend({ address, port: PORT, proto: UDP, service: 1 });
    await client.ask({ op: 'udp.open', id: ++socket, family });
    return async () => {
      await client.ask({ op: 'udp.close', id: socket });
    };
  });

  const send = (vip: string) => client.ask({ op: 'udp.send', id: socket, to: { address: vip, port: PORT } });
  const from = (vip: string, answer: unknown = expect.toBeOneOf([...backends])) => ({ answer, peer: `${vip}:${PORT}` });

  it('hears from the VIP, and from the same backend while it serves', async () => {
    const one = await send(first);
    expect(one).toEqual(from(first));
    const counted = await lab.counted(async () => {
      for (let i = 0; i < 19; i++) expect(await send(first)).toEqual(one);
    });
    expect(counted).toEqual({ SOCK_TRANSLATED: 19 });
    expect(lab.connections(1) + lab.connections(2)).toBe(1);
  });

  it('leaves a backend that stops serving at the next datagram', async () => {
    const gone = (await send(first)).answer!;
    const id = backends.indexOf(gone as never) + 1;
    const other = backends[2 - id]!;
    lab.backend(id, { address: gone, port: TARGET, service: 1, flags: 0 });
    lab.service(1, { cluster: { base: 8, members: [3 - id] } });
    for (let i = 0; i < 5; i++) expect(await send(first)).toEqual(from(first, other));
  });

  it("leaves a backend whose id has become another service's", async () => {
    const gone = (await send(first)).answer!;
    const id = backends.indexOf(gone as never) + 1;
    lab.backend(id, { address: gone, port: TARGET, service: 9, flags: SERVING });
    lab.service(1, { cluster: { base: 8, members: [3 - id] } });
    expect(await send(first)).toEqual(from(first, backends[2 - id]));
  });

  it('is refused once the last backend is gone, and goes on when there is one again', async () => {
    await send(first);
    backends.forEach((address, index) => lab.backend(index + 1, { address, port: TARGET, service: 1, flags: 0 }));
    lab.service(1, {});
    expect(await send(first)).toEqual({ error: 'ECONNREFUSED' });
    lab.backend(2, { address: backends[1], port: TARGET, service: 1 });
    lab.service(1, { cluster: { base: 8, members: [2] } });
    expect(await send(first)).toEqual(from(first, backends[1]));
  });

  it('goes to no backend of a frontend that was removed, and to a new one when it is another Service', async () => {
    lab.service(1, { cluster: { base: 8, members: [1] } });
    expect(await send(first)).toEqual(from(first, backends[0]));
    for (const address of vips) lab.removeFrontend({ address, port: PORT, proto: UDP, service: 1 });
    // Backend 1 serves still, and the map remembers it; but no route leads to a VIP that is nobody's.
    const counted = await lab.counted(async () => expect(await send(first)).toEqual({ error: 'ENETUNREACH' }));
    expect(counted).toEqual({ SOCK_FOREIGN: 1 });
    lab.backend(3, { address: backends[1], port: TARGET, service: 2 });
    lab.service(2, { cluster: { base: 16, members: [3] } });
    lab.frontend({ address: vips[0], port: PORT, proto: UDP, service: 2 });
    for (let i = 0; i < 5; i++) expect(await send(first)).toEqual(from(first, backends[1]));
  });

  it('tells two VIPs of one backend apart by who was asked last', async () => {
    lab.service(1, { cluster: { base: 8, members: [1] } });
    for (const vip of [first, second, first, second]) expect(await send(vip)).toEqual(from(vip, backends[0]));
  });

  it('heals when the map has evicted one half of a conversation', async () => {
    const one = await send(first);
    expect(lab.forgetUdpPeers('reply')).toBeGreaterThan(0);
    expect(await send(first)).toEqual(one);
    expect(lab.forgetUdpPeers('forward')).toBeGreaterThan(0);
    expect(await send(first)).toEqual(from(first));
  });
});

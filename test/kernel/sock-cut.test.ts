/** Connected UDP sockets: which the kernel says came through the hooks, which of them are cut loose, and what their owners see. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import ipaddr from 'ipaddr.js';
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { findNamespaces } from '../../agent/dataplane/namespaces.ts';
import native from '../../native/index.js';
import { SERVING, SockLab, TCP, UDP } from './sock-lab.ts';
import type { Process } from './sock-lab.ts';

const PORT = 53;
const TARGET = 5353;
const FAMILIES = [
  { name: 'IPv4', vip: '10.96.0.10', dial: '10.96.0.10', backends: ['10.1.0.1', '10.1.0.2'], family: 4, base: 0 },
  { name: 'IPv6', vip: 'fd96::10', dial: 'fd96::10', backends: ['fd01::1', 'fd01::2'], family: 6, base: 100 },
  { name: 'v4-mapped', vip: '10.96.0.10', dial: '::ffff:10.96.0.10', backends: ['10.1.0.1', '10.1.0.2'], family: 6, base: 0 },
] as const;
const ADDRESSES = ['10.1.0.1', '10.1.0.2', 'fd01::1', 'fd01::2'];
const AF = { 4: 2, 6: 10 } as const;
const RECORD = 104;

const lab = new SockLab('cut');
/** The node's namespace and a pod's look alike here: each has the backends on its own loopback device. */
const namespaces: Record<string, string> = {};
const processes: Record<string, Process> = {};
let cut = 0;
const told: string[] = [];
const log = { info: () => undefined, warn: (message: string, fields?: object) => void told.push(`${message} ${JSON.stringify(fields)}`) };
const cutter = () => lab.cutter((sockets) => (cut += sockets), log);
let socket = 0;

beforeAll(async () => {
  for (const name of ['node', 'pod']) {
    namespaces[name] = lab.namespace(
      name,
      ADDRESSES.map((address) => `${address}/${address.includes(':') ? 128 : 32}`),
    );
    processes[name] = lab.spawn(namespaces[name], true);
  }
  lab.start(BigInt((await processes['node']!.ask({ op: 'netns' })).answer!));
  for (const netns of Object.values(namespaces)) {
    const server = lab.spawn(netns, false);
    for (const address of ADDRESSES) await server.ask({ op: 'serve', name: address, address, port: TARGET });
  }
});
afterAll(() => lab.close());

/** Service 1, backends 1 and 2, of which the first is chosen; in IPv6 100 more. */
beforeEach(() => {
  cut = 0;
  told.length = 0;
  for (const { vip, backends, base } of FAMILIES.slice(0, 2)) {
    backends.forEach((address, i) => lab.backend(base + i + 1, { address, port: TARGET, service: base + 1 }));
    lab.service(base + 1, { cluster: { base: base * 8, members: [base + 1] } });
    for (const proto of [TCP, UDP]) lab.frontend({ address: vip, port: PORT, proto, service: base + 1 });
  }
});

/** The first backend serves no more, the second takes over. */
function leave({ backends, base }: { readonly backends: readonly string[]; readonly base: number }): void {
  lab.service(base + 1, { cluster: { base: base * 8 + 4, members: [base + 2] } });
  lab.backend(base + 1, { address: backends[0]!, port: TARGET, service: base + 1, flags: 0 });
}

/** A socket for the length of a test, connected or not. */
async function open(where: string, family: 4 | 6, address?: string, port: number = PORT): Promise<number> {
  const id = ++socket;
  const { error } = await processes[where]!.ask({ op: 'udp.open', id, family, ...(address === undefined ? {} : { connect: { address, port } }) });
  if (error !== undefined) throw new Error(error);
  onTestFinished(async () => {
    await processes[where]!.ask({ op: 'udp.close', id });
  });
  return id;
}

const send = (where: string, id: number) => processes[where]!.ask({ op: 'udp.send', id });

/** One record, by the layout of abi.h, which is repeated here: the tests are a second witness of it. */
function readRecord(records: Uint8Array, index: number) {
  const bytes = records.slice(index * RECORD, (index + 1) * RECORD);
  const view = new DataView(bytes.buffer);
  const address = (at: number): string => {
    const parsed = ipaddr.fromByteArray([...bytes.subarray(at, at + 16)]) as ipaddr.IPv6;
    return (parsed.isIPv4MappedAddress() ? parsed.toIPv4Address() : parsed).toString();
  };
  const family = view.getUint32(4, true);
  return {
    netns: view.getUint32(0, true),
    family,
    dport: view.getUint16(10),
    dst: family === AF[4] ? bytes.subarray(28, 32).join('.') : address(28),
    vip: address(56),
    addr: address(72),
    vipPort: view.getUint16(88),
    port: view.getUint16(90),
    service: view.getUint32(92, true),
    backend: view.getUint32(96, true),
    id: bytes.subarray(4, 56),
  };
}

async function dialled() {
  const records = await lab.dialled();
  expect(records.length % RECORD).toBe(0);
  return Array.from({ length: records.length / RECORD }, (_, i) => readRecord(records, i));
}

/** As this family's sockets write the address of the service's first backend. */
const direct = ({ dial, backends }: (typeof FAMILIES)[number]): string => (dial.startsWith('::ffff:') ? '::ffff:' : '') + backends[0];

describe('the iterator', () => {
  it.each(FAMILIES)('tells a connected socket, its namespace and its peer: $name', async ({ vip, dial, backends, family, base }) => {
    for (const where of ['node', 'pod']) {
      const before = await dialled();
      await open(where, family, dial);
      expect((await dialled()).filter(({ netns }) => netns === statSync(`/run/netns/${namespaces[where]}`).ino)).toEqual([
        {
          netns: expect.any(Number),
          family: AF[family],
          dport: TARGET,
          dst: backends[0],
          vip,
          addr: backends[0],
          vipPort: PORT,
          port: TARGET,
          service: base + 1,
          backend: base + 1,
          id: expect.any(Uint8Array),
        },
      ]);
      expect(await dialled()).toHaveLength(before.length + 1);
    }
  });

  it.each(FAMILIES)('leaves out whatever else there is: $name', async (service) => {
    const { dial, family } = service;
    const node = processes['node']!;
    const [disconnected, moved, failed] = [await open('node', family, dial), await open('node', family, dial), await open('node', family)];
    await open('node', family, direct(service), TARGET);
    expect(await dialled()).toHaveLength(2);
    for (const id of [disconnected, moved]) await node.ask({ op: 'udp.disconnect', id });
    expect(await node.ask({ op: 'udp.open', id: moved, family, connect: { address: direct(service), port: TARGET } })).toEqual({
      peer: `${direct(service)}:${TARGET}`,
    });
    // The hook has chosen, and then no route leads there.
    lab.backend(1, { address: '198.51.100.1', port: TARGET, service: 1 });
    lab.backend(101, { address: 'fd99::1', port: TARGET, service: 101 });
    expect(await node.ask({ op: 'udp.open', id: failed, family, connect: { address: dial, port: PORT } })).toEqual({ error: 'ENETUNREACH' });
    await node.tcp(dial, PORT);
    expect(await dialled()).toEqual([]);
  });
});

describe.each(['node', 'pod'])('a socket of a %s', (where) => {
  it.each(FAMILIES)('hears ECONNABORTED once it is ended, and can connect again: $name', async (service) => {
    const id = await open(where, service.family, service.dial);
    const [record] = await dialled();
    const wrong = record!.id.slice();
    wrong[44]! ^= 1; // the cookie: another socket with the same addresses
    const file = `/run/netns/${namespaces[where]}`;
    expect(await native.destroyUdp(wrong, file)).toBe(0);
    expect(await native.destroyUdp(record!.id, `/run/netns/${namespaces[where === 'node' ? 'pod' : 'node']}`)).toBe(0);
    expect(await send(where, id)).toMatchObject({ answer: service.backends[0] });
    expect(await native.destroyUdp(record!.id, file)).toBe(1);
    expect(await processes[where]!.ask({ op: 'udp.error', id })).toEqual({ error: 'ECONNABORTED' });
    expect(await native.destroyUdp(record!.id, file)).toBe(0);
    await processes[where]!.ask({ op: 'udp.disconnect', id });
    leave(service);
    expect(await processes[where]!.ask({ op: 'udp.open', id, family: service.family, connect: { address: service.dial, port: PORT } })).toEqual({
      peer: `${service.dial}:${PORT}`,
    });
    expect(await send(where, id)).toMatchObject({ answer: service.backends[1] });
  });

  it.each(FAMILIES)('is cut loose from a backend that serves no more, and no other is: $name', async (service) => {
    const others = FAMILIES.filter(({ base }) => base !== service.base);
    const mine = await open(where, service.family, service.dial);
    const kept = await Promise.all([...others.map(({ family, dial }) => open(where, family, dial)), open(where, service.family, direct(service), TARGET)]);
    leave(service);
    const one = cutter();
    one.soon();
    expect(await processes[where]!.ask({ op: 'udp.error', id: mine })).toEqual({ error: 'ECONNABORTED' });
    await one.stop();
    expect(cut).toBe(1);
    for (const id of kept) expect((await send(where, id)).error).toBeUndefined();
    expect(told).toEqual([]);
  });
});

describe('what counts as lost', () => {
  const VIP = FAMILIES[0].vip;
  const frontend = { address: VIP, port: PORT, proto: UDP, service: 1 };
  const other = (service: number, ...flags: number[]) =>
    flags.forEach((flag, i) => lab.backend(50 + i, { address: FAMILIES[0].backends[0], port: TARGET, service, flags: flag }));

  it.each<[string, () => void, boolean]>([
    ['nothing has changed', () => undefined, false],
    ['the backend is in no set, but serves', () => lab.service(1, { cluster: { base: 4, members: [2] } }), false],
    ['the backend does not serve', () => lab.backend(1, { address: '10.1.0.1', port: TARGET, service: 1, flags: 0 }), true],
    ['its slot has been cleared', () => lab.backend(1, { address: '::', port: 0, service: 0, flags: 0 }), true],
    ['its slot is another endpoint of the Service', () => lab.backend(1, { address: '10.1.0.2', port: TARGET, service: 1 }), true],
    ['its slot is of another port', () => lab.backend(1, { address: '10.1.0.1', port: TARGET + 1, service: 1 }), true],
    ["its slot is another Service's", () => lab.backend(1, { address: '10.1.0.1', port: TARGET, service: 7 }), true],
    [
      'it has come back in another slot',
      () => {
        lab.backend(1, { address: '10.1.0.1', port: TARGET, service: 1, flags: 0 });
        other(1, SERVING);
      },
      false,
    ],
    ['the frontend is gone', () => lab.removeFrontend(frontend), true],
    ["the frontend is another Service's", () => lab.frontend({ ...frontend, service: 7 }), true],
    [
      'the Service has been made anew, with the same endpoint',
      () => {
        lab.frontend({ ...frontend, service: 7 });
        other(7, SERVING);
      },
      false,
    ],
    [
      'the Service has been made anew, and the endpoint does not serve it',
      () => {
        lab.frontend({ ...frontend, service: 7 });
        other(7, 0);
      },
      true,
    ],
  ])('%s', async (_, change, isLost) => {
    onTestFinished(() => lab.backend(50, { address: '::', port: 0, service: 0, flags: 0 }));
    const [id, sentinel] = [await open('pod', 4, VIP), await open('pod', 6, FAMILIES[1].vip)];
    change();
    leave(FAMILIES[1]);
    const one = cutter();
    one.soon();
    // Both are judged in one pass.
    expect(await processes['pod']!.ask({ op: 'udp.error', id: sentinel })).toEqual({ error: 'ECONNABORTED' });
    await one.stop();
    expect(cut).toBe(isLost ? 2 : 1);
    expect(await dialled()).toHaveLength(isLost ? 0 : 1);
    if (isLost) expect(await processes['pod']!.ask({ op: 'udp.error', id })).toEqual({ error: 'ECONNABORTED' });
    else expect(await send('pod', id)).toMatchObject({ answer: '10.1.0.1' });
  });
});

describe('network namespaces', () => {
  it('are found by name, and those without one by the processes in the cgroup; each can be entered', async () => {
    const nameless = spawn('/bin/sh', ['-c', 'echo $$ > "$0/cgroup.procs" && exec unshare --net sh -c "echo in; exec sleep 60"', lab.cgroup], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(async () => {
      nameless.kill();
      await once(nameless, 'exit');
    });
    await once(nameless.stdout, 'data');
    const found = await findNamespaces(lab.cgroup);
    const inode = (path: string): number => statSync(path).ino;
    expect(found.get(inode(`/proc/${nameless.pid}/ns/net`))).toBe(`/proc/${nameless.pid}/ns/net`);
    expect(found.get(inode('/proc/self/ns/net'))).toBeUndefined();
    expect(found.has(inode('/proc/self/ns/net'))).toBe(true);
    for (const name of Object.values(namespaces)) {
      const file = found.get(inode(`/run/netns/${name}`))!;
      expect(inode(file)).toBe(inode(`/run/netns/${name}`));
      expect(await native.destroyUdp(new Uint8Array(), file)).toBe(0);
    }
    await expect(native.destroyUdp(new Uint8Array(), '/run/netns/nobody-has-this')).rejects.toMatchObject({
      code: 'ENOENT',
      subject: '/run/netns/nobody-has-this',
    });
    await expect(native.destroyUdp(new Uint8Array(), '/proc/self/ns/mnt')).rejects.toMatchObject({ name: 'BpfError', code: 'EINVAL' });
  });
});

describe('without CAP_SYS_ADMIN', () => {
  /** Ends a socket of the node as a process of the node without the capability would, in its own namespace or by file. */
  const end = (id: Uint8Array, namespace?: string): string => {
    const script = `import(${JSON.stringify(new URL('../../native/index.js', import.meta.url).pathname)}).then(({ default: native }) =>
      native.destroyUdp(Uint8Array.from(${JSON.stringify([...id])}), ${JSON.stringify(namespace)})).then(console.log, (error) => console.log(error.message))`;
    const drop = ['setpriv', '--bounding-set=-sys_admin', '--inh-caps=-sys_admin'];
    const { stdout, stderr } = spawnSync('nsenter', [`--net=/run/netns/${namespaces['node']}`, ...drop, process.execPath, '-e', script], { encoding: 'utf8' });
    return stdout.trim() || stderr;
  };

  it("the process's own namespace is served, and others are refused by name", async () => {
    const id = await open('node', 4, FAMILIES[0].vip);
    await open('pod', 4, FAMILIES[0].vip);
    const pod = `/run/netns/${namespaces['pod']}`;
    const of = async (where: string) => (await dialled()).find(({ netns }) => netns === statSync(`/run/netns/${namespaces[where]}`).ino)!.id;
    expect(end(await of('pod'), pod)).toBe(`destroy_udp ${pod}: EPERM (Operation not permitted)`);
    expect(end(await of('node'))).toBe('1');
    expect(await processes['node']!.ask({ op: 'udp.error', id })).toEqual({ error: 'ECONNABORTED' });
    expect(await dialled()).toHaveLength(1);
  });
});

import type { ChildProcess } from 'node:child_process';
import { fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import type { BpfObject, Interface, LinkInfo, Native } from '../../native/index.js';
import native from '../../native/index.js';
import { cgroup2, hasTcx } from '../support/lab/kernel.ts';
import { bpffsFolder, cleanUp, compile, removeBpffsFolder, removeFolder, run, temporaryFolder, thrownBy } from './fixtures/native.ts';

/** BPF_LINK_TYPE_* and BPF_* attach types. */
const CGROUP_LINK = 3;
const XDP_LINK = 6;
const TCX_LINK = 11;
const CONNECT4 = 10;
const XDP = 37;
const TCX_INGRESS = 46;
const TCX_EGRESS = 47;

const name = `mg-native-${process.pid}`;
const cgroup = `${cgroup2()}/${name}`;

let folder: string;
let pins: string;
let object: BpfObject;
let memory: Uint32Array;
let child: ChildProcess;
/** The two ends of one cable, both inside: what is sent from `near` arrives at `far`. */
let near: number;
let far: number;

/** Calls a function of the addon inside the namespace. */
async function inside<K extends keyof Native>(called: K, ...args: Parameters<Native[K]>): Promise<ReturnType<Native[K]>> {
  child.send([called, ...args]);
  const [answer] = (await once(child, 'message')) as [{ value: ReturnType<Native[K]>; error?: object }];
  if (answer.error) throw Object.assign(new Error(), answer.error);
  return answer.value;
}

/** A program's descriptor in the process inside. */
const program = async (of: string): Promise<number> => (await inside('openPin', `${pins}/${of}`))!;

/** How often the XDP and the tc program have run. */
const counted = (): { xdp: number; tc: number } => ({ xdp: memory[0]!, tc: memory[2 * 4]! });

/** Sends one UDP datagram over the cable; the neighbour is static, so it is the only packet. It arrives before this returns. */
function send(): void {
  run('nsenter', `--net=/run/netns/${name}`, 'bash', '-c', 'echo -n hello > /dev/udp/10.99.0.9/9');
}

/** How many packets the two programs see of one that is sent. */
function seen(): { xdp: number; tc: number } {
  const before = counted();
  send();
  return { xdp: counted().xdp - before.xdp, tc: counted().tc - before.tc };
}

beforeAll(async () => {
  folder = temporaryFolder();
  pins = bpffsFolder('links');
  object = native.open(compile(folder, 'native', readFileSync(new URL('fixtures/native.bpf.c', import.meta.url), 'utf8')));
  object.load();
  memory = new Uint32Array(native.mapMmap(object.mapFd('memory')));
  for (const pinned of object.programs()) native.pin(object.programFd(pinned), `${pins}/${pinned}`);
  mkdirSync(cgroup);

  const ip = (...args: string[]) => run('ip', '-n', name, ...args);
  run('ip', 'netns', 'add', name);
  run('nsenter', `--net=/run/netns/${name}`, 'sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1');
  ip('link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'far');
  ip('addr', 'add', '10.99.0.1/24', 'dev', 'near');
  for (const end of ['near', 'far']) ip('link', 'set', end, 'up');
  ip('neigh', 'add', '10.99.0.9', 'lladdr', '02:00:00:00:00:09', 'dev', 'near');

  child = fork(new URL('fixtures/native.inside.ts', import.meta.url).pathname, [], {
    execPath: 'nsenter',
    execArgv: [`--net=/run/netns/${name}`, process.execPath],
    serialization: 'advanced',
  });
  const index = new Map((await inside('interfaces')).map((device) => [device.name, device.index]));
  near = index.get('near')!;
  far = index.get('far')!;
});

afterAll(async () => {
  if (child?.connected) {
    child.disconnect();
    await once(child, 'exit');
  }
  cleanUp(
    () => object.close(),
    () => removeBpffsFolder(pins),
    () => rmdirSync(cgroup),
    () => run('ip', 'netns', 'del', name),
    () => removeFolder(folder),
  );
});

describe('a device', () => {
  let links: number[] = [];

  afterEach(async () => {
    for (const link of links) await inside('close', link);
    links = [];
  });

  test.each([['native'], ['generic']] as const)('gets an XDP program (%s), another in its place, and none', async (mode) => {
    expect(seen().xdp).toBe(0);
    const link = await inside('linkXdp', await program('xdp_mark'), far, mode);
    links.push(link);
    expect(seen().xdp).toBe(1);
    expect(run('ip', '-n', name, 'link', 'show', 'far')).toContain(mode === 'native' ? ' xdp ' : ' xdpgeneric ');
    expect(await inside('linkInfo', link)).toEqual({
      id: expect.any(Number),
      type: XDP_LINK,
      programId: native.programInfo(object.programFd('xdp_mark')).id,
      ifindex: far,
      attachType: XDP,
    });

    await expect(inside('linkXdp', await program('xdp_drop'), far, mode)).rejects.toMatchObject({
      operation: 'link_xdp',
      code: 'EBUSY',
      subject: 'far',
      message: 'link_xdp far: EBUSY (another XDP program holds the device)',
    });

    await inside('linkUpdate', link, await program('xdp_drop'));
    expect(seen().xdp).toBe(0);
    expect(((await inside('linkInfo', link)) as LinkInfo).programId).toBe(native.programInfo(object.programFd('xdp_drop')).id);
    await inside('linkUpdate', link, await program('xdp_mark'));
    expect(seen().xdp).toBe(1);

    await inside('linkDetach', link);
    expect(seen().xdp).toBe(0);
    expect(await inside('linkInfo', link)).toMatchObject({ ifindex: 0 });
  });

  test('keeps a pinned link when its maker has closed it; any process can take it up, update and detach it', async () => {
    const path = `${pins}/link`;
    const made = await inside('linkXdp', await program('xdp_mark'), far, 'native');
    await inside('pin', made, path);
    await inside('close', made);
    expect(seen().xdp).toBe(1);
    const link = native.openPin(path)!;
    native.linkUpdate(link, object.programFd('xdp_drop'));
    expect(seen().xdp).toBe(0);
    native.linkUpdate(link, object.programFd('xdp_mark'));
    expect(seen().xdp).toBe(1);
    native.linkDetach(link);
    native.close(link);
    expect(seen().xdp).toBe(0);
  });

  test.each([
    ['ingress', 'far', TCX_INGRESS],
    ['egress', 'near', TCX_EGRESS],
  ] as const)('gets a tcx program at %s', async (direction, device, attachType) => {
    const ifindex = device === 'far' ? far : near;
    const attached = inside('linkTcx', await program('tc_count'), ifindex, direction);
    if (!hasTcx()) {
      await expect(attached).rejects.toMatchObject({ operation: 'link_tcx', code: 'EINVAL' });
      return;
    }
    const link = await attached;
    links.push(link);
    expect(seen().tc).toBe(1);
    expect(await inside('linkInfo', link)).toMatchObject({ type: TCX_LINK, ifindex, attachType });
    await inside('linkUpdate', link, await program('tc_drop'));
    expect(seen().tc).toBe(0);
    await inside('linkUpdate', link, await program('tc_count'));
    expect(seen().tc).toBe(1);
    await inside('linkDetach', link);
    expect(seen().tc).toBe(0);
  });

  test.each([
    ['ingress', 'far'],
    ['egress', 'near'],
  ] as const)('gets a clsact filter at %s, replaced in place, and removed alone', async (direction, device) => {
    const ifindex = device === 'far' ? far : near;
    const id = (of: string) => native.programInfo(object.programFd(of)).id;
    expect(await inside('clsactQuery', ifindex, direction, 1, 50)).toBe(0);
    expect(await inside('clsactDetach', ifindex, direction, 1, 50)).toBe(false);
    await inside('clsactAttach', await program('tc_count'), ifindex, direction, 1, 50);
    expect(seen().tc).toBe(1);
    expect(await inside('clsactQuery', ifindex, direction, 1, 50)).toBe(id('tc_count'));
    expect(await inside('clsactQuery', ifindex, direction, 2, 50)).toBe(0);
    expect(await inside('clsactQuery', ifindex, direction, 1, 51)).toBe(0);

    await inside('clsactAttach', await program('tc_drop'), ifindex, direction, 1, 50);
    expect(await inside('clsactQuery', ifindex, direction, 1, 50)).toBe(id('tc_drop'));
    expect(seen().tc).toBe(0);

    await inside('clsactAttach', await program('tc_count'), ifindex, direction, 1, 60);
    expect(await inside('clsactDetach', ifindex, direction, 1, 50)).toBe(true);
    expect(await inside('clsactDetach', ifindex, direction, 1, 50)).toBe(false);
    expect(seen().tc).toBe(1);
    expect(await inside('clsactDetach', ifindex, direction, 1, 60)).toBe(true);
    expect(seen().tc).toBe(0);
  });

  test('that is not there, or a program of another kind, is an error with its name', async () => {
    const [xdp, tc] = [await program('xdp_mark'), await program('tc_count')];
    await expect(inside('linkXdp', xdp, 4242, 'native')).rejects.toMatchObject({ subject: 'ifindex 4242' });
    await expect(inside('linkTcx', tc, 4242, 'ingress')).rejects.toMatchObject({ operation: 'link_tcx', subject: 'ifindex 4242' });
    await expect(inside('clsactAttach', tc, 4242, 'ingress', 1, 1)).rejects.toMatchObject({ operation: 'clsact_attach', code: 'ENODEV' });
    await expect(inside('clsactQuery', 4242, 'ingress', 1, 1)).rejects.toMatchObject({ code: 'ENODEV' });
    await expect(inside('linkXdp', tc, far, 'native')).rejects.toMatchObject({ operation: 'link_xdp', code: 'EINVAL', subject: 'far' });
    await expect(inside('clsactAttach', xdp, far, 'ingress', 1, 1)).rejects.toMatchObject({ operation: 'clsact_attach', subject: 'far' });
  });
});

describe('a cgroup', () => {
  /** Whether a process in the cgroup may connect a UDP socket. */
  const connects = (): boolean =>
    spawnSync('bash', ['-c', `echo $$ > ${cgroup}/cgroup.procs && exec 3<>/dev/udp/127.0.0.1/9`], { stdio: 'ignore' }).status === 0;

  test('gets a program, another in its place, and none', () => {
    expect(connects()).toBe(true);
    const link = native.linkCgroup(object.programFd('connect_refuse'), cgroup, 'connect4');
    expect(connects()).toBe(false);
    expect(native.linkInfo(link)).toMatchObject({ type: CGROUP_LINK, ifindex: 0, attachType: CONNECT4 });
    native.linkUpdate(link, object.programFd('connect_allow'));
    expect(connects()).toBe(true);
    native.linkUpdate(link, object.programFd('connect_refuse'));
    expect(connects()).toBe(false);
    native.linkDetach(link);
    expect(connects()).toBe(true);
    native.close(link);
  });

  test('keeps a pinned link', () => {
    const link = native.linkCgroup(object.programFd('connect_refuse'), cgroup, 'connect4');
    native.pin(link, `${pins}/connect4`);
    native.close(link);
    expect(connects()).toBe(false);
    const again = native.openPin(`${pins}/connect4`)!;
    native.linkUpdate(again, object.programFd('connect_allow'));
    expect(connects()).toBe(true);
    native.linkDetach(again);
    native.close(again);
  });

  test('that is not there, or a program for another hook, is an error with its path', () => {
    const refuse = object.programFd('connect_refuse');
    expect(thrownBy(() => native.linkCgroup(refuse, `${cgroup}/none`, 'connect4'))).toMatchObject({
      operation: 'link_cgroup',
      code: 'ENOENT',
      subject: `${cgroup}/none`,
    });
    expect(thrownBy(() => native.linkCgroup(refuse, folder, 'connect4')).subject).toBe(folder);
    expect(thrownBy(() => native.linkCgroup(refuse, '/etc/hostname', 'connect4')).code).toBe('ENOTDIR');
    expect(thrownBy(() => native.linkCgroup(refuse, cgroup, 'connect6')).code).toBe('EINVAL');
  });
});

describe('a network namespace', () => {
  test('has its own devices, told as ip tells them', async () => {
    run('ip', '-n', name, 'addr', 'add', '10.98.0.1/16', 'dev', 'far', 'label', 'far:x');
    run('ip', '-n', name, 'addr', 'add', '10.97.0.1', 'peer', '10.97.0.2/31', 'dev', 'far');
    run('nsenter', `--net=/run/netns/${name}`, 'sysctl', '-qw', 'net.ipv6.conf.far.disable_ipv6=0');
    run('ip', '-n', name, 'addr', 'add', 'fd00:99::1/64', 'dev', 'far', 'nodad');
    run('ip', '-n', name, 'link', 'set', 'far', 'mtu', '9000');
    const told = (await inside('interfaces')) as Interface[];
    const expected = JSON.parse(run('ip', '-n', name, '-j', 'addr')) as {
      ifname: string;
      ifindex: number;
      mtu: number;
      flags: string[];
      address: string;
      addr_info: { local: string; prefixlen: number }[];
    }[];
    expect(told).toEqual(
      expected.map((device) => ({
        name: device.ifname,
        index: device.ifindex,
        mtu: device.mtu,
        up: device.flags.includes('UP'),
        loopback: device.flags.includes('LOOPBACK'),
        mac: device.ifname === 'lo' ? '' : device.address,
        driver: device.ifname === 'lo' ? '' : 'veth',
        ethernet: true,
        master: 0,
        peerElsewhere: false,
        addresses: device.addr_info.map((address) => `${address.local}/${address.prefixlen}`),
      })),
    );
    expect(told.find((device) => device.name === 'far')).toMatchObject({
      mtu: 9000,
      addresses: expect.arrayContaining(['10.98.0.1/16', '10.97.0.1/31', 'fd00:99::1/64']),
    });
  });

  test('tells bridges from their ports, and whose other end is elsewhere', async () => {
    const elsewhere = `${name}-2`;
    run('ip', 'netns', 'add', elsewhere);
    onTestFinished(() => void run('ip', 'netns', 'del', elsewhere));
    run('ip', '-n', name, 'link', 'add', 'br0', 'type', 'bridge');
    run('ip', '-n', name, 'link', 'add', 'pod0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', elsewhere);
    run('ip', '-n', name, 'link', 'set', 'pod0', 'master', 'br0');
    const told = new Map(((await inside('interfaces')) as Interface[]).map((device) => [device.name, device]));
    expect(told.get('br0')).toMatchObject({ driver: 'bridge', master: 0, peerElsewhere: false });
    expect(told.get('pod0')).toMatchObject({ driver: 'veth', master: told.get('br0')!.index, peerElsewhere: true });
    expect(told.get('near')).toMatchObject({ peerElsewhere: false });

    expect(await inside('deleteInterface', told.get('br0')!.index)).toBeUndefined();
    expect(run('ip', '-n', name, 'link')).not.toContain('br0:');
    await expect(inside('deleteInterface', told.get('br0')!.index)).rejects.toMatchObject({ message: expect.stringContaining('ENODEV') });
  });

  test('has its own cookie', async () => {
    expect(native.netnsCookie()).toBe(native.netnsCookie());
    expect(await inside('netnsCookie')).not.toBe(native.netnsCookie());
  });
});

test('a lock has one holder, until its descriptor is closed', async () => {
  for (const path of [folder, `${folder}/native.bpf.c`]) {
    const held = native.lock(path)!;
    expect(held).toBeGreaterThan(2);
    expect(native.lock(path)).toBeUndefined();
    expect(await inside('lock', path)).toBeUndefined();
    native.close(held);
    const elsewhere = (await inside('lock', path))!;
    expect(native.lock(path)).toBeUndefined();
    await inside('close', elsewhere);
    native.close(native.lock(path)!);
  }
  expect(thrownBy(() => native.lock(`${folder}/none`))).toMatchObject({ operation: 'lock', code: 'ENOENT' });
});

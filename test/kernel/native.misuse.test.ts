import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { BpfObject, Native } from '../../native/index.js';
import native from '../../native/index.js';
import { cleanUp, compile, removeFolder, temporaryFolder, thrownBy, u32 } from './fixtures/native.ts';

let folder: string;
let path: string;
let object: BpfObject;
let foreign: number;

beforeAll(() => {
  folder = temporaryFolder();
  path = compile(folder, 'native', readFileSync(new URL('fixtures/native.bpf.c', import.meta.url), 'utf8'));
  object = native.open(path);
  object.load();
  foreign = openSync('/dev/null', 'r');
});

afterAll(() =>
  cleanUp(
    () => closeSync(foreign),
    () => object.close(),
    () => removeFolder(folder),
  ),
);

function detached(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
}

const noNumber = ['1', null, {}, 1n, true, Symbol('1')];
const noWhole = [1.5, NaN, Infinity, -1, 2 ** 53];
const noText = ['', 'with\0nul', 'x'.repeat(70_000), 7, null, undefined, {}];

/** What an argument may be, and what it may not: each wrong value alone must be refused before the kernel is asked. */
type Slot = { right: () => unknown; wrong: () => unknown[] };

const bytes = (right: () => Uint8Array): Slot => ({
  right,
  wrong: () => [
    new Uint8Array(right().length + 1),
    right().subarray(1),
    new Uint8Array(0),
    detached(right().length),
    new Uint16Array(right().length),
    new DataView(right().slice().buffer),
    right().slice().buffer,
    [...right()],
    'bytes',
    null,
    5,
  ],
});
const mapOf = (name: string): Slot => ({
  right: () => object.mapFd(name),
  wrong: () => [undefined, ...noNumber, ...noWhole, 2 ** 31, foreign, object.programFd('xdp_mark')],
});
const programOf = (name: string): Slot => ({
  right: () => object.programFd(name),
  wrong: () => [undefined, ...noNumber, ...noWhole, 2 ** 31, foreign, object.mapFd('table')],
});
const text = (right: () => string): Slot => ({ right, wrong: () => noText });
const choice = (right: string): Slot => ({ right: () => right, wrong: () => ['', 'Native', `${right} `, `${right}\0`, 7, null, undefined] });
const count = (right: number): Slot => ({ right: () => right, wrong: () => [undefined, ...noNumber, ...noWhole, 2 ** 32] });
const device: Slot = { right: () => 4242, wrong: () => [undefined, ...noNumber, ...noWhole, 0, 2 ** 31] };
const link: Slot = { right: () => -1, wrong: () => [undefined, ...noNumber, ...noWhole, foreign, object.mapFd('table')] };

const key = bytes(() => u32(1));
const value = bytes(() => new Uint8Array(12));
const table = mapOf('table');

const functions: Partial<Record<keyof Native, Slot[]>> = {
  open: [text(() => path)],
  mapInfo: [table],
  mapLookup: [table, key, value],
  mapUpdate: [table, key, value, { right: () => 0, wrong: () => [3, ...noNumber, ...noWhole] }],
  mapDelete: [table, key],
  mapNextKey: [table, key, key],
  mapUpdateBatch: [table, bytes(() => u32(1, 2)), bytes(() => new Uint8Array(24)), count(2)],
  mapDeleteBatch: [table, bytes(() => u32(1, 2)), count(2)],
  mapEntries: [table, { right: () => 10, wrong: () => [0, 2 ** 20 + 1, ...noNumber, ...noWhole] }],
  mapCount: [table],
  mapMmap: [mapOf('memory')],
  pin: [{ right: () => object.mapFd('table'), wrong: () => [undefined, ...noNumber, ...noWhole, foreign] }, text(() => `${folder}/pin`)],
  openPin: [text(() => `${folder}/pin`)],
  close: [{ right: () => -1, wrong: () => [undefined, ...noNumber, ...noWhole, foreign, 0, 1, 2] }],
  dup: [{ right: () => -1, wrong: () => [undefined, ...noNumber, ...noWhole, foreign] }],
  programInfo: [programOf('xdp_mark')],
  linkInfo: [link],
  linkCgroup: [programOf('connect_allow'), text(() => folder), choice('connect4')],
  linkXdp: [programOf('xdp_mark'), device, choice('native')],
  linkTcx: [programOf('tc_count'), device, choice('ingress')],
  linkUpdate: [link, programOf('xdp_mark')],
  linkDetach: [link],
  clsactAttach: [programOf('tc_count'), device, choice('ingress'), count(1), count(1)],
  clsactQuery: [device, choice('ingress'), count(1), { right: () => 1, wrong: () => [0, 65_536] }],
  clsactDetach: [device, choice('egress'), { right: () => 1, wrong: () => [0] }, count(1)],
  testRun: [
    programOf('xdp_mark'),
    {
      right: () => ({ data: new Uint8Array(64) }),
      wrong: () => [
        undefined,
        null,
        7,
        {},
        { data: [1] },
        { data: new Uint8Array(2 ** 20) },
        ...[0, -1, 1.5, '1', 2 ** 31].map((repeat) => ({ data: new Uint8Array(64), repeat })),
        ...[-1, 0.5, 2 ** 32].map((flags) => ({ data: new Uint8Array(64), flags })),
        ...[-1, 2 ** 20 + 1].map((room) => ({ data: new Uint8Array(64), room })),
        { data: new Uint8Array(64), ctx: new Uint8Array(4097) },
        { data: new Uint8Array(64), ctx: 'none' },
      ],
    },
  ],
  ringBuffer: [mapOf('events'), { right: () => () => {}, wrong: () => [undefined, null, {}, 'function'] }],
  watchInterfaces: [{ right: () => () => {}, wrong: () => [undefined, null, {}, 'function'] }],
  deleteInterface: [device],
  lock: [text(() => `${folder}/none`)],
  iterate: [programOf('xdp_mark'), mapOf('table')],
  destroyUdp: [
    { right: () => new Uint8Array(52), wrong: () => [new Uint8Array(51), new Uint16Array(52), 'ids', null, undefined] },
    { right: () => undefined, wrong: () => noText.filter((wrong) => wrong !== undefined) },
  ],
};

describe('a wrong argument throws a TypeError or a RangeError', () => {
  const cases = Object.entries(functions).flatMap(([name, slots]) => slots.map((slot, at) => ({ name, at, slot, slots })));
  test.each(cases)('$name, argument $at', ({ name, at, slot, slots }) => {
    const called = native[name as keyof Native] as (...args: unknown[]) => unknown;
    for (const [i, wrong] of slot.wrong().entries()) {
      const args = slots.map((other, slotAt) => (slotAt === at ? wrong : other.right()));
      const error = thrownBy(() => called(...args));
      expect(['TypeError', 'RangeError'], `wrong value ${i} gave ${String(error)}`).toContain(error.name);
    }
  });

  test('covers every function that takes one', () => {
    const without = ['interfaces', 'netnsCookie', 'nftChains', 'possibleCpus', 'releaseMemory'];
    expect([...Object.keys(functions), ...without].sort()).toEqual(Object.keys(native).sort());
  });

  test('and says which, and what would be right', () => {
    const of = (action: () => unknown) => thrownBy(action).message;
    const fd = object.mapFd('table');
    expect(of(() => native.mapLookup(fd, new Uint8Array(5), new Uint8Array(12)))).toBe('map_lookup: table: key must have 4 bytes, not 5');
    expect(of(() => native.mapUpdate(fd, 'k' as never, new Uint8Array(12)))).toBe('map_update: key must be a Uint8Array');
    expect(of(() => native.mapInfo(object.programFd('xdp_mark')))).toMatch(/^map_info: fd \d+ must be a BPF map, but is a BPF program$/);
    expect(of(() => native.linkXdp(object.programFd('xdp_mark'), 4242, 'fast' as never))).toBe('link_xdp: mode must be one of native, generic, not "fast"');
    expect(of(() => native.clsactQuery(0, 'ingress', 1, 1))).toBe('clsact_query: ifindex must be a whole number from 1 to 2147483647, not 0');
    expect(of(() => native.pin(fd, ''))).toBe('pin: path must have 1 to 4095 bytes, not 0');
  });
});

describe('a closed descriptor', () => {
  test('is EBADF wherever it is used', () => {
    const fd = native.dup(object.mapFd('table'));
    native.close(fd);
    const calls = [
      () => native.mapInfo(fd),
      () => native.mapLookup(fd, u32(1), new Uint8Array(12)),
      () => native.mapUpdate(fd, u32(1), new Uint8Array(12)),
      () => native.mapDelete(fd, u32(1)),
      () => native.mapNextKey(fd, undefined, u32(1)),
      () => native.mapEntries(fd),
      () => native.mapCount(fd),
      () => native.mapMmap(fd),
      () => native.mapUpdateBatch(fd, u32(1), new Uint8Array(12), 1),
      () => native.mapDeleteBatch(fd, u32(1), 1),
      () => native.pin(fd, `/sys/fs/bpf/mg-native-closed-${process.pid}`),
      () => native.dup(fd),
      () => native.close(fd),
      () => native.programInfo(fd),
      () => native.linkInfo(fd),
      () => native.linkDetach(fd),
      () => native.linkUpdate(fd, fd),
      () => native.testRun(fd, { data: new Uint8Array(64) }),
      () => native.ringBuffer(fd, () => {}),
      () => native.iterate(fd, fd),
      () => native.linkXdp(fd, 4242, 'native'),
      () => native.linkTcx(fd, 4242, 'ingress'),
      () => native.linkCgroup(fd, folder, 'connect4'),
      () => native.clsactAttach(fd, 4242, 'ingress', 1, 1),
    ];
    for (const call of calls) expect(thrownBy(call), String(call)).toMatchObject({ name: 'BpfError', code: 'EBADF' });
  });
});

describe('a method', () => {
  test('called on anything but an object of the addon is a TypeError', () => {
    for (const self of [{}, null, undefined, 7, native, new Proxy(object, {}), Object.create(object)]) {
      expect(
        thrownBy(() => object.maps.call(self as never)),
        String(self),
      ).toBeInstanceOf(TypeError);
      expect(
        thrownBy(() => object.load.call(self as never)),
        String(self),
      ).toBeInstanceOf(TypeError);
    }
  });

  test('with a wrong argument is a TypeError or RangeError', () => {
    const fresh = native.open(path);
    for (const wrong of noText) {
      for (const name of ['mapFd', 'programFd', 'mapInfo', 'setMaxEntries', 'reuseMap', 'setAutoload'] as const) {
        const called = fresh[name] as (...args: unknown[]) => unknown;
        expect(['TypeError', 'RangeError'], `${name}(${String(wrong)})`).toContain(thrownBy(() => called.call(fresh, wrong, 1)).name);
      }
    }
    for (const wrong of [...noNumber, ...noWhole, 0, 2 ** 32]) {
      expect(['TypeError', 'RangeError']).toContain(thrownBy(() => fresh.setMaxEntries('table', wrong as never)).name);
    }
    expect(thrownBy(() => fresh.setAutoload('xdp_mark', 1 as never))).toBeInstanceOf(TypeError);
    expect(thrownBy(() => fresh.reuseMap('table', foreign))).toBeInstanceOf(TypeError);
    fresh.close();
  });
});

test('arguments drawn at random throw at worst', () => {
  const fuzz = new URL('fixtures/native.fuzz.ts', import.meta.url).pathname;
  const { status, signal, stdout, stderr } = spawnSync('unshare', ['--net', process.execPath, fuzz, path, '5000'], { encoding: 'utf8' });
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
  const { returned, thrown } = JSON.parse(stdout) as { returned: number; thrown: number };
  expect(returned).toBeGreaterThan(100);
  expect(thrown).toBeGreaterThan(1000);
});

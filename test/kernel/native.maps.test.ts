import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import type { BpfObject } from '../../native/index.js';
import native from '../../native/index.js';
import { asU32, asU64, bpffsFolder, cleanUp, compile, removeBpffsFolder, removeFolder, temporaryFolder, thrownBy, u32, u64 } from './fixtures/native.ts';

const HASH = 1;
const ARRAY = 2;
const NO_PREALLOC = 1;
const MMAPABLE = 1 << 10;

let folder: string;
let pins: string;
let object: BpfObject;
const fd = (map: string): number => object.mapFd(map);

beforeAll(() => {
  folder = temporaryFolder();
  pins = bpffsFolder('maps');
  object = native.open(compile(folder, 'native', readFileSync(new URL('fixtures/native.bpf.c', import.meta.url), 'utf8')));
  for (const program of object.programs()) object.setAutoload(program, false);
  object.load();
});

afterAll(() =>
  cleanUp(
    () => object.close(),
    () => removeBpffsFolder(pins),
    () => removeFolder(folder),
  ),
);

describe('one entry', () => {
  test('is written, read, replaced, found by order, and deleted', () => {
    const value = new Uint8Array(12);
    expect(native.mapLookup(fd('table'), u32(5), value)).toBe(false);
    native.mapUpdate(fd('table'), u32(5), u32(1, 2, 3));
    expect(native.mapLookup(fd('table'), u32(5), value)).toBe(true);
    expect(asU32(value)).toEqual([1, 2, 3]);
    native.mapUpdate(fd('table'), u32(5), u32(4, 5, 6), 2);
    native.mapLookup(fd('table'), u32(5), value);
    expect(asU32(value)).toEqual([4, 5, 6]);

    const next = new Uint8Array(4);
    expect(native.mapNextKey(fd('table'), undefined, next)).toBe(true);
    expect(asU32(next)).toEqual([5]);
    expect(native.mapNextKey(fd('table'), u32(5), next)).toBe(false);

    expect(native.mapDelete(fd('table'), u32(5))).toBe(true);
    expect(native.mapDelete(fd('table'), u32(5))).toBe(false);
    expect(native.mapNextKey(fd('table'), undefined, next)).toBe(false);
  });

  test('is written only if new, or only if there, when asked so', () => {
    native.mapUpdate(fd('table'), u32(1), u32(1, 1, 1), 1);
    const there = thrownBy(() => native.mapUpdate(fd('table'), u32(1), u32(2, 2, 2), 1));
    expect(there).toMatchObject({ name: 'BpfError', operation: 'map_update', code: 'EEXIST', errno: 17, subject: 'table', log: '' });
    expect(there.message).toBe('map_update table: EEXIST (the key is already there)');
    native.mapDelete(fd('table'), u32(1));
    expect(thrownBy(() => native.mapUpdate(fd('table'), u32(1), u32(2, 2, 2), 2)).code).toBe('ENOENT');
  });

  test('of a per-CPU map holds a value for each possible CPU, each rounded up to 8 bytes', () => {
    const cpus = native.possibleCpus();
    const all = new Uint8Array(16 * cpus).map((_, i) => (i % 16 < 12 ? i + 1 : 0));
    for (const map of ['per_cpu', 'per_cpu_table']) {
      native.mapUpdate(fd(map), u32(2), all);
      const read = new Uint8Array(16 * cpus);
      expect(native.mapLookup(fd(map), u32(2), read)).toBe(true);
      expect(read).toEqual(all);
      expect(thrownBy(() => native.mapLookup(fd(map), u32(2), new Uint8Array(12 * cpus)))).toBeInstanceOf(RangeError);
    }
  });

  test('is found by the longest prefix', () => {
    native.mapUpdate(fd('prefixes'), new Uint8Array([8, 0, 0, 0, 10, 0, 0, 0]), u64(8n));
    native.mapUpdate(fd('prefixes'), new Uint8Array([16, 0, 0, 0, 10, 1, 0, 0]), u64(16n));
    const value = new Uint8Array(8);
    expect(native.mapLookup(fd('prefixes'), new Uint8Array([32, 0, 0, 0, 10, 1, 2, 3]), value)).toBe(true);
    expect(asU64(value)).toEqual([16n]);
  });
});

describe('a full map', () => {
  test('refuses one more entry with a line that says so', () => {
    for (let key = 0; key < 64; key++) native.mapUpdate(fd('table'), u32(key), u32(key, 0, 0));
    const error = thrownBy(() => native.mapUpdate(fd('table'), u32(64), u32(0, 0, 0)));
    expect(error).toMatchObject({ code: 'E2BIG', errno: 7, subject: 'table' });
    expect(error.message).toBe('map_update table: E2BIG (no room: the map is full)');
    expect(native.mapDeleteBatch(fd('table'), u32(...Array(64).keys()), 64)).toBe(64);
  });

  test('stops a batch in the middle and says how far it came', () => {
    const keys = u32(...Array(80).keys());
    const values = new Uint8Array(80 * 12);
    const error = thrownBy(() => native.mapUpdateBatch(fd('table'), keys, values, 80));
    expect(error).toMatchObject({ operation: 'map_update_batch', code: 'E2BIG', done: 64 });
    expect(native.mapEntries(fd('table')).count).toBe(64);
    // Keys that are not there are stepped over, wherever they stand.
    expect(native.mapDeleteBatch(fd('table'), u32(900, ...Array(64).keys(), 901, 902), 67)).toBe(64);
    expect(native.mapDeleteBatch(fd('table'), u32(1, 2), 2)).toBe(0);
    expect(native.mapEntries(fd('table'))).toEqual({ keys: new Uint8Array(0), values: new Uint8Array(0), count: 0 });
  });
});

describe('many entries', () => {
  test.each(['big_table', 'recent', 'plain_array'])('of %s are written in a batch and read back whole', (map) => {
    const { maxEntries } = native.mapInfo(fd(map));
    const count = map === 'recent' ? maxEntries / 4 : maxEntries; // an LRU evicts before it is full
    const keys = u32(...Array(count).keys());
    const values = new Uint8Array(BigUint64Array.from({ length: count }, (_, i) => BigInt(i) * 3n).buffer);
    expect(native.mapUpdateBatch(fd(map), keys, values, count)).toBe(count);
    if (map !== 'plain_array') expect(native.mapCount(fd(map))).toBe(count);
    // A chunk of 1 is smaller than the fuller buckets of a hash map: the batch must grow by itself.
    for (const chunk of [undefined, 100, 1]) {
      const read = native.mapEntries(fd(map), chunk);
      expect(read.count).toBe(count);
      const found = asU32(read.keys);
      expect(new Set(found).size).toBe(count);
      expect(asU64(read.values)).toEqual(found.map((key) => BigInt(key) * 3n));
    }
  });

  test('of a map without batches are written and read one by one', () => {
    expect(native.mapUpdateBatch(fd('ports'), u32(7, 8, 9), u32(1, 1, 1), 3)).toBe(3);
    const read = native.mapEntries(fd('ports'));
    expect(asU32(read.keys).sort()).toEqual([7, 8, 9]);
    expect(asU32(read.values)).toEqual([1, 1, 1]);
    // No device has this index.
    const error = thrownBy(() => native.mapUpdateBatch(fd('ports'), u32(10, 11), u32(1, 0x7ffffff), 2));
    expect(error).toMatchObject({ code: 'EINVAL', done: 1 });
    expect(native.mapDeleteBatch(fd('ports'), u32(7, 100, 8, 9, 10), 5)).toBe(4);
    expect(native.mapEntries(fd('ports')).count).toBe(0);
  });

  test('of per-CPU and prefix maps are read with values of their own length', () => {
    const cpus = native.possibleCpus();
    const value = new Uint8Array(16 * cpus).fill(0);
    value.set(u32(7, 8, 9));
    native.mapUpdate(fd('per_cpu'), u32(3), value);
    const read = native.mapEntries(fd('per_cpu'));
    expect(read.count).toBe(4);
    expect(read.values.length).toBe(4 * 16 * cpus);
    const at = asU32(read.keys).indexOf(3) * 16 * cpus;
    expect(read.values.slice(at, at + 16 * cpus)).toEqual(value);

    native.mapUpdate(fd('prefixes'), new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0]), u64(1n));
    const prefixes = native.mapEntries(fd('prefixes'));
    expect(prefixes.keys.length).toBe(prefixes.count * 8);
    expect(asU64(prefixes.values)).toContain(1n);
  });

  test('may be none', () => {
    expect(native.mapUpdateBatch(fd('table'), new Uint8Array(0), new Uint8Array(0), 0)).toBe(0);
    expect(native.mapDeleteBatch(fd('table'), new Uint8Array(0), 0)).toBe(0);
  });
});

describe('a mapped array', () => {
  const read = (index: number): number[] => {
    const value = new Uint8Array(12);
    native.mapLookup(fd('memory'), u32(index), value);
    return asU32(value);
  };

  test('shows what system calls write, and they see what is written to it', () => {
    const buffer = native.mapMmap(fd('memory'));
    // 600 values of 12 bytes, 16 apart, fill three pages of which the last is not whole.
    expect(buffer.byteLength).toBe(3 * 4096);
    const words = new Uint32Array(buffer);
    native.mapUpdate(fd('memory'), u32(599), u32(11, 12, 13));
    expect(Array.from(words.slice(599 * 4, 599 * 4 + 3))).toEqual([11, 12, 13]);
    words.set([21, 22, 23], 4);
    expect(read(1)).toEqual([21, 22, 23]);
    const again = new Uint32Array(native.mapMmap(fd('memory')));
    again[4] = 99;
    expect(words[4]).toBe(99);
  });

  test('can be a part of it, on pages', () => {
    const part = new Uint32Array(native.mapMmap(fd('memory'), 4096, 100));
    expect(part.byteLength).toBe(4096);
    part[0] = 55;
    expect(read(4096 / 16)[0]).toBe(55);
    expect(native.mapMmap(fd('memory'), 4096).byteLength).toBe(2 * 4096);
    expect(() => native.mapMmap(fd('memory'), 100)).toThrow('offset must be a multiple of 4096, not 100');
    expect(() => native.mapMmap(fd('memory'), 3 * 4096)).toThrow('offset must be a whole number from 0 to 12287');
    expect(() => native.mapMmap(fd('memory'), 4096, 2 * 4096 + 1)).toThrow('length must be a whole number from 1 to 8192');
  });

  test('stays when the descriptor is closed', () => {
    const copy = native.dup(fd('memory'));
    const words = new Uint32Array(native.mapMmap(copy));
    native.close(copy);
    words[8] = 77;
    expect(read(2)[0]).toBe(77);
  });

  test('survives being transferred, and is unmapped when it is collected', () => {
    const script = `
      import { readFileSync } from 'node:fs';
      import native from ${JSON.stringify(new URL('../../native/index.js', import.meta.url).href)};
      const fd = native.openPin(${JSON.stringify(`${pins}/memory`)});
      const mappings = () => readFileSync('/proc/self/maps', 'utf8').split('\\n').filter((line) => line.includes('bpf-map')).length;
      const tries = [
        (buffer) => structuredClone(buffer, { transfer: [buffer] }),
        (buffer) => buffer.transfer(),
        (buffer) => new MessageChannel().port1.postMessage(buffer, [buffer]),
        (buffer) => { new Uint8Array(buffer)[0] = 1; },
      ];
      for (const attempt of tries) {
        try { attempt(native.mapMmap(fd)); } catch {}
      }
      for (let i = 0; i < 50; i++) native.mapMmap(fd);
      const most = mappings();
      for (let i = 0; i < 100 && mappings() > 2; i++) {
        gc();
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      console.log(JSON.stringify({ most, left: mappings() }));
      process.exit();
    `;
    native.pin(fd('memory'), `${pins}/memory`);
    const out = execFileSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', script], { encoding: 'utf8' });
    const { most, left } = JSON.parse(out) as { most: number; left: number };
    expect(most).toBeGreaterThanOrEqual(50);
    expect(left).toBeLessThanOrEqual(2);
  });

  test('is refused for maps that cannot be mapped', () => {
    const error = thrownBy(() => native.mapMmap(fd('plain_array')));
    expect(error.message).toBe('map_mmap plain_array: EINVAL (not an array with BPF_F_MMAPABLE)');
    expect(thrownBy(() => native.mapMmap(fd('table'))).code).toBe('EINVAL');
    expect(thrownBy(() => native.mapMmap(fd('events'))).code).toBe('EINVAL');
  });
});

describe('a map', () => {
  test('tells its shape', () => {
    expect(native.mapInfo(fd('table'))).toEqual({
      id: expect.any(Number),
      name: 'table',
      type: HASH,
      keySize: 4,
      valueSize: 12,
      maxEntries: 64,
      flags: NO_PREALLOC,
    });
    expect(native.mapInfo(fd('memory'))).toMatchObject({ type: ARRAY, maxEntries: 600, flags: MMAPABLE });
  });

  test('is pinned, opened from its pin, and the same map', () => {
    const path = `${pins}/table`;
    expect(native.openPin(path)).toBeUndefined();
    native.pin(fd('table'), path);
    const opened = native.openPin(path)!;
    expect(native.mapInfo(opened)).toEqual(native.mapInfo(fd('table')));
    expect(opened).not.toBe(fd('table'));
    expect(thrownBy(() => native.pin(opened, path))).toMatchObject({ operation: 'pin', code: 'EEXIST', subject: path });
    native.close(opened);
    expect(thrownBy(() => native.mapInfo(opened))).toMatchObject({ operation: 'map_info', code: 'EBADF' });
  });

  test('is pinned to bpffs only, and opened from there only', () => {
    expect(thrownBy(() => native.pin(fd('table'), `${folder}/table`)).operation).toBe('pin');
    expect(thrownBy(() => native.openPin(`${folder}/native.bpf.c`)).operation).toBe('pin_open');
    expect(native.openPin(`${folder}/nothing/at/all`)).toBeUndefined();
  });
});

test('descriptors are duplicated and closed; those of others are left alone', () => {
  const copy = native.dup(fd('table'));
  expect(native.mapInfo(copy).name).toBe('table');
  native.close(copy);
  expect(thrownBy(() => native.close(copy))).toMatchObject({ operation: 'close', code: 'EBADF' });
  const foreign = openSync('/dev/null', 'r');
  expect(thrownBy(() => native.close(foreign))).toBeInstanceOf(TypeError);
  expect(thrownBy(() => native.dup(foreign))).toBeInstanceOf(TypeError);
  closeSync(foreign);
});

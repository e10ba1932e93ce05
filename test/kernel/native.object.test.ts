import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import type { BpfObject } from '../../native/index.js';
import native from '../../native/index.js';
import { asU32, compile, removeFolder, temporaryFolder, thrownBy, u32 } from './fixtures/native.ts';

const XDP_PROGRAM = 6;
const packet = (): Uint8Array => new Uint8Array(64).fill(1);

let folder: string;
let path: string;

beforeAll(() => {
  folder = temporaryFolder();
  path = compile(folder, 'native', readFileSync(new URL('fixtures/native.bpf.c', import.meta.url), 'utf8'));
});

afterAll(() => removeFolder(folder));

function open(): BpfObject {
  const object = native.open(path);
  onTestFinished(() => {
    try {
      object.close();
    } catch {
      // the test closed it
    }
  });
  return object;
}

describe('an opened object', () => {
  test('names its maps and programs and tells how they are declared', () => {
    const object = open();
    expect(object.maps()).toEqual(expect.arrayContaining(['table', 'memory', 'events', 'native.rodata']));
    expect(object.programs()).toContain('xdp_mark');
    expect(object.mapInfo('table')).toEqual({ id: 0, name: 'table', type: 1, keySize: 4, valueSize: 12, maxEntries: 64, flags: 1 });
  });

  test('loads with other sizes, other constants and fewer programs', () => {
    const object = open();
    object.setMaxEntries('table', 5);
    expect(object.mapInfo('table').maxEntries).toBe(5);
    const constants = object.rodata();
    expect(asU32(constants)).toEqual([2, 7]);
    new DataView(constants.buffer).setUint32(0, 1, true);
    object.setRodata(constants);
    object.setAutoload('xdp_drop', false);
    object.load();

    expect(object.mapInfo('table')).toMatchObject({ maxEntries: 5, id: native.mapInfo(object.mapFd('table')).id });
    expect(object.mapInfo('table').id).toBeGreaterThan(0);
    expect(native.testRun(object.programFd('xdp_mark'), { data: packet() }).retval).toBe(1);
    expect(thrownBy(() => object.programFd('xdp_drop')).message).toBe('object_program_fd xdp_drop: EBADF (the program is not loaded)');
  });

  test('takes over an existing map of the same shape and refuses another', () => {
    const first = open();
    first.setMaxEntries('table', 10);
    first.load();
    native.mapUpdate(first.mapFd('table'), u32(3), u32(1, 2, 3));

    const second = open();
    second.reuseMap('table', first.mapFd('table'));
    const error = thrownBy(() => second.reuseMap('memory', first.mapFd('table')));
    expect(error.message).toBe('object_reuse_map memory: EINVAL (the given map has type 1, the object declares 2)');
    expect(thrownBy(() => second.reuseMap('table', first.mapFd('big_table'))).message).toContain('value size 8, the object declares 12');
    second.load();
    const value = new Uint8Array(12);
    expect(native.mapLookup(second.mapFd('table'), u32(3), value)).toBe(true);
    expect(native.mapInfo(second.mapFd('table')).id).toBe(native.mapInfo(first.mapFd('table')).id);
  });

  test('does not change any more once it is loaded', () => {
    const object = open();
    object.load();
    expect(thrownBy(() => object.load()).code).toBe('EBUSY');
    expect(thrownBy(() => object.setMaxEntries('table', 5)).code).toBe('EBUSY');
    expect(thrownBy(() => object.setRodata(object.rodata())).code).toBe('EBUSY');
    expect(thrownBy(() => object.reuseMap('table', object.mapFd('table'))).code).toBe('EBUSY');
    expect(thrownBy(() => object.setAutoload('xdp_drop', false)).operation).toBe('object_set_autoload');
  });

  test('loads on a thread, untouched until that is done', async () => {
    const object = open();
    const loaded = object.loadAsync();
    for (const call of [() => object.close(), () => object.load(), () => object.maps(), () => object.mapFd('table')])
      expect(thrownBy(call)).toMatchObject({ code: 'EBUSY', message: expect.stringContaining('(the object is being loaded)') as string });
    expect(await loaded).toBeUndefined();
    expect(native.testRun(object.programFd('xdp_mark'), { data: packet() }).retval).toBe(2);
    expect(thrownBy(() => object.loadAsync()).code).toBe('EBUSY');
  });

  test('owns its descriptors until it is closed', () => {
    const object = open();
    object.load();
    const map = object.mapFd('table');
    const kept = native.dup(map);
    object.close();
    expect(thrownBy(() => native.mapInfo(map)).code).toBe('EBADF');
    expect(native.mapInfo(kept).name).toBe('table');
    native.close(kept);
    for (const call of [() => object.close(), () => object.maps(), () => object.load(), () => object.mapFd('table')]) {
      expect(thrownBy(call)).toBeInstanceOf(TypeError);
    }
  });

  test('says what it does not have', () => {
    const object = open();
    expect(thrownBy(() => object.mapFd('nowhere')).message).toBe('object_map_fd nowhere: ENOENT (the object has no such map)');
    expect(thrownBy(() => object.programFd('nowhere')).code).toBe('ENOENT');
    expect(thrownBy(() => object.mapFd('table')).message).toBe('object_map_fd table: EBADF (the map is not loaded)');
    expect(thrownBy(() => object.setRodata(new Uint8Array(7)))).toBeInstanceOf(RangeError);
    expect(thrownBy(() => object.setMaxEntries('table', 0))).toBeInstanceOf(RangeError);
  });

  test('without constants has none to set', () => {
    const plain = compile(folder, 'plain', '#include <linux/bpf.h>\n__attribute__((section("xdp"), used)) int pass(void *c) { return 2; }\n');
    const object = native.open(plain);
    onTestFinished(() => object.close());
    expect(thrownBy(() => object.rodata())).toMatchObject({ code: 'ENOENT', subject: '.rodata' });
  });
});

describe('what cannot be opened or loaded', () => {
  test('is named: no file, no object, no BPF object', () => {
    expect(thrownBy(() => native.open(join(folder, 'nothing.o')))).toMatchObject({ operation: 'object_open', code: 'ENOENT' });
    const text = join(folder, 'text.o');
    writeFileSync(text, 'this is no ELF file');
    expect(thrownBy(() => native.open(text))).toMatchObject({ subject: text, code: 'LIBBPF_FORMAT' });
    expect(thrownBy(() => native.open('/bin/true')).operation).toBe('object_open');
  });

  test("carries the end of the verifier's log, of bounded length", () => {
    const source = `
      #include <linux/bpf.h>
      #include <bpf/bpf_helpers.h>
      SEC("xdp") int reads_too_far(struct xdp_md *ctx) {
        __u8 *data = (void *)(long)ctx->data;
        ${'bpf_ktime_get_ns();\n'.repeat(400)}
        return data[100];
      }
      char licence[] SEC("license") = "GPL";`;
    const object = native.open(compile(folder, 'refused', source));
    onTestFinished(() => object.close());
    const error = thrownBy(() => object.load());
    expect(error).toMatchObject({ name: 'BpfError', operation: 'object_load', code: 'EACCES', subject: 'refused' });
    expect(error.log).toContain('invalid access to packet');
    expect(error.log.length).toBeGreaterThan(1000);
    expect(error.log.length).toBeLessThanOrEqual(8192);
    expect(thrownBy(() => object.programFd('reads_too_far')).code).toBe('EBADF');
    expect(thrownBy(() => object.load()).operation).toBe('object_load');
  });

  test('says so from a thread as well, with the log of that thread', async () => {
    const source = `
      #include <linux/bpf.h>
      #include <bpf/bpf_helpers.h>
      SEC("xdp") int reads_too_far(struct xdp_md *ctx) { return ((__u8 *)(long)ctx->data)[100]; }
      char licence[] SEC("license") = "GPL";`;
    const object = native.open(compile(folder, 'refused-aside', source));
    onTestFinished(() => object.close());
    await expect(object.loadAsync()).rejects.toMatchObject({
      operation: 'object_load',
      code: 'EACCES',
      subject: 'refused-aside',
      log: expect.stringContaining('invalid access to packet') as string,
    });
    expect(thrownBy(() => object.programFd('reads_too_far')).code).toBe('EBADF');
  });
});

describe('a test run', () => {
  test('gives the verdict, the packet as it was left, and what the program wrote', () => {
    const object = open();
    object.load();
    const data = packet();
    native.mapUpdate(object.mapFd('memory'), u32(1), u32(1234, 0, 0));
    const run = native.testRun(object.programFd('xdp_mark'), { data, repeat: 3 });
    expect(run.retval).toBe(2);
    expect(run.duration).toBeGreaterThanOrEqual(0);
    expect(run.data).toEqual(packet().map((byte, i) => (i === 0 ? 0x42 : byte)));
    expect(data).toEqual(packet());
    const value = new Uint8Array(12);
    native.mapLookup(object.mapFd('memory'), u32(0), value);
    expect(asU32(value)).toEqual([3, 1234, 0]);
  });

  test('has room for a packet that grows, and says when it has not', () => {
    const object = open();
    object.load();
    const grow = object.programFd('xdp_grow');
    expect(native.testRun(grow, { data: packet() }).data.length).toBe(96);
    expect(native.testRun(grow, { data: packet(), room: 96 }).data.length).toBe(96);
    expect(thrownBy(() => native.testRun(grow, { data: packet(), room: 80 }))).toMatchObject({ operation: 'test_run', code: 'ENOSPC', subject: 'xdp_grow' });
  });

  test('runs to its end however many signals come', async () => {
    const object = open();
    object.load();
    let signals = 0;
    const count = () => signals++;
    process.on('SIGUSR2', count);
    const sender = spawn('sh', ['-c', `for i in 1 2 3 4 5 6 7 8 9 10; do kill -USR2 ${process.pid}; sleep 0.02; done`]);
    onTestFinished(() => {
      process.off('SIGUSR2', count);
    });
    // Half a second and more: most of the signals arrive meanwhile.
    native.testRun(object.programFd('xdp_mark'), { data: packet(), repeat: 30_000_000 });
    await once(sender, 'exit');
    const value = new Uint8Array(12);
    native.mapLookup(object.mapFd('memory'), u32(0), value);
    expect(asU32(value)[0]).toBe(30_000_000);
    await expect.poll(() => signals).toBeGreaterThan(0);
  });

  test('takes a context', () => {
    const object = open();
    object.load();
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    const run = (end: number) => native.testRun(object.programFd('xdp_mark'), { data: packet(), ctx: u32(0, end, 0, 0, 0, 0) });
    expect(run(64).retval).toBe(2);
    expect(thrownBy(() => run(65)).code).toBe('EINVAL');
  });
});

test('a program tells what it is', () => {
  const object = open();
  object.load();
  const info = native.programInfo(object.programFd('xdp_mark'));
  expect(info).toEqual({ id: expect.any(Number), name: 'xdp_mark', type: XDP_PROGRAM, tag: expect.stringMatching(/^[0-9a-f]{16}$/) });
  expect(thrownBy(() => native.programInfo(object.mapFd('table')))).toBeInstanceOf(TypeError);
});

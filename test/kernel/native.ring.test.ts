import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';

import type { BpfObject } from '../../native/index.js';
import native from '../../native/index.js';
import { cleanUp, compile, removeFolder, temporaryFolder, thrownBy } from './fixtures/native.ts';

let folder: string;
let path: string;
let object: BpfObject;

beforeAll(() => {
  folder = temporaryFolder();
  path = compile(folder, 'native', readFileSync(new URL('fixtures/native.bpf.c', import.meta.url), 'utf8'));
  object = native.open(path);
  object.load();
});

afterAll(() =>
  cleanUp(
    () => object.close(),
    () => removeFolder(folder),
  ),
);

/** Makes the kernel write one record for each byte: that byte, four times. */
function emit(...bytes: number[]): void {
  const data = new Uint8Array(14 + bytes.length);
  data.set(bytes, 14);
  expect(native.testRun(object.programFd('tc_records'), { data }).retval).toBe(0);
}

/** Collects the first byte of each record until the test ends. */
function listen(onRecord: (record: Uint8Array) => void = () => {}): { seen: number[]; stop: () => void } {
  const seen: number[] = [];
  const stop = native.ringBuffer(object.mapFd('events'), (record) => {
    seen.push(record[0]!);
    onRecord(record);
  });
  onTestFinished(stop);
  return { seen, stop };
}

test('records arrive whole and in order, and stay what they were', async () => {
  const records: Uint8Array[] = [];
  const { seen } = listen((record) => records.push(record));
  emit(1, 2, 3);
  await expect.poll(() => seen).toEqual([1, 2, 3]);
  emit(4);
  await expect.poll(() => seen).toEqual([1, 2, 3, 4]);
  for (let turn = 0; turn < 1000; turn++) {
    emit(...Array<number>(16).fill(turn % 250));
    if (turn % 100 === 99) await expect.poll(() => seen.length).toBe(4 + (turn + 1) * 16);
  }
  expect(records.slice(0, 4).map((record) => [...record])).toEqual([1, 2, 3, 4].map((byte) => Array(4).fill(byte)));
  expect(seen.at(-1)).toBe(999 % 250);
});

test('a flood lets the event loop turn', async () => {
  // More than one turn takes, so that it ends between two.
  for (let i = 0; i < 200; i++) emit(...Array<number>(16).fill(1));
  let turns = 0;
  let immediate = setImmediate(function turn() {
    turns++;
    immediate = setImmediate(turn);
  });
  onTestFinished(() => clearImmediate(immediate));
  const atRecord = new Set<number>();
  const { seen } = listen(() => atRecord.add(turns));
  await expect.poll(() => seen.length).toBe(3200);
  expect(atRecord.size).toBe(4);
});

test('nothing arrives once it is stopped; another can listen then', async () => {
  const first = listen();
  emit(1);
  await expect.poll(() => first.seen).toEqual([1]);
  first.stop();
  first.stop();
  emit(2);
  const second = listen();
  await expect.poll(() => second.seen).toEqual([2]);
  expect(first.seen).toEqual([1]);
});

test('a callback may stop it: the records behind are left for the next', async () => {
  const first = listen(() => first.stop());
  emit(7, 8, 9);
  await expect.poll(() => first.seen).toEqual([7]);
  const second = listen();
  await expect.poll(() => second.seen).toEqual([8, 9]);
  expect(first.seen).toEqual([7]);
});

test('only a ring buffer and a function will do', () => {
  expect(thrownBy(() => native.ringBuffer(object.mapFd('table'), () => {}))).toMatchObject({ operation: 'ring_buffer', code: 'EINVAL', subject: 'table' });
  expect(thrownBy(() => native.ringBuffer(object.mapFd('events'), {} as never))).toBeInstanceOf(TypeError);
  expect(thrownBy(() => native.ringBuffer(object.programFd('tc_count'), () => {}))).toBeInstanceOf(TypeError);
});

/** A program of its own that listens, with `emit` at hand, and prints what `body` prints. */
function script(body: string): string {
  return `
    import native from ${JSON.stringify(new URL('../../native/index.js', import.meta.url).href)};
    import { readFileSync, readdirSync } from 'node:fs';
    import { Worker } from 'node:worker_threads';
    const object = native.open(${JSON.stringify(path)});
    object.load();
    const emit = () => native.testRun(object.programFd('tc_records'), { data: new Uint8Array(15).fill(5) });
    ${body}`;
}

const runNode = (body: string) => ['--expose-gc', '--input-type=module', '-e', script(body)];

test('does not keep the process alive', () => {
  execFileSync(process.execPath, runNode(`native.ringBuffer(object.mapFd('events'), () => {});`), { timeout: 20_000 });
});

test('goes on when nobody holds the function that stops it', () => {
  const body = `
    let seen = 0;
    native.ringBuffer(object.mapFd('events'), () => { seen++; });
    for (let i = 0; i < 20; i++) { gc(); await new Promise((resolve) => setTimeout(resolve, 1)); emit(); }
    while (seen < 20) await new Promise((resolve) => setTimeout(resolve, 1));
    console.log(seen);`;
  expect(execFileSync(process.execPath, runNode(body), { encoding: 'utf8', timeout: 20_000 })).toBe('20\n');
});

test('an exception from the callback is an uncaught one, and the next record still comes', () => {
  const body = `
    const keep = setInterval(() => {}, 1000);
    process.on('uncaughtException', (error) => console.log('uncaught', error.message));
    let seen = 0;
    native.ringBuffer(object.mapFd('events'), () => {
      if (++seen === 1) throw new Error('first');
      console.log('second');
      clearInterval(keep);
    });
    emit(); emit();`;
  expect(execFileSync(process.execPath, runNode(body), { encoding: 'utf8', timeout: 20_000 })).toBe('uncaught first\nsecond\n');
  const unhandled = spawnSync(
    process.execPath,
    runNode(`
    setInterval(() => {}, 1000);
    native.ringBuffer(object.mapFd('events'), () => { throw new Error('nobody catches this'); });
    emit();`),
    { encoding: 'utf8', timeout: 20_000 },
  );
  expect(unhandled.status).toBe(1);
  expect(unhandled.stderr).toContain('nobody catches this');
});

test('a worker that is ended while records come takes its listener with it', () => {
  const body = `
    const worker = new Worker(\`
      import native from ${JSON.stringify(new URL('../../native/index.js', import.meta.url).href)};
      import { parentPort, workerData } from 'node:worker_threads';
      native.ringBuffer(workerData, () => parentPort.postMessage('record'));
      setInterval(() => {}, 1000);
    \`, { eval: true, workerData: object.mapFd('events'), execArgv: ['--input-type=module'] });
    const listeners = () => readdirSync('/proc/self/task')
      .filter((task) => readFileSync('/proc/self/task/' + task + '/comm', 'utf8') === 'maglane:ring\\n').length;
    const emitting = setInterval(emit, 1);
    await new Promise((resolve) => worker.once('message', resolve));
    const before = listeners();
    await worker.terminate();
    console.log(before, listeners());
    clearInterval(emitting);`;
  expect(execFileSync(process.execPath, runNode(body), { encoding: 'utf8', timeout: 20_000 })).toBe('1 0\n');
});

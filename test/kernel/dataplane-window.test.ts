/** Large maps, of which one stretch at a time is mapped. */
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Maps } from '../../agent/dataplane/maps.ts';
import native from '../../native/index.js';
import { Node } from './dataplane-lab.ts';

/** Slots of the ring in one window. */
const WINDOW = (1 << 20) / 4;
const CHUNK = 1024;
let node: Node;
let maps: Maps;

beforeEach(async () => {
  node = new Node();
  const agent = node.agent();
  await agent.ask('open', node.options({ capacity: { services: 64, frontends: 64, backends: 100_000, ringSlots: 3 * WINDOW - CHUNK, sourceRanges: 64 } }));
  await agent.kill();
  maps = Maps.openPins(`${node.bpffs}/maps`);
}, 60_000);

afterEach(() => {
  maps.close();
  return node.remove();
});

/** KiB of maps that this process has mapped, by /proc/self/smaps. */
function mapped(): number {
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/);
  return mappings.filter((one) => one.includes('bpf-map')).reduce((sum, one) => sum + Number(/Size:\s+(\d+) kB/.exec(one)?.[1]), 0);
}

test('what is written across the ends of windows is where the kernel looks for it, and is read back', () => {
  const slots = Uint32Array.from({ length: WINDOW + 20 }, (_, i) => i + 1);
  maps.writeRing(WINDOW - 10, slots);
  expect(maps.readRing(WINDOW - 10, slots.length)).toEqual(slots);
  const chunk = new Uint8Array(4 * CHUNK);
  for (const slot of [WINDOW - 1, WINDOW, 2 * WINDOW]) {
    native.mapLookup(maps.fd('ring'), new Uint8Array(Uint32Array.of(Math.floor(slot / CHUNK)).buffer), chunk);
    expect(new Uint32Array(chunk.buffer)[slot % CHUNK]).toBe(slot - WINDOW + 11);
  }
});

test('the map ends where it ends', () => {
  expect(maps.readRing(3 * WINDOW - CHUNK - 5, 10)).toHaveLength(5);
  expect(maps.from('ring', 4 * (3 * WINDOW - CHUNK))).toHaveLength(0);
  const sizes: number[][] = [];
  for (const { offset, bytes } of maps.stretches('backends')) sizes.push([offset, bytes.length]);
  expect(sizes).toEqual([0, 1, 2, 3].map((i) => [i << 20, Math.min(1 << 20, 100_000 * 32 - (i << 20))]));
});

test('no more than a window of each map stays mapped', async () => {
  const before = mapped();
  for (const _ of maps.stretches('ring'));
  for (const _ of maps.stretches('backends'));
  await expect.poll(() => mapped() - before).toBeLessThanOrEqual(2 * 1024);
  maps.close();
  maps = new Maps(new Map());
  await expect.poll(() => mapped() - before).toBe(0);
});

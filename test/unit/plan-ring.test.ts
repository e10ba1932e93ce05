import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Region } from '../../agent/plan/ring.ts';
import { RingAllocator } from '../../agent/plan/ring.ts';

describe('the ring', () => {
  test('starts with the gaps between what is in use', () => {
    const ring = new RingAllocator(100, [
      { base: 50, length: 10 },
      { base: 0, length: 20 },
    ]);
    expect(ring.free).toBe(70);
    expect(ring.take(40)).toBe(60);
    expect(ring.take(30)).toBe(20);
    expect(ring.take(1)).toBeUndefined();
  });

  test('joins neighbours, so that nothing is lost for good', () => {
    const ring = new RingAllocator(30, []);
    const bases = [10, 10, 10].map((length) => ring.take(length)!);
    for (const base of [bases[0]!, bases[2]!, bases[1]!]) ring.giveBack({ base, length: 10 });
    expect(ring.take(30)).toBe(0);
  });

  test('says no when no single stretch is long enough', () => {
    const ring = new RingAllocator(30, [{ base: 10, length: 10 }]);
    expect(ring.free).toBe(20);
    expect(ring.take(11)).toBeUndefined();
    expect(ring.take(10)).toBeDefined();
  });

  test('tolerates what it is told in use to overlap or reach outside', () => {
    const ring = new RingAllocator(30, [
      { base: 0, length: 20 },
      { base: 5, length: 5 },
      { base: 28, length: 100 },
      { base: 1000, length: 1 },
    ]);
    expect(ring.take(8)).toBe(20);
    expect(ring.free).toBe(0);
  });

  test('never hands out a slot twice, loses none, and finds every fit', () => {
    const step = fc.oneof(
      fc.nat({ max: 60 }).map((length) => ({ take: length + 1 })),
      fc.nat().map((index) => ({ back: index })),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const size = 500;
        const ring = new RingAllocator(size, []);
        const owned = new Uint8Array(size);
        const taken: Region[] = [];
        for (const one of steps) {
          if ('take' in one) {
            const fits = Buffer.from(owned).includes(Buffer.alloc(one.take));
            const base = ring.take(one.take);
            expect(base !== undefined).toBe(fits);
            if (base === undefined) continue;
            expect(owned.subarray(base, base + one.take).every((used) => used === 0)).toBe(true);
            owned.fill(1, base, base + one.take);
            taken.push({ base, length: one.take });
          } else {
            const [region] = taken.splice(one.back % Math.max(1, taken.length), 1);
            if (region === undefined) continue;
            ring.giveBack(region);
            owned.fill(0, region.base, region.base + region.length);
          }
          expect(ring.free).toBe(owned.filter((used) => used === 0).length);
        }
      }),
    );
  });

  test('costs the same with 100,000 regions as with few', () => {
    const ring = new RingAllocator(1 << 24, []);
    const regions = Array.from({ length: 100_000 }, (_, i) => ({ base: ring.take(20 + (i % 13))!, length: 20 + (i % 13) }));
    const started = performance.now();
    for (let i = 0; i < regions.length; i += 2) ring.giveBack(regions[i]!);
    for (let i = 0; i < regions.length; i += 2) expect(ring.take(20 + (i % 13)) === undefined).toBe(false);
    expect(performance.now() - started).toBeLessThan(3000);
  });
});

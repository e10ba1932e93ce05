import { expect, test } from 'vitest';
import { IdAllocator } from '../../agent/plan/ids.ts';

test('an id comes back only after all others had their turn', () => {
  const ids = new IdAllocator(6, []);
  const first = ids.take();
  expect(first).toBe(1);
  ids.giveBack(first);
  expect([ids.take(), ids.take(), ids.take(), ids.take()]).toEqual([2, 3, 4, 5]);
  expect(ids.free).toBe(1);
  expect(ids.take()).toBe(first);
});

test('goes on behind the largest in use, around what is in use', () => {
  const ids = new IdAllocator(6, [2, 4]);
  expect([ids.take(), ids.take(), ids.take()]).toEqual([5, 1, 3]);
  expect(ids.used).toBe(5);
});

test('never gives out 0, nor one too many', () => {
  const ids = new IdAllocator(3, []);
  expect([ids.take(), ids.take()]).toEqual([1, 2]);
  expect(ids.free).toBe(0);
  expect(() => ids.take()).toThrow(RangeError);
});

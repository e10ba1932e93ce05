import { describe, expect, test } from 'vitest';
import { buildTable, hash, TABLE_SIZES, tableSize } from '../../agent/plan/maglev.ts';

const backends = (count: number): string[] => Array.from({ length: count }, (_, i) => `10.${i >> 8}.${i & 255}.7:8080`);

/** Which identity each slot names. */
function named(identities: readonly string[], size: number): string[] {
  return [...buildTable(identities, size)].map((i) => identities[i]!);
}

function shares(table: readonly string[]): number[] {
  const count = new Map<string, number>();
  for (const identity of table) count.set(identity, (count.get(identity) ?? 0) + 1);
  return [...count.values()];
}

describe('the size of a table', () => {
  test('is a prime of the ladder, at least 100 slots a backend', () => {
    for (const size of TABLE_SIZES) expect([...Array(Math.floor(Math.sqrt(size)) - 1).keys()].every((i) => size % (i + 2) !== 0)).toBe(true);
    expect([2, 3, 5, 6, 10, 11, 1310].map(tableSize)).toEqual([251, 509, 509, 1021, 1021, 2039, 131071]);
  });

  test('is nothing where there is nothing to choose, and the largest beyond the ladder', () => {
    expect([0, 1, 5000].map(tableSize)).toEqual([0, 0, 131071]);
  });
});

describe('a table', () => {
  test.each([2, 3, 10, 50, 300])('gives each of %i backends its share, to within 1 %%', (count) => {
    const table = named(backends(count), tableSize(count));
    const share = shares(table);
    expect(share).toHaveLength(count);
    expect(Math.max(...share) - Math.min(...share)).toBeLessThanOrEqual(1);
    expect(Math.max(...share) / Math.min(...share)).toBeLessThanOrEqual(1.01);
  });

  test('does not depend on the order it is asked in', () => {
    const identities = backends(20);
    const shuffled = identities.toSorted((a, b) => hash(a, 1) - hash(b, 1));
    expect(shuffled).not.toEqual(identities);
    expect(named(shuffled, 2039)).toEqual(named(identities, 2039));
  });

  test.each([
    [10, 0.06],
    [100, 0.03],
  ])('of %i backends keeps nearly all other slots when one goes', (count, most) => {
    const all = backends(count);
    const gone = all[count >> 1]!;
    const size = tableSize(count);
    const before = named(all, size);
    const after = named(
      all.filter((identity) => identity !== gone),
      size,
    );
    const others = before.map((identity, slot) => ({ identity, now: after[slot] })).filter(({ identity }) => identity !== gone);
    const moved = others.filter(({ identity, now }) => identity !== now).length;
    expect(moved / others.length).toBeLessThan(most);
  });

  test('may have more backends than slots', () => {
    expect(new Set(named(backends(300), 251)).size).toBe(251);
  });

  test('never changes between versions: nodes must agree', () => {
    const table = buildTable(['10.0.0.1:80', '10.0.0.2:80', '[fd00::1]:80'], 251);
    expect(table.reduce((sum, i, slot) => hash(`${sum} ${slot} ${i}`, 0), 0)).toMatchInlineSnapshot(`2567670880`);
  });
});

/**
 * Maglev tables (Eisenbud et al., NSDI 2016, section 3.4): a hash modulo the table's size names a
 * backend. Each backend walks the slots in an order of its own, and in turn takes the first that is
 * free: shares differ by at most one slot, and a set that changes by one backend keeps nearly all others in place.
 *
 * A table depends on the set of backends alone, on nothing that happened before: every node must
 * send a flow that it has never seen where the node that forgot it did. That is also why the size
 * knows no hysteresis.
 */

/**
 * Sizes of tables: primes, so that every step visits all slots, each the last below a power of two.
 * 100 slots for a backend keep shares within 1 % of each other (section 5.3 of the paper).
 */
export const TABLE_SIZES = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071] as const;
const SLOTS_PER_BACKEND = 100;
const LARGEST = 131071;

/** Slots of the table for so many backends; 0 for none and for one, where there is nothing to choose. */
export function tableSize(backends: number): number {
  if (backends <= 1) return 0;
  return TABLE_SIZES.find((size) => size >= SLOTS_PER_BACKEND * backends) ?? LARGEST;
}

/**
 * Builds a table.
 * @param identities "address:port" of each backend, without duplicates, in any order.
 * @param size a prime; 0 gives an empty table.
 * @returns for each slot the index of its backend in `identities`.
 */
export function buildTable(identities: readonly string[], size: number): Uint32Array {
  const table = new Uint32Array(size);
  const count = identities.length;
  if (size === 0 || count === 0) return table;

  const turns = sortedIndices(identities);
  const next = new Uint32Array(count);
  const step = new Uint32Array(count);
  for (const i of turns) {
    const identity = identities[i] ?? '';
    next[i] = hash(identity, OFFSET_SEED) % size;
    step[i] = 1 + (hash(identity, STEP_SEED) % (size - 1));
  }

  const taken = new Uint8Array(size);
  let free = size;
  for (;;) {
    for (const i of turns) {
      let slot = next[i] ?? 0;
      const by = step[i] ?? 1;
      while (taken[slot] === 1) slot = (slot + by) % size;
      taken[slot] = 1;
      table[slot] = i;
      next[i] = (slot + by) % size;
      if (--free === 0) return table;
    }
  }
}

/** Who takes the first turn matters: the order must not depend on the caller's. */
function sortedIndices(identities: readonly string[]): number[] {
  const text = (i: number): string => identities[i] ?? '';
  return identities.map((_, i) => i).sort((a, b) => (text(a) < text(b) ? -1 : 1));
}

const OFFSET_SEED = 0x6d616731;
const STEP_SEED = 0x6d616732;

/**
 * 32 bits of an ASCII string: each character is folded in by a multiplication with a large odd number,
 * then three rounds of shift and multiply let every bit reach every other. Never to be changed: nodes that
 * run different versions must agree.
 */
export function hash(text: string, seed: number): number {
  let h = seed;
  for (let i = 0; i < text.length; i++) {
    h = Math.imul(h ^ text.charCodeAt(i), 0x9e3779b1);
    h ^= h >>> 15;
  }
  h = Math.imul(h ^ (h >>> 16), 0x21f0aaad);
  h = Math.imul(h ^ (h >>> 15), 0x735a2d97);
  return (h ^ (h >>> 15)) >>> 0;
}

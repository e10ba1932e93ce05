/**
 * Which slots of the ring are free. Free stretches are kept by size class, so that taking and giving back
 * cost the same however many there are; neighbours are joined as they are given back.
 */

export interface Region {
  readonly base: number;
  readonly length: number;
}

/** Stretches of the same size class to look at before a larger one is cut. */
const LOOK = 8;

export class RingAllocator {
  /** Free stretches by base and by end, for joining. */
  readonly #lengths = new Map<number, number>();
  readonly #bases = new Map<number, number>();
  /** Bases of the free stretches of each size class. */
  readonly #classes: Set<number>[] = [];
  #free = 0;

  /**
   * @param slots size of the ring.
   * @param used regions in use, in any order; what overlaps or lies outside counts once, as far as it lies inside.
   */
  constructor(slots: number, used: Iterable<Region>) {
    let end = 0;
    for (const { base, length } of [...used].sort((a, b) => a.base - b.base)) {
      if (base > end) this.#add(end, Math.min(base, slots) - end);
      end = Math.min(slots, Math.max(end, base + length));
    }
    this.#add(end, slots - end);
  }

  /** Slots that are free, in however many pieces. */
  get free(): number {
    return this.#free;
  }

  /** A region of `length` slots (at least 1); undefined when no free stretch is that long. */
  take(length: number): number | undefined {
    const base = this.#find(length);
    if (base === undefined) return undefined;
    const found = this.#lengths.get(base) ?? 0;
    this.#remove(base, found);
    this.#add(base + length, found - length);
    return base;
  }

  /** Gives back what `take` gave, or what was in use at the start. */
  giveBack({ base, length }: Region): void {
    let start = base;
    let end = base + length;
    const before = this.#bases.get(start);
    if (before !== undefined) {
      this.#remove(before, start - before);
      start = before;
    }
    const after = this.#lengths.get(end);
    if (after !== undefined) {
      this.#remove(end, after);
      end += after;
    }
    this.#add(start, end - start);
  }

  /**
   * First a few of the same class, where what was given back in this size lies; then any of a larger
   * class, which fits for certain; the rest of the same class only before giving up.
   */
  #find(length: number): number | undefined {
    const own = this.#classes[classOf(length)] ?? [];
    let looked = 0;
    for (const base of own) {
      if (this.#fits(base, length)) return base;
      if (++looked === LOOK) break;
    }
    for (let larger = classOf(length) + 1; larger < this.#classes.length; larger++) {
      const [first] = this.#classes[larger] ?? [];
      if (first !== undefined) return first;
    }
    for (const base of own) if (this.#fits(base, length)) return base;
    return undefined;
  }

  #fits(base: number, length: number): boolean {
    return (this.#lengths.get(base) ?? 0) >= length;
  }

  #add(base: number, length: number): void {
    if (length <= 0) return;
    this.#lengths.set(base, length);
    this.#bases.set(base + length, base);
    const own = classOf(length);
    while (this.#classes.length <= own) this.#classes.push(new Set());
    this.#classes[own]?.add(base);
    this.#free += length;
  }

  #remove(base: number, length: number): void {
    this.#lengths.delete(base);
    this.#bases.delete(base + length);
    this.#classes[classOf(length)]?.delete(base);
    this.#free -= length;
  }
}

/** Classes grow by an eighth: small sizes have one each, larger ones eight for each power of two. */
function classOf(length: number): number {
  if (length < 8) return length;
  const power = 31 - Math.clz32(length);
  return 8 * (power - 2) + ((length >>> (power - 3)) & 7);
}

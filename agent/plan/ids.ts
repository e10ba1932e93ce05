/**
 * Ids that rotate: a freed id comes back only after all others had their turn, so that what still
 * remembers it (a flow, a client's affinity) does not meet a stranger under its number.
 */
export class IdAllocator {
  readonly #end: number;
  readonly #used: Set<number>;
  #next: number;

  /**
   * @param end ids are 1 to `end` - 1.
   * @param used those in use; numbering goes on behind the largest.
   */
  constructor(end: number, used: Iterable<number>) {
    this.#end = end;
    this.#used = new Set(used);
    this.#next = 1;
    for (const id of this.#used) this.#next = Math.max(this.#next, id + 1);
  }

  get used(): number {
    return this.#used.size;
  }

  get free(): number {
    return Math.max(0, this.#end - 1 - this.#used.size);
  }

  /** @throws RangeError when none is free: ask `free` first. */
  take(): number {
    if (this.free === 0) throw new RangeError('no id is free');
    for (;;) {
      if (this.#next >= this.#end) this.#next = 1;
      const id = this.#next++;
      if (this.#used.has(id)) continue;
      this.#used.add(id);
      return id;
    }
  }

  giveBack(id: number): void {
    this.#used.delete(id);
  }
}

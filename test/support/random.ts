/** Dice that fall the same way for the same seed, on every machine. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A whole number, 0 to 2^32 - 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let word = this.#state;
    word = Math.imul(word ^ (word >>> 15), word | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return (word ^ (word >>> 14)) >>> 0;
  }

  /** A whole number, 0 to n - 1. */
  below(n: number): number {
    return Math.floor((this.next() / 2 ** 32) * n);
  }

  /** True so many times out of so many: `chance(3, 4)`. */
  chance(times: number, of: number): boolean {
    return this.below(of) < times;
  }

  /** True once in n. */
  once(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(choices: readonly T[]): T {
    const choice = choices[this.below(choices.length)];
    if (choice === undefined) throw new Error('nothing to pick from');
    return choice;
  }

  /** Some of them, in their order, each with the same chance. */
  some<T>(choices: readonly T[], times = 1, of = 2): T[] {
    return choices.filter(() => this.chance(times, of));
  }

  bytes(length: number): number[] {
    return Array.from({ length }, () => this.below(256));
  }
}

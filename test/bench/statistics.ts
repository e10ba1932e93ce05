/** What is made of the rounds of one cell: medians, and how much they can be trusted. */

export interface Summary {
  readonly median: number;
  /** Half of the distance between the quartiles: half of all rounds lie within median +- spread, about. */
  readonly spread: number;
  readonly rounds: number;
}

/** @param values at least one. */
export function summarise(values: readonly number[]): Summary {
  const sorted = values.toSorted((a, b) => a - b);
  return { median: quantile(sorted, 0.5), spread: (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / 2, rounds: sorted.length };
}

/** A quantile of sorted values, between its neighbours. */
export function quantile(sorted: readonly number[], q: number): number {
  const at = (sorted.length - 1) * q;
  const [low, high] = [sorted[Math.floor(at)] ?? NaN, sorted[Math.ceil(at)] ?? NaN];
  return low + (high - low) * (at - Math.floor(at));
}

/** Whether two results differ by more than they vary: otherwise a reader should not choose by them. */
export function isDistinct(a: Summary, b: Summary): boolean {
  return Math.abs(a.median - b.median) > a.spread + b.spread;
}

/** The source ranges of each service, as the maps hold them, and the writes between those and others. */
import type { Cidr } from '../model/address.ts';
import { formatCidr } from '../model/address.ts';
import type { Draft } from './draft.ts';
import type { HeldSourceRange } from './held.ts';

const NONE: readonly Cidr[] = [];

export class SourceRanges {
  /** By service id; most have none. */
  readonly #held = new Map<number, readonly Cidr[]>();
  #size: number;

  /** Adopts what the maps hold. */
  constructor(held: readonly HeldSourceRange[]) {
    this.#size = held.length;
    for (const [service, ranges] of Map.groupBy(held, (one) => one.service))
      this.#held.set(
        service,
        ranges.map(({ range }) => range),
      );
  }

  get size(): number {
    return this.#size;
  }

  /** Those of `ranges` that the service has already. */
  heldOf(service: number | undefined, ranges: readonly Cidr[]): readonly Cidr[] {
    const held = service === undefined ? undefined : this.#held.get(service);
    return held === undefined ? NONE : without(ranges, without(ranges, held));
  }

  /** Plans that a service has exactly these. */
  set(service: number, ranges: readonly Cidr[], draft: Draft): void {
    const held = this.#held.get(service) ?? NONE;
    if (held.length === 0 && ranges.length === 0) return;
    for (const range of without(ranges, held)) draft.rangePuts.push({ service, range });
    for (const range of without(held, ranges)) draft.rangeDeletes.push({ service, range });
    this.#size += ranges.length - held.length;
    if (ranges.length === 0) this.#held.delete(service);
    else this.#held.set(service, ranges);
  }

  /** Plans the end of what belongs to none of these services. */
  keepOnly(services: ReadonlySet<number>, draft: Draft): void {
    for (const service of this.#held.keys()) if (!services.has(service)) this.set(service, NONE, draft);
  }
}

function without(ranges: readonly Cidr[], others: readonly Cidr[]): readonly Cidr[] {
  if (others.length === 0) return ranges;
  const texts = new Set(others.map(formatCidr));
  return ranges.filter((range) => !texts.has(formatCidr(range)));
}

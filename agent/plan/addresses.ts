/** The addresses of Services as wholes. They lie in the map of the frontends and share its room. */
import type { Address } from '../model/address.ts';
import type { DesiredAddress } from '../model/desired.ts';
import type { Problem } from '../model/problem.ts';
import type { Draft } from './draft.ts';

/** What stands in `Plan.problems` for all addresses together. */
export const ADDRESSES_KEY = 'addresses';

export class Addresses {
  readonly #held = new Map<Address, DesiredAddress>();
  /** Those that found no room. */
  readonly #refused = new Map<Address, DesiredAddress>();
  #isShort = false;

  /** Adopts what the maps hold. */
  constructor(held: readonly DesiredAddress[]) {
    for (const one of held) this.#held.set(one.address, one);
  }

  get size(): number {
    return this.#held.size;
  }

  /** All that is held or was refused and that a whole desired state does not name, as changes. */
  beyond(desired: ReadonlyMap<Address, DesiredAddress | undefined>): Map<Address, undefined> {
    const known = [...this.#held.keys(), ...this.#refused.keys()];
    return new Map(known.filter((address) => desired.get(address) === undefined).map((address) => [address, undefined]));
  }

  /** Plans what goes. @returns whether that makes room. */
  release(changes: ReadonlyMap<Address, DesiredAddress | undefined>, draft: Draft): boolean {
    let any = false;
    for (const [address, desired] of changes) {
      if (desired !== undefined) continue;
      this.#refused.delete(address);
      if (!this.#held.delete(address)) continue;
      draft.addressDeletes.push(address);
      any = true;
    }
    return any;
  }

  /**
   * Plans what comes or changes, and what was refused before, as far as there is room.
   * @param room entries that the map has left.
   */
  put(changes: ReadonlyMap<Address, DesiredAddress | undefined>, room: number, capacity: number, draft: Draft): void {
    let left = room;
    for (const [address, desired] of changes) if (desired !== undefined) this.#refused.set(address, desired);
    for (const [address, desired] of this.#refused) {
      const held = this.#held.get(address);
      if (held === undefined && left-- <= 0) continue;
      this.#refused.delete(address);
      this.#held.set(address, desired);
      if (held?.owned !== desired.owned || held.ping !== desired.ping) draft.addressPuts.push(desired);
    }
    const isShort = this.#refused.size > 0;
    if (isShort !== this.#isShort) draft.problems.set(ADDRESSES_KEY, isShort ? shortage(capacity) : undefined);
    this.#isShort = isShort;
  }
}

function shortage(capacity: number): Problem {
  const message =
    `has no room for all addresses of Services in its ${capacity} entries: a larger --max-frontends would be right ` +
    '(until then unknown ports of the others are not rejected, and pings not answered)';
  return { object: 'map frontends', field: '', value: '', message, reason: 'capacity' };
}

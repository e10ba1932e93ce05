/** Addresses of the other nodes, from which packets are taken as they are. */
import type { Address } from '../model/address.ts';
import type { Problem } from '../model/problem.ts';
import type { Draft } from './draft.ts';

/** What stands in `Plan.problems` for all peers together. */
export const PEERS_KEY = 'peers';

export class Peers {
  readonly #held: Set<Address>;
  /** Those that found no room. */
  readonly #refused = new Set<Address>();
  readonly #capacity: number;

  /** Adopts what the map holds. @param capacity entries that it has. */
  constructor(held: readonly Address[], capacity: number) {
    this.#held = new Set(held);
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#held.size;
  }

  /** All that is held and that a whole desired state does not name, as changes. */
  beyond(desired: ReadonlyMap<Address, boolean>): Map<Address, boolean> {
    return new Map([...this.#held, ...this.#refused].filter((address) => !desired.has(address)).map((address) => [address, false]));
  }

  /** Plans what came (true) and what went (false), and what was refused before, as far as there is room. */
  change(changes: ReadonlyMap<Address, boolean>, draft: Draft): void {
    if (changes.size === 0) return;
    const wasShort = this.#refused.size > 0;
    for (const [address, came] of changes) {
      if (came) this.#refused.add(address);
      else if (!this.#refused.delete(address) && this.#held.delete(address)) draft.peerDeletes.push(address);
    }
    for (const address of this.#refused) {
      if (this.#held.has(address)) this.#refused.delete(address);
      else if (this.#held.size < this.#capacity) {
        this.#refused.delete(address);
        this.#held.add(address);
        draft.peerPuts.push(address);
      }
    }
    const isShort = this.#refused.size > 0;
    if (isShort !== wasShort) draft.problems.set(PEERS_KEY, isShort ? shortage(this.#capacity) : undefined);
  }
}

function shortage(capacity: number): Problem {
  const message = `has no room for all nodes in its ${capacity} entries: what the others send on as it is (--forwarding dsr) is not taken here`;
  return { object: 'map peers', field: '', value: '', message, reason: 'capacity' };
}

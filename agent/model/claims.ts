/** Who owns a contested frontend: the oldest Service that asks for it. */
import type { Service } from './objects.ts';

/** Older first; of one age, by namespace and name, so that every node agrees. */
function compareAge(a: Service, b: Service): number {
  if (a.created !== b.created) return a.created - b.created;
  return `${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1;
}

/** Services by the frontends they ask for ("address:port/protocol"). */
export class Claims {
  /** Oldest first; almost always of one. */
  readonly #claimants = new Map<string, Service[]>();

  /** @returns the other claimants, if `service` became the owner: their frontends or problems change. */
  add(claim: string, service: Service): readonly Service[] {
    const claimants = this.#claimants.get(claim);
    if (claimants === undefined) {
      this.#claimants.set(claim, [service]);
      return [];
    }
    claimants.push(service);
    claimants.sort(compareAge);
    return claimants[0] === service ? claimants.slice(1) : [];
  }

  /** @returns the claimants that are left, if `service` was the owner. */
  remove(claim: string, service: Service): readonly Service[] {
    const claimants = this.#claimants.get(claim) ?? [];
    const index = claimants.indexOf(service);
    if (index < 0) return [];
    claimants.splice(index, 1);
    if (claimants.length === 0) this.#claimants.delete(claim);
    return index === 0 ? [...claimants] : [];
  }

  owner(claim: string): Service | undefined {
    return this.#claimants.get(claim)?.[0];
  }
}

/** The cluster's other nodes, as far as packets may be sent on to them as they are (DSR: docs/decisions/dsr.md). */
import { familyOf, parseAddress } from './address.ts';
import type { Address } from './address.ts';
import { FORWARDINGS } from './desired.ts';
import type { Family } from './desired.ts';
import type { Node } from './objects.ts';

/** On a Node, "snat" keeps it out: another proxy than Maglane serves it, or one that is too old to open what it is sent. */
const FORWARDING_LABEL = 'maglane.io/forwarding';
const [SNAT] = FORWARDINGS;
const FAMILIES: readonly Family[] = [4, 6];

export class Nodes {
  /** The addresses of each, the first of each family. */
  readonly #byName = new Map<string, readonly Address[]>();
  readonly #changed = new Set<string>();
  /** As last told. */
  #told: ReadonlySet<Address> = new Set();

  /** A Node other than this one appeared, changed, or (undefined) went away. */
  set(name: string, node: Node | undefined): void {
    const addresses = node === undefined || node.labels[FORWARDING_LABEL] === SNAT ? [] : firstAddresses(node);
    if (addresses.join() === (this.#byName.get(name) ?? []).join()) return;
    if (addresses.length === 0) this.#byName.delete(name);
    else this.#byName.set(name, addresses);
    this.#changed.add(name);
  }

  /** The address of that family at which a node takes what is sent on as it is; undefined: it takes none. */
  hostOf(name: string, family: Family): Address | undefined {
    return this.#byName.get(name)?.find((address) => familyOf(address) === family);
  }

  /** Names of the nodes that changed since the last call, and the addresses that came (true) or went (false) with them. */
  takeChanged(): { readonly names: ReadonlySet<string>; readonly peers: ReadonlyMap<Address, boolean> } {
    const names = new Set(this.#changed);
    const peers = new Map<Address, boolean>();
    if (names.size === 0) return { names, peers };
    this.#changed.clear();
    const now = new Set([...this.#byName.values()].flat());
    for (const address of this.#told) if (!now.has(address)) peers.set(address, false);
    for (const address of now) if (!this.#told.has(address)) peers.set(address, true);
    this.#told = now;
    return { names, peers };
  }

  /** All addresses, as of the last `takeChanged`. */
  all(): ReadonlyMap<Address, boolean> {
    return new Map([...this.#told].map((address) => [address, true]));
  }
}

/** A Node's address of each family, as all nodes of the cluster know it: InternalIP before ExternalIP, as kube-proxy takes them. */
export function firstAddresses({ addresses }: Node): readonly Address[] {
  const read = addresses.map(parseAddress).filter((address) => address !== undefined);
  return FAMILIES.map((family) => read.find((address) => familyOf(address) === family)).filter((address) => address !== undefined);
}

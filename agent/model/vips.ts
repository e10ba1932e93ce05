/** The addresses of all Services as wholes. Several Services may share one (a load balancer's, a node's), so that each is the sum of what they say. */
import type { Address, Cidr } from './address.ts';
import { rangeTest } from './address.ts';
import type { DesiredAddress } from './desired.ts';

/** How many Services say what of one address. */
interface Count {
  services: number;
  owning: number;
  answering: number;
}

export class Vips {
  readonly #counts = new Map<Address, Count>();
  /** As they were when they were last taken, of those that may have changed since. */
  readonly #before = new Map<Address, DesiredAddress | undefined>();
  #isInCidr: (address: Address) => boolean = () => false;
  /** Owned addresses outside the ServiceCIDRs. */
  #beyond = 0;

  /** One Service says something else of its addresses. */
  replace(former: readonly DesiredAddress[], now: readonly DesiredAddress[]): void {
    for (const one of former) this.#add(one, -1);
    for (const one of now) this.#add(one, 1);
  }

  setCidrs(cidrs: readonly Cidr[]): void {
    this.#isInCidr = rangeTest(cidrs);
    this.#beyond = 0;
    for (const [address, { owning }] of this.#counts) if (owning > 0 && !this.#isInCidr(address)) this.#beyond++;
  }

  /** Whether some owned address lies outside the ServiceCIDRs. */
  get ownsBeyond(): boolean {
    return this.#beyond > 0;
  }

  /** What is different since the last call; undefined: gone. */
  takeChanged(): Map<Address, DesiredAddress | undefined> {
    const changed = new Map<Address, DesiredAddress | undefined>();
    for (const [address, before] of this.#before) {
      const now = this.#sumOf(address);
      if (now?.owned !== before?.owned || now?.ping !== before?.ping) changed.set(address, now);
    }
    this.#before.clear();
    return changed;
  }

  all(): Map<Address, DesiredAddress | undefined> {
    return new Map([...this.#counts.keys()].map((address) => [address, this.#sumOf(address)]));
  }

  #add({ address, owned, ping }: DesiredAddress, by: 1 | -1): void {
    if (!this.#before.has(address)) this.#before.set(address, this.#sumOf(address));
    const count = this.#counts.get(address) ?? { services: 0, owning: 0, answering: 0 };
    const wasOwned = count.owning > 0;
    count.services += by;
    count.owning += owned ? by : 0;
    count.answering += ping ? by : 0;
    if (count.owning > 0 !== wasOwned && !this.#isInCidr(address)) this.#beyond += by;
    if (count.services === 0) this.#counts.delete(address);
    else this.#counts.set(address, count);
  }

  #sumOf(address: Address): DesiredAddress | undefined {
    const count = this.#counts.get(address);
    return count && { address, owned: count.owning > 0, ping: count.answering > 0 };
  }
}

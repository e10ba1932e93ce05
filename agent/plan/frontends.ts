/** The frontends of all services, as the maps hold them, and the writes between those and others. */
import type { DesiredService } from '../model/desired.ts';
import type { Draft } from './draft.ts';
import type { Entry } from './entry.ts';
import type { HeldFrontend } from './held.ts';
import { frontendKey, isSameFrontend } from './records.ts';

export class Frontends {
  /** By address, port and protocol; without an owner those that point at no service. */
  readonly #held = new Map<string, { readonly frontend: HeldFrontend; readonly owner: Entry | undefined }>();

  /** Adopts what the maps hold. @param ownerOf the entry of a service by its id, which is told of its frontends. */
  constructor(held: readonly HeldFrontend[], ownerOf: (service: number) => Entry | undefined) {
    for (const frontend of held) {
      const owner = ownerOf(frontend.service);
      const key = frontendKey(frontend.address, frontend.port, frontend.protocol);
      owner?.frontends.add(key);
      this.#held.set(key, { frontend, owner });
    }
  }

  get size(): number {
    return this.#held.size;
  }

  /** How many of a service's frontends nobody has yet. */
  countNew({ frontends, protocol }: DesiredService): number {
    return frontends.filter(({ address, port }) => !this.#held.has(frontendKey(address, port, protocol))).length;
  }

  /** Plans the end of what a service has and no longer desires (undefined: of all it has). @returns whether that makes room. */
  release(entry: Entry, desired: DesiredService | undefined, draft: Draft): boolean {
    const wanted = new Set(desired?.frontends.map(({ address, port }) => frontendKey(address, port, desired.protocol)));
    let any = false;
    for (const key of entry.frontends) {
      if (wanted.has(key)) continue;
      entry.frontends.delete(key);
      any = this.#drop(key, draft) || any;
    }
    return any;
  }

  /** Plans the end of those that point at no service. @returns whether that makes room. */
  releaseOwnerless(draft: Draft): boolean {
    let any = false;
    for (const [key, { owner }] of this.#held) if (owner === undefined) any = this.#drop(key, draft) || any;
    return any;
  }

  /** Plans that a service has this one, whoever had it. */
  put(entry: Entry, frontend: HeldFrontend, draft: Draft): void {
    const key = frontendKey(frontend.address, frontend.port, frontend.protocol);
    const held = this.#held.get(key);
    if (held?.owner === entry && isSameFrontend(held.frontend, frontend)) return;
    held?.owner?.frontends.delete(key);
    entry.frontends.add(key);
    this.#held.set(key, { frontend, owner: entry });
    draft.frontendDeletes.delete(key);
    draft.frontendPuts.set(key, frontend);
  }

  #drop(key: string, draft: Draft): boolean {
    const held = this.#held.get(key);
    if (held === undefined) return false;
    this.#held.delete(key);
    draft.frontendDeletes.set(key, held.frontend);
    return true;
  }
}

/** The slots of backends: who has which id, and which are under grace because a flow may still remember them. */
import type { Draft, Retired } from './draft.ts';
import type { Entry } from './entry.ts';
import type { Held, HeldBackend } from './held.ts';
import { IdAllocator } from './ids.ts';
import { endpointOf, isSameBackend } from './records.ts';

export class Slots {
  readonly #ids: IdAllocator;
  /** Under grace, by id. One that comes back in time leaves this map, and its slot stays. */
  readonly #retiring = new Map<number, { readonly retired: Retired; readonly entry: Entry | undefined; readonly endpoint: string }>();

  /**
   * Adopts what the maps hold.
   * @param entryOf the entry of a service id; its backends are filled in.
   * @param leftovers gets what an earlier agent retired and did not live to reclaim: slots of no service, and those marked already.
   */
  constructor({ capacity, backends }: Held, entryOf: (service: number) => Entry | undefined, leftovers: Draft) {
    this.#ids = new IdAllocator(
      capacity.backends,
      backends.map(({ id }) => id),
    );
    for (const backend of backends) this.#adopt(backend, entryOf(backend.service), leftovers);
  }

  /** Ids in use, retired ones included until they are reclaimed. */
  get used(): number {
    return this.#ids.used;
  }

  get free(): number {
    return this.#ids.free;
  }

  /** Plans a backend that serves: in the slot that it has, or in a new one. */
  write(entry: Entry, endpoint: string, wanted: Omit<HeldBackend, 'id'>, draft: Draft): void {
    const held = entry.backends.get(endpoint);
    // All fields at once: V8 lays out an object that is spread and added to in two pieces, 45 bytes more for each of 250,000.
    const { service, address, port, serving, local, terminating, inCluster, inLocal, host } = wanted;
    const backend: HeldBackend = { id: held?.id ?? this.#ids.take(), service, address, port, serving, local, terminating, inCluster, inLocal, host };
    if (held !== undefined && isSameBackend(held, backend)) return;
    entry.backends.set(endpoint, backend);
    this.#retiring.delete(backend.id);
    if (held === undefined) {
      draft.backendPuts.push(backend);
      return;
    }
    // Who is in a set says so for as long as the set stands: a new one before, a former one still.
    const meanwhile = { ...backend, inCluster: held.inCluster || backend.inCluster, inLocal: held.inLocal || backend.inLocal };
    if (!isSameBackend(held, meanwhile)) draft.memberFlags.push(meanwhile);
    if (!isSameBackend(meanwhile, backend)) draft.leaverFlags.push(backend);
  }

  /** Plans that a slot serves no more; it stays until it is reclaimed. */
  retire(entry: Entry, endpoint: string, backend: HeldBackend, draft: Draft): void {
    if (this.#retiring.has(backend.id)) return;
    const marked: HeldBackend = { ...backend, serving: false, inCluster: false, inLocal: false };
    entry.backends.set(endpoint, marked);
    this.#retiring.set(backend.id, { retired: draft.retired, entry, endpoint });
    draft.retired.backends.push(backend.id);
    if (backend.serving) draft.leaverFlags.push(marked);
  }

  /** Plans that slots are cleared; those that sockets still have open are retired anew: an endpoint that comes back finds its count. */
  reclaim(retired: Retired, isOpen: (backend: number) => boolean, draft: Draft): void {
    for (const id of retired.backends) {
      const retiring = this.#retiring.get(id);
      // It has come back meanwhile, and perhaps left again.
      if (retiring?.retired !== retired) continue;
      if (isOpen(id)) {
        this.#retiring.set(id, { ...retiring, retired: draft.retired });
        draft.retired.backends.push(id);
        continue;
      }
      this.#retiring.delete(id);
      retiring.entry?.backends.delete(retiring.endpoint);
      this.#ids.giveBack(id);
      draft.backendClears.push(id);
    }
  }

  #adopt(backend: HeldBackend, entry: Entry | undefined, { retired }: Draft): void {
    const endpoint = endpointOf(backend);
    const isTwin = entry?.backends.has(endpoint) === true;
    if (!isTwin) entry?.backends.set(endpoint, backend);
    if (entry !== undefined && backend.serving && !isTwin) return;
    this.#retiring.set(backend.id, { retired, entry: isTwin ? undefined : entry, endpoint });
    retired.backends.push(backend.id);
  }
}

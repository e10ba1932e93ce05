/**
 * Where the sets of backends lie in the ring. A set never changes in place: a new one is built aside. Members come before
 * tables: without its table a service is served at random, without its members not at all.
 */
import type { DesiredService } from '../model/desired.ts';
import type { Draft, Retired } from './draft.ts';
import type { Entry } from './entry.ts';
import type { Held, SetRegion } from './held.ts';
import { buildTable } from './maglev.ts';
import { regionOf, SETS, tableOf } from './records.ts';
import type { SetName } from './records.ts';
import { RingAllocator } from './ring.ts';

/** A set without members. */
export const NOWHERE: SetRegion = { base: 0, count: 0, table: 0 };
/** Its members: one array for all, as most Local sets are empty. */
export const NOBODY = new Uint32Array();

/** Where a set will lie; `ids` undefined: where it lies already. */
export interface Placement {
  readonly region: SetRegion;
  readonly ids: readonly string[] | undefined;
}

export class Sets {
  readonly #slots: number;
  /** Slots that no table may take: every backend may be in both sets of its service. */
  readonly #reserve: number;
  readonly #ring: RingAllocator;

  /** Adopts what the maps hold. */
  constructor({ capacity, services }: Held) {
    this.#slots = capacity.ringSlots;
    this.#reserve = Math.min(2 * capacity.backends, capacity.ringSlots / 2);
    const regions = services.flatMap(({ cluster, local }) => [cluster, local].map(regionOf));
    this.#ring = new RingAllocator(
      capacity.ringSlots,
      regions.filter(({ length }) => length > 0),
    );
  }

  /** Slots in use, retired ones included until they are reclaimed. */
  get used(): number {
    return this.#slots - this.#ring.free;
  }

  /**
   * Finds room for both sets, without a table if need be. Undefined: there is none, and nothing was taken.
   * @param ids "address:port" of each set's members.
   */
  place(desired: DesiredService, ids: Record<SetName, readonly string[]>, entry: Entry | undefined): Record<SetName, Placement> | undefined {
    const cluster = this.#placeOne(desired, 'cluster', ids.cluster, entry);
    if (cluster === undefined) return undefined;
    const local = this.#placeOne(desired, 'local', ids.local, entry);
    if (local !== undefined) return { cluster, local };
    if (cluster.ids !== undefined && cluster.region.count > 0) this.#ring.giveBack(regionOf(cluster.region));
    return undefined;
  }

  /** Finds room for the tables that a service's sets lack. Undefined: there is none for all of them, and nothing was taken. */
  placeTables(entry: Entry): Record<SetName, Placement> | undefined {
    const { service, members } = entry;
    const endpoints = new Map([...entry.backends].map(([endpoint, { id }]) => [id, endpoint]));
    const placements: Record<SetName, Placement> = {
      cluster: { region: service.cluster, ids: undefined },
      local: { region: service.local, ids: undefined },
    };
    for (const set of SETS) {
      const { count } = service[set];
      const table = tableOf(service, count);
      if (service[set].table === table) continue;
      const base = this.#takeWithTable(count, table);
      if (base !== undefined) placements[set] = { region: { base, count, table }, ids: Array.from(members[set], (id) => endpoints.get(id) ?? '') };
      else {
        if (placements.cluster.ids !== undefined) this.#ring.giveBack(regionOf(placements.cluster.region));
        return undefined;
      }
    }
    return placements;
  }

  #placeOne(desired: DesiredService, set: SetName, ids: readonly string[], entry: Entry | undefined): Placement | undefined {
    const count = ids.length;
    const table = tableOf(desired, count);
    const held = entry?.service[set];
    const isSame = held !== undefined && held.count === count && ids.every((endpoint, i) => entry?.backends.get(endpoint)?.id === entry?.members[set][i]);
    if (isSame && held.table === table) return { region: held, ids: undefined };
    if (count === 0) return { region: NOWHERE, ids };
    const base = table === 0 ? undefined : this.#takeWithTable(count, table);
    if (base !== undefined) return { region: { base, count, table }, ids };
    // A random service has no table to keep.
    if (isSame && table !== 0) return { region: held, ids: undefined };
    const bare = this.#ring.take(count);
    return bare === undefined ? undefined : { region: { base: bare, count, table: 0 }, ids };
  }

  #takeWithTable(count: number, table: number): number | undefined {
    return this.#ring.free - count - table < this.#reserve ? undefined : this.#ring.take(count + table);
  }

  /** Plans a set where `place` has found room; its members have their slots. The service record is the caller's. */
  write(entry: Entry, set: SetName, { region, ids }: Placement, draft: Draft): void {
    if (ids === undefined) return;
    const members = ids.length === 0 ? NOBODY : new Uint32Array(ids.length);
    ids.forEach((endpoint, i) => (members[i] = entry.backends.get(endpoint)?.id ?? 0));
    this.retire(entry.service[set], draft);
    entry.members[set] = members;
    if (members.length === 0) return;
    const slots = new Uint32Array(members.length + region.table);
    slots.set(members);
    slots.set(
      buildTable(ids, region.table).map((i) => members[i] ?? 0),
      members.length,
    );
    draft.ringWrites.push({ base: region.base, slots });
  }

  /** Plans the end of a set that no service record points at any more. */
  retire(region: SetRegion, draft: Draft): void {
    if (region.count > 0) draft.retired.regions.push(regionOf(region));
  }

  reclaim({ regions }: Retired): void {
    for (const region of regions) this.#ring.giveBack(region);
  }
}

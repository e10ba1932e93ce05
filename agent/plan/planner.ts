/**
 * From what is desired and what the maps hold to the writes between them. Pure: no I/O, no clock.
 *
 * The planner assumes that its plans are executed. When one is not, whoever executes reads the maps
 * back and makes a new planner of that.
 */
import type { Address } from '../model/address.ts';
import type { Backend, DesiredAddress, DesiredNode, DesiredService, ServiceKey } from '../model/desired.ts';
import type { Delta } from '../model/delta.ts';
import type { Problem } from '../model/problem.ts';
import { Addresses } from './addresses.ts';
import type { Shortage } from './capacity.ts';
import { shortageProblem, TABLES_KEY, tablesProblem } from './capacity.ts';
import type { Plan, Retired } from './draft.ts';
import { Draft } from './draft.ts';
import type { Entry } from './entry.ts';
import { Frontends } from './frontends.ts';
import type { Capacity, Held, HeldService } from './held.ts';
import { IdAllocator } from './ids.ts';
import { NodeRecord } from './node.ts';
import { Peers } from './peers.ts';
import { SourceRanges } from './ranges.ts';
import { endpointOf, isSameService, onlyHeld, recordOf, SETS, tableOf } from './records.ts';
import type { SetName } from './records.ts';
import type { Placement } from './sets.ts';
import { NOBODY, NOWHERE, Sets } from './sets.ts';
import { Slots } from './slots.ts';

export type { Plan, Retired } from './draft.ts';

/** What the model says is different. */
export type Changes = Pick<Delta, 'services' | 'addresses' | 'node' | 'peers'>;

/** Entries in use, retired ones included until they are reclaimed; `refused`: services with a capacity problem. */
export interface Usage {
  readonly services: number;
  /** With the addresses, which lie in the same map. */
  readonly frontends: number;
  readonly backends: number;
  readonly ringSlots: number;
  readonly sourceRanges: number;
  readonly peers: number;
  readonly refused: number;
}

/** A service for which there is room. */
interface Placed {
  /** By "address:port": the Cluster set, then what the Local set has besides, then spare ones. */
  readonly wanted: ReadonlyMap<string, Backend>;
  /** "address:port" of each member, in order. */
  readonly ids: Record<SetName, readonly string[]>;
  readonly sets: Record<SetName, Placement>;
}

/** Service ids are keys of a hash: they can rotate through far more numbers than the map has room for. */
const SERVICE_IDS = 2 ** 31;

export class Planner {
  readonly #capacity: Capacity;
  readonly #services = new Map<ServiceKey, Entry>();
  readonly #frontends: Frontends;
  readonly #addresses: Addresses;
  readonly #ranges: SourceRanges;
  readonly #node: NodeRecord;
  readonly #peers: Peers;
  readonly #serviceIds: IdAllocator;
  readonly #slots: Slots;
  readonly #sets: Sets;
  readonly #refused = new Map<ServiceKey, { readonly desired: DesiredService; readonly problem: Problem }>();
  /** Services with sets that lack their Maglev tables. */
  readonly #tableless = new Set<Entry>();
  #lacksTables = false;
  /** Something was freed since the refused were last tried. */
  #hasRoom = false;
  /** With what an earlier agent retired and did not live to reclaim. */
  #firstDraft: Draft | undefined = new Draft();

  /** Adopts what the maps hold. The first plan must be a `planAll`, or plans of parts and then one. */
  constructor(held: Held) {
    this.#capacity = held.capacity;
    const byId = new Map<number, Entry>();
    for (const service of held.services) {
      const entry: Entry = {
        service,
        frontends: new Set(),
        backends: new Map(),
        members: { cluster: held.members(service.cluster), local: held.members(service.local) },
      };
      byId.set(service.id, entry);
      // Two under one name cannot come from us; under a name nobody desires the second one goes away.
      this.#services.set(this.#services.has(service.key) ? `${service.key}#${service.id}` : service.key, entry);
    }
    this.#frontends = new Frontends(held.frontends, (service) => byId.get(service));
    this.#addresses = new Addresses(held.addresses);
    this.#ranges = new SourceRanges(held.sourceRanges);
    this.#node = new NodeRecord(held.node);
    this.#peers = new Peers(held.peers, held.capacity.peers);
    this.#slots = new Slots(held, (service) => byId.get(service), this.#firstDraft as Draft);
    this.#sets = new Sets(held);
    this.#serviceIds = new IdAllocator(SERVICE_IDS, [...byId.keys(), ...held.backends.map(({ service }) => service)]);
  }

  get usage(): Usage {
    return {
      services: this.#services.size,
      frontends: this.#frontends.size + this.#addresses.size,
      backends: this.#slots.used,
      ringSlots: this.#sets.used,
      sourceRanges: this.#ranges.size,
      peers: this.#peers.size,
      refused: this.#refused.size,
    };
  }

  /** Plans changes of some services and addresses and of the node, and those refused before that fit by now. */
  plan(changes: Changes): Plan {
    const draft = this.#begin();
    this.#peers.change(changes.peers, draft);
    return this.#plan(new Map(changes.services.map(({ key, desired }) => [key, desired])), changes.addresses, changes.node, draft);
  }

  /**
   * Plans the whole desired state: what is held beyond it is deleted.
   * @param planned services of it that `plan` has been given already.
   */
  planAll(all: Changes, planned: ReadonlySet<ServiceKey> = new Set()): Plan {
    const services = new Map(all.services.map(({ key, desired }) => [key, desired]));
    for (const key of [...this.#services.keys(), ...this.#refused.keys()]) if (!services.has(key) && !planned.has(key)) services.set(key, undefined);
    const addresses = new Map([...all.addresses, ...this.#addresses.beyond(all.addresses)]);
    const draft = this.#begin();
    if (this.#frontends.releaseOwnerless(draft)) this.#hasRoom = true;
    this.#peers.change(new Map([...this.#peers.beyond(all.peers), ...all.peers]), draft);
    this.#ranges.keepOnly(new Set([...this.#services.values()].map(({ service }) => service.id)), draft);
    return this.#plan(services, addresses, all.node, draft);
  }

  /**
   * Plans the end of what an earlier plan of this planner retired, and tries again what was refused.
   * To be called once no packet under way can remember it.
   * @param isOpen whether sockets have this backend open: then its slot is not given away yet, but retired anew.
   */
  reclaim(retired: Retired, isOpen: (backend: number) => boolean = () => false): Plan {
    const draft = this.#begin();
    this.#slots.reclaim(retired, isOpen, draft);
    this.#sets.reclaim(retired);
    for (const id of retired.services) this.#serviceIds.giveBack(id);
    this.#hasRoom = true;
    return this.#plan(new Map(), new Map(), undefined, draft);
  }

  #begin(): Draft {
    const draft = this.#firstDraft ?? new Draft();
    this.#firstDraft = undefined;
    return draft;
  }

  #plan(
    changes: ReadonlyMap<ServiceKey, DesiredService | undefined>,
    addresses: ReadonlyMap<Address, DesiredAddress | undefined>,
    node: DesiredNode | undefined,
    draft: Draft,
  ): Plan {
    // What goes makes room for what comes, so it goes first.
    if (this.#addresses.release(addresses, draft)) this.#hasRoom = true;
    for (const [key, desired] of changes) this.#release(key, desired, draft);
    for (const [key, desired] of changes) {
      if (desired === undefined) this.#settle(key, undefined, draft);
      else this.#serve(desired, draft);
    }
    if (this.#hasRoom) {
      this.#hasRoom = false;
      for (const [key, { desired }] of this.#refused) if (!changes.has(key)) this.#serve(desired, draft);
      // Thousands may wait, and what was freed is rarely enough for more than one: the first that finds no room ends the round.
      for (const entry of this.#tableless) if (!this.#giveTables(entry, draft)) break;
    }
    this.#tellTables(draft);
    this.#addresses.put(addresses, this.#frontendRoom, this.#capacity.frontends, draft);
    if (node !== undefined) this.#node.set(node, this.#capacity.serviceCidrs, draft);
    return draft.finish();
  }

  get #frontendRoom(): number {
    return this.#capacity.frontends - this.#frontends.size - this.#addresses.size;
  }

  /** Takes away what a service no longer has: frontends, or all of it. */
  #release(key: ServiceKey, desired: DesiredService | undefined, draft: Draft): void {
    const entry = this.#services.get(key);
    if (entry === undefined) return;
    if (this.#frontends.release(entry, desired, draft)) this.#hasRoom = true;
    if (desired !== undefined) return;
    for (const [endpoint, backend] of entry.backends) this.#slots.retire(entry, endpoint, backend, draft);
    for (const set of SETS) this.#sets.retire(entry.service[set], draft);
    this.#ranges.set(entry.service.id, [], draft);
    draft.serviceDeletes.push(entry.service.id);
    draft.retired.services.push(entry.service.id);
    this.#services.delete(key);
    this.#tableless.delete(entry);
  }

  /** Serves a service as desired; when that does not fit, with what it holds of that already. */
  #serve(desired: DesiredService, draft: Draft): void {
    const entry = this.#services.get(desired.key);
    const short = this.#apply(desired, draft);
    if (short !== undefined && entry !== undefined) {
      const ranges = this.#ranges.heldOf(entry.service.id, desired.sourceRanges ?? []);
      this.#apply(onlyHeld(desired, entry.frontends, entry.backends, ranges), draft);
    }
    this.#settle(
      desired.key,
      short === undefined ? undefined : { desired, problem: shortageProblem(desired, short, this.#capacity, entry !== undefined) },
      draft,
    );
  }

  /** Remembers what to try again, and tells the problem when it is a new one. */
  #settle(key: ServiceKey, refused: { readonly desired: DesiredService; readonly problem: Problem } | undefined, draft: Draft): void {
    const known = this.#refused.get(key);
    if (refused === undefined) this.#refused.delete(key);
    else this.#refused.set(key, refused);
    if (known?.problem.message !== refused?.problem.message) draft.problems.set(key, refused?.problem);
  }

  /** @returns what it found no room in; then nothing was done. */
  #apply(desired: DesiredService, draft: Draft): Shortage | undefined {
    const entry = this.#services.get(desired.key);
    const ids = { cluster: desired.cluster.map(endpointOf), local: desired.local.map(endpointOf) };
    const wanted = new Map<string, Backend>();
    for (const set of SETS) desired[set].forEach((backend, i) => wanted.set(ids[set][i] ?? '', backend));
    // They serve, but nothing new comes to them: a slot matters only to flows that have one.
    for (const backend of desired.spare) if (entry?.backends.get(endpointOf(backend))?.serving === true) wanted.set(endpointOf(backend), backend);
    let newBackends = 0;
    for (const endpoint of wanted.keys()) if (entry?.backends.has(endpoint) !== true) newBackends++;
    if (entry === undefined && this.#services.size + draft.serviceDeletes.length >= this.#capacity.services) return 'services';
    const ranges = desired.sourceRanges ?? [];
    const newRanges = ranges.length - this.#ranges.heldOf(entry?.service.id, ranges).length;
    if (this.#frontends.countNew(desired) > this.#frontendRoom) return 'frontends';
    if (newRanges > this.#capacity.sourceRanges - this.#ranges.size - draft.rangeDeletes.length) return 'ranges';
    if (newBackends > this.#slots.free) return 'backends';
    const sets = this.#sets.place(desired, ids, entry);
    if (sets === undefined) return 'ring';
    this.#write(desired, { wanted, ids, sets }, entry, draft);
    return undefined;
  }

  #write(desired: DesiredService, { wanted, ids, sets }: Placed, known: Entry | undefined, draft: Draft): void {
    const entry = known ?? this.#addService(desired);
    const id = entry.service.id;
    const locals = new Set(ids.local);
    // The Cluster set's come first.
    let left = ids.cluster.length;
    wanted.forEach(({ address, port, local, terminating, host }, endpoint) => {
      const inCluster = left-- > 0;
      const inLocal = locals.has(endpoint);
      this.#slots.write(entry, endpoint, { service: id, address, port, serving: true, local, terminating, inCluster, inLocal, host }, draft);
    });
    for (const set of SETS) this.#sets.write(entry, set, sets[set], draft);

    const service: HeldService = { ...recordOf(desired), id: entry.service.id, cluster: sets.cluster.region, local: sets.local.region };
    if (known === undefined || !isSameService(service, entry.service)) draft.servicePuts.push(service);
    entry.service = service;
    if (SETS.some((set) => service[set].table !== tableOf(service, service[set].count))) this.#tableless.add(entry);
    else this.#tableless.delete(entry);

    this.#ranges.set(service.id, desired.sourceRanges ?? [], draft);
    for (const { address, port, kind, hostOnly } of desired.frontends) {
      const sourceRanges = kind === 'LoadBalancer' && desired.sourceRanges !== undefined;
      this.#frontends.put(entry, { address, port, protocol: desired.protocol, kind, hostOnly, sourceRanges, service: service.id }, draft);
    }
    if (entry.backends.size === wanted.size) return;
    for (const [endpoint, backend] of entry.backends) if (!wanted.has(endpoint)) this.#slots.retire(entry, endpoint, backend, draft);
  }

  /** @returns whether there was room. */
  #giveTables(entry: Entry, draft: Draft): boolean {
    const sets = this.#sets.placeTables(entry);
    if (sets === undefined) return false;
    for (const set of SETS) this.#sets.write(entry, set, sets[set], draft);
    entry.service = { ...entry.service, cluster: sets.cluster.region, local: sets.local.region };
    draft.servicePuts.push(entry.service);
    this.#tableless.delete(entry);
    return true;
  }

  #tellTables(draft: Draft): void {
    const lacksTables = this.#tableless.size > 0;
    if (lacksTables !== this.#lacksTables) draft.problems.set(TABLES_KEY, lacksTables ? tablesProblem(this.#capacity) : undefined);
    this.#lacksTables = lacksTables;
  }

  #addService(desired: DesiredService): Entry {
    const service = { ...recordOf(desired), id: this.#serviceIds.take(), cluster: NOWHERE, local: NOWHERE };
    const entry: Entry = { service, frontends: new Set(), backends: new Map(), members: { cluster: NOBODY, local: NOBODY } };
    this.#services.set(desired.key, entry);
    return entry;
  }
}

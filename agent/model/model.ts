/**
 * The model: Services, EndpointSlices and this node in; what the dataplane must do out.
 *
 * It keeps the objects and almost nothing else. A change marks the Services it touches, and
 * `takeChanged` works those out anew: one slice of one Service costs that Service, however many
 * others there are. No I/O, no clock; the same objects give the same answer in whatever order they came.
 */
import type { Cidr } from './address.ts';
import { Claims } from './claims.ts';
import type { Delta, DesiredChange } from './delta.ts';
import { UNCHANGED } from './delta.ts';
import type { DesiredAddress, DesiredNode, HealthCheck, ServiceKey } from './desired.ts';
import type { Place } from './endpoints.ts';
import type { NodeFacts } from './facts.ts';
import { desiredNode, mergeCidrs, readServiceCidr } from './node.ts';
import { Nodes } from './nodes.ts';
import type { Change, EndpointSlice, Node, Service, ServiceCidr } from './objects.ts';
import type { Problem } from './problem.ts';
import { readService } from './service-port.ts';
import { Vips } from './vips.ts';
import { workOut } from './work-out.ts';

export interface ModelCounts {
  /** Service objects, those left to others included. */
  readonly services: number;
  readonly slices: number;
  /** Rows of all slices, whatever their state. */
  readonly endpoints: number;
}

/** All that is kept of one Service, by "namespace/name": there may be slices before there is a Service. */
interface Entry {
  service: Service | undefined;
  /** By name, so that their order does not depend on history. */
  slices: readonly EndpointSlice[];
  /** What the last delta made of it. */
  keys: readonly ServiceKey[];
  vips: readonly DesiredAddress[];
  healthCheck: HealthCheck | undefined;
  troubled: readonly string[];
}

const NOTHING: readonly never[] = [];
const ZONE_LABEL = 'topology.kubernetes.io/zone';
/** Services and endpoints that are handed on together: as many as die in V8's nursery. */
const PART = 128;

export class Model {
  #facts: NodeFacts;
  /** This node's own object, as last seen. */
  #node: Node | undefined;
  readonly #nodes = new Nodes();
  #claims = new Claims();
  readonly #vips = new Vips();
  /** By name. */
  readonly #serviceCidrs = new Map<string, readonly Cidr[]>();
  #cidrs: readonly Cidr[] = NOTHING;
  /** As it was last told. */
  #desiredNode: DesiredNode | undefined;
  readonly #entries = new Map<string, Entry>();
  readonly #slices = new Map<string, EndpointSlice>();
  readonly #changed = new Set<string>();
  readonly #problems = new Map<string, readonly Problem[]>();
  /** Found since the last delta. */
  readonly #newProblems = new Map<string, readonly Problem[]>();
  readonly #newHealthChecks = new Map<string, HealthCheck | undefined>();
  #services = 0;
  #endpoints = 0;

  constructor(facts: NodeFacts) {
    this.#facts = facts;
  }

  /** Takes changes in, in order. Nothing is worked out before `takeChanged`. */
  apply(changes: readonly Change[]): void {
    for (const change of changes) {
      if (change.kind === 'Service') this.#setService(change.key, change.object);
      else if (change.kind === 'EndpointSlice') this.#setSlice(change.key, change.object);
      else if (change.kind === 'ServiceCIDR') this.#setServiceCidr(change.key, change.object);
      // A Node that is deleted still says what it said (k8s.io/kubernetes/pkg/proxy/config.NodeTopologyConfig).
      else if (change.key !== this.#facts.name) this.#setOtherNode(change.key, change.object);
      else if (change.object !== undefined) this.#setNode(change.object);
    }
  }

  /** New facts of the node: everything is worked out anew. Those that are known already change nothing. */
  setFacts(facts: NodeFacts): void {
    if (isEqual(facts, this.#facts)) return;
    if (facts.name !== this.#facts.name) this.#node = undefined;
    this.#facts = facts;
    this.#claims = new Claims();
    for (const [key, { service }] of this.#entries) {
      for (const claim of this.#claimsOf(service)) this.#claims.add(claim, service as Service);
      this.#changed.add(key);
    }
  }

  /**
   * Works out every Service touched since the last call. The result is the caller's: the model keeps no part of it.
   * @param early is handed Services as they are worked out, some at a time: of very many at once, what stands for them need not all
   *   be there together. By default all come in the end. When it throws, `takeAll` is due.
   */
  takeChanged(early?: (part: Delta) => void): Delta {
    let services: DesiredChange[] = [];
    let endpoints = 0;
    const surroundings = { facts: this.#facts, place: this.#place(), claims: this.#claims, nodes: this.#nodes };
    const { names, peers } = this.#nodes.takeChanged();
    if (names.size > 0) this.#touchHostedOn(names);
    // First all that stood, then all that stands: a slice may have gone from one Service to another.
    for (const key of this.#changed) this.#entries.get(key)?.troubled.forEach((object) => this.#newProblems.set(object, NOTHING));
    for (const key of this.#changed) {
      const entry = this.#entries.get(key);
      if (entry === undefined) continue;
      const outcome = workOut(entry.service, entry.slices, surroundings);
      const keys = outcome.desired.map((desired) => desired.key);
      for (const gone of entry.keys) if (!keys.includes(gone)) services.push({ key: gone, desired: undefined });
      for (const desired of outcome.desired) {
        services.push({ key: desired.key, desired });
        endpoints += desired.cluster.length + desired.local.length;
      }
      for (const [object, list] of outcome.problems) this.#newProblems.set(object, list);
      this.#vips.replace(entry.vips, outcome.vips);
      if (!isEqual(entry.healthCheck, outcome.healthCheck)) this.#newHealthChecks.set(key, outcome.healthCheck);
      entry.keys = keys.length === 0 ? NOTHING : keys;
      entry.vips = outcome.vips;
      entry.healthCheck = outcome.healthCheck;
      entry.troubled = outcome.problems.size === 0 ? NOTHING : [...outcome.problems.keys()];
      if (entry.service === undefined && entry.slices.length === 0) this.#entries.delete(key);
      if (early === undefined || services.length + endpoints < PART) continue;
      early({ ...UNCHANGED, services });
      services = [];
      endpoints = 0;
    }
    this.#changed.clear();
    const node = desiredNode(this.#facts, this.#node, this.#cidrs, this.#vips.ownsBeyond);
    const isNewNode = !isEqual(node, this.#desiredNode);
    this.#desiredNode = node;
    const healthChecks = new Map(this.#newHealthChecks);
    this.#newHealthChecks.clear();
    const problems = this.#changedProblems(this.#newProblems);
    this.#newProblems.clear();
    return { services, addresses: this.#vips.takeChanged(), node: isNewNode ? node : undefined, peers, healthChecks, problems };
  }

  /** All that is desired now, for one who knows nothing of it; of health checks and problems what is different since the last call. */
  takeAll(early?: (part: Delta) => void): Delta {
    for (const key of this.#entries.keys()) this.#changed.add(key);
    const delta = this.takeChanged(early);
    return { ...delta, addresses: this.#vips.all(), node: this.#desiredNode, peers: this.#nodes.all() };
  }

  /** All problems that stand, as of the last `takeChanged`. */
  get problems(): ReadonlyMap<string, readonly Problem[]> {
    return this.#problems;
  }

  get counts(): ModelCounts {
    return { services: this.#services, slices: this.#slices.size, endpoints: this.#endpoints };
  }

  /** The uid of a Service, by "namespace/name"; "" when it is not known. */
  uidOf(service: string): string {
    return this.#entries.get(service)?.service?.uid ?? '';
  }

  #entry(key: string): Entry {
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      entry = { service: undefined, slices: NOTHING, keys: NOTHING, vips: NOTHING, healthCheck: undefined, troubled: NOTHING };
      this.#entries.set(key, entry);
    }
    return entry;
  }

  #setService(key: string, service: Service | undefined): void {
    const entry = this.#entry(key);
    const former = entry.service;
    entry.service = service;
    this.#changed.add(key);
    this.#services += (service === undefined ? 0 : 1) - (former === undefined ? 0 : 1);
    for (const claim of this.#claimsOf(former)) this.#touch(this.#claims.remove(claim, former as Service));
    for (const claim of this.#claimsOf(service)) this.#touch(this.#claims.add(claim, service as Service));
  }

  #touch(services: readonly Service[]): void {
    for (const { namespace, name } of services) this.#changed.add(`${namespace}/${name}`);
  }

  #setSlice(key: string, slice: EndpointSlice | undefined): void {
    const former = this.#slices.get(key);
    if (slice === undefined) this.#slices.delete(key);
    else this.#slices.set(key, slice);
    this.#endpoints += (slice?.addresses.length ?? 0) - (former?.addresses.length ?? 0);
    if (former !== undefined) this.#changeSlices(former, (slices) => slices.filter((other) => other !== former));
    if (slice !== undefined) this.#changeSlices(slice, (slices) => [...slices, slice].sort((a, b) => (a.name < b.name ? -1 : 1)));
  }

  #changeSlices(slice: EndpointSlice, change: (slices: readonly EndpointSlice[]) => readonly EndpointSlice[]): void {
    if (slice.service === '') return;
    const key = `${slice.namespace}/${slice.service}`;
    const entry = this.#entry(key);
    entry.slices = change(entry.slices);
    this.#changed.add(key);
  }

  #setServiceCidr(key: string, object: ServiceCidr | undefined): void {
    const { read, problems } = object === undefined ? { read: NOTHING, problems: NOTHING } : readServiceCidr(object);
    if (object === undefined) this.#serviceCidrs.delete(key);
    else this.#serviceCidrs.set(key, read);
    this.#newProblems.set(`ServiceCIDR ${key}`, problems);
    this.#cidrs = mergeCidrs(this.#serviceCidrs);
    this.#vips.setCidrs(this.#cidrs);
  }

  #setNode(node: Node): void {
    const zone = this.#place().zone;
    this.#node = node;
    if (this.#place().zone === zone) return;
    for (const [key, { slices }] of this.#entries) if (slices.some((slice) => slice.zoneHints !== undefined)) this.#changed.add(key);
  }

  #setOtherNode(name: string, node: Node | undefined): void {
    if (this.#facts.dsr) this.#nodes.set(name, node);
  }

  /** Marks the Services that have endpoints on these nodes. */
  #touchHostedOn(nodes: ReadonlySet<string>): void {
    for (const [key, { slices }] of this.#entries) if (slices.some(({ nodeNames }) => nodeNames.some((name) => nodes.has(name)))) this.#changed.add(key);
  }

  #place(): Place {
    return { name: this.#facts.name, zone: this.#node === undefined ? this.#facts.zone : (this.#node.labels[ZONE_LABEL] ?? '') };
  }

  /** What the Service claims under the present facts: read anew rather than kept. */
  #claimsOf(service: Service | undefined): string[] {
    const read = service === undefined ? undefined : readService(service, this.#facts);
    return read?.ports.flatMap((port) => port.wanted.map(({ claim }) => claim)) ?? [];
  }

  /** Keeps the problems that stand; those that stood as they are need no telling. */
  #changedProblems(found: ReadonlyMap<string, readonly Problem[]>): Map<string, readonly Problem[]> {
    const changed = new Map<string, readonly Problem[]>();
    for (const [object, list] of found) {
      if (isEqual(list, this.#problems.get(object) ?? NOTHING)) continue;
      if (list.length === 0) this.#problems.delete(object);
      else this.#problems.set(object, list);
      changed.set(object, list);
    }
    return changed;
  }
}

/** Of records without functions and without cycles. */
const isEqual = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

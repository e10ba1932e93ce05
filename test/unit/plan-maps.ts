/** Maps in memory: executes writes one by one as the kernel would, and says at any moment whether they are consistent. */
import type { Address, Cidr } from '../../agent/model/address.ts';
import { formatCidr, formatEndpoint } from '../../agent/model/address.ts';
import type { Backend, DesiredAddress, DesiredNode, DesiredService, Frontend } from '../../agent/model/desired.ts';
import type { Capacity, Held, HeldBackend, HeldFrontend, HeldService, HeldSourceRange, SetRegion, Write } from '../../agent/plan/held.ts';
import type { Changes } from '../../agent/plan/planner.ts';
import { BARE_NODE } from './model-builders.ts';

/** Room for all that these tests write. */
export const ROOMY: Capacity = { services: 50, frontends: 100, backends: 200, ringSlots: 20_000, sourceRanges: 50, serviceCidrs: 4, peers: 8 };

export class Maps {
  readonly capacity: Capacity;
  readonly services = new Map<number, HeldService>();
  readonly frontends = new Map<string, HeldFrontend>();
  readonly backends = new Map<number, HeldBackend>();
  readonly addresses = new Map<Address, DesiredAddress>();
  /** "service base/prefix". */
  readonly ranges = new Map<string, HeldSourceRange>();
  node: DesiredNode = BARE_NODE;
  readonly peers = new Set<Address>();
  readonly ring: Uint32Array;

  constructor(capacity: Partial<Capacity> = {}) {
    this.capacity = { ...ROOMY, ...capacity };
    this.ring = new Uint32Array(this.capacity.ringSlots);
  }

  execute(write: Write): void {
    switch (write.op) {
      case 'frontend.delete':
        if (!this.frontends.delete(keyOf(write))) throw new Error('deleted a frontend that is not there');
        return;
      case 'frontend.put':
        this.frontends.set(keyOf(write.frontend), write.frontend);
        return;
      case 'backend.put':
        if (this.backends.has(write.backend.id)) throw new Error('put a backend into a slot in use');
        this.backends.set(write.backend.id, write.backend);
        return;
      case 'backend.flags': {
        const held = this.backends.get(write.backend.id);
        if (held?.address !== write.backend.address || held.port !== write.backend.port || held.service !== write.backend.service)
          throw new Error('flags of another backend');
        this.backends.set(write.backend.id, write.backend);
        return;
      }
      case 'backend.clear':
        if (!this.backends.delete(write.id)) throw new Error('cleared an empty slot');
        return;
      case 'ring.write':
        for (const region of this.#liveRegions()) {
          if (write.base < region.base + region.count + region.table && region.base < write.base + write.slots.length)
            throw new Error('wrote over a region in use');
        }
        this.ring.set(write.slots, write.base);
        return;
      case 'service.put':
        this.services.set(write.service.id, write.service);
        return;
      case 'service.delete':
        if (!this.services.delete(write.id)) throw new Error('deleted a service that is not there');
        return;
      case 'address.put':
        this.addresses.set(write.address.address, write.address);
        return;
      case 'address.delete':
        if (!this.addresses.delete(write.address)) throw new Error('deleted an address that is not there');
        return;
      case 'range.put':
        this.ranges.set(rangeKey(write.range), write.range);
        return;
      case 'range.delete':
        if (!this.ranges.delete(rangeKey(write.range))) throw new Error('deleted a source range that is not there');
        return;
      case 'peer.put':
        this.peers.add(write.address);
        return;
      case 'peer.delete':
        if (!this.peers.delete(write.address)) throw new Error('deleted a peer that is not there');
        return;
      case 'node.put':
        this.node = write.node;
    }
  }

  /** Throws when a packet could meet something incomplete, or a map is beyond its size. */
  check(): void {
    if (this.services.size > this.capacity.services) throw new Error('services is over-full');
    if (this.frontends.size + this.addresses.size > this.capacity.frontends) throw new Error('frontends is over-full');
    if (this.ranges.size > this.capacity.sourceRanges) throw new Error('source_ranges is over-full');
    if (this.peers.size > this.capacity.peers) throw new Error('peers is over-full');
    if (this.node.serviceCidrs.length > this.capacity.serviceCidrs) throw new Error('the node has too many ServiceCIDRs');
    for (const id of this.backends.keys()) if (id < 1 || id >= this.capacity.backends) throw new Error(`backend id ${id} is outside`);
    for (const frontend of this.frontends.values()) if (!this.services.has(frontend.service)) throw new Error('a frontend points at no service');
    for (const service of this.services.values()) {
      for (const region of [service.cluster, service.local]) {
        const end = region.base + region.count + region.table;
        if (end > this.capacity.ringSlots) throw new Error('a region lies outside the ring');
        for (const id of this.ring.subarray(region.base, end)) {
          const backend = this.backends.get(id);
          if (backend?.service !== service.id || !backend.serving) throw new Error(`a slot names a backend that is not serving ${service.key}`);
        }
      }
    }
  }

  snapshot(): Held {
    const ring = this.ring.slice();
    return {
      capacity: this.capacity,
      services: [...this.services.values()],
      frontends: [...this.frontends.values()],
      addresses: [...this.addresses.values()],
      sourceRanges: [...this.ranges.values()],
      node: this.node,
      peers: [...this.peers],
      backends: [...this.backends.values()],
      members: ({ base, count }: SetRegion) => ring.slice(base, base + count),
    };
  }

  /** What the maps do, in the model's words and without ids: comparable to what was desired. */
  asDesired(): DesiredService[] {
    return [...this.services.values()]
      .sort((a, b) => (a.key < b.key ? -1 : 1))
      .map((service) => ({
        key: service.key,
        namespace: service.namespace,
        name: service.name,
        portName: service.portName,
        protocol: service.protocol,
        family: service.family,
        algorithm: service.algorithm,
        affinitySeconds: service.affinitySeconds,
        internalLocal: service.internalLocal,
        externalLocal: service.externalLocal,
        hasAny: service.hasAny,
        frontends: [...this.frontends.values()]
          .filter((frontend) => frontend.service === service.id)
          .map(({ address, port, kind, hostOnly }) => ({ address, port, kind, hostOnly }))
          .sort((a, b) => (formatEndpoint(a.address, a.port) < formatEndpoint(b.address, b.port) ? -1 : 1)),
        cluster: this.#membersOf(service, 'cluster', 'inCluster'),
        local: this.#membersOf(service, 'local', 'inLocal'),
        spare: [...this.backends.values()]
          .filter((held) => held.service === service.id && held.serving && !held.inCluster && !held.inLocal)
          .map(({ address, port, local, terminating, host }) => ({ address, port, local, terminating, host }))
          .sort((a, b) => (a.address < b.address ? -1 : 1)),
        sourceRanges: this.#rangesOf(service.id),
      }));
  }

  /** None at all is open, unless a frontend asks for some. */
  #rangesOf(service: number): Cidr[] | undefined {
    const ranges = [...this.ranges.values()].filter((one) => one.service === service).map(({ range }) => range);
    const asks = [...this.frontends.values()].some((frontend) => frontend.service === service && frontend.sourceRanges);
    return ranges.length === 0 && !asks ? undefined : ranges.sort((a, b) => (formatCidr(a) < formatCidr(b) ? -1 : 1));
  }

  /** Throws when the backends that say they are members are others than the members. */
  #membersOf(service: HeldService, set: 'cluster' | 'local', flag: 'inCluster' | 'inLocal'): Backend[] {
    const { base, count } = service[set];
    const ids = [...this.ring.subarray(base, base + count)];
    const flagged = [...this.backends].filter(([, backend]) => backend.service === service.id && backend[flag]).map(([id]) => id);
    if ([...ids].sort().join() !== flagged.sort().join()) throw new Error(`${service.key}: ${set} is ${ids.join()}, flagged are ${flagged.join()}`);
    return ids.map((id) => {
      const { address, port, local, terminating, host } = this.backends.get(id)!;
      return { address, port, local, terminating, host };
    });
  }

  #liveRegions(): SetRegion[] {
    return [...this.services.values()].flatMap(({ cluster, local }) => [cluster, local]).filter(({ count }) => count > 0);
  }
}

function keyOf({ address, port, protocol }: { address: Address; port: number; protocol: string }): string {
  return `${formatEndpoint(address, port)}/${protocol}`;
}

const rangeKey = ({ service, range }: HeldSourceRange): string => `${service} ${formatCidr(range)}`;

/** These services and nothing else, as changes. */
export function changes(services: Iterable<DesiredService>, besides: Partial<Changes> = {}): Changes {
  return { services: [...services].map((desired) => ({ key: desired.key, desired })), addresses: new Map(), node: undefined, peers: new Map(), ...besides };
}

/** These service ports are gone. */
export const gone = (...services: DesiredService[]): Changes => changes([], { services: services.map(({ key }) => ({ key, desired: undefined })) });

export const at = (address: string): Address => address as Address;

export function backend(address: string, options: Partial<Backend> = {}): Backend {
  return { address: at(address), port: 8080, local: false, terminating: false, host: undefined, ...options };
}

export function frontend(address: string, options: Partial<Frontend> = {}): Frontend {
  return { address: at(address), port: 80, kind: 'ClusterIP', hostOnly: false, ...options };
}

/** "web" or "team/web": a desired service, random, TCP over IPv4, with nothing in it. */
export function service(name: string, options: Partial<DesiredService> = {}): DesiredService {
  return {
    key: `default/${name}:http/TCP/4`,
    namespace: 'default',
    name,
    portName: 'http',
    protocol: 'TCP',
    family: 4,
    algorithm: 'random',
    affinitySeconds: 0,
    internalLocal: false,
    externalLocal: false,
    hasAny: true,
    frontends: [],
    cluster: [],
    local: [],
    spare: [],
    sourceRanges: undefined,
    ...options,
  };
}

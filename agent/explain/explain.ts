/**
 * What the kernel programs would do with a new connection, told from what the maps hold: the same
 * decisions as bpf/sock.h, bpf/service.h, bpf/affinity.h and bpf/core.h, in the same order, with the
 * reason for each. Pure, and asks no kernel: it says what the maps say, with the agent dead just as well.
 */
import type { Address } from '../model/address.ts';
import { familyOf, formatCidr, formatEndpoint, inRanges } from '../model/address.ts';
import type { DesiredAddress, Family, Protocol } from '../model/desired.ts';
import type { Held, HeldBackend, HeldFrontend, HeldService, HeldSourceRange, SetRegion } from '../plan/held.ts';
import { frontendKey } from '../plan/records.ts';

/** Where a connection goes. */
export interface Destination {
  readonly address: Address;
  readonly port: number;
  readonly protocol: Protocol;
}

/** Where a connection comes from. */
export interface Caller {
  /** The node's own network namespace, a pod of this node, or whatever comes in by a device that faces outside. */
  readonly place: 'node' | 'pod' | 'outside';
  /** "socket": a process in the agent's cgroup; what the socket hooks leave alone goes on as a packet. Never from outside. */
  readonly way: 'socket' | 'packet';
  /** undefined: not known, so that what hangs on it is told instead of decided. */
  readonly source: Address | undefined;
}

export type Verdict =
  | 'backend' // one of the targets
  | 'reject' // refused: ECONNREFUSED, or ICMP port unreachable
  | 'drop'
  | 'pass' // not ours: left to the node's routes
  | 'broken'; // the maps contradict themselves

/** A backend that may be chosen. */
export interface Target {
  readonly backend: HeldBackend;
  /** The backend sees an address of this node instead of the caller's. */
  readonly masquerade: boolean;
  /** The backend's node, which gets the packets as they are and answers the caller itself; a datagram too long for that is masqueraded. */
  readonly host: Address | undefined;
}

export interface Explanation {
  readonly verdict: Verdict;
  /** Each decision on the way, for people; the last one is the verdict. */
  readonly why: readonly string[];
  readonly frontend: HeldFrontend | undefined;
  readonly service: HeldService | undefined;
  readonly set: 'cluster' | 'local' | undefined;
  /** In the set's order; empty unless the verdict is "backend". */
  readonly targets: readonly Target[];
}

/** Answers for one state of the maps. */
export class Explainer {
  readonly #held: Held;
  readonly #isLocal: (address: Address) => boolean;
  readonly #frontends: ReadonlyMap<string, HeldFrontend>;
  readonly #services: ReadonlyMap<number, HeldService>;
  readonly #backends: ReadonlyMap<number, HeldBackend>;
  readonly #addresses: ReadonlyMap<Address, DesiredAddress>;
  readonly #ranges: ReadonlyMap<number, readonly HeldSourceRange[]>;

  /** @param isLocal whether an interface of this node holds an address. */
  constructor(held: Held, isLocal: (address: Address) => boolean) {
    this.#held = held;
    this.#isLocal = isLocal;
    this.#frontends = new Map(held.frontends.map((frontend) => [frontendKey(frontend.address, frontend.port, frontend.protocol), frontend]));
    this.#services = new Map(held.services.map((service) => [service.id, service]));
    this.#backends = new Map(held.backends.map((backend) => [backend.id, backend]));
    this.#addresses = new Map(held.addresses.map((address) => [address.address, address]));
    this.#ranges = Map.groupBy(held.sourceRanges, ({ service }) => service);
  }

  /** What a new connection would meet. */
  explain(to: Destination, from: Caller): Explanation {
    const frontend = this.#frontends.get(frontendKey(to.address, to.port, to.protocol));
    if (from.way === 'packet') return this.#packet(to, frontend, from, []);
    const left = leftBySocket(frontend, to, from);
    if (frontend === undefined || left !== undefined) return this.#packet(to, frontend, from, [left ?? 'the socket hooks know no such frontend']);
    return this.#choose(frontend, { ...from, source: undefined }, []);
  }

  #packet(to: Destination, frontend: HeldFrontend | undefined, from: Caller, before: readonly string[]): Explanation {
    const packet: Caller = { ...from, way: 'packet' };
    if (frontend === undefined) return this.#whole(to, before);
    if (frontend.hostOnly) return end('pass', [...before, 'a nodePort on loopback is for sockets of the node alone: not ours'], { frontend });
    if (!frontend.sourceRanges) return this.#choose(frontend, packet, before);
    const ranges = (this.#ranges.get(frontend.service) ?? []).map(({ range }) => range);
    const texts = ranges.length === 0 ? 'none' : ranges.map(formatCidr).join(', ');
    if (from.source === undefined)
      return this.#choose(frontend, packet, [...before, `only for sources in loadBalancerSourceRanges (${texts}), others are dropped`]);
    if (inRanges(ranges, from.source)) return this.#choose(frontend, packet, [...before, `${from.source} is in loadBalancerSourceRanges (${texts})`]);
    return end('drop', [...before, `${from.source} is not in loadBalancerSourceRanges (${texts}): dropped`], {
      frontend,
      service: this.#services.get(frontend.service),
    });
  }

  /** What is no frontend's, at an address that may be a Service's. */
  #whole({ address }: Destination, before: readonly string[]): Explanation {
    const { serviceCidrs, ownsBeyond } = this.#held.node;
    const inside = inRanges(serviceCidrs, address);
    const foreign = 'no frontend has this address, port and protocol: not ours';
    if (!inside && !ownsBeyond) return end('pass', [...before, foreign]);
    const known = this.#addresses.get(address);
    if (known === undefined && !inside) return end('pass', [...before, foreign]);
    if (this.#isLocal(address)) return end('pass', [...before, 'an interface of this node holds the address: not ours']);
    if (known === undefined) return end('drop', [...before, 'a ServiceCIDR holds the address, and no Service has it: dropped']);
    if (known.owned) return end('reject', [...before, 'a Service has the address, and none that port: rejected']);
    return end('pass', [...before, `${foreign} (a Service has the address, yet does not own all of it)`]);
  }

  #choose(frontend: HeldFrontend, from: Caller, before: readonly string[]): Explanation {
    const service = this.#services.get(frontend.service);
    if (service === undefined) return end('broken', [...before, `the frontend points at service ${frontend.service}, which is not there`], { frontend });
    const [set, why] = this.#set(frontend, service, from);
    const steps = [...before, why];
    const known = { frontend, service, set };
    const targets: Target[] = [];
    for (const id of this.#eligible(service[set])) {
      const backend = this.#backends.get(id);
      if (backend === undefined || backend.service !== service.id || familyOf(backend.address) !== service.family)
        return end('broken', [...steps, `the set holds backend ${id}, which is not one of this service`], known);
      const host = this.#hostFor(frontend, service.family, from, backend);
      targets.push({ backend, masquerade: host === undefined && this.#isMasqueraded(frontend, from, backend), host });
    }
    if (targets.length > 0) return end('backend', [...steps, `${targets.length} in the set, chosen by ${choiceOf(service, from)}`], { ...known, targets });
    if (!service.hasAny) return end('reject', [...steps, 'no endpoint anywhere: rejected'], known);
    return end('drop', [...steps, `endpoints, but none in this set: dropped${from.way === 'socket' ? ' (a socket hears ECONNREFUSED at once)' : ''}`], known);
  }

  /** The set that binds a caller: policy Local of what faces outside binds neither the node nor pods (kube-proxy's short circuit). */
  #set(frontend: HeldFrontend, service: HeldService, from: Caller): ['cluster' | 'local', string] {
    const internal = frontend.kind === 'ClusterIP';
    const name = internal ? 'internalTrafficPolicy' : 'externalTrafficPolicy';
    if (!(internal ? service.internalLocal : service.externalLocal)) return ['cluster', `${name} is Cluster: the Cluster set`];
    if (internal) return ['local', `${name} is Local: the Local set`];
    if (from.place === 'node') return ['cluster', `${name} is Local, which does not bind the node itself: the Cluster set`];
    if (this.#isPod(service.family, from)) return ['cluster', `${name} is Local, which does not bind pods: the Cluster set`];
    return ['local', `${name} is Local, and detectLocalMode sees no pod here: the Local set`];
  }

  /** Whether detectLocalMode calls a caller a pod. Devices that it detects by are not asked: of those, pods' alone count here. */
  #isPod(family: Family, { place, source }: Caller): boolean {
    const { pods4, pods6, detectsByDevice } = this.#held.node;
    const pods = family === 4 ? pods4 : pods6;
    if (place === 'pod') return pods !== undefined || detectsByDevice;
    return pods !== undefined && source !== undefined && inRanges([pods], source);
  }

  /** Whether a backend sees an address of this node in place of the caller's (bpf/core.h, find_way). */
  #isMasqueraded({ kind }: HeldFrontend, { way, place, source }: Caller, { address, local }: HeldBackend): boolean {
    if (way === 'socket') return false;
    // Else answers would miss this node, or the caller would hear from itself.
    if (place === 'outside' ? !local : place === 'node' || source === address) return true;
    return this.#held.node.masqueradesAll && kind === 'ClusterIP' && !(local && this.#isLocal(address));
  }

  /** The node that gets the packets as they are (bpf/host.h, host_for). */
  #hostFor({ kind }: HeldFrontend, family: Family, from: Caller, { local, host }: HeldBackend): Address | undefined {
    return from.place === 'outside' && !local && kind !== 'ClusterIP' && !this.#isPod(family, from) ? host : undefined;
  }

  /** Every id that a choice may come to: the members, or what stands in the Maglev table. */
  #eligible(region: SetRegion): number[] {
    const members = [...this.#held.members(region)];
    if (region.table === 0) return members;
    const table = new Set(this.#held.members({ base: region.base + region.count, count: region.table, table: 0 }));
    return [...members.filter((id) => table.has(id)), ...[...table].filter((id) => !members.includes(id))];
  }
}

/** Why the socket hooks leave a frontend alone; undefined: they do not. */
function leftBySocket(frontend: HeldFrontend | undefined, { protocol }: Destination, { place }: Caller): string | undefined {
  if (protocol === 'SCTP') return 'the socket hooks leave SCTP to the packet path';
  if (frontend?.sourceRanges === true) return 'the socket hooks leave source ranges to the packet path, which knows the source';
  if (frontend?.hostOnly === true && place !== 'node') return "the socket hooks keep a nodePort on loopback for the node's own processes";
  return undefined;
}

function choiceOf({ algorithm: ofSockets, affinitySeconds }: HeldService, { way }: Caller): string {
  const isOfSockets = ofSockets === 'round-robin' || ofSockets === 'least-connections';
  const algorithm = way === 'packet' && isOfSockets ? `maglev (${ofSockets} is for sockets)` : ofSockets;
  return affinitySeconds === 0 ? algorithm : `affinity for ${affinitySeconds} s, else ${algorithm}`;
}

function end(verdict: Verdict, why: readonly string[], known: Partial<Explanation> = {}): Explanation {
  return { frontend: undefined, service: undefined, set: undefined, targets: [], ...known, verdict, why };
}

/** "10.96.0.1:80/TCP". */
export function formatDestination({ address, port, protocol }: Destination): string {
  return `${formatEndpoint(address, port)}/${protocol}`;
}

/**
 * What the kernel programs would do with a new connection, told from what the maps hold: the same
 * decisions as bpf/sock.h, bpf/service.h, bpf/affinity.h and bpf/core.h, in the same order, with the
 * reason for each. Pure, and asks no kernel: it says what the maps say, with the agent dead just as well.
 */
import type { Address } from '../model/address.ts';
import { familyOf, formatEndpoint } from '../model/address.ts';
import type { Protocol } from '../model/desired.ts';
import type { Held, HeldBackend, HeldFrontend, HeldService, SetRegion } from '../plan/held.ts';
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
  readonly #frontends: ReadonlyMap<string, HeldFrontend>;
  readonly #services: ReadonlyMap<number, HeldService>;
  readonly #backends: ReadonlyMap<number, HeldBackend>;

  constructor(held: Held) {
    this.#held = held;
    this.#frontends = new Map(held.frontends.map((frontend) => [frontendKey(frontend.address, frontend.port, frontend.protocol), frontend]));
    this.#services = new Map(held.services.map((service) => [service.id, service]));
    this.#backends = new Map(held.backends.map((backend) => [backend.id, backend]));
  }

  /** What a new connection would meet. */
  explain(to: Destination, from: Caller): Explanation {
    const frontend = this.#frontends.get(frontendKey(to.address, to.port, to.protocol));
    const left = from.way === 'socket' ? leftBySocket(frontend, to, from) : undefined;
    if (from.way === 'packet' || left !== undefined) return this.#packet(frontend, from, left === undefined ? [] : [left]);
    return this.#choose(frontend as HeldFrontend, from, []);
  }

  #packet(frontend: HeldFrontend | undefined, from: Caller, before: readonly string[]): Explanation {
    if (frontend === undefined) return end('pass', [...before, 'no frontend has this address, port and protocol: not ours']);
    if (frontend.hostOnly) return end('pass', [...before, 'a nodePort on loopback is for sockets of the node alone: not ours'], { frontend });
    return this.#choose(frontend, from, before);
  }

  #choose(frontend: HeldFrontend, from: Caller, before: readonly string[]): Explanation {
    const service = this.#services.get(frontend.service);
    if (service === undefined) return end('broken', [...before, `the frontend points at service ${frontend.service}, which is not there`], { frontend });
    const [set, why] = chooseSet(frontend, service, from);
    const steps = [...before, why];
    const known = { frontend, service, set };
    const targets: Target[] = [];
    for (const id of this.#eligible(service[set], service)) {
      const backend = this.#backends.get(id);
      if (backend === undefined || backend.service !== service.id || familyOf(backend.address) !== service.family)
        return end('broken', [...steps, `the set holds backend ${id}, which is not one of this service`], known);
      targets.push({ backend, masquerade: from.way === 'packet' && !backend.local });
    }
    if (targets.length > 0) return end('backend', [...steps, `${targets.length} in the set, chosen by ${choiceOf(service)}`], { ...known, targets });
    if (!service.hasAny) return end('reject', [...steps, 'no endpoint anywhere: rejected'], known);
    return end('drop', [...steps, `endpoints, but none in this set: dropped${from.way === 'socket' ? ' (a socket hears ECONNREFUSED at once)' : ''}`], known);
  }

  /** Every id that a choice may come to: the members, or what stands in the Maglev table. */
  #eligible(region: SetRegion, service: HeldService): number[] {
    const members = [...this.#held.members(region)];
    if (service.algorithm !== 'maglev' || region.table === 0) return members;
    const table = new Set(this.#held.members({ base: region.base + region.count, count: region.table, table: 0 }));
    return [...members.filter((id) => table.has(id)), ...[...table].filter((id) => !members.includes(id))];
  }
}

/** Why no socket hook decides; undefined: one does. */
function leftBySocket(frontend: HeldFrontend | undefined, { protocol }: Destination, { place }: Caller): string | undefined {
  if (protocol === 'SCTP') return 'the socket hooks leave SCTP to the packet path';
  if (frontend === undefined) return 'the socket hooks know no such frontend';
  if (frontend.hostOnly && place !== 'node') return "the socket hooks keep a nodePort on loopback for the node's own processes";
  return undefined;
}

/** The set that binds a caller: policy Local of what faces outside does not bind the node and its pods (kube-proxy's short circuit). */
function chooseSet(frontend: HeldFrontend, service: HeldService, { place }: Caller): ['cluster' | 'local', string] {
  const internal = frontend.kind === 'ClusterIP';
  const name = internal ? 'internalTrafficPolicy' : 'externalTrafficPolicy';
  if (!(internal ? service.internalLocal : service.externalLocal)) return ['cluster', `${name} is Cluster: the Cluster set`];
  if (internal || place === 'outside') return ['local', `${name} is Local: the Local set`];
  return ['cluster', `${name} is Local, which does not bind ${place === 'node' ? 'the node itself' : 'pods'}: the Cluster set`];
}

function choiceOf({ algorithm, affinitySeconds }: HeldService): string {
  return affinitySeconds === 0 ? algorithm : `affinity for ${affinitySeconds} s, else ${algorithm}`;
}

function end(verdict: Verdict, why: readonly string[], known: Partial<Explanation> = {}): Explanation {
  return { frontend: undefined, service: undefined, set: undefined, targets: [], ...known, verdict, why };
}

/** "10.96.0.1:80/TCP". */
export function formatDestination({ address, port, protocol }: Destination): string {
  return `${formatEndpoint(address, port)}/${protocol}`;
}

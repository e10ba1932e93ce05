/**
 * Which endpoints a service port uses: kube-proxy's port matching, its deduplication and
 * CategorizeEndpoints (k8s.io/kubernetes/pkg/proxy/topology.go). Everything here is built for one
 * answer and dropped with it; only slices are kept.
 */
import { formatEndpoint } from './address.ts';
import type { Address } from './address.ts';
import { Checker, soundAddress } from './checks.ts';
import type { Backend, Family, Protocol } from './desired.ts';
import { READY, SERVING, TERMINATING } from './objects.ts';
import type { EndpointSlice } from './objects.ts';
import type { Problem } from './problem.ts';

/** Where the choice is made: this node and its zone, "" when it has none. */
export interface Place {
  readonly name: string;
  readonly zone: string;
}

/** The address of a node, by its name, to send packets on to as they are; undefined: it takes none. */
export type HostOf = (nodeName: string) => Address | undefined;
export const nowhere: HostOf = () => undefined;

/** A slice whose addresses and ports have been judged, once for all ports of its Service. */
export interface ReadSlice {
  readonly slice: EndpointSlice;
  readonly family: Family;
  /** By index; undefined where refused or empty. */
  readonly addresses: readonly (Address | undefined)[];
  /** Usable ports alone. */
  readonly ports: readonly { readonly name: string; readonly protocol: Protocol; readonly port: number }[];
}

/** The sets of one service port. */
export interface Chosen {
  readonly cluster: readonly Backend[];
  readonly local: readonly Backend[];
  readonly spare: readonly Backend[];
  readonly hasAny: boolean;
}

/** One endpoint of a service port: a row of a slice, and one of its ports. */
interface Endpoint {
  readonly slice: EndpointSlice;
  readonly row: number;
  readonly backend: Backend;
  /** "address:port". */
  readonly text: string;
  readonly ready: boolean;
  readonly serving: boolean;
  /** The last resort when no endpoint is ready: serving and terminating. */
  readonly leaving: boolean;
}

/** "EndpointSlice namespace/name", as problems name it. */
export function nameOfSlice(slice: EndpointSlice): string {
  return `EndpointSlice ${slice.namespace}/${slice.name}`;
}

/** Judges a slice's addresses and ports, each for itself. Undefined for a slice that holds no IP addresses. */
export function readSlice(slice: EndpointSlice): { read: ReadSlice | undefined; problems: readonly Problem[] } {
  const check = new Checker(nameOfSlice(slice));
  if (slice.addressType === 'FQDN') return { read: undefined, problems: [] };
  if (slice.addressType !== 'IPv4' && slice.addressType !== 'IPv6') {
    check.refuse('addressType', slice.addressType, 'is unknown: IPv4, IPv6 or FQDN would be right', 'invalid_value');
    return { read: undefined, problems: check.problems };
  }
  const family = slice.addressType === 'IPv4' ? 4 : 6;
  const ports: { name: string; protocol: Protocol; port: number }[] = [];
  slice.ports.forEach(({ name, protocol: text, port: number }, i) => {
    if (name === undefined || number === 0) return;
    const port = check.port(`ports[${i}].port`, number);
    const protocol = check.protocol(`ports[${i}].protocol`, text);
    if (port !== undefined && protocol !== undefined) ports.push({ name, protocol, port });
  });
  const addresses = slice.addresses.map((text, i) =>
    text === '' ? undefined : (soundAddress(family, text) ?? check.addressOf(family, `endpoints[${i}].addresses[0]`, text)),
  );
  return { read: { slice, family, addresses, ports }, problems: check.problems };
}

/**
 * The endpoints that a service port's policies choose among.
 * @param slices those of the Service, always in the same order: where rows differ about one endpoint, order decides.
 * @param port matched by name and protocol, never by number.
 * @param hostOf asked for endpoints of other nodes.
 */
export function chooseEndpoints(
  slices: readonly ReadSlice[],
  port: { portName: string; protocol: Protocol; family: Family; usesCluster: boolean; usesLocal: boolean },
  place: Place,
  hostOf: HostOf = nowhere,
): Chosen {
  const endpoints = matchEndpoints(slices, port, place, hostOf);
  const cluster = port.usesCluster ? chooseCluster(endpoints, place) : [];
  const local = port.usesLocal ? readyOrLeaving(endpoints.filter((e) => e.backend.local)) : [];
  const used = new Set([...cluster, ...local]);
  // Only UDP has flows that would otherwise be cut loose (kube-proxy's conntrack cleanup asks "is it serving", and nothing else).
  const spare = port.protocol === 'UDP' ? endpoints.filter((e) => e.serving && !used.has(e)) : [];
  return { cluster: sorted(cluster), local: sorted(local), spare: sorted(spare), hasAny: endpoints.some((e) => e.ready || e.leaving) };
}

/** How many distinct addresses of one family are endpoints here and ready, over all ports that the slices have: what a health check node port says. */
export function countLocalReady(slices: readonly ReadSlice[], family: Family, place: Place): number {
  const ports = new Map(slices.flatMap(({ ports }) => ports.map(({ name, protocol }) => [`${name}/${protocol}`, { portName: name, protocol, family }])));
  const found = [...ports.values()].flatMap((port) => matchEndpoints(slices, port, place, nowhere));
  return new Set(found.filter((e) => e.ready && e.backend.local).map((e) => e.backend.address)).size;
}

/**
 * All endpoints of a port, one for each "address:port": a row that is not terminating replaces
 * whatever came before it, a terminating one nothing (kubernetes#135593: a pod's address may be
 * terminating in one slice and alive, reused, in another).
 */
function matchEndpoints(
  slices: readonly ReadSlice[],
  wanted: { portName: string; protocol: Protocol; family: Family },
  place: Place,
  hostOf: HostOf,
): Endpoint[] {
  const found = new Map<string, Endpoint>();
  for (const { slice, family, addresses, ports } of slices) {
    if (family !== wanted.family) continue;
    for (const { name, protocol, port } of ports) {
      if (name !== wanted.portName || protocol !== wanted.protocol) continue;
      addresses.forEach((address, row) => {
        if (address === undefined) return;
        const text = formatEndpoint(address, port);
        const state = slice.states[row] ?? 0;
        const terminating = (state & TERMINATING) !== 0;
        if (terminating && found.has(text)) return;
        const nodeName = slice.nodeNames[row] ?? '';
        const local = nodeName !== '' && nodeName === place.name;
        const backend = { address, port, local, terminating, host: local || nodeName === '' ? undefined : hostOf(nodeName) };
        const serving = (state & SERVING) !== 0;
        found.set(text, { slice, row, backend, text, ready: (state & READY) !== 0, serving, leaving: terminating && serving });
      });
    }
  }
  return [...found.values()];
}

/** The Cluster set: what is ready and near enough; without any, all that is serving and terminating, near or not. */
function chooseCluster(endpoints: readonly Endpoint[], place: Place): readonly Endpoint[] {
  const ready = endpoints.filter((e) => e.ready);
  if (ready.length === 0) return endpoints.filter((e) => e.leaving);
  if (allHinted(ready, nodeHints, place.name)) return ready.filter((e) => nodeHints(e).includes(place.name));
  if (allHinted(ready, zoneHints, place.zone)) return ready.filter((e) => zoneHints(e).includes(place.zone));
  return ready;
}

function readyOrLeaving(endpoints: readonly Endpoint[]): readonly Endpoint[] {
  const ready = endpoints.filter((e) => e.ready);
  return ready.length > 0 ? ready : endpoints.filter((e) => e.leaving);
}

/** Hints count only when every endpoint has some and at least one names this place. */
function allHinted(endpoints: readonly Endpoint[], hints: (e: Endpoint) => readonly string[], place: string): boolean {
  return endpoints.every((e) => hints(e).length > 0) && endpoints.some((e) => hints(e).includes(place));
}

const nodeHints = ({ slice, row }: Endpoint): readonly string[] => slice.nodeHints?.[row] ?? [];
const zoneHints = ({ slice, row }: Endpoint): readonly string[] => slice.zoneHints?.[row] ?? [];

function sorted(endpoints: readonly Endpoint[]): Backend[] {
  return [...endpoints].sort((a, b) => (a.text < b.text ? -1 : 1)).map((e) => e.backend);
}

/** One Service worked out: its object, its slices and what surrounds them in; what the dataplane must do for it out. */
import type { Address } from './address.ts';
import { familyOf, formatEndpoint } from './address.ts';
import type { Claims } from './claims.ts';
import type { DesiredAddress, DesiredService, Family, Frontend, HealthCheck } from './desired.ts';
import { chooseEndpoints, countLocalReady, nameOfSlice, nowhere, readSlice } from './endpoints.ts';
import type { HostOf, Place, ReadSlice } from './endpoints.ts';
import type { NodeFacts } from './facts.ts';
import type { Nodes } from './nodes.ts';
import type { EndpointSlice, Service } from './objects.ts';
import type { Problem } from './problem.ts';
import { nameOfService, readService } from './service-port.ts';
import type { ReadPort, ReadService } from './service-port.ts';

/** What a Service's meaning depends on besides its own objects. */
export interface Surroundings {
  readonly facts: NodeFacts;
  readonly place: Place;
  /** Who owns a frontend that several Services ask for. */
  readonly claims: Claims;
  readonly nodes: Nodes;
}

export interface Outcome {
  /** One of each port and family. */
  readonly desired: readonly DesiredService[];
  readonly vips: readonly DesiredAddress[];
  readonly healthCheck: HealthCheck | undefined;
  /** By the object that has them: the Service or one of its slices. */
  readonly problems: ReadonlyMap<string, readonly Problem[]>;
}

const NOTHING: readonly never[] = [];

/**
 * Throws nothing: what of the objects cannot be served is left out, and has a problem. A Service that is another proxy's, or of
 * a kind that has no frontends, comes to nothing.
 * @param service undefined: there are slices of it, but no Service (yet), and nothing is desired.
 * @param slices by name: of two endpoints with one address and port the order decides.
 */
export function workOut(service: Service | undefined, slices: readonly EndpointSlice[], around: Surroundings): Outcome {
  const read = service === undefined ? undefined : readService(service, around.facts);
  const problems = new Map<string, readonly Problem[]>();
  if (service === undefined || read === undefined) return { desired: NOTHING, vips: NOTHING, healthCheck: undefined, problems };
  const usable: ReadSlice[] = [];
  for (const slice of slices) {
    const { read: usableSlice, problems: found } = readSlice(slice);
    if (usableSlice !== undefined) usable.push(usableSlice);
    if (found.length > 0) problems.set(nameOfSlice(slice), found);
  }
  const lost = new Map<string, Problem>();
  const desired = read.ports.map((port) => workOutPort(service, read, port, usable, around, lost));
  const own = [...read.problems, ...lost.values()];
  if (own.length > 0) problems.set(nameOfService(service), own);
  return { desired, vips: vipsOf(read, desired, around.facts), healthCheck: healthCheckOf(service, read, usable, around.place), problems };
}

/** Each address of a Service once, however many kinds of it are the same. */
function vipsOf({ vips }: ReadService, desired: readonly DesiredService[], { ownLbIps, vipPing }: NodeFacts): readonly DesiredAddress[] {
  const answering = new Set(vipPing ? desired.filter(({ hasAny }) => hasAny).map(({ family }) => family) : NOTHING);
  const found = new Map<Address, DesiredAddress>();
  for (const { address, kind } of vips) {
    const owned = kind === 'ClusterIP' || ownLbIps || found.get(address)?.owned === true;
    found.set(address, { address, owned, ping: answering.has(familyOf(address)) });
  }
  return [...found.values()];
}

function healthCheckOf(
  { namespace, name }: Service,
  { healthCheckNodePort: port, ports }: ReadService,
  slices: readonly ReadSlice[],
  place: Place,
): HealthCheck | undefined {
  if (port === 0 || ports.length === 0) return undefined;
  const count = (family: Family): number | undefined => (ports.some((one) => one.family === family) ? countLocalReady(slices, family, place) : undefined);
  return { namespace, name, port, endpoints4: count(4), endpoints6: count(6) };
}

/** @param lost takes the frontends that belong to other Services, by field and value. */
function workOutPort(
  service: Service,
  read: ReadService,
  port: ReadPort,
  slices: readonly ReadSlice[],
  { claims, nodes, place }: Surroundings,
  lost: Map<string, Problem>,
): DesiredService {
  const frontends: Frontend[] = [];
  for (const { frontend, claim, field } of port.wanted) {
    const owner = claims.owner(claim);
    if (owner === undefined || owner === service) frontends.push(frontend);
    else {
      // One line for a node port, however many addresses it would have been served on.
      const value = frontend.kind === 'NodePort' ? `${frontend.port}/${port.protocol}` : claim;
      lost.set(`${field} ${value}`, conflict(service, owner, field, value));
    }
  }
  return {
    key: port.key,
    namespace: service.namespace,
    name: service.name,
    portName: port.portName,
    protocol: port.protocol,
    family: port.family,
    algorithm: read.algorithm,
    affinitySeconds: read.affinitySeconds,
    internalLocal: read.internalLocal,
    externalLocal: read.externalLocal,
    frontends: frontends.sort((a, b) => (textOf(a) < textOf(b) ? -1 : 1)),
    ...chooseEndpoints(slices, port, place, hostOf(nodes, read, port)),
    sourceRanges: port.sourceRanges,
  };
}

/** How the nodes of a port's endpoints are addressed, where packets for them are sent on as they are. */
function hostOf(nodes: Nodes, { forwarding }: ReadService, { protocol, family }: ReadPort): HostOf {
  // SCTP's checksum belongs to hardware that does not look for it inside of another packet.
  if (forwarding !== 'dsr' || protocol === 'SCTP') return nowhere;
  return (nodeName) => nodes.hostOf(nodeName, family);
}

const textOf = (frontend: Frontend): string => formatEndpoint(frontend.address, frontend.port);

function conflict(service: Service, owner: Service, field: string, value: string): Problem {
  const message = `belongs to ${nameOfService(owner)}, which is older or first by name: an address and port of its own would be right`;
  return { object: nameOfService(service), field, value, message, reason: 'conflict' };
}

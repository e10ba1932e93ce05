/** Small things said of records: their names, their extents, whether they are equal. */
import type { Cidr } from '../model/address.ts';
import { formatEndpoint } from '../model/address.ts';
import type { Backend, DesiredService } from '../model/desired.ts';
import type { HeldBackend, HeldFrontend, HeldService, SetRegion } from './held.ts';
import { tableSize } from './maglev.ts';
import type { Region } from './ring.ts';

export type SetName = 'cluster' | 'local';
export const SETS: readonly SetName[] = ['cluster', 'local'];

/** Names a frontend among all. */
export function frontendKey(address: string, port: number, protocol: string): string {
  return `${address} ${port} ${protocol}`;
}

/** Names a backend within its service, and for Maglev. */
export function endpointOf({ address, port }: Backend | HeldBackend): string {
  return formatEndpoint(address, port);
}

/** The stretch of the ring that a set covers, table included. */
export function regionOf({ base, count, table }: SetRegion): Region {
  return { base, length: count + table };
}

/** Slots of the Maglev table that a set of so many members should have: packets draw from it whatever sockets do, unless by mere chance. */
export function tableOf({ algorithm }: Pick<HeldService, 'algorithm'>, members: number): number {
  return algorithm === 'random' ? 0 : tableSize(members);
}

/** The part of a desired service that needs no room. Of its source ranges those that are there: a list that does not fit lets in fewer, never all. */
export function onlyHeld(
  desired: DesiredService,
  frontends: ReadonlySet<string>,
  backends: ReadonlyMap<string, HeldBackend>,
  ranges: readonly Cidr[],
): DesiredService {
  const isHeld = (backend: Backend): boolean => backends.has(endpointOf(backend));
  return {
    ...desired,
    frontends: desired.frontends.filter(({ address, port }) => frontends.has(frontendKey(address, port, desired.protocol))),
    cluster: desired.cluster.filter(isHeld),
    local: desired.local.filter(isHeld),
    sourceRanges: desired.sourceRanges === undefined ? undefined : ranges,
  };
}

/** What the service record takes over as it is. */
export function recordOf({
  key,
  namespace,
  name,
  portName,
  protocol,
  family,
  algorithm,
  affinitySeconds,
  internalLocal,
  externalLocal,
  hasAny,
}: DesiredService): Omit<HeldService, 'id' | SetName> {
  return { key, namespace, name, portName, protocol, family, algorithm, affinitySeconds, internalLocal, externalLocal, hasAny };
}

/** Whether two frontends of one service and key are equal. */
export function isSameFrontend(a: HeldFrontend, b: HeldFrontend): boolean {
  return a.kind === b.kind && a.hostOnly === b.hostOnly && a.sourceRanges === b.sourceRanges;
}

/** Whether two records of one slot and endpoint are equal. */
export function isSameBackend(a: HeldBackend, b: HeldBackend): boolean {
  return (
    a.serving === b.serving &&
    a.local === b.local &&
    a.terminating === b.terminating &&
    a.inCluster === b.inCluster &&
    a.inLocal === b.inLocal &&
    a.host === b.host
  );
}

/** Whether two records of one key are equal; names, protocol and family are the key's. */
export function isSameService(a: HeldService, b: HeldService): boolean {
  return (
    a.algorithm === b.algorithm &&
    a.affinitySeconds === b.affinitySeconds &&
    a.internalLocal === b.internalLocal &&
    a.externalLocal === b.externalLocal &&
    a.hasAny === b.hasAny &&
    SETS.every((set) => a[set].base === b[set].base && a[set].count === b[set].count && a[set].table === b[set].table)
  );
}

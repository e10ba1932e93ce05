/** Between the plan's records and the structs of bpf/abi.h. Nothing else knows both. */
import type { Address, Cidr as CidrText } from '../model/address.ts';
import { familyOf, readAddress, writeAddress } from '../model/address.ts';
import type { Algorithm as AlgorithmText, DesiredAddress, DesiredNode, FrontendKind as FrontendKindText, Protocol, ServiceKey } from '../model/desired.ts';
import type { HeldBackend, HeldFrontend, HeldService, HeldSourceRange, SetRegion } from '../plan/held.ts';
import type { Backend, BackendSet, Cidr, Frontend, FrontendKey, Node, Service, SourceRangeKey } from './generated/abi.ts';
import { Algorithm, BackendFlag, FrontendFlag, FrontendKind, NodeFlag, SERVICE_CIDRS_MAX, ServiceFlag, SetIndex } from './generated/abi.ts';

/** IPPROTO_* of each protocol. */
const PROTOCOLS: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

const KINDS: Readonly<Record<FrontendKindText, number>> = {
  ClusterIP: FrontendKind.CLUSTER_IP,
  NodePort: FrontendKind.NODE_PORT,
  ExternalIP: FrontendKind.EXTERNAL_IP,
  LoadBalancer: FrontendKind.LOAD_BALANCER,
};

const ALGORITHMS: Readonly<Record<AlgorithmText, number>> = {
  random: Algorithm.RANDOM,
  maglev: Algorithm.MAGLEV,
  'round-robin': Algorithm.ROUND_ROBIN,
  'least-connections': Algorithm.LEAST_CONNECTIONS,
  'source-hash': Algorithm.SOURCE_HASH,
};

function nameOf<T extends string>(numbers: Readonly<Record<T, number>>, value: number, otherwise: T): T {
  return (Object.keys(numbers) as T[]).find((name) => numbers[name] === value) ?? otherwise;
}

/** "namespace/name:port/TCP/4", as the model makes it. */
function keyOf({ namespace, name, portName, proto, family }: Service): ServiceKey {
  return `${namespace}/${name}:${portName}/${nameOf(PROTOCOLS, proto, 'TCP')}/${family}`;
}

export function toFrontendKey({ address, port, protocol }: { readonly address: Address; readonly port: number; readonly protocol: Protocol }): FrontendKey {
  return { addr: address, port, proto: PROTOCOLS[protocol] };
}

export function toFrontend({ service, kind, hostOnly, sourceRanges }: HeldFrontend): Frontend {
  return { service, kind: KINDS[kind], flags: (hostOnly ? FrontendFlag.HOST_ONLY : 0) | (sourceRanges ? FrontendFlag.SOURCE_RANGES : 0) };
}

export function fromFrontend({ addr, port, proto }: FrontendKey, { service, kind, flags }: Frontend): HeldFrontend {
  return {
    address: addr,
    port,
    protocol: nameOf(PROTOCOLS, proto, 'TCP'),
    kind: nameOf(KINDS, kind, 'ClusterIP'),
    hostOnly: (flags & FrontendFlag.HOST_ONLY) !== 0,
    sourceRanges: (flags & FrontendFlag.SOURCE_RANGES) !== 0,
    service,
  };
}

export function toAddressKey(address: Address): FrontendKey {
  return { addr: address, port: 0, proto: 0 };
}

export function toAddress({ owned, ping }: DesiredAddress): Frontend {
  return { service: 0, kind: FrontendKind.ADDRESS, flags: (owned ? FrontendFlag.OWNED : 0) | (ping ? FrontendFlag.PING : 0) };
}

/** Undefined for a frontend, which lies in the same map. */
export function fromAddress({ addr }: FrontendKey, { kind, flags }: Frontend): DesiredAddress | undefined {
  if (kind !== FrontendKind.ADDRESS) return undefined;
  return { address: addr, owned: (flags & FrontendFlag.OWNED) !== 0, ping: (flags & FrontendFlag.PING) !== 0 };
}

/** Bits of a key of `source_ranges` before its address. */
const SERVICE_BITS = 32;

export function toSourceRange({ service, range }: HeldSourceRange): SourceRangeKey {
  return { prefixlen: SERVICE_BITS + maskBits(range), service, addr: range.base };
}

export function fromSourceRange({ prefixlen, service, addr }: SourceRangeKey): HeldSourceRange {
  return { service, range: { base: addr, prefix: prefixlen - SERVICE_BITS - (familyOf(addr) === 4 ? MAPPED_BITS : 0) } };
}

export function toNode({ pods4, pods6, detectsByDevice, serviceCidrs, ownsBeyond, masqueradesAll, address4, address6 }: DesiredNode): Node {
  const flags = [
    pods4 === undefined ? 0 : NodeFlag.DETECTS_V4,
    pods6 === undefined ? 0 : NodeFlag.DETECTS_V6,
    detectsByDevice ? NodeFlag.DETECTS_DEVICE : 0,
    ownsBeyond ? NodeFlag.OWNS_BEYOND : 0,
    masqueradesAll ? NodeFlag.MASQUERADES_ALL : 0,
    address4 === undefined ? 0 : NodeFlag.ADDRESS_V4,
    address6 === undefined ? 0 : NodeFlag.ADDRESS_V6,
  ].reduce((all, flag) => all | flag, 0);
  return {
    flags,
    serviceCidrCount: serviceCidrs.length,
    addr: [address4 ?? NO_ADDRESS, address6 ?? NO_ADDRESS],
    pods: [pods4, pods6].map((pods) => (pods === undefined ? NO_CIDR : toCidr(pods))),
    serviceCidrs: Array.from({ length: SERVICE_CIDRS_MAX }, (_, i) => (serviceCidrs[i] === undefined ? NO_CIDR : toCidr(serviceCidrs[i]))),
  };
}

export function fromNode({ flags, serviceCidrCount, addr, pods, serviceCidrs }: Node): DesiredNode {
  const podsOf = (family: 0 | 1, flag: number): CidrText | undefined => ((flags & flag) === 0 ? undefined : fromCidr(pods[family] ?? NO_CIDR));
  return {
    pods4: podsOf(0, NodeFlag.DETECTS_V4),
    pods6: podsOf(1, NodeFlag.DETECTS_V6),
    detectsByDevice: (flags & NodeFlag.DETECTS_DEVICE) !== 0,
    serviceCidrs: serviceCidrs.slice(0, serviceCidrCount).map(fromCidr),
    ownsBeyond: (flags & NodeFlag.OWNS_BEYOND) !== 0,
    masqueradesAll: (flags & NodeFlag.MASQUERADES_ALL) !== 0,
    address4: (flags & NodeFlag.ADDRESS_V4) === 0 ? undefined : addr[0],
    address6: (flags & NodeFlag.ADDRESS_V6) === 0 ? undefined : addr[1],
  };
}

/** Of ::ffff:0:0/96, which every IPv4 address is in here. */
const MAPPED_BITS = 96;
/** All bytes zero. */
export const NO_ADDRESS = '::' as Address;
const NO_CIDR: Cidr = { net: NO_ADDRESS, mask: NO_ADDRESS };

/** Bits that a mask over 16 bytes has. */
function maskBits({ base, prefix }: CidrText): number {
  return familyOf(base) === 4 ? MAPPED_BITS + prefix : prefix;
}

function toCidr(range: CidrText): Cidr {
  const bits = maskBits(range);
  const mask = Uint8Array.from({ length: 16 }, (_, i) => 0xff << (8 - Math.min(8, Math.max(0, bits - 8 * i))));
  return { net: range.base, mask: readAddress(mask, 0) };
}

function fromCidr({ net, mask }: Cidr): CidrText {
  const bytes = new Uint8Array(16);
  writeAddress(mask, bytes, 0);
  const bits = bytes.reduce((sum, byte) => sum + 8 - Math.log2(256 - byte), 0);
  return { base: net, prefix: familyOf(net) === 4 ? bits - MAPPED_BITS : bits };
}

/** @param turn where round-robin begins. */
export function toService(held: HeldService, turn: number): Service {
  const sets: BackendSet[] = [];
  sets[SetIndex.CLUSTER] = held.cluster;
  sets[SetIndex.LOCAL] = held.local;
  const flags = [
    held.internalLocal ? ServiceFlag.INTERNAL_LOCAL : 0,
    held.externalLocal ? ServiceFlag.EXTERNAL_LOCAL : 0,
    held.hasAny ? ServiceFlag.HAS_ANY : 0,
  ].reduce((all, flag) => all | flag, 0);
  return {
    sets,
    affinitySeconds: held.affinitySeconds,
    algorithm: ALGORITHMS[held.algorithm],
    flags,
    proto: PROTOCOLS[held.protocol],
    family: held.family,
    namespace: held.namespace,
    name: held.name,
    portName: held.portName,
    turn,
  };
}

export function fromService(id: number, service: Service): HeldService {
  const nowhere: SetRegion = { base: 0, count: 0, table: 0 };
  return {
    id,
    key: keyOf(service),
    namespace: service.namespace,
    name: service.name,
    portName: service.portName,
    protocol: nameOf(PROTOCOLS, service.proto, 'TCP'),
    family: service.family === 6 ? 6 : 4,
    algorithm: nameOf(ALGORITHMS, service.algorithm, 'random'),
    affinitySeconds: service.affinitySeconds,
    internalLocal: (service.flags & ServiceFlag.INTERNAL_LOCAL) !== 0,
    externalLocal: (service.flags & ServiceFlag.EXTERNAL_LOCAL) !== 0,
    hasAny: (service.flags & ServiceFlag.HAS_ANY) !== 0,
    cluster: service.sets[SetIndex.CLUSTER] ?? nowhere,
    local: service.sets[SetIndex.LOCAL] ?? nowhere,
  };
}

export function backendFlags({ serving, local, terminating, inCluster, inLocal, host }: HeldBackend): number {
  return (
    (serving ? BackendFlag.SERVING : 0) |
    (local ? BackendFlag.LOCAL : 0) |
    (terminating ? BackendFlag.TERMINATING : 0) |
    (inCluster ? BackendFlag.IN_CLUSTER : 0) |
    (inLocal ? BackendFlag.IN_LOCAL : 0) |
    (host === undefined ? 0 : BackendFlag.HOSTED)
  );
}

/** A slot that nobody has chosen yet. */
export function toBackend(held: HeldBackend): Backend {
  return { addr: held.address, port: held.port, flags: backendFlags(held), service: held.service, connections: 0n };
}

/** @param hostOf the address of a hosted backend's node, by the backend's id. */
export function fromBackend(id: number, { addr, port, flags, service }: Backend, hostOf: (id: number) => Address): HeldBackend {
  return {
    id,
    service,
    address: addr,
    port,
    serving: (flags & BackendFlag.SERVING) !== 0,
    local: (flags & BackendFlag.LOCAL) !== 0,
    terminating: (flags & BackendFlag.TERMINATING) !== 0,
    inCluster: (flags & BackendFlag.IN_CLUSTER) !== 0,
    inLocal: (flags & BackendFlag.IN_LOCAL) !== 0,
    host: (flags & BackendFlag.HOSTED) === 0 ? undefined : hostOf(id),
  };
}

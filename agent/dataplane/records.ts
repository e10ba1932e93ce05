/** Between the plan's records and the structs of bpf/abi.h. Nothing else knows both. */
import type { Address } from '../model/address.ts';
import type { FrontendKind as FrontendKindText, Protocol, ServiceKey } from '../model/desired.ts';
import type { HeldBackend, HeldFrontend, HeldService, SetRegion } from '../plan/held.ts';
import type { Backend, BackendSet, Frontend, FrontendKey, Service } from './generated/abi.ts';
import { Algorithm, BackendFlag, FrontendFlag, FrontendKind, ServiceFlag, SetIndex } from './generated/abi.ts';

/** IPPROTO_* of each protocol. */
const PROTOCOLS: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132 };

const KINDS: Readonly<Record<FrontendKindText, number>> = {
  ClusterIP: FrontendKind.CLUSTER_IP,
  NodePort: FrontendKind.NODE_PORT,
  ExternalIP: FrontendKind.EXTERNAL_IP,
  LoadBalancer: FrontendKind.LOAD_BALANCER,
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

export function toFrontend({ service, kind, hostOnly }: HeldFrontend): Frontend {
  return { service, kind: KINDS[kind], flags: hostOnly ? FrontendFlag.HOST_ONLY : 0 };
}

export function fromFrontend({ addr, port, proto }: FrontendKey, { service, kind, flags }: Frontend): HeldFrontend {
  return {
    address: addr,
    port,
    protocol: nameOf(PROTOCOLS, proto, 'TCP'),
    kind: nameOf(KINDS, kind, 'ClusterIP'),
    hostOnly: (flags & FrontendFlag.HOST_ONLY) !== 0,
    service,
  };
}

export function toService(held: HeldService): Service {
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
    algorithm: held.algorithm === 'maglev' ? Algorithm.MAGLEV : Algorithm.RANDOM,
    flags,
    proto: PROTOCOLS[held.protocol],
    family: held.family,
    namespace: held.namespace,
    name: held.name,
    portName: held.portName,
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
    algorithm: service.algorithm === Algorithm.MAGLEV ? 'maglev' : 'random',
    affinitySeconds: service.affinitySeconds,
    internalLocal: (service.flags & ServiceFlag.INTERNAL_LOCAL) !== 0,
    externalLocal: (service.flags & ServiceFlag.EXTERNAL_LOCAL) !== 0,
    hasAny: (service.flags & ServiceFlag.HAS_ANY) !== 0,
    cluster: service.sets[SetIndex.CLUSTER] ?? nowhere,
    local: service.sets[SetIndex.LOCAL] ?? nowhere,
  };
}

export function backendFlags({ serving, local, terminating, inCluster, inLocal }: HeldBackend): number {
  return [
    serving ? BackendFlag.SERVING : 0,
    local ? BackendFlag.LOCAL : 0,
    terminating ? BackendFlag.TERMINATING : 0,
    inCluster ? BackendFlag.IN_CLUSTER : 0,
    inLocal ? BackendFlag.IN_LOCAL : 0,
  ].reduce((all, flag) => all | flag, 0);
}

/** A slot that nobody has chosen yet. */
export function toBackend(held: HeldBackend): Backend {
  return { addr: held.address, port: held.port, flags: backendFlags(held), service: held.service, connections: 0n };
}

export function fromBackend(id: number, { addr, port, flags, service }: Backend): HeldBackend {
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
  };
}

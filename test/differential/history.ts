/**
 * A history: what somebody does to a cluster, step by step. Its objects are the API's own, but for a "$"
 * in addresses, which stands for the region that it is played in, and nodePorts, which count from 0 there.
 */
import type { KubernetesObject } from '../support/controlplane/objects.ts';
import { inRegion } from './world.ts';

export interface Step {
  /** This node's zone from now on; "" takes the label away. */
  readonly zone: string;
  /** Maglane's agent is killed before, and started again. */
  readonly restart: boolean;
  readonly changes: readonly Change[];
}

/** `object` undefined: it is deleted. */
export interface Change {
  readonly kind: 'Service' | 'EndpointSlice';
  readonly name: string;
  readonly object: KubernetesObject | undefined;
}

export type History = readonly Step[];

/** A Service's spec, as far as histories write it. */
export interface ServiceSpec {
  readonly type: string;
  readonly clusterIPs?: readonly string[];
  readonly ports?: readonly { readonly name?: string; readonly protocol: string; readonly port: number; readonly nodePort?: number }[];
  readonly externalIPs?: readonly string[];
  readonly healthCheckNodePort?: number;
  readonly [field: string]: unknown;
}

export interface Endpoint {
  readonly addresses: readonly string[];
  readonly conditions?: { readonly terminating?: boolean };
  readonly [field: string]: unknown;
}

/** NodePorts that each region has: 30000 to 32767 are allowed. */
const NODE_PORTS = 100;

/** The addresses of a Service that its ports are served on, "$" and all. */
export function vipsOf(service: KubernetesObject): string[] {
  const { clusterIPs = [], externalIPs = [] } = service.spec as ServiceSpec;
  const { loadBalancer } = (service.status ?? {}) as { readonly loadBalancer?: { readonly ingress?: readonly { readonly ip?: string }[] } };
  return [...clusterIPs, ...externalIPs, ...(loadBalancer?.ingress ?? []).map(({ ip }) => ip ?? '')].filter((ip) => ip !== '' && ip !== 'None');
}

/** A nodePort as it is in a region. */
export const nodePortIn = (region: number, port: number): number => 30_000 + region * NODE_PORTS + port;

/** An object as it is written in a region; its namespace is the region's. */
export function place(object: KubernetesObject, region: number): KubernetesObject {
  const placed = JSON.parse(inRegion(JSON.stringify(object), region)) as KubernetesObject;
  const spec = placed.spec as ServiceSpec | undefined;
  const moved = {
    ...spec,
    ...(spec?.ports === undefined
      ? {}
      : { ports: spec.ports.map((port) => (port.nodePort === undefined ? port : { ...port, nodePort: nodePortIn(region, port.nodePort) })) }),
    ...(spec?.healthCheckNodePort === undefined ? {} : { healthCheckNodePort: nodePortIn(region, spec.healthCheckNodePort) }),
  };
  return {
    ...placed,
    metadata: { ...placed.metadata, namespace: namespaceOf(region) },
    ...(spec === undefined ? {} : { spec: moved }),
  };
}

export const namespaceOf = (region: number): string => `region-${region}`;

/** What is there after each step, by "kind/name". */
export function* worlds(history: History): Generator<ReadonlyMap<string, KubernetesObject>> {
  const world = new Map<string, KubernetesObject>();
  for (const { changes } of history) {
    for (const { kind, name, object } of changes) {
      if (object === undefined) world.delete(`${kind}/${name}`);
      else world.set(`${kind}/${name}`, object);
    }
    yield world;
  }
}

/**
 * Whether kube-proxy's answer is settled after every step. Not when two Services share an address, port and
 * protocol, nor when several slices disagree about one endpoint: it throws dice over those at each sync.
 */
export function isSettled(history: History): boolean {
  for (const world of worlds(history)) {
    const services = [...world.values()].filter(({ kind }) => kind === 'Service');
    const frontends = services.flatMap((service) => {
      const { ports = [] } = service.spec as ServiceSpec;
      const own = ports.flatMap(({ protocol, port, nodePort }) => [
        ...vipsOf(service).map((vip) => `${vip} ${port} ${protocol}`),
        ...(nodePort === undefined ? [] : [`nodePort ${nodePort} ${protocol}`]),
      ]);
      return [...new Set(own)];
    });
    if (new Set(frontends).size < frontends.length) return false;
    const slices = [...world.values()].filter(({ kind }) => kind === 'EndpointSlice');
    for (const [, group] of Map.groupBy(slices, ({ metadata }) => metadata.labels?.['kubernetes.io/service-name'])) if (isContested(group)) return false;
  }
  return true;
}

/** Whether several slices of a Service have the same endpoint, other than one row that lives and one that is terminating. */
function isContested(slices: readonly KubernetesObject[]): boolean {
  const rows = slices.flatMap((slice) => {
    const ports = (slice['ports'] ?? []) as readonly { readonly name?: string; readonly protocol?: string; readonly port?: number }[];
    const endpoints = Map.groupBy((slice['endpoints'] ?? []) as Endpoint[], ({ addresses }) => addresses[0] ?? '');
    return [...endpoints].flatMap(([address, own]) => {
      // Within a slice order decides; outside, all that counts is whether some row lives.
      const lives = own.some(({ conditions }) => conditions?.terminating !== true);
      return ports.map(({ name, protocol, port }) => ({ endpoint: `${name ?? ''}/${protocol ?? 'TCP'} ${address} ${port ?? 0}`, lives }));
    });
  });
  const groups = Map.groupBy(rows, ({ endpoint }) => endpoint).values();
  return [...groups].some((same) => same.length > 2 || (same.length === 2 && same[0]?.lives === same[1]?.lives));
}

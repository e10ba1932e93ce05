/** Objects for the model's tests: complete ones, of which a test states only what matters to it. */
import type { Address } from '../../agent/model/address.ts';
import type { DesiredNode, DesiredService } from '../../agent/model/desired.ts';
import type { NodeFacts } from '../../agent/model/facts.ts';
import { Model } from '../../agent/model/model.ts';
import type { Delta } from '../../agent/model/delta.ts';
import { READY, SERVING } from '../../agent/model/objects.ts';
import type { Change, EndpointSlice, Node, Service, ServicePort, SlicePort } from '../../agent/model/objects.ts';

export const FACTS: NodeFacts = {
  name: 'node-a',
  zone: '',
  nodePortAddresses: ['172.30.0.11', 'fd00:30::11'] as Address[],
  localhostNodePorts: true,
  defaultAlgorithm: 'random',
  defaultForwarding: 'snat',
  dsr: false,
  nodeAddresses: [],
  detectLocal: { by: 'ranges', ranges: [] },
  masqueradeAll: false,
  ownLbIps: false,
  vipPing: true,
  allowExternalIPs: true,
};

/** What the node's record says when nothing is known of the node. */
export const BARE_NODE: DesiredNode = {
  pods4: undefined,
  pods6: undefined,
  detectsByDevice: false,
  serviceCidrs: [],
  ownsBeyond: false,
  masqueradesAll: false,
  address4: undefined,
  address6: undefined,
};

export function servicePort(fields: Partial<ServicePort> = {}): ServicePort {
  return { name: 'http', protocol: 'TCP', port: 80, nodePort: 0, ...fields };
}

export function service(fields: Partial<Service> = {}): Service {
  return {
    namespace: 'default',
    name: 'web',
    uid: '',
    created: 0,
    type: 'ClusterIP',
    clusterIPs: ['10.96.0.10'],
    ipFamilies: [],
    externalIPs: [],
    loadBalancerIngress: [],
    loadBalancerSourceRanges: [],
    ports: [servicePort()],
    affinitySeconds: 0,
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: 'Cluster',
    healthCheckNodePort: 0,
    proxyName: '',
    annotations: {},
    ...fields,
  };
}

/** One endpoint; ready and serving unless said otherwise. */
export interface Row {
  readonly address: string;
  readonly state?: number;
  readonly node?: string;
  readonly zones?: readonly string[];
  readonly nodes?: readonly string[];
}

export function slice(rows: readonly Row[], fields: Partial<EndpointSlice> = {}): EndpointSlice {
  const ports: SlicePort[] = [{ name: 'http', protocol: 'TCP', port: 8080 }];
  return {
    namespace: 'default',
    name: 'web-1',
    service: 'web',
    addressType: 'IPv4',
    ports,
    addresses: rows.map((row) => row.address),
    states: Uint8Array.from(rows, (row) => row.state ?? READY | SERVING),
    nodeNames: rows.map((row) => row.node ?? 'node-b'),
    zoneHints: rows.some((row) => row.zones) ? rows.map((row) => row.zones ?? []) : undefined,
    nodeHints: rows.some((row) => row.nodes) ? rows.map((row) => row.nodes ?? []) : undefined,
    triggered: 0,
    ...fields,
  };
}

export function node(labels: Record<string, string>, name = 'node-a'): Node {
  return { name, labels, addresses: [], podCIDRs: [], deleting: false, taints: [] };
}

export function put(object: Service | EndpointSlice | Node): Change {
  if ('podCIDRs' in object) return { kind: 'Node', key: object.name, object };
  const key = `${object.namespace}/${object.name}`;
  return 'addressType' in object ? { kind: 'EndpointSlice', key, object } : { kind: 'Service', key, object };
}

export function remove(object: Service | EndpointSlice | Node): Change {
  return { ...put(object), object: undefined };
}

/** What a fresh model makes of these objects. */
export function take(objects: readonly (Service | EndpointSlice | Node)[], facts: Partial<NodeFacts> = {}): Delta {
  const model = new Model({ ...FACTS, ...facts });
  model.apply(objects.map(put));
  return model.takeChanged();
}

/** The only desired service of these objects. */
export function only(objects: readonly (Service | EndpointSlice | Node)[], facts: Partial<NodeFacts> = {}): DesiredService {
  const { services } = take(objects, facts);
  const [first] = services;
  if (services.length !== 1 || first?.desired === undefined) throw new Error(`one service expected, got ${services.map((s) => s.key).join(' ')}`);
  return first.desired;
}

/** A model that has taken these in already. */
export function settled(...objects: Parameters<typeof put>[0][]): Model {
  const model = new Model(FACTS);
  model.apply(objects.map(put));
  model.takeChanged();
  return model;
}

/** What these changes make different. */
export function after(model: Model, ...changes: Change[]): Delta {
  model.apply(changes);
  return model.takeChanged();
}

/** All that a model desires now. */
export function desiredOf(model: Model): DesiredService[] {
  return model
    .takeAll()
    .services.map(({ desired }) => desired)
    .filter((desired) => desired !== undefined);
}

/** "kind address:port" of each frontend, with "!" for those of the node's own processes. */
export function frontendsOf(desired: DesiredService): string[] {
  return desired.frontends.map((f) => `${f.kind} ${f.address} ${f.port}${f.hostOnly ? '!' : ''}`);
}

export const addressesOf = (backends: DesiredService['cluster']): string[] => backends.map((b) => b.address);

/** "field value reason" of every problem. */
export function problemsOf(delta: Delta): string[] {
  return [...delta.problems.values()].flat().map((p) => `${p.object}: ${p.field} ${p.value} ${p.reason}`);
}

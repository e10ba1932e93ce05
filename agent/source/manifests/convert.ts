/**
 * Kubernetes objects as plain JSON, cut down to what the model reads, with the defaults that the API
 * server would have filled in. Whether values make sense is the model's to judge; here only shapes are.
 */
import { READY, SERVING, TERMINATING } from '../../model/objects.ts';
import type { EndpointSlice, LoadBalancerIngress, Node, Service, ServiceCidr, ServicePort, SlicePort } from '../../model/objects.ts';
import { FieldError } from './fields.ts';
import type { Fields } from './fields.ts';

const SERVICE_NAME = 'kubernetes.io/service-name';
const PROXY_NAME = 'service.kubernetes.io/service-proxy-name';
const TRIGGERED = 'endpoints.kubernetes.io/last-change-trigger-time';
/** The API's default of `sessionAffinityConfig.clientIP.timeoutSeconds`. */
const DEFAULT_AFFINITY = 10_800;

interface Meta {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Fields;
  readonly annotations: Fields;
}

/** `metadata` of an object in a namespace; without one it is in "default". */
function readMeta(object: Fields): Meta {
  const metadata = object.fields('metadata');
  if (!metadata.has('name')) throw new FieldError('metadata.name', undefined, 'is missing');
  return {
    namespace: metadata.label('namespace', 'default'),
    name: metadata.text('name'),
    labels: metadata.fields('labels'),
    annotations: metadata.fields('annotations'),
  };
}

/** A v1 Service. Throws a FieldError when it cannot be used at all. */
export function readService(object: Fields): Service {
  const { namespace, labels, annotations } = readMeta(object);
  const metadata = object.fields('metadata');
  const spec = object.fields('spec');
  const clusterIPs = spec.texts('clusterIPs');
  return {
    namespace,
    name: metadata.label('name', ''),
    uid: metadata.text('uid'),
    created: metadata.time('creationTimestamp'),
    type: spec.text('type', 'ClusterIP'),
    clusterIPs: clusterIPs.length === 0 && spec.has('clusterIP') ? [spec.text('clusterIP')] : clusterIPs,
    ipFamilies: spec.texts('ipFamilies'),
    externalIPs: spec.texts('externalIPs'),
    loadBalancerIngress: object.fields('status').fields('loadBalancer').list('ingress', readIngress),
    loadBalancerSourceRanges: spec.texts('loadBalancerSourceRanges'),
    ports: spec.list('ports', readServicePort),
    affinitySeconds: readAffinity(spec),
    internalTrafficPolicy: spec.text('internalTrafficPolicy', 'Cluster'),
    externalTrafficPolicy: spec.text('externalTrafficPolicy', 'Cluster'),
    healthCheckNodePort: spec.number('healthCheckNodePort'),
    proxyName: labels.text(PROXY_NAME),
    annotations: annotations.textsByName('maglane.io/'),
  };
}

function readServicePort(port: Fields): ServicePort {
  return { name: port.label('name', ''), protocol: port.text('protocol', 'TCP'), port: port.number('port'), nodePort: port.number('nodePort') };
}

function readIngress(ingress: Fields): LoadBalancerIngress {
  return { ip: ingress.text('ip'), ipMode: ingress.text('ipMode', 'VIP') };
}

function readAffinity(spec: Fields): number {
  const affinity = spec.text('sessionAffinity', 'None');
  if (affinity === 'None') return 0;
  if (affinity === 'ClientIP') return spec.fields('sessionAffinityConfig').fields('clientIP').number('timeoutSeconds', DEFAULT_AFFINITY);
  spec.refuse(new FieldError('spec.sessionAffinity', affinity, 'is unknown, so None stands: None or ClientIP would be right', 'invalid_value'));
  return 0;
}

/** One endpoint, before it becomes a row of columns. */
interface Endpoint {
  readonly address: string;
  readonly state: number;
  readonly nodeName: string;
  readonly zones: readonly string[];
  readonly nodes: readonly string[];
}

/** A discovery.k8s.io/v1 EndpointSlice. Throws a FieldError when it cannot be used at all. */
export function readEndpointSlice(object: Fields): EndpointSlice {
  const { namespace, name, labels, annotations } = readMeta(object);
  return {
    namespace,
    name,
    service: labels.text(SERVICE_NAME),
    addressType: object.text('addressType'),
    ports: object.list('ports', readSlicePort),
    ...columns(object.list('endpoints', readEndpoint)),
    triggered: annotations.time(TRIGGERED),
  };
}

function readSlicePort(port: Fields): SlicePort {
  // The API server makes an absent name "": nil cannot be written down.
  return { name: port.text('name'), protocol: port.text('protocol', 'TCP'), port: port.number('port') };
}

function readEndpoint(endpoint: Fields): Endpoint {
  const conditions = endpoint.fields('conditions');
  const hints = endpoint.fields('hints');
  const ready = conditions.flag('ready', true) ? READY : 0;
  const serving = conditions.flag('serving', true) ? SERVING : 0;
  const terminating = conditions.flag('terminating', false) ? TERMINATING : 0;
  return {
    address: endpoint.texts('addresses')[0] ?? '',
    state: ready | serving | terminating,
    nodeName: endpoint.text('nodeName'),
    zones: hints.list('forZones', (zone) => zone.text('name')),
    nodes: hints.list('forNodes', (node) => node.text('name')),
  };
}

type Columns = Pick<EndpointSlice, 'addresses' | 'states' | 'nodeNames' | 'zoneHints' | 'nodeHints'>;

function columns(rows: readonly Endpoint[]): Columns {
  return {
    addresses: rows.map((row) => row.address),
    states: Uint8Array.from(rows, (row) => row.state),
    nodeNames: rows.map((row) => row.nodeName),
    zoneHints: rows.some((row) => row.zones.length > 0) ? rows.map((row) => row.zones) : undefined,
    nodeHints: rows.some((row) => row.nodes.length > 0) ? rows.map((row) => row.nodes) : undefined,
  };
}

/**
 * A v1 Endpoints object, as the slices that the EndpointSlice mirroring controller would make of it:
 * one for each subset and address family.
 */
export function readEndpoints(object: Fields): EndpointSlice[] {
  const { namespace, annotations } = readMeta(object);
  const service = object.fields('metadata').label('name', '');
  const triggered = annotations.time(TRIGGERED);
  const subsets = object.list('subsets', (subset) => ({
    ports: subset.list('ports', readSlicePort),
    rows: [
      ...subset.list('addresses', (address) => readAddress(address, READY | SERVING)),
      ...subset.list('notReadyAddresses', (address) => readAddress(address, SERVING)),
    ],
  }));
  return subsets.flatMap(({ ports, rows }, i) =>
    (['IPv4', 'IPv6'] as const).flatMap((addressType) => {
      const own = rows.filter((row) => row.address.includes(':') === (addressType === 'IPv6'));
      if (own.length === 0) return [];
      return { namespace, name: `${service}-endpoints-${i}-${addressType.toLowerCase()}`, service, addressType, ports, ...columns(own), triggered };
    }),
  );
}

function readAddress(address: Fields, state: number): Endpoint {
  return { address: address.text('ip'), state, nodeName: address.text('nodeName'), zones: [], nodes: [] };
}

/** A v1 Node. Throws a FieldError when it cannot be used at all. */
export function readNode(object: Fields): Node {
  const { name, labels } = readMeta(object);
  const spec = object.fields('spec');
  const podCIDRs = spec.texts('podCIDRs');
  const addresses = object.fields('status').list('addresses', (address) => ({ type: address.text('type'), address: address.text('address') }));
  const ofType = (type: string): string[] => addresses.filter((address) => address.type === type).map(({ address }) => address);
  return {
    name,
    labels: labels.textsByName(),
    addresses: [...ofType('InternalIP'), ...ofType('ExternalIP')],
    podCIDRs: podCIDRs.length === 0 && spec.has('podCIDR') ? [spec.text('podCIDR')] : podCIDRs,
    deleting: object.fields('metadata').has('deletionTimestamp'),
    taints: spec.list('taints', (taint) => taint.text('key')),
  };
}

/** A networking.k8s.io/v1 ServiceCIDR. Throws a FieldError when it cannot be used at all. */
export function readServiceCidr(object: Fields): ServiceCidr {
  return { name: readMeta(object).name, cidrs: object.fields('spec').texts('cidrs') };
}

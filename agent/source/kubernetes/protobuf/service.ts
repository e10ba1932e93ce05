/** core/v1 Service, straight into the model's type. */
import type { LoadBalancerIngress, Service, ServicePort } from '../../../model/objects.ts';
import type { Meta } from './meta.ts';
import { OWN_ANNOTATIONS } from './meta.ts';
import { BYTES, nested, readerOf, skip, VARINT } from './wire.ts';
import type { Reader } from './wire.ts';

/** DefaultClientIPServiceAffinitySeconds of k8s.io/api/core/v1: 3 hours. */
const DEFAULT_AFFINITY_SECONDS = 10_800;

/**
 * Reads Service { spec 2, status 3: { loadBalancer 1 } }.
 * @throws Error when it does not decode.
 */
export function readService(meta: Meta, raw: Buffer): Service {
  const reader = readerOf(raw);
  let spec = emptySpec();
  let loadBalancerIngress: readonly LoadBalancerIngress[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((2 << 3) | BYTES)) spec = nested(reader, readSpec);
    else if (tag === ((3 << 3) | BYTES)) loadBalancerIngress = nested(reader, readStatus);
    else skip(reader, tag);
  }
  const { clusterIP, sessionAffinity, timeoutSeconds, ...fields } = spec;
  return {
    namespace: meta.namespace,
    name: meta.name,
    uid: meta.uid,
    created: meta.created,
    ...fields,
    clusterIPs: spec.clusterIPs.length === 0 && clusterIP !== '' ? [clusterIP] : spec.clusterIPs,
    loadBalancerIngress,
    affinitySeconds: sessionAffinity === 'ClientIP' ? timeoutSeconds : 0,
    proxyName: meta.labels['service.kubernetes.io/service-proxy-name'] ?? '',
    annotations: Object.fromEntries(Object.entries(meta.annotations).filter(([name]) => name.startsWith(OWN_ANNOTATIONS))),
  };
}

function emptySpec() {
  return {
    type: 'ClusterIP',
    clusterIP: '',
    clusterIPs: [] as string[],
    ipFamilies: [] as string[],
    externalIPs: [] as string[],
    loadBalancerSourceRanges: [] as string[],
    ports: [] as ServicePort[],
    sessionAffinity: '',
    timeoutSeconds: DEFAULT_AFFINITY_SECONDS,
    internalTrafficPolicy: 'Cluster',
    externalTrafficPolicy: 'Cluster',
    healthCheckNodePort: 0,
  };
}

/**
 * ServiceSpec { ports 1, clusterIP 3, type 4, externalIPs 5, sessionAffinity 7, loadBalancerSourceRanges 9,
 * externalTrafficPolicy 11, healthCheckNodePort 12, sessionAffinityConfig 14, clusterIPs 18, ipFamilies 19,
 * internalTrafficPolicy 22 }. An empty string is an absent one: upstream's encoder writes those too.
 */
function readSpec(reader: Reader): ReturnType<typeof emptySpec> {
  const spec = emptySpec();
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (1 << 3) | BYTES:
        spec.ports.push(nested(reader, readPort));
        break;
      case (3 << 3) | BYTES:
        spec.clusterIP = reader.string();
        break;
      case (4 << 3) | BYTES:
        spec.type = reader.string() || spec.type;
        break;
      case (5 << 3) | BYTES:
        spec.externalIPs.push(reader.string());
        break;
      case (7 << 3) | BYTES:
        spec.sessionAffinity = reader.string();
        break;
      case (9 << 3) | BYTES:
        spec.loadBalancerSourceRanges.push(reader.string());
        break;
      case (11 << 3) | BYTES:
        spec.externalTrafficPolicy = reader.string() || spec.externalTrafficPolicy;
        break;
      case (12 << 3) | VARINT:
        spec.healthCheckNodePort = reader.int32();
        break;
      case (14 << 3) | BYTES:
        spec.timeoutSeconds = nested(reader, readAffinityConfig);
        break;
      case (18 << 3) | BYTES:
        spec.clusterIPs.push(reader.string());
        break;
      case (19 << 3) | BYTES:
        spec.ipFamilies.push(reader.string());
        break;
      case (22 << 3) | BYTES:
        spec.internalTrafficPolicy = reader.string() || spec.internalTrafficPolicy;
        break;
      default:
        skip(reader, tag);
    }
  }
  return spec;
}

/** ServicePort { name 1, protocol 2, port 3, nodePort 5 }. */
function readPort(reader: Reader): ServicePort {
  const read = { name: '', protocol: 'TCP', port: 0, nodePort: 0 };
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (1 << 3) | BYTES:
        read.name = reader.string();
        break;
      case (2 << 3) | BYTES:
        read.protocol = reader.string() || read.protocol;
        break;
      case (3 << 3) | VARINT:
        read.port = reader.int32();
        break;
      case (5 << 3) | VARINT:
        read.nodePort = reader.int32();
        break;
      default:
        skip(reader, tag);
    }
  }
  return read;
}

/** SessionAffinityConfig { clientIP 1: ClientIPConfig { timeoutSeconds 1 } }, in seconds. */
function readAffinityConfig(reader: Reader): number {
  let seconds = DEFAULT_AFFINITY_SECONDS;
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) seconds = nested(reader, readClientIPConfig);
    else skip(reader, tag);
  }
  return seconds;
}

function readClientIPConfig(reader: Reader): number {
  let seconds = DEFAULT_AFFINITY_SECONDS;
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | VARINT)) seconds = reader.int32();
    else skip(reader, tag);
  }
  return seconds;
}

/** ServiceStatus { loadBalancer 1: LoadBalancerStatus { ingress 1 } }. */
function readStatus(reader: Reader): readonly LoadBalancerIngress[] {
  let ingress: readonly LoadBalancerIngress[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) ingress = nested(reader, readLoadBalancer);
    else skip(reader, tag);
  }
  return ingress;
}

function readLoadBalancer(reader: Reader): readonly LoadBalancerIngress[] {
  const ingress: LoadBalancerIngress[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) ingress.push(nested(reader, readIngress));
    else skip(reader, tag);
  }
  return ingress;
}

/** LoadBalancerIngress { ip 1, ipMode 3 }. */
function readIngress(reader: Reader): LoadBalancerIngress {
  const ingress = { ip: '', ipMode: 'VIP' };
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) ingress.ip = reader.string();
    else if (tag === ((3 << 3) | BYTES)) ingress.ipMode = reader.string() || ingress.ipMode;
    else skip(reader, tag);
  }
  return ingress;
}

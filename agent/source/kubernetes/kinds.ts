/** The kinds that are watched: where they are, which of them, and how they decode. */
import type { Change } from '../../model/objects.ts';
import { readEndpointSlice } from './protobuf/endpointslice.ts';
import type { Meta } from './protobuf/meta.ts';
import { readNode } from './protobuf/node.ts';
import { readService } from './protobuf/service.ts';
import { readServiceCidr } from './protobuf/servicecidr.ts';

export type KindName = Change['kind'];

export interface Kind {
  readonly kind: KindName;
  /** "watching Services": for messages. */
  readonly plural: string;
  readonly path: string;
  readonly selectors: Readonly<Record<string, string>>;
  /** A server that does not have it (404), or does not let us see it (403), is served without. */
  readonly optional: boolean;
  /** @throws Error for an object that does not decode. */
  readonly changed: (key: string, meta: Meta, raw: Buffer) => Change;
  readonly gone: (key: string) => Change;
}

/** As kube-proxy selects them: Services of another proxy and headless ones never travel. */
const SERVICE: Kind = {
  kind: 'Service',
  plural: 'Services',
  path: '/api/v1/services',
  selectors: { labelSelector: '!service.kubernetes.io/service-proxy-name', fieldSelector: 'spec.clusterIP!=None' },
  optional: false,
  changed: (key, meta, raw) => ({ kind: 'Service', key, object: readService(meta, raw) }),
  gone: (key) => ({ kind: 'Service', key, object: undefined }),
};

const ENDPOINT_SLICE: Kind = {
  kind: 'EndpointSlice',
  plural: 'EndpointSlices',
  path: '/apis/discovery.k8s.io/v1/endpointslices',
  selectors: { labelSelector: '!service.kubernetes.io/headless' },
  optional: false,
  changed: (key, meta, raw) => ({ kind: 'EndpointSlice', key, object: readEndpointSlice(meta, raw) }),
  gone: (key) => ({ kind: 'EndpointSlice', key, object: undefined }),
};

const NODE: Omit<Kind, 'selectors'> = {
  kind: 'Node',
  plural: 'Nodes',
  path: '/api/v1/nodes',
  optional: false,
  changed: (key, meta, raw) => ({ kind: 'Node', key, object: readNode(meta, raw) }),
  gone: (key) => ({ kind: 'Node', key, object: undefined }),
};

/** GA since Kubernetes 1.33; not there before 1.31, nor in a cluster that switched it off. */
const SERVICE_CIDR: Kind = {
  kind: 'ServiceCIDR',
  plural: 'ServiceCIDRs',
  path: '/apis/networking.k8s.io/v1/servicecidrs',
  selectors: {},
  optional: true,
  changed: (key, meta, raw) => ({ kind: 'ServiceCIDR', key, object: readServiceCidr(meta, raw) }),
  gone: (key) => ({ kind: 'ServiceCIDR', key, object: undefined }),
};

/** @param nodeName the only Node that is watched; undefined: all are. */
export function watchedKinds(nodeName: string | undefined): readonly Kind[] {
  const selectors: Kind['selectors'] = nodeName === undefined ? {} : { fieldSelector: `metadata.name=${nodeName}` };
  return [SERVICE, ENDPOINT_SLICE, { ...NODE, selectors }, SERVICE_CIDR];
}

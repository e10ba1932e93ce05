/**
 * What a source yields: Kubernetes objects cut down to the fields a service proxy reads,
 * as the API spells them. Nothing here has been judged yet; the model does that.
 */

/** `spec.ports[]` of a Service. */
export interface ServicePort {
  /** "" when unnamed. */
  readonly name: string;
  /** As written: "TCP" when the object leaves it out. */
  readonly protocol: string;
  readonly port: number;
  /** 0 when none. */
  readonly nodePort: number;
}

/** `status.loadBalancer.ingress[]` of a Service. */
export interface LoadBalancerIngress {
  /** "" when only a hostname is given. */
  readonly ip: string;
  /** "VIP" when absent. */
  readonly ipMode: string;
}

/** A v1 Service. */
export interface Service {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** Creation time, ms since the epoch; 0 when unknown. Settles who owns a contested VIP. */
  readonly created: number;
  readonly type: string;
  /** `clusterIPs`, or `[clusterIP]` when only that is set. "None" and "" included. */
  readonly clusterIPs: readonly string[];
  readonly ipFamilies: readonly string[];
  readonly externalIPs: readonly string[];
  readonly loadBalancerIngress: readonly LoadBalancerIngress[];
  readonly loadBalancerSourceRanges: readonly string[];
  readonly ports: readonly ServicePort[];
  /** `sessionAffinity: ClientIP` in seconds; 0: none. */
  readonly affinitySeconds: number;
  /** "Cluster" when absent. */
  readonly internalTrafficPolicy: string;
  /** "Cluster" when absent. */
  readonly externalTrafficPolicy: string;
  /** 0 when none. */
  readonly healthCheckNodePort: number;
  /** Label `service.kubernetes.io/service-proxy-name`; "" when absent. */
  readonly proxyName: string;
  /** Annotations that begin with `maglane.io/`, by full name. */
  readonly annotations: Readonly<Record<string, string>>;
}

/** `ports[]` of an EndpointSlice. */
export interface SlicePort {
  /** undefined when the API's field is nil: such a port is ignored. */
  readonly name: string | undefined;
  readonly protocol: string;
  /** 0 when nil: such a port is ignored. */
  readonly port: number;
}

/** Bits of `EndpointSlice.states`, after the API's defaults (ready, serving: nil is true). */
export const READY = 1;
export const SERVING = 2;
export const TERMINATING = 4;

/** A discovery.k8s.io/v1 EndpointSlice. Endpoints are columns, one index each: 100,000 of them stay small. */
export interface EndpointSlice {
  readonly namespace: string;
  readonly name: string;
  /** Label `kubernetes.io/service-name`; "" when absent. */
  readonly service: string;
  /** "IPv4", "IPv6" or "FQDN". */
  readonly addressType: string;
  readonly ports: readonly SlicePort[];
  /** `addresses[0]` as written; "" when empty. */
  readonly addresses: readonly string[];
  /** READY | SERVING | TERMINATING. */
  readonly states: Uint8Array;
  /** `nodeName`; "" when absent. */
  readonly nodeNames: readonly string[];
  /** `hints.forZones[].name`, by index; undefined when no endpoint has hints. */
  readonly zoneHints: readonly (readonly string[])[] | undefined;
  /** `hints.forNodes[].name`, by index; undefined when no endpoint has hints. */
  readonly nodeHints: readonly (readonly string[])[] | undefined;
  /** Annotation `endpoints.kubernetes.io/last-change-trigger-time`, ms since the epoch; 0 when absent. */
  readonly triggered: number;
}

/** A v1 Node, this one or (manifests) another. */
export interface Node {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** `status.addresses` of type InternalIP, then ExternalIP, in order, as written. */
  readonly addresses: readonly string[];
  readonly podCIDRs: readonly string[];
  readonly deleting: boolean;
  readonly taints: readonly string[];
}

/** A networking.k8s.io/v1 ServiceCIDR. */
export interface ServiceCidr {
  readonly name: string;
  /** `spec.cidrs`, as written: one a family. */
  readonly cidrs: readonly string[];
}

/** One object that appeared, changed or went away. `key` is "namespace/name" ("name" for a Node or a ServiceCIDR). */
export type Change =
  | { readonly kind: 'Service'; readonly key: string; readonly object: Service | undefined }
  | { readonly kind: 'EndpointSlice'; readonly key: string; readonly object: EndpointSlice | undefined }
  | { readonly kind: 'Node'; readonly key: string; readonly object: Node | undefined }
  | { readonly kind: 'ServiceCIDR'; readonly key: string; readonly object: ServiceCidr | undefined };

/** What the model wants of the dataplane, one record for each service port of each IP family; and of the agent. */
import type { Address, Cidr } from './address.ts';

export type Protocol = 'TCP' | 'UDP' | 'SCTP';
export type Family = 4 | 6;
export type FrontendKind = 'ClusterIP' | 'NodePort' | 'ExternalIP' | 'LoadBalancer';

/** How sockets choose among backends; packets choose by hash: docs/balancing.md. */
export const ALGORITHMS = ['maglev', 'random', 'round-robin', 'least-connections', 'source-hash'] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

/** How packets reach a backend on another node: under this node's address, or as they are (docs/decisions/dsr.md). */
export const FORWARDINGS = ['snat', 'dsr'] as const;
export type Forwarding = (typeof FORWARDINGS)[number];

export interface Frontend {
  readonly address: Address;
  /** 1 to 65535. */
  readonly port: number;
  readonly kind: FrontendKind;
  /** Only for the node's own processes: a nodePort on 127.0.0.1 or ::1. */
  readonly hostOnly: boolean;
}

export interface Backend {
  readonly address: Address;
  /** 1 to 65535. */
  readonly port: number;
  /** On this node. */
  readonly local: boolean;
  readonly terminating: boolean;
  /** The address of its node, which takes packets for it as they are (DSR); undefined: what is sent on to it is masqueraded. */
  readonly host: Address | undefined;
}

/** "namespace/name:port/TCP/4": names one service port of one family for good. */
export type ServiceKey = string;

export interface DesiredService {
  readonly key: ServiceKey;
  readonly namespace: string;
  readonly name: string;
  /** "" when unnamed. */
  readonly portName: string;
  readonly protocol: Protocol;
  readonly family: Family;
  readonly algorithm: Algorithm;
  /** 0: no affinity. */
  readonly affinitySeconds: number;
  readonly internalLocal: boolean;
  readonly externalLocal: boolean;
  /** Some endpoint is ready, or serving and terminating, somewhere: empty sets drop, not reject. */
  readonly hasAny: boolean;
  /** Sorted by the string "address:port", without duplicates, and without what another Service owns. */
  readonly frontends: readonly Frontend[];
  /** The Cluster set, sorted likewise, so that every node builds the same table; empty where no policy asks for it. */
  readonly cluster: readonly Backend[];
  /** The Local set, likewise; empty where no policy asks for it. */
  readonly local: readonly Backend[];
  /** Serving endpoints of a UDP port that are in neither set: flows that have one keep it (kube-proxy's conntrack cleanup). */
  readonly spare: readonly Backend[];
  /** loadBalancerSourceRanges of this family; undefined: open. Binds the frontends of kind LoadBalancer. */
  readonly sourceRanges: readonly Cidr[] | undefined;
}

/** An address of Services as a whole: what becomes of that which is no frontend's. */
export interface DesiredAddress {
  readonly address: Address;
  /** Unknown ports are rejected (an active clusterIP, kube-proxy's cluster-ips; load balancer and external IPs by --own-lb-ips). */
  readonly owned: boolean;
  /** Some Service there has endpoints: echo requests are answered, unless --vip-ping says no. */
  readonly ping: boolean;
}

/** Whom detectLocalMode calls a pod, and which addresses are ours as a whole. */
export interface DesiredNode {
  /** Pods' ranges, the first of each family; undefined: no detector for it. */
  readonly pods4: Cidr | undefined;
  readonly pods6: Cidr | undefined;
  /** detectLocalMode goes by device (BridgeInterface, InterfaceNamePrefix), not by range. */
  readonly detectsByDevice: boolean;
  readonly serviceCidrs: readonly Cidr[];
  /** Some owned address lies outside `serviceCidrs`. */
  readonly ownsBeyond: boolean;
  /** Packets to cluster IPs are masqueraded, whoever sends them (--masquerade-all). */
  readonly masqueradesAll: boolean;
  /** Where the other nodes send what this one is to take as it is; undefined: they send nothing so. */
  readonly address4: Address | undefined;
  readonly address6: Address | undefined;
}

/** A Service's healthCheckNodePort (type LoadBalancer, externalTrafficPolicy Local). */
export interface HealthCheck {
  readonly namespace: string;
  readonly name: string;
  /** 1 to 65535. */
  readonly port: number;
  /** Distinct addresses of local ready endpoints over all ports, by family; undefined: the Service is not of that family. */
  readonly endpoints4: number | undefined;
  readonly endpoints6: number | undefined;
}

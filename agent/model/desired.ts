/** What the model wants of the dataplane: one record for each service port of each IP family. */
import type { Address } from './address.ts';

export type Protocol = 'TCP' | 'UDP' | 'SCTP';
export type Family = 4 | 6;
export type FrontendKind = 'ClusterIP' | 'NodePort' | 'ExternalIP' | 'LoadBalancer';
export type Algorithm = 'random' | 'maglev';

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
}

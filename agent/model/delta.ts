/** What the model says has changed: all that the plan is told. */
import type { Address } from './address.ts';
import type { DesiredAddress, DesiredNode, DesiredService, HealthCheck, ServiceKey } from './desired.ts';
import type { Problem } from './problem.ts';

/** `desired` undefined: the service port is gone, or no longer served. */
export interface DesiredChange {
  readonly key: ServiceKey;
  readonly desired: DesiredService | undefined;
}

/** What is different since the last one was taken. */
export interface Delta {
  readonly services: readonly DesiredChange[];
  /** Addresses of Services that appeared, changed or (undefined) went away. */
  readonly addresses: ReadonlyMap<Address, DesiredAddress | undefined>;
  /** undefined: as before. */
  readonly node: DesiredNode | undefined;
  /** Other nodes' addresses, from which packets are taken as they are: true came, false went. */
  readonly peers: ReadonlyMap<Address, boolean>;
  /** Health check node ports by "namespace/name", of Services whose changed; undefined: none any more. */
  readonly healthChecks: ReadonlyMap<string, HealthCheck | undefined>;
  /** Standing problems by object, for the objects whose problems changed; an empty list clears them. */
  readonly problems: ReadonlyMap<string, readonly Problem[]>;
}

/** No difference at all. */
export const UNCHANGED: Delta = { services: [], addresses: new Map(), node: undefined, peers: new Map(), healthChecks: new Map(), problems: new Map() };

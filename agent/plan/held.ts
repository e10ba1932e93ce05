/**
 * What the maps hold, as the plan sees it: read back from the pins at start, and kept in step
 * by the planner with each plan it makes. Numbers are map keys; addresses are canonical text.
 */
import type { Address, Cidr } from '../model/address.ts';
import type { DesiredAddress, DesiredNode, DesiredService, FrontendKind, Protocol } from '../model/desired.ts';

/** A region of the ring: `count` members at `base`, then a Maglev table of `table` slots (0: none). */
export interface SetRegion {
  readonly base: number;
  readonly count: number;
  readonly table: number;
}

export interface HeldBackend {
  readonly id: number;
  readonly service: number;
  readonly address: Address;
  readonly port: number;
  readonly serving: boolean;
  readonly local: boolean;
  readonly terminating: boolean;
  /** A member of the Cluster set. */
  readonly inCluster: boolean;
  /** A member of the Local set. */
  readonly inLocal: boolean;
  /** The address of its node, which takes packets for it as they are. */
  readonly host: Address | undefined;
}

export interface HeldService extends Omit<DesiredService, 'frontends' | 'cluster' | 'local' | 'spare' | 'sourceRanges'> {
  readonly id: number;
  readonly cluster: SetRegion;
  readonly local: SetRegion;
}

export interface HeldFrontend {
  readonly address: Address;
  readonly port: number;
  readonly protocol: Protocol;
  readonly kind: FrontendKind;
  readonly hostOnly: boolean;
  /** Only for sources in the ranges of its service. */
  readonly sourceRanges: boolean;
  readonly service: number;
}

/** Who may use a service's frontends that have `sourceRanges`. */
export interface HeldSourceRange {
  readonly service: number;
  readonly range: Cidr;
}

/** Sizes of the maps; nothing is planned beyond them. */
export interface Capacity {
  readonly services: number;
  readonly frontends: number;
  /** Ids 1 to backends - 1 are usable. */
  readonly backends: number;
  /** u32 slots of the ring. */
  readonly ringSlots: number;
  readonly sourceRanges: number;
  /** Ranges that the node's record has room for. */
  readonly serviceCidrs: number;
  readonly peers: number;
}

/** A snapshot of the maps. */
export interface Held {
  readonly capacity: Capacity;
  readonly services: readonly HeldService[];
  readonly frontends: readonly HeldFrontend[];
  /** Entries of the same map as the frontends. */
  readonly addresses: readonly DesiredAddress[];
  readonly sourceRanges: readonly HeldSourceRange[];
  readonly node: DesiredNode;
  /** Addresses of other nodes, from which packets are taken as they are. */
  readonly peers: readonly Address[];
  /** Only slots in use: those with a service. */
  readonly backends: readonly HeldBackend[];
  /** Member ids of a set, as the ring holds them. */
  members(region: SetRegion): Uint32Array;
}

/**
 * One write. A plan's writes run in order; each leaves the maps consistent: what a packet can
 * reach always points at complete data.
 */
export type Write =
  | { readonly op: 'frontend.delete'; readonly address: Address; readonly port: number; readonly protocol: Protocol }
  /** A new slot: everything but `connections`, which starts at 0. */
  | { readonly op: 'backend.put'; readonly backend: HeldBackend }
  /** Only the flags and the host of a slot in use. */
  | { readonly op: 'backend.flags'; readonly backend: HeldBackend }
  | { readonly op: 'ring.write'; readonly base: number; readonly slots: Uint32Array }
  | { readonly op: 'service.put'; readonly service: HeldService }
  | { readonly op: 'frontend.put'; readonly frontend: HeldFrontend }
  | { readonly op: 'address.put'; readonly address: DesiredAddress }
  | { readonly op: 'address.delete'; readonly address: Address }
  | { readonly op: 'range.put'; readonly range: HeldSourceRange }
  | { readonly op: 'range.delete'; readonly range: HeldSourceRange }
  | { readonly op: 'node.put'; readonly node: DesiredNode }
  | { readonly op: 'peer.put'; readonly address: Address }
  | { readonly op: 'peer.delete'; readonly address: Address }
  | { readonly op: 'service.delete'; readonly id: number }
  /** A slot nobody can reach any more: zeroed. */
  | { readonly op: 'backend.clear'; readonly id: number };

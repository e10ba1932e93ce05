/** A plan in the making: writes by kind, so that they can be put into the order that exposes no hole. */
import type { Address } from '../model/address.ts';
import type { DesiredAddress, DesiredNode, ServiceKey } from '../model/desired.ts';
import type { Problem } from '../model/problem.ts';
import type { HeldBackend, HeldFrontend, HeldService, HeldSourceRange, Write } from './held.ts';
import type { Region } from './ring.ts';

/**
 * What nothing points at any more, but a packet under way, a flow or a client's affinity may still
 * remember: handed back to `Planner.reclaim` once that time has passed.
 */
export interface Retired {
  readonly backends: readonly number[];
  readonly regions: readonly Region[];
  readonly services: readonly number[];
}

export interface Plan {
  /** To be executed in order. */
  readonly writes: readonly Write[];
  /** Undefined when nothing was retired. */
  readonly retired: Retired | undefined;
  /** Standing problems that changed, by service, or of all addresses, all tables, all peers or the node; undefined: it has none any more. */
  readonly problems: ReadonlyMap<ServiceKey | 'addresses' | 'tables' | 'peers' | 'node', Problem | undefined>;
}

export class Draft {
  readonly backendClears: number[] = [];
  /** By frontend: what is deleted here may be given to another service before the draft is done. */
  readonly frontendDeletes = new Map<string, HeldFrontend>();
  readonly addressDeletes: Address[] = [];
  readonly backendPuts: HeldBackend[] = [];
  /** Flags of backends that are or become members, before the sets change. */
  readonly memberFlags: HeldBackend[] = [];
  readonly ringWrites: { readonly base: number; readonly slots: Uint32Array }[] = [];
  readonly servicePuts: HeldService[] = [];
  readonly rangePuts: HeldSourceRange[] = [];
  readonly frontendPuts = new Map<string, HeldFrontend>();
  readonly addressPuts: DesiredAddress[] = [];
  readonly rangeDeletes: HeldSourceRange[] = [];
  /** Flags of backends that have left a set, after it. */
  readonly leaverFlags: HeldBackend[] = [];
  readonly serviceDeletes: number[] = [];
  node: DesiredNode | undefined;
  readonly peerPuts: Address[] = [];
  readonly peerDeletes: Address[] = [];
  readonly retired = { backends: [] as number[], regions: [] as Region[], services: [] as number[] } satisfies Retired;
  readonly problems = new Map<string, Problem | undefined>();

  /**
   * What vanishes loses its frontends first; what appears is complete before a service record points at it,
   * and the service before a frontend does; what has left goes last. Source ranges are there before the frontend that
   * heeds them, and go after it: between two lists both count, so that nobody in both is ever shut out. The ServiceCIDRs,
   * in which all that is not known is dropped, come when what lies in them is known.
   */
  finish(): Plan {
    const writes: Write[] = [
      ...this.backendClears.map((id) => ({ op: 'backend.clear', id }) as const),
      ...[...this.frontendDeletes.values()].map(({ address, port, protocol }) => ({ op: 'frontend.delete', address, port, protocol }) as const),
      ...this.addressDeletes.map((address) => ({ op: 'address.delete', address }) as const),
      ...this.peerDeletes.map((address) => ({ op: 'peer.delete', address }) as const),
      ...this.peerPuts.map((address) => ({ op: 'peer.put', address }) as const),
      ...this.backendPuts.map((backend) => ({ op: 'backend.put', backend }) as const),
      ...this.memberFlags.map((backend) => ({ op: 'backend.flags', backend }) as const),
      ...this.ringWrites.map(({ base, slots }) => ({ op: 'ring.write', base, slots }) as const),
      ...this.servicePuts.map((service) => ({ op: 'service.put', service }) as const),
      ...this.rangePuts.map((range) => ({ op: 'range.put', range }) as const),
      ...[...this.frontendPuts.values()].map((frontend) => ({ op: 'frontend.put', frontend }) as const),
      ...this.addressPuts.map((address) => ({ op: 'address.put', address }) as const),
      ...this.rangeDeletes.map((range) => ({ op: 'range.delete', range }) as const),
      ...this.serviceDeletes.map((id) => ({ op: 'service.delete', id }) as const),
      ...this.leaverFlags.map((backend) => ({ op: 'backend.flags', backend }) as const),
      ...(this.node === undefined ? [] : [{ op: 'node.put', node: this.node } as const]),
    ];
    const { backends, regions, services } = this.retired;
    const any = backends.length + regions.length + services.length > 0;
    return { writes, retired: any ? this.retired : undefined, problems: this.problems };
  }
}

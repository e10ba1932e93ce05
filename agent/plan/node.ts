/** What holds on the whole node: one record. */
import { formatCidr } from '../model/address.ts';
import type { DesiredNode } from '../model/desired.ts';
import type { Problem } from '../model/problem.ts';
import type { Draft } from './draft.ts';

/** What stands in `Plan.problems` for the node's record. */
export const NODE_KEY = 'node';

export class NodeRecord {
  #held: string;
  #full = false;

  /** Adopts what the map holds. */
  constructor(held: DesiredNode) {
    this.#held = textOf(held);
  }

  /**
   * Plans the record. ServiceCIDRs beyond its room are left out: what is owned in those is found like all that is owned
   * outside of any, and what is not known there is let pass.
   * @param room ServiceCIDRs that the record has room for.
   */
  set(desired: DesiredNode, room: number, draft: Draft): void {
    const full = desired.serviceCidrs.length > room;
    const node = full ? { ...desired, serviceCidrs: desired.serviceCidrs.slice(0, room), ownsBeyond: true } : desired;
    if (full !== this.#full) draft.problems.set(NODE_KEY, full ? shortage(desired, room) : undefined);
    this.#full = full;
    if (textOf(node) === this.#held) return;
    this.#held = textOf(node);
    draft.node = node;
  }
}

function textOf({ pods4, pods6, serviceCidrs, ...flags }: DesiredNode): string {
  const { detectsByDevice, ownsBeyond, masqueradesAll, address4, address6 } = flags;
  const ranges = [pods4 && formatCidr(pods4), pods6 && formatCidr(pods6), ...serviceCidrs.map(formatCidr)];
  return JSON.stringify([...ranges, detectsByDevice, ownsBeyond, masqueradesAll, address4, address6]);
}

function shortage({ serviceCidrs }: DesiredNode, room: number): Problem {
  const message = `are more than the ${room} there is room for: packets to unallocated addresses of the others are not dropped`;
  return { object: 'ServiceCIDRs', field: '', value: String(serviceCidrs.length), message, reason: 'capacity' };
}

/** What holds on the whole node: whom detectLocalMode calls a pod, and the ranges that Services take their addresses from. */
import type { Address, Cidr } from './address.ts';
import { familyOf, formatCidr, parseCidr } from './address.ts';
import { Checker } from './checks.ts';
import type { DesiredNode, Family } from './desired.ts';
import type { NodeFacts } from './facts.ts';
import { firstAddresses } from './nodes.ts';
import type { Node, ServiceCidr } from './objects.ts';
import type { Problem } from './problem.ts';

/** Reads a ServiceCIDR, range by range. */
export function readServiceCidr({ name, cidrs }: ServiceCidr): { read: readonly Cidr[]; problems: readonly Problem[] } {
  const check = new Checker(`ServiceCIDR ${name}`);
  return { read: cidrs.map((text, i) => check.cidr(`spec.cidrs[${i}]`, text)).filter((cidr) => cidr !== undefined), problems: check.problems };
}

/** All ranges of these ServiceCIDRs, each once, in an order that does not depend on history. */
export function mergeCidrs(byName: ReadonlyMap<string, readonly Cidr[]>): readonly Cidr[] {
  return [...new Map([...byName.values()].flat().map((cidr) => [formatCidr(cidr), cidr]))].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, cidr]) => cidr);
}

/**
 * The record of the node.
 * @param node this node's own object: its podCIDRs are asked where detectLocalMode is NodeCIDR, and its addresses are what the others know.
 */
export function desiredNode(facts: NodeFacts, node: Node | undefined, serviceCidrs: readonly Cidr[], ownsBeyond: boolean): DesiredNode {
  const { detectLocal: by, dsr, nodeAddresses, masqueradeAll: masqueradesAll } = facts;
  const ranges = by.by === 'ranges' ? by.ranges : by.by === 'podCIDRs' ? (node?.podCIDRs ?? []).map(parseCidr).filter((cidr) => cidr !== undefined) : [];
  // kube-proxy takes the first of each family, whatever follows.
  const first = (family: Family): Cidr | undefined => ranges.find(({ base }) => familyOf(base) === family);
  const known = dsr ? (node === undefined ? nodeAddresses : firstAddresses(node)) : [];
  const own = (family: Family): Address | undefined => known.find((address) => familyOf(address) === family);
  const detectsByDevice = by.by === 'device';
  return { pods4: first(4), pods6: first(6), detectsByDevice, serviceCidrs, ownsBeyond, masqueradesAll, address4: own(4), address6: own(6) };
}

/** `spec.loadBalancerSourceRanges`: who may use a Service's load balancer addresses. */
import type { Cidr } from './address.ts';
import { familyOf, formatCidr, inRanges } from './address.ts';
import type { Checker } from './checks.ts';
import type { Family } from './desired.ts';
import type { NodeFacts } from './facts.ts';
import type { Service } from './objects.ts';

/** The valid ranges of both families; undefined: the Service names none at all. What is invalid is refused and left out. */
export function readSourceRanges(service: Service, check: Checker): readonly Cidr[] | undefined {
  if (service.loadBalancerSourceRanges.length === 0) return undefined;
  return service.loadBalancerSourceRanges
    .map((text, i) => check.cidr(`spec.loadBalancerSourceRanges[${i}]`, text.trim()))
    .filter((range) => range !== undefined);
}

/**
 * The ranges that bind the load balancer addresses of one family; undefined: open.
 *
 * A list without a range of this family leaves it open, as kube-proxy does: the list speaks of the other family. A list in
 * which nothing at all is valid shuts both: kube-proxy would open what somebody meant to restrict, for a slip of the pen.
 * (The API refuses such lists; they come from manifests and from old objects.)
 * @param loadBalancers the Service's load balancer addresses of this family. A node to which its load balancer has given
 *   that address as its own dials it from itself, so where the node may come in, they may (kube-proxy's nftables mode).
 */
export function rangesOf(
  ranges: readonly Cidr[] | undefined,
  family: Family,
  loadBalancers: readonly Cidr['base'][],
  facts: NodeFacts,
): readonly Cidr[] | undefined {
  if (ranges === undefined || loadBalancers.length === 0) return undefined;
  if (ranges.length === 0) return ranges;
  const ours = ranges.filter(({ base }) => familyOf(base) === family);
  if (ours.length === 0) return undefined;
  const ofNode = facts.nodeAddresses.some((address) => familyOf(address) === family && inRanges(ours, address));
  const all = ofNode ? [...ours, ...loadBalancers.map((base) => ({ base, prefix: family === 4 ? 32 : 128 }))] : ours;
  return [...new Map(all.map((range) => [formatCidr(range), range]))].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, range]) => range);
}

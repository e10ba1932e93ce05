/** Which backend a new connection gets: policies, source ranges, affinity, Maglev. The rules are kube-proxy's, see docs/kube-proxy.md. */
import type { Backend, Tuple } from '../../agent/dataplane/generated/abi.ts';
import { Algorithm, BackendFlag, FrontendFlag, FrontendKind, NodeFlag, ServiceFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { familyOf } from '../../agent/model/address.ts';
import { addressBytes } from './bytes.ts';
import { hashAddress, hashTuple } from './hash.ts';
import type { World, WorldService } from './world.ts';

/** Where a packet was met: what comes from a pod of this node, from the node itself, or from anywhere else. */
export type Origin = 'outside' | 'pod' | 'detected pod' | 'node';

export type Choice =
  | { readonly why: 'chosen'; readonly id: number; readonly backend: Backend; readonly sticky: boolean }
  | { readonly why: 'no endpoints' | 'no local' | 'not allowed' | 'inconsistent' };

const inPrefix = (address: string, base: string, prefix: number): boolean => {
  const [a, b] = [addressBytes(address), addressBytes(base)];
  if (a.length !== b.length) return false;
  for (let bit = 0; bit < prefix; bit++) if ((((a[bit >> 3] ?? 0) ^ (b[bit >> 3] ?? 0)) & (128 >> (bit & 7))) !== 0) return false;
  return true;
};

/** Whether an address is in a range of the map `node`: a mask, not a prefix. IPv4 masks are written behind 96 ones. */
export function inMask(address: string, { net, mask }: World['node']['pods'][number]): boolean {
  if (familyOf(address as Address) !== familyOf(net)) return false;
  const size = addressBytes(net).length;
  const [a, n, m] = [addressBytes(address), addressBytes(net), addressBytes(mask).slice(-size)];
  return a.every((byte, i) => ((byte ^ (n[i] ?? 0)) & (m[i] ?? 0)) === 0);
}

/** detectLocalMode by range; by device when that is how it goes, and the packet came in by such a device. */
export function isPod(world: World, source: string, byDetectedDevice: boolean): boolean {
  const { flags, pods } = world.node;
  if ((flags & NodeFlag.DETECTS_DEVICE) !== 0 && byDetectedDevice) return true;
  const [v4, v6] = pods;
  if (familyOf(source as Address) === 4) return (flags & NodeFlag.DETECTS_V4) !== 0 && v4 !== undefined && inMask(source, v4);
  return (flags & NodeFlag.DETECTS_V6) !== 0 && v6 !== undefined && inMask(source, v6);
}

/** The set that policy leaves to choose from. The short circuit lets pods and the node use all endpoints of an external frontend. */
function setOf(service: WorldService, kind: number, origin: Origin): 0 | 1 {
  const { flags } = service.record;
  if (kind === FrontendKind.CLUSTER_IP) return (flags & ServiceFlag.INTERNAL_LOCAL) !== 0 ? 1 : 0;
  const isShort = origin === 'detected pod' || origin === 'node';
  return (flags & ServiceFlag.EXTERNAL_LOCAL) !== 0 && !isShort ? 1 : 0;
}

export function choose(
  world: World,
  frontend: { readonly service: number; readonly kind: number; readonly flags: number },
  tuple: Tuple,
  origin: Origin,
): Choice {
  const service = world.services.get(frontend.service);
  if (service === undefined) return { why: 'inconsistent' };
  const { record, sets, ranges } = service;
  if ((frontend.flags & FrontendFlag.SOURCE_RANGES) !== 0 && !ranges.some(({ addr, prefix }) => inPrefix(tuple.saddr, addr, prefix)))
    return { why: 'not allowed' };
  const set = setOf(service, frontend.kind, origin);
  const { members, table } = sets[set] ?? { members: [], table: [] };
  const remembered = record.affinitySeconds === 0 ? undefined : world.affinity.get(`${frontend.service} ${tuple.saddr}`);
  const stuck = remembered === undefined ? undefined : world.backends.get(remembered.backend);
  const membership = set === 1 ? BackendFlag.IN_LOCAL : BackendFlag.IN_CLUSTER;
  if (remembered !== undefined && stuck !== undefined && (stuck.flags & membership) !== 0)
    return { why: 'chosen', id: remembered.backend, backend: stuck, sticky: true };
  if (members.length === 0) return { why: (record.flags & ServiceFlag.HAS_ANY) !== 0 ? 'no local' : 'no endpoints' };
  // Round-robin and least-connections are for sockets alone.
  const hash = record.algorithm === Algorithm.SOURCE_HASH ? hashAddress(tuple.saddr) : hashTuple(tuple);
  // From the table, whatever the algorithm; without a table, an even share of the hash.
  const id = table.length > 0 ? table[hash % table.length] : members[Number((BigInt(hash) * BigInt(members.length)) >> 32n)];
  const backend = world.backends.get(id ?? 0);
  return id === undefined || backend === undefined ? { why: 'inconsistent' } : { why: 'chosen', id, backend, sticky: record.affinitySeconds !== 0 };
}

/** The one small world that every history plays in: addresses, names, and who asks. */
import type { Address } from '../../agent/model/address.ts';
import { familyOf } from '../../agent/model/address.ts';
import type { Family } from '../../agent/model/desired.ts';
import type { Source } from './answer.ts';

const at = (text: string): Address => text as Address;

/** The Node that both proxies serve. Both of its addresses are on an interface of each proxy's namespace. */
export const HERE = 'here';
export const THERE = 'there';
export const NODE_ADDRESSES: readonly Address[] = [at('192.0.2.10'), at('fd00:2::10')];
export const POD_CIDRS = ['10.244.0.0/16', 'fd00:244::/32'];
export const ZONES = ['east', 'west', 'north'] as const;

/** How many histories are played at once, each in a region of addresses and ports of its own. */
export const REGIONS = 20;

/** Addresses of the node that are not its InternalIPs, one a family, of each region: Services have them as externalIPs and load balancer IPs, too. */
export const FURTHER = ['192.0.3.$', 'fd00:3::$'];
/** Cluster IPs that the node holds as well, as a DNS cache on every node does. */
export const HELD = ['10.96.$.31', 'fd00:96::$31'];

/** A text as it reads in a region (from 1). */
export const inRegion = (text: string, region: number): string => text.replaceAll('$', String(region));

/** All that the node's interfaces hold. */
export const HOLDS: ReadonlySet<Address> = new Set([
  ...NODE_ADDRESSES,
  ...Array.from({ length: REGIONS }, (_, i) => [...FURTHER, ...HELD].map((text) => at(inRegion(text, i + 1)))).flat(),
]);

/** Whether an address is the node's own: what `fib type local` says of it. */
export const isNodes = (address: Address): boolean => HOLDS.has(address);

/** Whether an address is a cluster IP, of whichever Service. */
export const isClusterIp = (address: Address): boolean => address.startsWith('10.96.') || address.startsWith('fd00:96:');

/** Addresses of pods: the first ones are endpoints, too. */
const podAddress = (node: 1 | 2, number: number, family: Family): Address => at(family === 4 ? `10.244.${node}.${number}` : `fd00:244:${node}::${number}`);

/** Endpoints on this node and on the other, the last of each on the host network; and one that is on no node. */
export const endpointsOf = (family: Family): { readonly here: readonly Address[]; readonly there: readonly Address[]; readonly beyond: Address } => ({
  here: [...[10, 11, 12].map((number) => podAddress(1, number, family)), NODE_ADDRESSES[family === 4 ? 0 : 1]!],
  there: [...[10, 11, 12].map((number) => podAddress(2, number, family)), at(family === 4 ? '192.0.2.20' : 'fd00:2::20')],
  beyond: at(family === 4 ? '198.18.0.20' : 'fd00:18::20'),
});

/** Every kind of source, and of pods one that is an endpoint (it may meet itself) and one that is none. */
export const SOURCES: readonly Source[] = [
  { name: 'outside', address: at('198.18.0.9') },
  { name: 'outside', address: at('100.64.0.9') },
  { name: 'outside', address: at('fd00:18::9') },
  { name: 'outside', address: at('fd00:64::9') },
  ...([4, 6] as const).flatMap((family): Source[] => [
    { name: 'pod here', address: podAddress(1, 10, family) },
    { name: 'pod here', address: podAddress(1, 99, family) },
    { name: 'pod elsewhere', address: podAddress(2, 10, family) },
    { name: 'node', address: family === 4 ? NODE_ADDRESSES[0]! : NODE_ADDRESSES[1]! },
  ]),
];

export const sourcesOf = (address: Address): Source[] => SOURCES.filter((source) => familyOf(source.address) === familyOf(address));

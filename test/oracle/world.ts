/**
 * What the maps hold and how the node is wired, as the oracle knows it: made by chance, written to the kernel by kernel.ts.
 *
 *   outside -- up0 [node] mesh0 -- another node, 10.2.0.0/16 and 2001:db8:42::/64
 *                     pod0, pod1 -- pods of this node, 10.1.0.0/16 and 2001:db8:41::/64
 */
import type { Backend, Flow, Frontend, FrontendKey, Node, Service, Tuple } from '../../agent/dataplane/generated/abi.ts';
import { Algorithm, BackendFlag, FrontendFlag, FrontendKind, NodeFlag, ServiceFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import type { Held } from './fragments.ts';
import { SCTP, TCP, UDP } from './frames.ts';
import type { Random } from '../support/random.ts';

export type Family = 4 | 6;
export const FAMILIES = [4, 6] as const;

/** Addresses that mean something, by family. */
export const PLACES = {
  4: {
    up: '192.0.2.1',
    mesh: '198.51.100.1',
    /** The other node, at mesh0. */
    host: '198.51.100.2',
    outside: ['203.0.113.7', '203.0.113.8', '198.18.0.1'],
    /** Pods of this node, behind pod0 and pod1. */
    pods: ['10.1.0.2', '10.1.0.3'],
    otherPods: ['10.2.0.2', '10.2.0.3'],
    silent: '10.3.0.2',
    blackhole: '10.4.0.2',
    /** In the ServiceCIDR: some are clusterIPs. */
    services: ['10.96.0.1', '10.96.0.2', '10.96.0.3', '10.96.0.4'],
    balancers: ['192.0.2.10', '192.0.2.11'],
    serviceCidr: ['10.96.0.0', '255.255.0.0'],
    podCidr: ['10.0.0.0', '255.252.0.0'],
  },
  6: {
    up: '2001:db8::1',
    mesh: '2001:db8:1::1',
    host: '2001:db8:1::2',
    outside: ['2001:db8:c::7', '2001:db8:c::8', '2001:db8:d::1'],
    pods: ['2001:db8:41::2', '2001:db8:41::3'],
    otherPods: ['2001:db8:42::2', '2001:db8:42::3'],
    silent: '2001:db8:43::2',
    blackhole: '2001:db8:44::2',
    services: ['fd00:96::1', 'fd00:96::2', 'fd00:96::3', 'fd00:96::4'],
    balancers: ['2001:db8::10', '2001:db8::11'],
    serviceCidr: ['fd00:96::', 'ffff:ffff::'],
    podCidr: ['2001:db8:40::', 'ffff:ffff:fffc::'],
  },
} as const;

export const DEVICES = ['up0', 'mesh0', 'pod0', 'pod1'] as const;
export type DeviceName = (typeof DEVICES)[number];
export const SNAT = { min: 61_000, max: 61_127 } as const;
/** Few, so that packets meet each other. */
export const CLIENT_PORTS = [40_000, 40_001, 40_002, 50_000] as const;
export const SERVICE_PORTS = [80, 53, 443] as const;

/** A service with its sets resolved: `members` are backend ids, `table` what Maglev draws from. */
export interface WorldService {
  readonly record: Service;
  readonly sets: readonly { readonly members: readonly number[]; readonly table: readonly number[] }[];
  /** Source ranges that may use its frontends of kind LoadBalancer: address and prefix. */
  readonly ranges: readonly { readonly addr: Address; readonly prefix: number }[];
}

export interface World {
  readonly frontends: Map<string, { readonly key: FrontendKey; readonly value: Frontend }>;
  readonly services: Map<number, WorldService>;
  readonly backends: Map<number, Backend>;
  readonly node: Node;
  /** Addresses of backends' nodes, by the backends' ids. */
  readonly hosts: Map<number, Address>;
  /** Other nodes, whose packets are opened. */
  readonly peers: ReadonlySet<Address>;
  /** What the kernel should have learnt by now. */
  readonly flows: Map<string, { readonly key: Tuple; readonly flow: Flow }>;
  readonly affinity: Map<string, { backend: number; used: number }>;
  /** The ports that first fragments had, by datagramOf(). */
  readonly fragments: Map<string, Pick<Tuple, 'sport' | 'dport'>>;
  /** Those that came before the first one, likewise, each in its slot. */
  readonly held: Map<string, Held[]>;
}

export const textOf = ({ saddr, daddr, sport, dport, proto }: Tuple): string => `${proto} ${saddr} ${sport} ${daddr} ${dport}`;
export const frontendText = ({ addr, port, proto }: FrontendKey): string => `${proto} ${addr} ${port}`;

/** Services of both families, each with a cluster IP and perhaps more, with every policy. */
export function randomWorld(random: Random): World {
  const world: World = {
    frontends: new Map(),
    services: new Map(),
    backends: new Map(),
    node: randomNode(random),
    hosts: new Map(),
    peers: new Set(FAMILIES.filter(() => !random.once(5)).map((family) => PLACES[family].host as Address)),
    flows: new Map(),
    affinity: new Map(),
    fragments: new Map(),
    held: new Map(),
  };
  for (let id = 1; id <= 16; id++) addService(random, world, id, random.pick(FAMILIES));
  for (const family of FAMILIES) for (const addr of [...PLACES[family].services, ...PLACES[family].balancers]) addAddress(random, world, addr as Address);
  return world;
}

function randomNode(random: Random): Node {
  const cidr = (family: Family, which: 'serviceCidr' | 'podCidr') => ({
    net: PLACES[family][which][0] as Address,
    mask: maskOf(PLACES[family][which][1], family),
  });
  const serviceCidrs = random.once(4) ? [] : FAMILIES.map((family) => cidr(family, 'serviceCidr'));
  const detects = random.pick([0, NodeFlag.DETECTS_V4, NodeFlag.DETECTS_V4 | NodeFlag.DETECTS_V6, NodeFlag.DETECTS_DEVICE]);
  const owns = serviceCidrs.length === 0 || random.once(3) ? NodeFlag.OWNS_BEYOND : 0;
  const known = (random.once(5) ? 0 : NodeFlag.ADDRESS_V4) | (random.once(5) ? 0 : NodeFlag.ADDRESS_V6);
  const flags = detects | owns | known | (random.once(3) ? NodeFlag.MASQUERADES_ALL : 0);
  return {
    flags,
    serviceCidrCount: serviceCidrs.length,
    addr: FAMILIES.map((family) => PLACES[family].mesh as Address),
    pods: FAMILIES.map((family) => cidr(family, 'podCidr')),
    serviceCidrs,
  };
}

/** Masks are written as addresses; those of IPv4 lie behind ::ffff:. */
const maskOf = (mask: string, family: Family): Address => (family === 4 ? ipv4Mask(mask) : mask) as Address;
const ipv4Mask = (mask: string): string => {
  const [a = 0, b = 0, c = 0, d = 0] = mask.split('.').map(Number);
  return `ffff:ffff:ffff:ffff:ffff:ffff:${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
};

function addService(random: Random, world: World, id: number, family: Family): void {
  const place = PLACES[family];
  const proto = random.pick([TCP, TCP, UDP, UDP, SCTP]);
  const port = random.pick(SERVICE_PORTS);
  const choices = [...place.pods, ...place.otherPods, ...place.pods, ...place.otherPods, place.mesh, place.silent, place.blackhole];
  const members = [...new Set(Array.from({ length: random.below(4) }, () => random.pick(choices)))];
  const ids = members.map((address, i) => {
    const isLocal = address === place.mesh || (place.pods as readonly string[]).includes(address);
    const leaving = random.once(8);
    const membership = leaving ? 0 : BackendFlag.IN_CLUSTER | (isLocal ? BackendFlag.IN_LOCAL : 0);
    const serving = leaving && random.once(2) ? 0 : BackendFlag.SERVING;
    const isHosted = proto !== SCTP && (place.otherPods as readonly string[]).includes(address) && !random.once(4);
    const flags = serving | (isLocal ? BackendFlag.LOCAL : 0) | (serving === 0 ? 0 : membership) | (isHosted ? BackendFlag.HOSTED : 0);
    if (isHosted) world.hosts.set(id * 8 + i, place.host as Address);
    world.backends.set(id * 8 + i, { addr: address as Address, port: 8080, flags, service: id, connections: 0n });
    return id * 8 + i;
  });
  const inSet = (flag: number): readonly number[] => ids.filter((backend) => ((world.backends.get(backend)?.flags ?? 0) & flag) !== 0);
  const sets = [inSet(BackendFlag.IN_CLUSTER), inSet(BackendFlag.IN_LOCAL)].map((set) => ({
    members: set,
    table: set.length === 0 ? [] : Array.from({ length: random.pick([0, 7, 13]) }, () => random.pick(set)),
  }));
  const hasAny = ids.length > 0 || random.once(4);
  const flags = (random.once(3) ? ServiceFlag.INTERNAL_LOCAL : 0) | (random.once(3) ? ServiceFlag.EXTERNAL_LOCAL : 0) | (hasAny ? ServiceFlag.HAS_ANY : 0);
  const record: Service = {
    sets: [],
    affinitySeconds: random.once(4) ? 10_800 : 0,
    algorithm: random.pick(Object.values(Algorithm)),
    flags,
    proto,
    family,
    namespace: 'default',
    name: `service-${id}`,
    portName: '',
    turn: 0,
  };
  const ranges = random.once(3) ? randomRanges(random, family) : [];
  world.services.set(id, { record, sets, ranges });
  const claim = (addr: string, kind: number, at: number = port): void => {
    const key = { addr: addr as Address, port: at, proto };
    const restricted = kind === FrontendKind.LOAD_BALANCER && ranges.length > 0;
    const value = { service: id, kind, flags: restricted ? FrontendFlag.SOURCE_RANGES : 0 };
    if (!world.frontends.has(frontendText(key))) world.frontends.set(frontendText(key), { key, value });
  };
  claim(random.pick(place.services.slice(0, 3)), FrontendKind.CLUSTER_IP);
  if (random.once(2)) claim(random.pick(place.balancers), FrontendKind.LOAD_BALANCER);
  if (random.once(3)) claim(random.pick(place.balancers), FrontendKind.EXTERNAL_IP);
  if (random.once(2)) claim(place.up, FrontendKind.NODE_PORT, 30_000 + random.below(3));
}

function randomRanges(random: Random, family: Family): WorldService['ranges'] {
  const place = PLACES[family];
  const bits = family === 4 ? 32 : 128;
  return [
    { addr: place.outside[0] as Address, prefix: bits },
    ...(random.once(2) ? [{ addr: place.podCidr[0] as Address, prefix: family === 4 ? 14 : 46 }] : []),
    ...(random.once(4) ? [{ addr: place.up as Address, prefix: bits }] : []),
  ];
}

/** The address itself: a clusterIP is ours as a whole, a balancer's only now and then. */
function addAddress(random: Random, world: World, addr: Address): void {
  const isUsed = [...world.frontends.values()].some(({ key }) => key.addr === addr);
  if (!isUsed) return;
  const isService = addr.startsWith('10.96.') || addr.startsWith('fd00:96:');
  const flags = (isService || random.once(3) ? FrontendFlag.OWNED : 0) | (random.once(2) ? FrontendFlag.PING : 0);
  const key = { addr, port: 0, proto: 0 };
  world.frontends.set(frontendText(key), { key, value: { service: 0, kind: FrontendKind.ADDRESS, flags } });
}

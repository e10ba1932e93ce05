/** Packets that nodes send each other as they are: docs/decisions/dsr.md, written down a second time. */
import type { Frontend, Tuple } from '../../agent/dataplane/generated/abi.ts';
import { BackendFlag, FrontendKind, NodeFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Backend } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { addressBytes, read16, readIp, sumOf, write16 } from './bytes.ts';
import type { Origin } from './choose.ts';
import type { Seen } from './decide.ts';
import { TCP, UDP } from './frames.ts';
import { hashTuple } from './hash.ts';
import { parse } from './parse.ts';
import type { Parsed } from './parse.ts';
import type { Family, World } from './world.ts';

export const DSR_PORT = 6_091;

const be16 = (value: number): number[] => [value >> 8, value & 255];
const familyOf = ({ v4 }: Parsed): Family => (v4 ? 4 : 6);
const IP_HEADER = { 4: 20, 6: 40 } as const;
/** Geneve's header, its option's, and the backend with its padding. */
const GENEVE = { 4: 8 + 4 + 8, 6: 8 + 4 + 20 } as const;

/** How much longer a packet is with its wrapping. */
export const wrapSize = (packet: Parsed): number => IP_HEADER[familyOf(packet)] + 8 + GENEVE[familyOf(packet)];

/** This node's address as others know it; undefined: they know none. */
export function ownAddress({ node }: World, packet: Parsed): Address | undefined {
  const [flag, at] = packet.v4 ? [NodeFlag.ADDRESS_V4, 0] : [NodeFlag.ADDRESS_V6, 1];
  return (node.flags & flag) === 0 ? undefined : node.addr[at];
}

/** The node that gets a new flow's packets as they are; undefined: they go on as everybody else's. */
export function hostFor(
  world: World,
  { hook, packet }: Seen & { packet: Parsed },
  origin: Origin,
  backend: Backend,
  id: number,
  { kind }: Frontend,
): Address | undefined {
  const comesFromOutside = (hook === 'xdp' || hook === 'ingress') && origin === 'outside';
  if (!comesFromOutside || packet.tagged || kind === FrontendKind.CLUSTER_IP || ownAddress(world, packet) === undefined) return undefined;
  return (backend.flags & (BackendFlag.HOSTED | BackendFlag.LOCAL)) === BackendFlag.HOSTED ? world.hosts.get(id) : undefined;
}

function geneve(family: Family, { daddr, dport }: Tuple): number[] {
  const words = (GENEVE[family] - 12) / 4;
  return [words + 1, 0x40, ...(family === 4 ? [8, 0] : [0x86, 0xdd]), 0, 0, 0, 0, 0xff, 0x6d, 0x80, words, ...addressBytes(daddr), ...be16(dport), 0, 0];
}

/**
 * A frame as it leaves for another node: all that it was, behind the wrapping.
 * @param of what it was taken for: an error stands for an answer.
 * @param to the node in saddr, the backend in daddr and dport.
 */
export function wrapped(frame: Uint8Array, of: Parsed, to: Tuple, own: Address): Uint8Array {
  const family = familyOf(of);
  const inner = frame.subarray(of.l3);
  const length = of.said + 8 + GENEVE[family];
  const udp = [...be16(0xc000 | (hashTuple(of.tuple) & 0x3fff)), ...be16(DSR_PORT), ...be16(length & 0xffff), 0, 0];
  const ends = [...addressBytes(own), ...addressBytes(to.saddr)];
  const first = [...inner.subarray(0, 4)];
  const ip =
    family === 4
      ? [0x45, (first[1] ?? 0) & 0xfc, ...be16((length + 20) & 0xffff), 0, 0, 0x40, 0, 64, UDP, 0, 0, ...ends]
      : [first[0] ?? 0, (first[1] ?? 0) & 0xcf, ...first.slice(2), ...be16(length & 0xffff), UDP, 64, ...ends];
  const bytes = Uint8Array.from(ip);
  if (family === 4) write16(bytes, 10, ~sumOf(bytes, 0, 20) & 0xffff);
  return Uint8Array.from([...frame.subarray(0, 14), ...bytes, ...udp, ...geneve(family, to), ...inner]);
}

/** A whole packet of TCP or UDP: XDP leaves all else to tc, as it is. */
function isPlain(inner: Uint8Array, family: Family): boolean {
  if (inner.length < IP_HEADER[family]) return false;
  const proto = inner[family === 4 ? 9 : 6] ?? 0;
  return (proto === TCP || proto === UDP) && (family === 6 || (read16(inner, 6) & 0x3fff) === 0);
}

/** What came wrapped from another node: the packet inside, and the backend that it is for. 'lost': it cannot be opened. */
export type Opened = { readonly seen: Seen; readonly to: { readonly daddr: Address; readonly dport: number } } | 'lost';

/** Undefined: it is none, and somebody else's. */
export function open(world: World, seen: Seen): Opened | undefined {
  const { hook, frame, packet } = seen;
  if ((hook !== 'ingress' && hook !== 'xdp') || typeof packet === 'string' || packet.fragment !== undefined) return undefined;
  const { tuple, l3, l4, tagged } = packet;
  const family = familyOf(packet);
  const isForUs = tuple.proto === UDP && tuple.dport === DSR_PORT && !tagged && tuple.daddr === ownAddress(world, packet) && world.peers.has(tuple.saddr);
  if (!isForUs || l4 - l3 !== IP_HEADER[family]) return undefined;
  const at = l4 + 8 + 12;
  const size = family === 4 ? 4 : 16;
  if (frame.length < at + size + 2) return undefined;
  const to = { daddr: readIp(frame, at, size), dport: read16(frame, at + size) };
  const head = geneve(family, { ...tuple, ...to }).slice(0, 12);
  // What the network's number and its reserved byte say is nobody's.
  const isOurs = head.every((byte, i) => (i >= 4 && i < 8) || frame[l4 + 8 + i] === byte);
  if (!isOurs) return undefined;
  const inner = frame.subarray(l3 + wrapSize(packet));
  if (hook === 'xdp' && !isPlain(inner, family)) return undefined;
  if (inner.length < IP_HEADER[family]) return 'lost';
  const opened = Uint8Array.from([...frame.subarray(0, 14), ...inner]);
  return { seen: { ...seen, frame: opened, packet: parse(opened, hook === 'xdp'), isOwn: false }, to };
}

/** A frame of chance, wrapped: mostly as another node would. */
export function wrapForUs(
  inner: Uint8Array,
  ends: { readonly from: string; readonly to: string },
  backend: string,
  change: readonly [number, number] | undefined,
): Uint8Array {
  const family: Family = ends.from.includes(':') ? 6 : 4;
  const tuple = { saddr: ends.to as Address, daddr: backend as Address, sport: 0, dport: 8080, proto: UDP };
  const of: Parsed = { tuple, v4: family === 4, l3: 14, l4: 14, said: inner.length - 14, ttl: 64, tagged: false, flags: 0, isError: false };
  const frame = wrapped(inner, of, tuple, ends.from as Address);
  if (change !== undefined) frame[14 + IP_HEADER[family] + 8 + change[0]] = change[1];
  return frame;
}

/**
 * Builds Ethernet frames from a few words, all checksums right: what a test expects is a packet
 * that this builder makes, too, and the two are compared byte by byte.
 */
import ipaddr from 'ipaddr.js';

export const TCP = 6;
export const UDP = 17;
export const SCTP = 132;

/** ICMP stands for ICMPv6 over IPv6. Any other protocol by its number: its payload is all that there is. */
export type Proto = 'tcp' | 'udp' | 'sctp' | 'icmp' | number;

export interface PacketSpec {
  readonly proto: Proto;
  /** "192.0.2.1:1000" or "[2001:db8::1]:1000": also says which IP it is. */
  readonly from: string;
  readonly to: string;
  /** ICMP: the header; `rest` is its last 4 bytes. @default an echo request */
  readonly icmp?: { readonly type: number; readonly code?: number; readonly rest?: readonly number[] };
  /** TCP: some of "FSRPA". @default "A" */
  readonly flags?: string;
  /** TTL or hop limit. @default 64 */
  readonly ttl?: number;
  /** @default "hello" */
  readonly payload?: string | readonly number[];
  /** IDs of VLAN tags, the outer first. */
  readonly vlans?: readonly number[];
  /** IPv4 options, a multiple of 4 bytes. */
  readonly options?: readonly number[];
  /** IPv6 extension headers: type, and what follows their first two bytes (6, 14, 22... bytes). */
  readonly extensions?: readonly { readonly type: number; readonly body: readonly number[] }[];
  /** IPv4 fragment offset (in 8 bytes) and "more fragments". */
  readonly fragment?: { readonly offset: number; readonly more: boolean };
  /** IPv4 identification. */
  readonly id?: number;
  /** UDP without a checksum. */
  readonly unchecked?: boolean;
  /** Link-layer addresses. @default locally administered ones */
  readonly macs?: { readonly source: string; readonly destination: string };
}

const MACS = { source: '02:00:00:00:00:01', destination: '02:00:00:00:00:02' } as const;
const FLAGS: Readonly<Record<string, number>> = { F: 1, S: 2, R: 4, P: 8, A: 16 };

/** "[2001:db8::1]:80" as its address and port. */
export function splitEndpoint(endpoint: string): { readonly address: string; readonly port: number } {
  const colon = endpoint.lastIndexOf(':');
  return { address: endpoint.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(endpoint.slice(colon + 1)) };
}

export function joinEndpoint(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

const be16 = (value: number): number[] => [(value >> 8) & 255, value & 255];
const macBytes = (mac: string): number[] => mac.split(':').map((byte) => parseInt(byte, 16));

/** The Internet checksum (RFC 1071) of all parts together; over data with its checksum in place it is 0. */
export function checksum(...parts: readonly ArrayLike<number>[]): number {
  const bytes = parts.flatMap((part) => Array.from(part));
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes[at]! * 256 + (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** CRC32c as SCTP has it (RFC 9260, appendix A), to be written with its low byte first. */
export function crc32c(bytes: ArrayLike<number>): number {
  let crc = 0xffffffff;
  for (const byte of Array.from(bytes)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

export function protocolNumber(proto: Proto, v4: boolean): number {
  if (typeof proto === 'number') return proto;
  return { tcp: TCP, udp: UDP, sctp: SCTP, icmp: v4 ? 1 : 58 }[proto];
}

function tcpHeader(sport: number, dport: number, flags: string): number[] {
  const bits = [...flags].reduce((sum, flag) => sum | FLAGS[flag]!, 0);
  return [...be16(sport), ...be16(dport), 0, 0, 0, 1, 0, 0, 0, 2, 5 << 4, bits, ...be16(65535), 0, 0, 0, 0];
}

/** The header in front of `length` bytes, its checksum still 0, and where in it that is. */
function header(spec: PacketSpec, v4: boolean, length: number): { readonly bytes: readonly number[]; readonly field?: number } {
  const sport = splitEndpoint(spec.from).port;
  const dport = splitEndpoint(spec.to).port;
  if (spec.proto === 'tcp') return { bytes: tcpHeader(sport, dport, spec.flags ?? 'A'), field: 16 };
  if (spec.proto === 'udp') return { bytes: [...be16(sport), ...be16(dport), ...be16(8 + length), 0, 0], field: 6 };
  if (spec.proto === 'sctp') return { bytes: [...be16(sport), ...be16(dport), 0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 0], field: 8 };
  if (spec.proto !== 'icmp') return { bytes: [] };
  const { type, code = 0, rest = [0x12, 0x34, 0, 7] } = spec.icmp ?? { type: v4 ? 8 : 128 };
  return { bytes: [type, code, 0, 0, ...rest], field: 2 };
}

/** What follows the IP headers, with its checksum. */
function segment(spec: PacketSpec, saddr: number[], daddr: number[]): number[] {
  const content = spec.payload ?? 'hello';
  const payload = typeof content === 'string' ? [...new TextEncoder().encode(content)] : content;
  const v4 = saddr.length === 4;
  const { bytes, field } = header(spec, v4, payload.length);
  const data = [...bytes, ...payload];
  if (spec.unchecked || field === undefined) return data;
  if (spec.proto === 'sctp') {
    data.splice(field, 4, ...new Uint8Array(Uint32Array.of(crc32c(data)).buffer));
    return data;
  }
  const pseudo = spec.proto === 'icmp' && v4 ? [] : [...saddr, ...daddr, 0, protocolNumber(spec.proto, v4), ...be16(data.length)];
  const sum = checksum(pseudo, data);
  data.splice(field, 2, ...be16(sum === 0 && spec.proto === 'udp' ? 0xffff : sum));
  return data;
}

function ipv4(spec: PacketSpec, saddr: number[], daddr: number[], data: number[]): number[] {
  const options = spec.options ?? [];
  const length = 20 + options.length;
  const fragment = spec.fragment ? (spec.fragment.more ? 0x2000 : 0) | spec.fragment.offset : 0x4000;
  const header = [
    (4 << 4) | (length / 4),
    0,
    ...be16(length + data.length),
    ...be16(spec.id ?? 0x1234),
    ...be16(fragment),
    spec.ttl ?? 64,
    protocolNumber(spec.proto, true),
    0,
    0,
    ...saddr,
    ...daddr,
    ...options,
  ];
  header.splice(10, 2, ...be16(checksum(header)));
  return [...header, ...data];
}

function ipv6(spec: PacketSpec, saddr: number[], daddr: number[], data: number[]): number[] {
  const extensions = spec.extensions ?? [];
  const types = [...extensions.map(({ type }) => type), protocolNumber(spec.proto, false)];
  const chain = extensions.flatMap(({ type, body }, index) => [types[index + 1]!, type === 44 ? 0 : (body.length + 2) / 8 - 1, ...body]);
  const header = [6 << 4, 0, 0, 0, ...be16(chain.length + data.length), types[0]!, spec.ttl ?? 64];
  return [...header, ...saddr, ...daddr, ...chain, ...data];
}

export function buildPacket(spec: PacketSpec): Uint8Array {
  const source = ipaddr.parse(splitEndpoint(spec.from).address);
  const saddr = source.toByteArray();
  const daddr = ipaddr.parse(splitEndpoint(spec.to).address).toByteArray();
  const v4 = source.kind() === 'ipv4';
  const data = segment(spec, saddr, daddr);
  const { source: smac, destination: dmac } = spec.macs ?? MACS;
  const tags = (spec.vlans ?? []).flatMap((id) => [0x81, 0, ...be16(id)]);
  return Uint8Array.from([
    ...macBytes(dmac),
    ...macBytes(smac),
    ...tags,
    ...(v4 ? [0x08, 0] : [0x86, 0xdd]),
    ...(v4 ? ipv4(spec, saddr, daddr, data) : ipv6(spec, saddr, daddr, data)),
  ]);
}

/** The source port of a frame without tags and extension headers. */
export function sourcePort(frame: Uint8Array): number {
  const at = frame[12] === 0x08 ? 14 + (frame[14]! & 15) * 4 : 14 + 40;
  return frame[at]! * 256 + frame[at + 1]!;
}

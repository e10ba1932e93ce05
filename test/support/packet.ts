/**
 * Builds Ethernet frames from a few words, all checksums right: what a test expects is a packet
 * that this builder makes, too, and the two are compared byte by byte.
 */
import ipaddr from 'ipaddr.js';

export const TCP = 6;
export const UDP = 17;

export interface PacketSpec {
  readonly proto: 'tcp' | 'udp';
  /** "192.0.2.1:1000" or "[2001:db8::1]:1000": also says which IP it is. */
  readonly from: string;
  readonly to: string;
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

function tcpHeader(sport: number, dport: number, flags: string): number[] {
  const bits = [...flags].reduce((sum, flag) => sum | FLAGS[flag]!, 0);
  return [...be16(sport), ...be16(dport), 0, 0, 0, 1, 0, 0, 0, 2, 5 << 4, bits, ...be16(65535), 0, 0, 0, 0];
}

/** TCP or UDP with its payload and checksum. */
function segment(spec: PacketSpec, saddr: number[], daddr: number[]): number[] {
  const sport = splitEndpoint(spec.from).port;
  const dport = splitEndpoint(spec.to).port;
  const content = spec.payload ?? 'hello';
  const payload = typeof content === 'string' ? [...new TextEncoder().encode(content)] : content;
  const tcp = spec.proto === 'tcp';
  const header = tcp ? tcpHeader(sport, dport, spec.flags ?? 'A') : [...be16(sport), ...be16(dport), ...be16(8 + payload.length), 0, 0];
  const data = [...header, ...payload];
  if (spec.unchecked) return data;
  const pseudo = [...saddr, ...daddr, 0, tcp ? TCP : UDP, ...be16(data.length)];
  const sum = checksum(pseudo, data);
  data.splice(tcp ? 16 : 6, 2, ...be16(sum === 0 && !tcp ? 0xffff : sum));
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
    0x12,
    0x34,
    ...be16(fragment),
    spec.ttl ?? 64,
    spec.proto === 'tcp' ? TCP : UDP,
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
  const types = [...extensions.map(({ type }) => type), spec.proto === 'tcp' ? TCP : UDP];
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

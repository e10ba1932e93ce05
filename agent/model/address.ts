/**
 * The one address type: canonical text. IPv4 as "10.0.0.1", IPv6 as RFC 5952 writes it, an
 * IPv4-mapped IPv6 address as the IPv4 address it is. Two equal addresses are two equal strings.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import type { Family } from './desired.ts';

declare const canonical: unique symbol;
export type Address = string & { readonly [canonical]: true };

/**
 * Parses an IP address; zones ("fe80::1%eth0") and leading zeros in IPv4 are refused, as the Kubernetes API does.
 * @returns the canonical address, or undefined when `text` is none.
 */
export function parseAddress(text: string): Address | undefined {
  if (isIPv4(text)) return text as Address;
  if (!isIPv6(text) || text.includes('%')) return undefined;
  // The URL parser is the platform's own RFC 5952 writer.
  const written = new URL(`http://[${text}]/`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(written);
  if (mapped === null) return written as Address;
  const [high, low] = [parseInt(mapped[1] ?? '', 16), parseInt(mapped[2] ?? '', 16)];
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}` as Address;
}

/** 4 or 6. */
export function familyOf(address: Address): Family {
  return address.includes(':') ? 6 : 4;
}

/**
 * Writes the 16 bytes of an address, network byte order, IPv4 as ::ffff:a.b.c.d.
 * @param into at least `offset` + 16 bytes.
 */
export function writeAddress(address: Address, into: Uint8Array, offset: number): void {
  into.fill(0, offset, offset + 16);
  if (familyOf(address) === 4) {
    into[offset + 10] = 255;
    into[offset + 11] = 255;
    address.split('.').forEach((octet, i) => (into[offset + 12 + i] = Number(octet)));
    return;
  }
  const [head = '', tail] = address.split('::');
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));
  const put = (group: string, index: number): void => {
    const value = parseInt(group, 16);
    into[offset + 2 * index] = value >> 8;
    into[offset + 2 * index + 1] = value & 255;
  };
  groups(head).forEach(put);
  const last = tail === undefined ? [] : groups(tail);
  last.forEach((group, i) => put(group, 8 - last.length + i));
}

/** The address in 16 bytes at `offset`, as `writeAddress` wrote it. */
export function readAddress(from: Uint8Array, offset: number): Address {
  const groups: string[] = [];
  for (let i = 0; i < 8; i++) groups.push((((from[offset + 2 * i] ?? 0) << 8) | (from[offset + 2 * i + 1] ?? 0)).toString(16));
  return parseAddress(groups.join(':')) as Address;
}

/** "10.0.0.1:80", "[fd00::1]:80". */
export function formatEndpoint(address: Address, port: number): string {
  return familyOf(address) === 4 ? `${address}:${port}` : `[${address}]:${port}`;
}

/** An address range. */
export interface Cidr {
  readonly base: Address;
  /** Leading bits that count: 0 to 32 (IPv4) or 128. */
  readonly prefix: number;
}

/** "10.0.0.0/8"; host bits are allowed and ignored. Undefined when `text` is none. */
export function parseCidr(text: string): Cidr | undefined {
  const [ip = '', bits = '', ...rest] = text.split('/');
  const base = parseAddress(ip);
  if (base === undefined || rest.length > 0 || !/^\d{1,3}$/.test(bits)) return undefined;
  return Number(bits) > (familyOf(base) === 4 ? 32 : 128) ? undefined : { base, prefix: Number(bits) };
}

/** Whether an address is in one of the ranges. */
export function inRanges(ranges: readonly Cidr[], ip: Address): boolean {
  const blocks = new BlockList();
  for (const range of ranges) blocks.addSubnet(range.base, range.prefix, familyOf(range.base) === 4 ? 'ipv4' : 'ipv6');
  return blocks.check(ip, familyOf(ip) === 4 ? 'ipv4' : 'ipv6');
}

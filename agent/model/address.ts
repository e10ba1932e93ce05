/**
 * The one address type: canonical text. IPv4 as "10.0.0.1", IPv6 as RFC 5952 writes it, an
 * IPv4-mapped IPv6 address as the IPv4 address it is. Two equal addresses are two equal strings.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import type { Family } from './desired.ts';

declare const canonical: unique symbol;
export type Address = string & { readonly [canonical]: true };

/**
 * Parses an IP address. Leading zeros in IPv4 mean nothing ("010.0.0.1" is 10.0.0.1): the API refuses them by now, but
 * keeps objects that have them, and all of Kubernetes reads them so. Zones ("fe80::1%eth0") are refused.
 * @returns the canonical address, or undefined when `text` is none.
 */
export function parseAddress(text: string): Address | undefined {
  const plain = /(?:^|\.)0\d/.test(text) ? text.replaceAll(/(?<=^|\.)0+(?=\d)/g, '') : text;
  if (isIPv4(plain)) return plain as Address;
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
    writeOctets(address, into, offset + 12);
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

/** By hand, as it is done for every endpoint of a cluster. */
function writeOctets(address: Address, into: Uint8Array, offset: number): void {
  let at = offset;
  let octet = 0;
  for (let i = 0; i < address.length; i++) {
    const digit = address.charCodeAt(i) - ZERO;
    if (digit >= 0) octet = 10 * octet + digit;
    else {
      into[at++] = octet;
      octet = 0;
    }
  }
  into[at] = octet;
}

const ZERO = 48;

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

/** An address range. Two equal ranges are two equal pairs: `base` has no bits behind the prefix. */
export interface Cidr {
  readonly base: Address;
  /** Leading bits that count: 0 to 32 (IPv4) or 128. */
  readonly prefix: number;
}

/**
 * "10.0.0.0/8"; host bits are allowed and cleared. A range of IPv4-mapped IPv6 addresses is the range of those IPv4 addresses.
 * @returns undefined when `text` is none.
 */
export function parseCidr(text: string): Cidr | undefined {
  const [ip = '', bits = '', ...rest] = text.split('/');
  const address = parseAddress(ip);
  if (address === undefined || rest.length > 0 || !/^\d{1,3}$/.test(bits)) return undefined;
  const prefix = familyOf(address) === 4 && ip.includes(':') ? Number(bits) - MAPPED_BITS : Number(bits);
  if (prefix < 0 || prefix > (familyOf(address) === 4 ? 32 : 128)) return undefined;
  const bytes = new Uint8Array(16);
  writeAddress(address, bytes, 0);
  const kept = familyOf(address) === 4 ? MAPPED_BITS + prefix : prefix;
  const masked = bytes.map((byte, i) => byte & (0xff << (8 - Math.min(8, Math.max(0, kept - 8 * i)))));
  return { base: readAddress(masked, 0), prefix };
}

/** Of ::ffff:0:0/96. */
const MAPPED_BITS = 96;

/** "10.0.0.0/8". */
export function formatCidr({ base, prefix }: Cidr): string {
  return `${base}/${prefix}`;
}

/** Whether an address is in one of the ranges. */
export function inRanges(ranges: readonly Cidr[], ip: Address): boolean {
  return rangeTest(ranges)(ip);
}

/** A test for many addresses. */
export function rangeTest(ranges: readonly Cidr[]): (ip: Address) => boolean {
  const blocks = new BlockList();
  for (const range of ranges) blocks.addSubnet(range.base, range.prefix, familyOf(range.base) === 4 ? 'ipv4' : 'ipv6');
  return (ip) => blocks.check(ip, familyOf(ip) === 4 ? 'ipv4' : 'ipv6');
}

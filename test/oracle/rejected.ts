/** Whether a frame is the ICMP error that answers another (RFC 792; RFC 4443, 3): to its sender, quoting it. */
import { addressBytes, read16, sumOf } from './bytes.ts';
import type { IcmpError } from './decide.ts';
import { ICMP4, ICMP6, TCP, UDP } from './frames.ts';
import type { Parsed } from './parse.ts';

/** RFC 792 wants the header and 8 bytes more of what is quoted. */
const QUOTED_L4 = 8;

const isEqual = (bytes: Uint8Array, at: number, wanted: ArrayLike<number>): boolean => Array.from(wanted).every((byte, i) => bytes[at + i] === byte);

/** Why `got` is no such answer to `frame`; undefined: it is one. */
export function differsFromReject(got: Uint8Array, frame: Uint8Array, { l3, l4, v4, tuple }: Parsed, error: IcmpError): string | undefined {
  const icmp = l3 + (v4 ? 20 : 40);
  const quote = icmp + 8;
  if (!isEqual(got, 0, frame.subarray(6, 12)) || !isEqual(got, 6, frame.subarray(0, 6))) return 'the link-layer addresses are not turned round';
  const [source, destination] = v4 ? [l3 + 12, l3 + 16] : [l3 + 8, l3 + 24];
  if (!isEqual(got, source, addressBytes(error.source))) return 'it does not come from where it should';
  if (!isEqual(got, destination, addressBytes(tuple.saddr))) return 'it does not go back where the packet came from';
  if (v4 ? got[l3] !== 0x45 || got[l3 + 9] !== ICMP4 : (got[l3] ?? 0) >> 4 !== 6 || got[l3 + 6] !== ICMP6) return 'it is no ICMP packet';
  if (got[icmp] !== error.type || got[icmp + 1] !== error.code) return `it is of type ${got[icmp]} and code ${got[icmp + 1]}`;
  if (read16(got, icmp + 4) !== 0 || read16(got, icmp + 6) !== error.rest) return 'it tells another MTU';
  const said = v4 ? read16(got, l3 + 2) : read16(got, l3 + 4) + 40;
  if (l3 + said !== got.length) return `it says that it has ${said} bytes, and has ${got.length - l3}`;
  if (v4 && sumOf(got, l3, icmp) !== 0xffff) return 'the checksum of its IPv4 header is wrong';
  const pseudo = v4 ? 0 : sumOf(got, l3 + 8, l3 + 40, ICMP6 + got.length - icmp);
  if (sumOf(got, icmp, got.length, pseudo) !== 0xffff) return 'its ICMP checksum is wrong';
  // In whole words, as far as there are any.
  const least = l4 - l3 + Math.min((frame.length - l4) & ~3, QUOTED_L4);
  if (got.length - quote < least) return `it quotes ${got.length - quote} bytes, not ${least}`;
  const checksum = tuple.proto === TCP ? l4 + 16 : tuple.proto === UDP ? l4 + 6 : -2;
  for (let at = l3; at - l3 < got.length - quote; at++) {
    // A checksum that hardware has yet to finish would spoil ours: it is settled to another.
    if (at !== checksum && at !== checksum + 1 && got[quote + at - l3] !== frame[at]) return `byte ${at - l3} of its quote is not the packet's`;
  }
  return undefined;
}

/** Why `got` is not the answer to the echo request `frame` (RFC 792; RFC 4443, 4.2), with a fresh TTL; undefined: it is. */
export function differsFromEcho(got: Uint8Array, frame: Uint8Array, { l3, l4, v4 }: Parsed): string | undefined {
  if (got.length !== frame.length) return `${got.length} bytes, not ${frame.length}`;
  const wanted = frame.slice();
  wanted.set(frame.subarray(6, 12), 0);
  wanted.set(frame.subarray(0, 6), 6);
  const [source, size] = v4 ? [l3 + 12, 4] : [l3 + 8, 16];
  wanted.set(frame.subarray(source, source + size), source + size);
  wanted.set(frame.subarray(source + size, source + 2 * size), source);
  wanted[l3 + (v4 ? 8 : 7)] = 64;
  wanted[l4] = v4 ? 0 : 129;
  const checksums = new Set([l4 + 2, l4 + 3, ...(v4 ? [l3 + 10, l3 + 11] : [])]);
  for (let at = 0; at < got.length; at++) if (!checksums.has(at) && got[at] !== wanted[at]) return `byte ${at} is ${got[at]}, not ${wanted[at]}`;
  const isOff = (from: number, to: number): boolean => sumOf(got, from, to) % 0xffff !== sumOf(frame, from, to) % 0xffff;
  if (v4 && isOff(l3, l4)) return 'the checksum of the IPv4 header is off';
  return isOff(l4, got.length) ? 'the ICMP checksum is off' : undefined;
}

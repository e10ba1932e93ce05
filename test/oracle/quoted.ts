/** ICMP errors read as answers to the packet that they quote (RFC 5508, 4), and what they must become with it. */
import type { Tuple } from '../../agent/dataplane/generated/abi.ts';
import { addressBytes, read16, readIp, write16 } from './bytes.ts';
import { reversed } from './conntrack.ts';
import { ICMP4, ICMP6, SCTP, TCP, UDP } from './frames.ts';
import type { Parsed } from './parse.ts';

const EXTENSIONS = 6;
/** Ports, and what RFC 792 promises behind them. */
const LEAST = 8;

interface Quoted {
  readonly saddr: Tuple['saddr'];
  readonly daddr: Tuple['daddr'];
  readonly proto: number;
  readonly l4: number;
}

/** @returns the error as an answer to what it quotes; undefined: it is no error about a packet that can have been translated. */
export function asAnswer(frame: Uint8Array, packet: Parsed): Parsed | undefined {
  const { v4, tuple, l3, l4, said, fragment } = packet;
  const type = frame[l4] ?? 0;
  const isAbout = v4 ? tuple.proto === ICMP4 && [3, 11, 12].includes(type) : tuple.proto === ICMP6 && type >= 1 && type <= 4;
  if (!isAbout || fragment !== undefined) return undefined;
  const quoted = v4 ? quoted4(frame, l4 + 8) : quoted6(frame, l4 + 8);
  if (quoted === undefined || ![TCP, UDP, SCTP].includes(quoted.proto) || quoted.saddr !== tuple.daddr) return undefined;
  const end = quoted.l4 + LEAST;
  if (end > frame.length || (said !== 0 && end > l3 + said)) return undefined;
  const sent = { saddr: quoted.saddr, daddr: quoted.daddr, proto: quoted.proto, sport: read16(frame, quoted.l4), dport: read16(frame, quoted.l4 + 2) };
  return { ...packet, tuple: reversed(sent), flags: 0, quotedL4: quoted.l4 };
}

function quoted4(frame: Uint8Array, at: number): Quoted | undefined {
  const first = frame[at] ?? 0;
  if (at + 20 > frame.length || first >> 4 !== 4 || (first & 15) < 5 || (read16(frame, at + 6) & 0x1fff) !== 0) return undefined;
  return { saddr: readIp(frame, at + 12, 4), daddr: readIp(frame, at + 16, 4), proto: frame[at + 9] ?? 0, l4: at + (first & 15) * 4 };
}

function quoted6(frame: Uint8Array, at: number): Quoted | undefined {
  if (at + 40 > frame.length || (frame[at] ?? 0) >> 4 !== 6) return undefined;
  let next = frame[at + 6] ?? 0;
  let l4 = at + 40;
  for (let i = 0; i < EXTENSIONS && [0, 43, 44, 60].includes(next); i++) {
    if (l4 + 8 > frame.length || (next === 44 && (read16(frame, l4 + 2) & 0xfff8) !== 0)) return undefined;
    const size = next === 44 ? 8 : 8 + (frame[l4 + 1] ?? 0) * 8;
    next = frame[l4] ?? 0;
    l4 += size;
  }
  return { saddr: readIp(frame, at + 8, 16), daddr: readIp(frame, at + 24, 16), proto: next, l4 };
}

/** Where in the frame the quoted transport checksum stands; undefined: it is not quoted whole, or there is none. */
export function quotedChecksum(frame: Uint8Array, { l3, said, tuple, quotedL4 = 0 }: Parsed): number | undefined {
  if (tuple.proto === SCTP) return undefined;
  const at = quotedL4 + (tuple.proto === TCP ? 16 : 6);
  if (at + 2 > frame.length || (said !== 0 && at + 2 > l3 + said)) return undefined;
  return tuple.proto === UDP && read16(frame, at) === 0 ? undefined : at;
}

/**
 * The bytes of an error, checksums as they were, when the answers of its flow become `to`: it goes to whom they go to, and
 * comes from where they come from, unless that is whom its receiver knows; what it quotes is what its receiver sent.
 */
export function rewrittenError(frame: Uint8Array, { l3, l4, v4, tuple, quotedL4 = 0 }: Parsed, to: Tuple, hops: number): Uint8Array {
  const out = frame.slice();
  const [source, destination, size] = v4 ? [12, 16, 4] : [8, 24, 16];
  out.set(addressBytes(to.daddr), l3 + destination);
  if (tuple.saddr !== to.saddr) out.set(addressBytes(to.saddr), l3 + source);
  const ttl = l3 + (v4 ? 8 : 7);
  out[ttl] = (out[ttl] ?? 0) - hops;
  const quote = l4 + 8;
  out.set(addressBytes(to.daddr), quote + source);
  out.set(addressBytes(to.saddr), quote + source + size);
  write16(out, quotedL4, to.dport);
  write16(out, quotedL4 + 2, to.sport);
  return out;
}

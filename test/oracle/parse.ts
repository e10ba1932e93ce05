/**
 * What a frame is, by the RFCs and by what Maglane says it follows: up to two VLAN tags, IPv4 with options, IPv6
 * with up to six extension headers.
 */
import type { Tuple } from '../../agent/dataplane/generated/abi.ts';
import { read16, readIp } from './bytes.ts';
import { ICMP4, ICMP6, SCTP, TCP, UDP } from './frames.ts';

const VLANS = 2;
const EXTENSIONS = 6;

export interface Parsed {
  readonly tuple: Tuple;
  readonly v4: boolean;
  readonly l3: number;
  /** Where TCP, UDP or whatever it is begins. */
  readonly l4: number;
  /** Bytes from the IP header on, as that says; 0: more than it can say. */
  readonly said: number;
  readonly ttl: number;
  readonly tagged: boolean;
  /** TCP's, or what a chunk of SCTP means in TCP's words; else 0. */
  readonly flags: number;
  /** Of a datagram in fragments: the first has the ports, and a later one 0 for them. */
  readonly fragment?: { readonly id: string; readonly isFirst: boolean };
  /** Of an ICMP error that is read as an answer to what it quotes: where that packet's ports stand. */
  readonly quotedL4?: number;
  /** An error of ICMP or ICMPv6: nobody answers that with another (RFC 1122, 3.2.2; RFC 4443, 2.4). */
  readonly isError: boolean;
}

/** exotic: for tc to look at, where XDP does not. */
export type Unparsed = 'not ip' | 'broken' | 'elsewhere' | 'exotic';

/** Reads bytes as far as they are there. */
class Reader {
  readonly frame: Uint8Array;
  readonly isXdp: boolean;
  at = 0;

  constructor(frame: Uint8Array, isXdp: boolean) {
    this.frame = frame;
    this.isXdp = isXdp;
  }

  /** Whether the next `size` bytes are there; steps over them if so. */
  take(size: number): boolean {
    if (this.at + size > this.frame.length) return false;
    this.at += size;
    return true;
  }
}

/** XDP reads whole packets of TCP and UDP alone. */
export function parse(frame: Uint8Array, isXdp: boolean): Parsed | Unparsed {
  const reader = new Reader(frame, isXdp);
  if (!reader.take(14)) return 'broken';
  let type = read16(frame, 12);
  let tags = 0;
  while (tags < VLANS && (type === 0x8100 || type === 0x88a8)) {
    if (!reader.take(4)) return 'broken';
    type = read16(frame, reader.at - 2);
    tags++;
  }
  if (type === 0x0800) return parse4(reader, tags > 0);
  if (type === 0x86dd) return parse6(reader, tags > 0);
  return 'not ip';
}

function parse4(reader: Reader, tagged: boolean): Parsed | Unparsed {
  const { frame, at: l3 } = reader;
  if (!reader.take(20)) return 'broken';
  const first = frame[l3] ?? 0;
  const length = (first & 15) * 4;
  if (first >> 4 !== 4 || length < 20) return 'broken';
  const fragment = read16(frame, l3 + 6) & 0x3fff;
  if (fragment !== 0 && reader.isXdp) return 'exotic';
  if (!reader.take(length - 20)) return 'broken';
  const base = { saddr: readIp(frame, l3 + 12, 4), daddr: readIp(frame, l3 + 16, 4), proto: frame[l3 + 9] ?? 0 };
  return transport(
    reader,
    { base, v4: true, l3, ttl: frame[l3 + 8] ?? 0, tagged, ...fragmentOf(fragment & 0x1fff, fragment, frame.subarray(l3 + 4, l3 + 6)) },
    read16(frame, l3 + 2),
  );
}

function parse6(reader: Reader, tagged: boolean): Parsed | Unparsed {
  const { frame, at: l3 } = reader;
  if (!reader.take(40) || (frame[l3] ?? 0) >> 4 !== 6) return 'broken';
  let next = frame[l3 + 6] ?? 0;
  let part: Pick<Parsed, 'fragment'> = {};
  for (let i = 0; i < EXTENSIONS && [0, 43, 44, 60].includes(next); i++) {
    const at = reader.at;
    if (!reader.take(8)) return 'broken';
    if (next === 44) {
      const fragment = read16(frame, at + 2) & 0xfff9;
      if (fragment !== 0 && reader.isXdp) return 'exotic';
      if (fragment !== 0) part = fragmentOf(fragment >> 3, fragment, frame.subarray(at + 4, at + 8));
    } else {
      if (next === 43 && frame[at + 3] !== 0) return 'elsewhere';
      if (!reader.take((frame[at + 1] ?? 0) * 8)) return 'broken';
    }
    next = frame[at] ?? 0;
    if (part.fragment?.isFirst === false) break; // what follows is data
  }
  const base = { saddr: readIp(frame, l3 + 8, 16), daddr: readIp(frame, l3 + 24, 16), proto: next };
  const payload = read16(frame, l3 + 4);
  return transport(reader, { base, v4: false, l3, ttl: frame[l3 + 7] ?? 0, tagged, ...part }, payload === 0 ? 0 : payload + 40);
}

interface Network {
  readonly base: Pick<Tuple, 'saddr' | 'daddr' | 'proto'>;
  readonly v4: boolean;
  readonly l3: number;
  readonly ttl: number;
  readonly tagged: boolean;
  readonly fragment?: { readonly id: string; readonly isFirst: boolean };
}

const fragmentOf = (offset: number, bits: number, id: Uint8Array): Pick<Parsed, 'fragment'> =>
  bits === 0 ? {} : { fragment: { id: Buffer.from(id).toString('hex'), isFirst: offset === 0 } };

/** How much of a protocol's header must be there. */
const HEADS: Readonly<Record<number, number>> = { [TCP]: 20, [UDP]: 8, [SCTP]: 12 };
/** RFC 9260, 3.3: INIT, INIT ACK, ABORT and SHUTDOWN COMPLETE, as flags of TCP. */
const SCTP_CHUNKS: Readonly<Record<number, number>> = { 1: 0x02, 2: 0x12, 6: 0x04, 14: 0x04 };
/** Extension headers that are too many, or that IPv4 does not have. */
const NOT_UPPER = new Set([0, 43, 44, 60]);

/** @param said the length of the packet from its IP header on, as that says; 0: more than it can say. */
function transport(reader: Reader, { base, ...network }: Network, said: number): Parsed | Unparsed {
  const { frame, at: l4 } = reader;
  if (network.fragment?.isFirst === false) return { ...network, said, tuple: { ...base, sport: 0, dport: 0 }, l4, flags: 0, isError: false };
  if (reader.isXdp && base.proto !== TCP && base.proto !== UDP) return 'exotic';
  const ported = base.proto in HEADS;
  const isCut = (): boolean => said !== 0 && reader.at > network.l3 + said;
  if (NOT_UPPER.has(base.proto)) return isCut() ? 'broken' : 'elsewhere';
  let isError = false;
  if (base.proto === (network.v4 ? ICMP4 : ICMP6)) {
    if (!reader.take(8)) return 'broken';
    const type = frame[l4] ?? 0;
    // Router and neighbour discovery are the link's own business.
    if (!network.v4 && type >= 133 && type <= 137) return isCut() ? 'broken' : 'elsewhere';
    isError = network.v4 ? [3, 4, 5, 11, 12].includes(type) : type < 128;
  }
  if (!reader.take(HEADS[base.proto] ?? 0)) return 'broken';
  if (isCut()) return 'broken';
  const tuple = { ...base, sport: ported ? read16(frame, l4) : 0, dport: ported ? read16(frame, l4 + 2) : 0 };
  const flags = base.proto === TCP ? frame[l4 + 13] : base.proto === SCTP ? SCTP_CHUNKS[frame[l4 + 12] ?? 0] : 0;
  return { ...network, said, tuple, l4, flags: flags ?? 0, isError };
}

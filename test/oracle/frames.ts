/**
 * Frames of every kind that a node may meet: well-formed ones of all protocols, odd ones, and broken ones.
 * Addresses and ports come from the caller, who knows which of them mean something.
 */
import type { Random } from '../support/random.ts';
import { addressBytes } from './bytes.ts';
import { checksum } from '../support/packet.ts';

export const ICMP4 = 1;
export const TCP = 6;
export const UDP = 17;
export const ICMP6 = 58;
export const SCTP = 132;

/** Where a packet goes and comes from. Addresses are canonical text of one family. */
export interface Ends {
  readonly saddr: string;
  readonly daddr: string;
  readonly sport: number;
  readonly dport: number;
}

const be16 = (value: number): number[] => [(value >> 8) & 255, value & 255];
/** BPF_PROG_TEST_RUN takes no skb that is shorter than the IP header its Ethernet type promises. */
const LEAST = 14 + 40;
/** Identifications: few, so that fragments meet their likes. */
const DATAGRAMS = [1, 2, 3] as const;
const EXTENSIONS = [0, 60, 43, 44, 51, 135] as const;

/** A frame between these ends, of the protocol given, with whatever else chance decides. `quote`: what an ICMP error quotes. */
export function randomFrame(random: Random, ends: Ends, proto: number, quote?: readonly number[]): Uint8Array {
  const v4 = !ends.saddr.includes(':');
  const [saddr, daddr] = [addressBytes(ends.saddr), addressBytes(ends.daddr)];
  const data = transport(random, proto, ends, saddr, daddr, quote);
  const packet = v4 ? ipv4(random, proto, saddr, daddr, data) : ipv6(random, proto, saddr, daddr, data);
  const tags = Array.from({ length: random.once(20) ? random.below(4) : 0 }, () => [
    ...random.pick([
      [0x81, 0],
      [0x88, 0xa8],
    ]),
    ...random.bytes(2),
  ]).flat();
  const type = random.once(300) ? random.bytes(2) : v4 ? [0x08, 0] : [0x86, 0xdd];
  const frame = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, ...tags, ...type, ...packet];
  return damage(random, Uint8Array.from(frame), 14 + tags.length, v4);
}

/** Now and then a frame is cut short, longer than it says, or has a byte that is something else: but no address that no routing table here was made for. */
function damage(random: Random, frame: Uint8Array, l3: number, v4: boolean): Uint8Array {
  if (random.once(40)) return frame.slice(0, Math.max(LEAST, random.below(frame.length)));
  if (random.once(40)) return Uint8Array.from([...frame, ...random.bytes(1 + random.below(20))]);
  const at = l3 + random.below(Math.max(1, frame.length - l3));
  const [from, to] = v4 ? [l3 + 12, l3 + 20] : [l3 + 8, l3 + 40];
  if (random.once(30) && (at < from || at >= to)) frame[at] = random.below(256);
  return frame;
}

function transport(random: Random, proto: number, ends: Ends, saddr: readonly number[], daddr: readonly number[], quote?: readonly number[]): number[] {
  const payload = random.bytes(random.pick([0, 1, 5, 8, 32, 64]));
  const pseudo = (length: number): number[] => [...saddr, ...daddr, 0, proto, ...be16(length)];
  if (proto === TCP) {
    const flags = random.pick([0x02, 0x02, 0x02, 0x10, 0x10, 0x12, 0x18, 0x11, 0x04, 0x14, 0, random.below(256)]);
    const options = random.bytes(4 * random.pick([0, 0, 3]));
    const offset = random.once(50) ? random.below(16) : 5 + options.length / 4;
    const data = [...be16(ends.sport), ...be16(ends.dport), ...random.bytes(8), offset << 4, flags, ...random.bytes(2), 0, 0, 0, 0, ...options, ...payload];
    return withChecksum(random, data, 16, pseudo(data.length), false);
  }
  if (proto === UDP) {
    const data = [...be16(ends.sport), ...be16(ends.dport), ...be16(8 + payload.length), 0, 0, ...payload];
    return random.once(6) ? data : withChecksum(random, data, 6, pseudo(data.length), true);
  }
  if (proto === ICMP4 || proto === ICMP6) {
    const head =
      quote === undefined
        ? icmpHead(random, proto)
        : random.pick(
            proto === ICMP4
              ? [
                  [3, 4],
                  [3, 1],
                  [11, 0],
                  [12, 0],
                ]
              : [
                  [1, 4],
                  [2, 0],
                  [3, 0],
                  [4, 0],
                ],
          );
    const data = [...head, 0, 0, ...random.bytes(4), ...(quote ?? payload)];
    return withChecksum(random, data, 2, proto === ICMP6 ? pseudo(data.length) : [], false);
  }
  return [...be16(ends.sport), ...be16(ends.dport), ...random.bytes(8), ...payload];
}

/** Type and code: mostly of errors and echoes. */
function icmpHead(random: Random, proto: number): number[] {
  return proto === ICMP4
    ? random.pick([[8, 0], [0, 0], [3, 3], [3, 4], [11, 0], [12, 0], [5, 1], random.bytes(2)])
    : random.pick([[128, 0], [129, 0], [1, 4], [2, 0], [3, 0], [4, 0], [135, 0], random.bytes(2)]);
}

/** Fills in the checksum at `at`; now and then a wrong one. */
export function withChecksum(random: Random, data: number[], at: number, pseudo: readonly number[], udp: boolean): number[] {
  const sum = checksum(pseudo, data);
  data.splice(at, 2, ...be16(udp && sum === 0 ? 0xffff : sum));
  if (random.once(60)) data[at] = random.below(256);
  return data;
}

function ipv4(random: Random, proto: number, saddr: readonly number[], daddr: readonly number[], data: readonly number[]): number[] {
  const options = random.once(12) ? random.bytes(4 * (1 + random.below(10))) : [];
  const ihl = random.once(200) ? random.below(16) : 5 + options.length / 4;
  const length = random.once(80) ? random.below(65536) : 20 + options.length + data.length;
  const fragment = random.once(15) ? random.pick([0x2000, 0x2001, 0x0005, 0x1fff, 0x6000, 0x8000]) : random.pick([0, 0x4000]);
  const ttl = random.pick([64, 64, 64, 64, 255, 2, 1, 0]);
  const version = random.once(200) ? random.below(16) : 4;
  const head = [
    (version << 4) | ihl,
    random.below(256),
    ...be16(length),
    ...be16(random.pick(DATAGRAMS)),
    ...be16(fragment),
    ttl,
    proto,
    0,
    0,
    ...saddr,
    ...daddr,
    ...options,
  ];
  return [...withChecksum(random, head, 10, [], false), ...data];
}

function ipv6(random: Random, proto: number, saddr: readonly number[], daddr: readonly number[], data: readonly number[]): number[] {
  const types = Array.from({ length: random.once(6) ? 1 + random.below(8) : 0 }, () => random.pick(EXTENSIONS));
  const nexts = [...types, proto];
  const chain = types.flatMap((type, i) => extension(random, type, nexts[i + 1] ?? proto));
  const length = random.once(80) ? random.below(65536) : chain.length + data.length;
  const version = random.once(200) ? random.below(16) : 6;
  const hops = random.pick([64, 64, 64, 64, 255, 2, 1, 0]);
  return [(version << 4) | random.below(16), ...random.bytes(3), ...be16(length), nexts[0] ?? proto, hops, ...saddr, ...daddr, ...chain, ...data];
}

/** RFC 8200, 4: hop-by-hop and destination options, routing, fragment, and two that nobody here follows. */
function extension(random: Random, type: number, next: number): number[] {
  if (type === 44) return [next, 0, ...be16(random.pick([0, 0, 1, 8, 0xfff9, random.below(65536)])), 0, 0, ...be16(random.pick(DATAGRAMS))];
  const units = random.below(3);
  const body = random.bytes(6 + 8 * units);
  if (type === 43 && !random.once(3)) body[1] = 0; // segments left
  return [next, random.once(60) ? random.below(256) : units, ...body];
}

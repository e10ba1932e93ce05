/**
 * What a frame must look like once it has become another tuple: every byte, checksums too. Those that were wrong stay
 * wrong by as much: a program that sums anew would vouch for what it has not seen (RFC 1624 updates).
 */
import type { Tuple } from '../../agent/dataplane/generated/abi.ts';
import { addressBytes, sumOf, write16 } from './bytes.ts';
import { SCTP, TCP, UDP } from './frames.ts';
import type { Parsed } from './parse.ts';

/** Where the checksum of TCP or UDP stands behind its header's start. */
const CHECKSUM_AT: Readonly<Record<number, number>> = { [TCP]: 16, [UDP]: 6 };

/**
 * @param hops taken from the TTL.
 * @returns the bytes, with checksum fields left as they were: `sameBut` compares those by their sums.
 */
export function rewritten(frame: Uint8Array, { l3, l4, v4, tuple }: Parsed, to: Tuple, hops: number): Uint8Array {
  const out = frame.slice();
  const [source, destination] = v4 ? [l3 + 12, l3 + 16] : [l3 + 8, l3 + 24];
  out.set(addressBytes(to.saddr), source);
  out.set(addressBytes(to.daddr), destination);
  const ttl = l3 + (v4 ? 8 : 7);
  out[ttl] = (out[ttl] ?? 0) - hops;
  if ([TCP, UDP, SCTP].includes(tuple.proto)) {
    write16(out, l4, to.sport);
    write16(out, l4 + 2, to.dport);
  }
  return out;
}

/** A frame as tc sends it on: its tags belong to the link that it came from, so they stay behind. */
export function withoutTags(frame: Uint8Array, packet: Parsed): { readonly frame: Uint8Array; readonly packet: Parsed } {
  const tags = packet.l3 - 14;
  if (tags === 0) return { frame, packet };
  const bare = Uint8Array.from([...frame.subarray(0, 12), ...frame.subarray(12 + tags)]);
  return { frame: bare, packet: { ...packet, l3: packet.l3 - tags, l4: packet.l4 - tags } };
}

/** Why `got` is not `wanted` with its checksums kept as right or wrong as `before` had them; undefined: it is. */
export function differs(got: Uint8Array, wanted: Uint8Array, before: Uint8Array, packet: Parsed): string | undefined {
  if (got.length !== wanted.length) return `${got.length} bytes, not ${wanted.length}`;
  const { l3, l4, v4, tuple } = packet;
  const fields = new Map<number, () => string | undefined>();
  if (v4) fields.set(l3 + 10, () => sameSum('the IPv4 header', before, got, l3, l4, []));
  const at = CHECKSUM_AT[tuple.proto];
  if (at !== undefined) fields.set(l4 + at, () => transportSum(before, got, packet, l4 + at));
  if (tuple.proto === SCTP) for (let i = 8; i < 12; i++) fields.set(l4 + i, () => undefined); // CRC32c: sctp tests know it
  for (let i = 0; i < got.length; i++) {
    const field = fields.get(i) ?? fields.get(i - 1);
    if (field === undefined && got[i] !== wanted[i]) return `byte ${i} is ${got[i]}, not ${wanted[i]}`;
  }
  for (const check of fields.values()) {
    const why = check();
    if (why !== undefined) return why;
  }
  return undefined;
}

function transportSum(before: Uint8Array, got: Uint8Array, { l3, v4, l4, tuple }: Parsed, field: number): string | undefined {
  const isUnchecked = tuple.proto === UDP && before[field] === 0 && before[field + 1] === 0;
  if (isUnchecked) return got[field] === 0 && got[field + 1] === 0 ? undefined : 'a UDP packet without checksum got one';
  if (tuple.proto === UDP && got[field] === 0 && got[field + 1] === 0) return 'a UDP packet lost its checksum';
  // Both ends' addresses are all of the pseudo header that can change.
  const [from, to] = v4 ? [l3 + 12, l3 + 20] : [l3 + 8, l3 + 40];
  return sameSum('the transport', before, got, l4, before.length, [from, to]);
}

/** Sums over one stretch, and the addresses if given, must agree: 0 and 0xffff are the same number. */
function sameSum(what: string, before: Uint8Array, got: Uint8Array, start: number, end: number, [from = 0, to = 0]: readonly number[]): string | undefined {
  const sum = (bytes: Uint8Array): number => sumOf(bytes, start, end, sumOf(bytes, from, to)) % 0xffff;
  return sum(before) === sum(got) ? undefined : `the checksum of ${what} is off`;
}

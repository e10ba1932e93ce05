/**
 * What a frame must look like once it has become another tuple: every byte, checksums too. Those that were wrong stay
 * wrong by as much: a program that sums anew would vouch for what it has not seen (RFC 1624 updates).
 */
import type { Tuple } from '../../agent/dataplane/generated/abi.ts';
import { crc32c } from '../support/packet.ts';
import { addressBytes, sumOf, write16 } from './bytes.ts';
import { SCTP, TCP, UDP } from './frames.ts';
import type { Parsed } from './parse.ts';
import { quotedChecksum, rewrittenError } from './quoted.ts';

/** Where the checksum of TCP or UDP stands behind its header's start. */
const CHECKSUM_AT: Readonly<Record<number, number>> = { [TCP]: 16, [UDP]: 6 };

/**
 * @param hops taken from the TTL.
 * @returns the bytes, with checksum fields left as they were: `sameBut` compares those by their sums.
 */
export function rewritten(frame: Uint8Array, packet: Parsed, to: Tuple, hops: number): Uint8Array {
  if (packet.quotedL4 !== undefined) return rewrittenError(frame, packet, to, hops);
  const { l3, l4, v4, tuple } = packet;
  const out = frame.slice();
  const [source, destination] = v4 ? [l3 + 12, l3 + 16] : [l3 + 8, l3 + 24];
  out.set(addressBytes(to.saddr), source);
  out.set(addressBytes(to.daddr), destination);
  const ttl = l3 + (v4 ? 8 : 7);
  out[ttl] = (out[ttl] ?? 0) - hops;
  if ([TCP, UDP, SCTP].includes(tuple.proto) && packet.fragment?.isFirst !== false) {
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
  const { l3, l4, quotedL4 } = packet;
  return { frame: bare, packet: { ...packet, l3: l3 - tags, l4: l4 - tags, ...(quotedL4 === undefined ? {} : { quotedL4: quotedL4 - tags }) } };
}

/** Why `got` is not `wanted` with its checksums kept as right or wrong as `before` had them; undefined: it is. */
export function differs(got: Uint8Array, wanted: Uint8Array, before: Uint8Array, packet: Parsed): string | undefined {
  if (got.length !== wanted.length) return `${got.length} bytes, not ${wanted.length}`;
  const fields = checksums(got, before, packet);
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

/** The checksum fields, of two bytes each, by where they stand, with what tells whether they are as right as they were. */
function checksums(got: Uint8Array, before: Uint8Array, packet: Parsed): ReadonlyMap<number, () => string | undefined> {
  const { l3, l4, v4, tuple, quotedL4 } = packet;
  const fields = new Map<number, () => string | undefined>();
  if (v4) fields.set(l3 + 10, () => sameSum('the IPv4 header', before, got, l3, l4, []));
  const at = CHECKSUM_AT[tuple.proto];
  if (packet.fragment?.isFirst === false) return fields;
  if (quotedL4 !== undefined) {
    const quote = l4 + 8;
    const quoted = quotedChecksum(before, packet);
    fields.set(l4 + 2, () => sameSum('ICMP', before, got, l4, before.length, v4 ? [] : [l3 + 8, l3 + 40]));
    if (v4) fields.set(quote + 10, () => sameSum('the quoted IPv4 header', before, got, quote, quotedL4, []));
    if (quoted !== undefined) fields.set(quoted, () => sameSum('the quoted transport', before, got, quotedL4, quoted + 2, addressesAt(quote, v4)));
  } else if (at !== undefined) {
    fields.set(l4 + at, () => transportSum(before, got, packet, l4 + at));
  } else if (tuple.proto === SCTP) {
    fields.set(l4 + 8, () => sctpSum(before, got, packet));
    fields.set(l4 + 10, () => undefined);
  }
  return fields;
}

const addressesAt = (l3: number, v4: boolean): readonly [number, number] => (v4 ? [l3 + 12, l3 + 20] : [l3 + 8, l3 + 40]);

/** CRC32c over the packet as long as its IP header says it is. 0 stands for a sum that hardware is to make. */
function sctpSum(before: Uint8Array, got: Uint8Array, { l3, l4, said }: Parsed): string | undefined {
  if (said === 0) return undefined;
  const field = (bytes: Uint8Array): number => new DataView(bytes.buffer, bytes.byteOffset).getUint32(l4 + 8, true);
  if (field(before) === 0) return field(got) === 0 ? undefined : 'a packet whose CRC32c is yet to be made got one';
  const off = (bytes: Uint8Array): number => {
    const packet = new Uint8Array(l3 + said - l4);
    packet.set(bytes.subarray(l4, l3 + said));
    packet.fill(0, 8, 12);
    return crc32c(packet) ^ field(bytes);
  };
  return off(before) === off(got) ? undefined : 'the CRC32c is off';
}

function transportSum(before: Uint8Array, got: Uint8Array, { l3, v4, l4, tuple }: Parsed, field: number): string | undefined {
  const isUnchecked = tuple.proto === UDP && before[field] === 0 && before[field + 1] === 0;
  if (isUnchecked) return got[field] === 0 && got[field + 1] === 0 ? undefined : 'a UDP packet without checksum got one';
  if (tuple.proto === UDP && got[field] === 0 && got[field + 1] === 0) return 'a UDP packet lost its checksum';
  // Both ends' addresses are all of the pseudo header that can change.
  return sameSum('the transport', before, got, l4, before.length, addressesAt(l3, v4));
}

/** Sums over one stretch, and the addresses if given, must agree: 0 and 0xffff are the same number. */
function sameSum(what: string, before: Uint8Array, got: Uint8Array, start: number, end: number, [from = 0, to = 0]: readonly number[]): string | undefined {
  const sum = (bytes: Uint8Array): number => sumOf(bytes, start, end, sumOf(bytes, from, to)) % 0xffff;
  return sum(before) === sum(got) ? undefined : `the checksum of ${what} is off`;
}

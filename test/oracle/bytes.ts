/** Addresses and numbers in the bytes of a frame. */
import type { Address } from '../../agent/model/address.ts';
import { readAddress, writeAddress } from '../../agent/model/address.ts';

const known = new Map<string, readonly number[]>();

/** 4 or 16 bytes, network order. */
export function addressBytes(address: string): readonly number[] {
  let bytes = known.get(address);
  if (bytes === undefined) {
    const all = new Uint8Array(16);
    writeAddress(address as Address, all, 0);
    bytes = [...(address.includes(':') ? all : all.subarray(12))];
    known.set(address, bytes);
  }
  return bytes;
}

export const read16 = (bytes: Uint8Array, at: number): number => ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);

export function write16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value & 255;
}

/** The address at `at`: `size` is 4 or 16 bytes. */
export function readIp(bytes: Uint8Array, at: number, size: 4 | 16): Address {
  if (size === 4) return bytes.subarray(at, at + 4).join('.') as Address;
  return readAddress(bytes, at);
}

/** The one's complement sum of a stretch, carries folded in: over data with a right checksum in place it is 0xffff (or 0). */
export function sumOf(bytes: Uint8Array, from: number, to: number, start = 0): number {
  let sum = start;
  for (let at = from; at < to; at += 2) sum += ((bytes[at] ?? 0) << 8) + (at + 1 < to ? (bytes[at + 1] ?? 0) : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

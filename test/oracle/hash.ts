/** What bpf/hash.h computes, written down a second time: equal on every node, so it is part of what we promise. */
import type { Tuple } from '../../agent/dataplane/generated/abi.ts';
import { addressBytes } from './bytes.ts';

const MASK = (1n << 64n) - 1n;
const SEED = 0x6d61676c616e6531n;

function step(hash: bigint, word: bigint): bigint {
  const product = ((hash ^ word) * 0x9e3779b97f4a7c15n) & MASK;
  return product ^ (product >> 32n);
}

/** The words of a struct addr as the machine (little-endian) reads them, two and two. */
function addressWords(address: string): readonly [bigint, bigint] {
  const bytes = addressBytes(address);
  const all = bytes.length === 16 ? bytes : [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, ...bytes];
  const view = new DataView(Uint8Array.from(all).buffer);
  const pair = (at: number): bigint => (BigInt(view.getUint32(at, true)) << 32n) | BigInt(view.getUint32(at + 4, true));
  return [pair(0), pair(8)];
}

const words = new Map<string, readonly [bigint, bigint]>();
function wordsOf(address: string): readonly [bigint, bigint] {
  let known = words.get(address);
  if (known === undefined) words.set(address, (known = addressWords(address)));
  return known;
}

const swapped = (port: number): bigint => BigInt(((port & 255) << 8) | (port >> 8));

/** hash_tuple(): chooses a backend and the first source port to try. */
export function hashTuple({ saddr, daddr, sport, dport, proto }: Tuple): number {
  let hash = SEED;
  for (const address of [saddr, daddr]) for (const word of wordsOf(address)) hash = step(hash, word);
  hash = step(hash, (swapped(sport) << 32n) | (swapped(dport) << 16n) | BigInt(proto));
  return Number(step(step(hash, 0n), 0n) & 0xffffffffn);
}

/** hash_addr(): chooses a backend by the client alone. */
export function hashAddress(address: string): number {
  let hash = SEED;
  for (const word of wordsOf(address)) hash = step(hash, word);
  return Number(step(step(hash, 0n), 0n) & 0xffffffffn);
}

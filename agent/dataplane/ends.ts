/** Which ends are frontends, for packets to be told by: the agent's half of struct ends. */
import { endsCodec, ENDS_BITS, frontendKeyCodec } from './generated/abi.ts';
import { wordsOf } from './maps.ts';

/** u32 words of a key, and of an element of the map `ends`. */
const KEY_WORDS = frontendKeyCodec.size / 4;
const ELEMENT_WORDS = endsCodec.size / 4;
/** hash_end_point() of bpf/hash.h: one odd factor for each word of a frontend's key. */
const FACTORS = [0x9e3779b1, 0x85ebca77, 0xc2b2ae3d, 0x27d4eb2f, 0x165667b1] as const;

/**
 * Sets the bits of frontends; to be done before they are in their map, or their first packets pass as foreign.
 * @param memory of the map `ends`.
 * @param keys encoded frontend keys, back to back.
 */
export function noteFrontends(memory: Uint8Array, keys: Uint8Array): void {
  setBits(wordsOf(memory), keys);
}

/** Sets the bits of these frontends, and no others: of those that are gone by now they are cleared. Programs may run meanwhile. */
export function renewFrontends(memory: Uint8Array, keys: Uint8Array): void {
  const fresh = new Uint32Array(memory.length / 4);
  setBits(fresh, keys);
  const words = wordsOf(memory);
  const first = endsCodec.offsets.frontends / 4;
  for (let at = first; at < words.length; at += ELEMENT_WORDS) {
    words[at] = fresh[at] ?? 0;
    words[at + 1] = fresh[at + 1] ?? 0;
  }
}

function setBits(words: Uint32Array, keys: Uint8Array): void {
  const key = wordsOf(keys);
  for (let start = 0; start < key.length; start += KEY_WORDS) {
    let hash = 0;
    for (let i = 0; i < KEY_WORDS; i++) hash = (hash + Math.imul(key[start + i] ?? 0, FACTORS[i] ?? 0)) | 0;
    const bit = hash >>> (32 - ENDS_BITS);
    const at = (bit >>> 6) * ELEMENT_WORDS + endsCodec.offsets.frontends / 4 + ((bit >>> 5) & 1);
    words[at] = (words[at] ?? 0) | (1 << (bit & 31));
  }
}

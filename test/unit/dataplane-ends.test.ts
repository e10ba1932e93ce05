/** The bits that packets are told by. That the programs set and read the same ones, kernel tests show. */
import { expect, test } from 'vitest';
import { noteFrontends, renewFrontends } from '../../agent/dataplane/ends.ts';
import { endsCodec, ENDS_WORDS, frontendKeyCodec } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';

function key(addr: string, port: number, proto = 6): Uint8Array {
  const bytes = new Uint8Array(frontendKeyCodec.size);
  frontendKeyCodec.write({ addr: addr as Address, port, proto }, bytes);
  return bytes;
}

const memory = (): Uint8Array => new Uint8Array(endsCodec.size * ENDS_WORDS);
const together = (keys: readonly Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(keys));

/** Bits of both halves. */
function bits(words: Uint8Array): { frontends: number; flows: number } {
  const count = (value: bigint): number => value.toString(2).replaceAll('0', '').length;
  let [frontends, flows] = [0, 0];
  for (let at = 0; at < words.length; at += endsCodec.size) {
    const ends = endsCodec.read(words, at);
    frontends += count(ends.frontends);
    flows += count(ends.dialled) + count(ends.served);
  }
  return { frontends, flows };
}

test('neighbours among addresses, ports and protocols have bits of their own', () => {
  const words = memory();
  const keys = Array.from({ length: 256 }, (_, i) => [key(`10.96.0.${i}`, 80), key(`fd00::${i.toString(16)}`, 443), key('192.0.2.1', 30_000 + i, 17)]).flat();
  noteFrontends(words, together(keys));
  // Of 768 in 262,144 places chance alone would let one or two fall together.
  expect(bits(words).frontends).toBeGreaterThan(755);
  expect(bits(words).flows).toBe(0);
  noteFrontends(words, together(keys));
  expect(bits(words).frontends).toBeLessThanOrEqual(768);
});

test('what is renewed is what there is: bits of frontends that are gone are cleared, those of flows stay', () => {
  const words = memory();
  noteFrontends(words, together([key('10.96.0.1', 80), key('10.96.0.2', 80)]));
  const flow = { frontends: 0n, dialled: 1n << 63n, served: 0n };
  endsCodec.write(flow, words, endsCodec.size * (ENDS_WORDS - 1));
  renewFrontends(words, key('10.96.0.2', 80));

  expect(bits(words)).toEqual({ frontends: 1, flows: 1 });
  expect(endsCodec.read(words, endsCodec.size * (ENDS_WORDS - 1))).toEqual(flow);
  const alone = memory();
  noteFrontends(alone, key('10.96.0.2', 80));
  endsCodec.write(flow, alone, endsCodec.size * (ENDS_WORDS - 1));
  expect(words).toEqual(alone);
});

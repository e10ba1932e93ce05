import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { describe, expect, test } from 'vitest';
import { familyOf, formatEndpoint, parseAddress, readAddress, writeAddress } from '../../agent/model/address.ts';

describe('addresses', () => {
  const bytes16 = fc.uint8Array({ minLength: 16, maxLength: 16 });
  /** With runs of zeros, as real ones have. */
  const sparse = fc
    .tuple(bytes16, fc.uint8Array({ minLength: 8, maxLength: 8 }))
    .map(([bytes, keep]) => bytes.map((byte, i) => ((keep[i >> 1] ?? 0) & 1 ? byte : 0)));

  test('any 16 bytes are one address and come back; the text is what ipaddr.js writes (RFC 5952)', () => {
    fc.assert(
      fc.property(fc.oneof(bytes16, sparse), (bytes) => {
        const address = readAddress(bytes, 0);
        const oracle = ipaddr.fromByteArray([...bytes]) as ipaddr.IPv6;
        const mapped = oracle.isIPv4MappedAddress();
        expect(address).toBe(mapped ? oracle.toIPv4Address().toString() : oracle.toRFC5952String());
        expect(familyOf(address)).toBe(mapped ? 4 : 6);
        const back = new Uint8Array(20).fill(0xaa);
        writeAddress(address, back, 2);
        expect([...back]).toEqual([0xaa, 0xaa, ...bytes, 0xaa, 0xaa]);
      }),
    );
  });

  test.each([
    ['10.0.0.1', '10.0.0.1'],
    ['FD00:0:0:0::01', 'fd00::1'],
    ['::ffff:10.0.0.1', '10.0.0.1'],
    ['::FFFF:0a00:1', '10.0.0.1'],
    ['64:ff9b::10.0.0.1', '64:ff9b::a00:1'],
    ['010.00.0.001', '10.0.0.1'],
    ['10.0.0.0256', undefined],
    ['10.0.0.', undefined],
    ['10.0.0', undefined],
    ['10.0.0.1/32', undefined],
    ['fe80::1%eth0', undefined],
    ['[::1]', undefined],
    [' 10.0.0.1', undefined],
    ['', undefined],
  ])('%j is %s', (text, canonical) => {
    expect(parseAddress(text)).toBe(canonical);
  });

  test('endpoints: brackets for IPv6', () => {
    expect(formatEndpoint(parseAddress('10.0.0.1')!, 80)).toBe('10.0.0.1:80');
    expect(formatEndpoint(parseAddress('fd00::1')!, 80)).toBe('[fd00::1]:80');
  });
});

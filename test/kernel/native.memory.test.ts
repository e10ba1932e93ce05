/** Letting go of the code that was read to start: less stays resident, and everything still runs. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import native from '../../native/index.js';

const residentOfFiles = (): number => Number(/RssFile:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024;

test('releaseMemory takes the pages of files out of what is resident, and no more than it says', () => {
  const before = residentOfFiles();
  const released = native.releaseMemory();
  const after = residentOfFiles();
  expect(released).toBeGreaterThan(5 << 20);
  expect(released).toBeLessThanOrEqual(before + (1 << 20)); // kernels before 6.2 count in batches, each thread its own
  expect(after).toBeLessThan(before - released / 2); // what runs meanwhile comes back
});

test('code that was let go of is there when it is called again', () => {
  native.releaseMemory();
  expect(new Intl.DateTimeFormat('de-DE', { month: 'long', timeZone: 'UTC' }).format(0)).toBe('Januar');
  expect(native.interfaces().some(({ loopback }) => loopback)).toBe(true);
  expect(JSON.parse(JSON.stringify([...'maglane'].map((letter) => letter.codePointAt(0))))).toHaveLength(7);
});

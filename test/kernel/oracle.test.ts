/**
 * The programs against a second opinion: packets made by chance, each held against what test/oracle says must become of it:
 * verdict, reason, every byte and every flow. `make test-oracle PACKETS=N SEED=S` throws as many as you like.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { PATIENCE } from '../support/patience.ts';

const RUN = fileURLToPath(new URL('../oracle/run.ts', import.meta.url));
const PACKETS = PATIENCE > 1 ? 8_000 : 30_000;

interface Tally {
  readonly packets: number;
  readonly reasons: Readonly<Record<string, number>>;
}

test(
  'what the programs do with packets is what the oracle says',
  () => {
    const seed = Date.now() % 2 ** 31;
    const { status, stdout, stderr } = spawnSync('unshare', ['--net', process.execPath, RUN, String(PACKETS), String(seed)], { encoding: 'utf8' });
    expect(status, `seed ${seed}: ${stdout}${stderr}`).toBe(0);
    const { packets, reasons } = JSON.parse(stdout) as Tally;
    expect(packets).toBe(PACKETS);
    // Chance has been everywhere that matters.
    for (const reason of [
      'FOREIGN',
      'NEW_LOCAL',
      'NEW_REMOTE',
      ...(PATIENCE > 1 ? [] : (['NEW_DSR', 'DROP_DSR'] as const)),
      'LOCAL',
      'REMOTE',
      'REPLY_LOCAL',
      'REPLY_REMOTE',
      'REJECT_UNKNOWN_PORT',
      'DROP_UNALLOCATED',
      'DROP_TTL',
      'ECHO',
    ])
      expect(reasons[reason], reason).toBeGreaterThan(0);
  },
  300_000 * PATIENCE,
);

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Backoff } from '../../agent/source/kubernetes/backoff.ts';
import { Failure } from '../../agent/source/kubernetes/failure.ts';

const refused = new Failure('refused', 'ECONNREFUSED');
const answered = (status: number, retryAfter = 0): Failure => new Failure('no', `HTTP ${status}`, { status, retryAfter });
const latest = (): number => 1 - Number.EPSILON;

function delays(backoff: Backoff, failure: Failure, count: number): number[] {
  return Array.from({ length: count }, () => Math.round(backoff.next(failure)));
}

describe('Backoff', () => {
  test('connection failures wait 1 s at most, however long they last', () => {
    expect(delays(new Backoff({ random: latest }), refused, 7)).toEqual([100, 200, 400, 800, 1000, 1000, 1000]);
  });

  test('jitter takes up to half', () => {
    expect(delays(new Backoff({ random: () => 0 }), refused, 6)).toEqual([50, 100, 200, 400, 500, 500]);
  });

  test.each([429, 500, 503])('answers of %d raise the cap', (status) => {
    expect(delays(new Backoff({ random: latest }), answered(status), 11)).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
  });

  test.each([401, 403, 404, 410])('answers of %d do not', (status) => {
    expect(Math.max(...delays(new Backoff({ random: latest }), answered(status), 20))).toBe(1000);
  });

  test('a server that dies of its load is waited for as any that is away, and not spared less when it is back', () => {
    const backoff = new Backoff({ random: latest });
    delays(backoff, answered(503), 9);
    expect(delays(backoff, refused, 3)).toEqual([1000, 1000, 1000]);
    expect(delays(backoff, answered(503), 6)).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000]);
  });

  test('every delay lies between half of what is due and all of it, whatever fails', () => {
    const failures = fc.array(fc.constantFrom(refused, answered(429), answered(500), answered(403)), { maxLength: 40 });
    fc.assert(
      fc.property(failures, fc.double({ min: 0, max: latest(), noNaN: true }), (sequence, luck) => {
        const [whole, half, some] = [latest, () => 0, () => luck].map((random) => new Backoff({ random }));
        for (const failure of sequence) {
          const [most, least, delay] = [whole!.next(failure), half!.next(failure), some!.next(failure)];
          expect(least).toBeCloseTo(most / 2, 5);
          expect(delay).toBeGreaterThanOrEqual(least);
          expect(delay).toBeLessThanOrEqual(most);
          expect(most).toBeLessThanOrEqual(failure.status === 429 || failure.status >= 500 ? 30_000 : 1000);
        }
      }),
    );
  });

  test('Retry-After is the least to wait, within reason', () => {
    const backoff = new Backoff({ random: latest });
    expect(backoff.next(answered(429, 7000))).toBe(7000);
    expect(backoff.next(answered(429, 1e12))).toBe(300_000);
    expect(Math.round(backoff.next(answered(429)))).toBe(400);
  });

  test('reset forgets the delay and the cap', () => {
    const backoff = new Backoff({ random: latest });
    delays(backoff, answered(503), 12);
    backoff.reset();
    expect(delays(backoff, refused, 6)).toEqual([100, 200, 400, 800, 1000, 1000]);
  });
});

/**
 * How long to wait before the next try.
 *
 * A connection that fails costs the server nothing, so the cap is short: its return is noticed within
 * 2 s. A server that answers 429 or 5xx is there and asks for less: only that raises the cap, doubling it up
 * to `maxOverload`, and only after such an answer does the raised cap hold: a server that dies of its load is waited for like any other,
 * and meets the raised cap again when it still cannot cope. Invariants: every delay lies in [half, whole] of what is due (jitter keeps
 * 5,000 nodes apart) and is never shorter than what the server asked for; `reset` forgets everything.
 */
import type { Failure } from './failure.ts';

export interface BackoffOptions {
  /** First delay, ms. @default 100 */
  readonly initial?: number;
  /** Cap while connections fail, ms. @default 1000 */
  readonly maxConnect?: number;
  /** Cap that answers of 429 and 5xx can raise it to, ms. @default 30000 */
  readonly maxOverload?: number;
  /** Longest Retry-After heeded, ms. @default 300000 */
  readonly maxRetryAfter?: number;
  /** [0, 1). @default Math.random */
  readonly random?: () => number;
}

export class Backoff {
  readonly #options: Required<BackoffOptions>;
  #due: number;
  #cap: number;

  constructor(options: BackoffOptions = {}) {
    this.#options = { initial: 100, maxConnect: 1000, maxOverload: 30_000, maxRetryAfter: 300_000, random: Math.random, ...options };
    this.#due = this.#options.initial;
    this.#cap = this.#options.maxConnect;
  }

  /** The delay after `failure`, ms; the next one is longer. */
  next(failure: Failure): number {
    const { maxConnect, maxOverload, maxRetryAfter, random } = this.#options;
    const overload = failure.status === 429 || failure.status >= 500;
    if (!overload) this.#due = Math.min(this.#due, maxConnect);
    const delay = Math.max(this.#due * (0.5 + random() / 2), Math.min(failure.retryAfter, maxRetryAfter));
    if (overload) this.#cap = Math.min(this.#cap * 2, maxOverload);
    this.#due = Math.min(this.#due * 2, overload ? this.#cap : maxConnect);
    return delay;
  }

  /** Things go well again. */
  reset(): void {
    this.#due = this.#options.initial;
    this.#cap = this.#options.maxConnect;
  }
}

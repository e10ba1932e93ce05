/** Tells people, in few words, how the agent gets on with the API server: each change once, with how long. */
import type { Log } from '../../observe/log.ts';
import type { Failure } from './failure.ts';
import type { KindName } from './kinds.ts';

export class Connection {
  readonly #log: Log;
  readonly #server: string;
  readonly #now: () => number;
  /** Kinds without a watch. */
  readonly #down = new Set<KindName>();
  /** Codes of the failures already told in this outage. */
  readonly #told = new Set<string>();
  /** When the outage began; undefined iff there is none. */
  #since: number | undefined;
  #everUp = false;

  /** @param now monotonic, ms. */
  constructor(log: Log, server: string, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#server = server;
    this.#now = now;
  }

  /** A watch of `kind` stands, or is not to be had from this server. */
  up(kind: KindName): void {
    this.#down.delete(kind);
    this.#everUp = true;
    if (this.#since === undefined || this.#down.size > 0) return;
    const seconds = Math.round(this.#now() - this.#since) / 1000;
    this.#log.info('connection to the API server regained', { server: this.#server, seconds });
    this.#since = undefined;
    this.#told.clear();
  }

  /** A watch of `kind` broke, or could not be had. */
  down(kind: KindName, failure: Failure): void {
    this.#down.add(kind);
    const { code, message } = failure;
    const begins = this.#since === undefined;
    this.#since ??= this.#now();
    if (this.#told.has(code)) return;
    this.#told.add(code);
    const lost = begins && this.#everUp ? 'connection to the API server lost' : 'no connection to the API server';
    this.#log.warn(`${failure.status === 0 ? lost : 'the API server refuses'}: what is in force stays in force`, { server: this.#server, reason: message });
  }
}

/**
 * Keeps one kind in step with the API server: list, then watch, for ever.
 *
 * Invariants:
 * - `#version` is the resourceVersion up to which the sink has been told everything; undefined iff a fresh listing is due:
 *   at the start, after 410 (the server has compacted that version away), and after any answer that leaves it in doubt.
 * - Every version moved to came from the server: an event's, a bookmark's or a list's. They are never compared or computed.
 * - A stream that ends in order, or a connection that breaks, resumes from `#version`.
 * - What the sink sees of a fresh listing is the difference to what it was told before (Inventory).
 * - Only Failures are retried; anything else is a bug and ends the source.
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import type { SourceSink } from '../source.ts';
import type { BackoffOptions } from './backoff.ts';
import { Backoff } from './backoff.ts';
import type { Client, Opened } from './client.ts';
import { failureOf } from './client.ts';
import { Failure } from './failure.ts';
import { Inventory } from './inventory.ts';
import type { Kind, KindName } from './kinds.ts';
import { openEnvelope, readList, readStatus, readWatchEvent } from './protobuf/envelope.ts';
import { FrameReader } from './protobuf/frames.ts';
import { INITIAL_EVENTS_END, readMeta } from './protobuf/meta.ts';

export interface ReflectorOptions {
  /** Longest watch frame, bytes. @default 16777216 */
  readonly maxFrame?: number;
  /** Objects on a page where the server has no WatchList. @default 250 */
  readonly pageSize?: number;
  readonly backoff?: BackoffOptions;
  /** Between two questions for an optional kind that the server does not have. @default 10 s, growing to 5 minutes */
  readonly absence?: BackoffOptions;
}

/** What a reflector tells of itself, for the log and for metrics. */
export interface ReflectorEvents {
  /** A watch stands. */
  connected(kind: KindName): void;
  /** It does no more, or could not be had; told again with every failed try. */
  disconnected(kind: KindName, failure: Failure): void;
  /** The server has no such kind, or shows us none; told again with every try. Only for an optional kind, and only before its first listing. */
  absent(kind: KindName, failure: Failure): void;
  /** A listing is complete, and the sink knows it. */
  listed(kind: KindName): void;
  /** A watch event was read, bookmarks included. */
  event(kind: KindName): void;
}

const PROTOBUF = 'application/vnd.kubernetes.protobuf';
/** A watch that ends in order sooner than this, without a word, is counted as a failure, ms. */
const SHORT_WATCH = 1000;
/** An API server that has just started may refuse for a moment what it allows later; after an upgrade, the kind is there some day. */
const ABSENCE: BackoffOptions = { initial: 10_000, maxConnect: 300_000 };
/** How long a stream may outlive the end it was asked for, ms. */
const OVERTIME = 30_000;

export class Reflector {
  readonly #client: Client;
  readonly #kind: Kind;
  readonly #events: ReflectorEvents;
  readonly #inventory: Inventory;
  readonly #backoff: Backoff;
  readonly #absence: Backoff;
  readonly #maxFrame: number;
  readonly #pageSize: number;
  #version: string | undefined;
  #everListed = false;

  constructor(client: Client, kind: Kind, sink: SourceSink, events: ReflectorEvents, options: ReflectorOptions = {}) {
    this.#client = client;
    this.#kind = kind;
    this.#events = events;
    this.#inventory = new Inventory(kind, sink);
    this.#backoff = new Backoff(options.backoff);
    this.#absence = new Backoff(options.absence ?? ABSENCE);
    this.#maxFrame = options.maxFrame ?? 16 << 20;
    this.#pageSize = options.pageSize ?? 250;
  }

  /** Runs until `signal` aborts. Rejects only for a bug, here or in the sink. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await this.#listAndWatch(signal);
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof Failure)) throw error;
        await sleep(this.#failed(error), undefined, { signal }).catch(() => {});
      }
    }
  }

  /** Tells of a failure. @returns how long to wait after it, ms. */
  #failed(failure: Failure): number {
    const { kind, optional } = this.#kind;
    if (optional && !this.#everListed && (failure.status === 403 || failure.status === 404)) {
      this.#events.absent(kind, failure);
      return this.#absence.next(failure);
    }
    if (!resumable(failure)) this.#version = undefined;
    if (failure.status !== 410) this.#events.disconnected(kind, failure);
    return this.#backoff.next(failure);
  }

  /** One watch, from `#version` or from the beginning, to its end in order. */
  async #listAndWatch(signal: AbortSignal): Promise<void> {
    if (this.#version !== undefined) return await this.#watch({ resourceVersion: this.#version }, signal);
    this.#inventory.startListing();
    try {
      await this.#watch({ sendInitialEvents: 'true', resourceVersionMatch: 'NotOlderThan' }, signal);
    } catch (error) {
      // A server without WatchList (before 1.32, or switched off) refuses the parameters.
      if (!(error instanceof Failure && (error.status === 422 || error.status === 400))) throw error;
      await this.#list(signal);
    }
  }

  async #watch(from: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void> {
    // Ends at different times on every node and for every kind, so that they do not all come back at once.
    const seconds = 300 + Math.floor(Math.random() * 300);
    const opened = await this.#ask(`watching ${this.#kind.plural}`, {
      query: { watch: '1', allowWatchBookmarks: 'true', timeoutSeconds: String(seconds), ...from },
      accept: `${PROTOBUF};stream=watch`,
      timeout: seconds * 1000 + OVERTIME,
      signal,
    });
    this.#events.connected(this.#kind.kind);
    const start = performance.now();
    let silent = true;
    for await (const frame of this.#frames(opened)) {
      silent = false;
      this.#take(frame);
    }
    const lasted = performance.now() - start;
    if (this.#version === undefined) throw new Failure(`watching ${this.#kind.plural}: it ended before the initial events did`, 'SHORT');
    if (silent && lasted < SHORT_WATCH) throw new Failure(`watching ${this.#kind.plural}: it ended after ${Math.round(lasted)} ms`, 'SHORT');
    this.#backoff.reset();
  }

  /** The frames of an opened watch; what those of one chunk changed reaches the sink together. */
  async *#frames(opened: Opened): AsyncGenerator<Buffer> {
    const reader = new FrameReader(this.#maxFrame);
    for await (const chunk of opened.body) {
      try {
        yield* cut(reader, chunk);
      } finally {
        this.#inventory.flush();
        if (this.#version !== undefined) this.#backoff.reset();
      }
      // An API server sends each object by itself: what has come together is read together.
      await nextTurn();
    }
    if (reader.pending) throw new Failure(`watching ${this.#kind.plural}: it ended in the middle of a frame`, 'FRAME');
  }

  #take(frame: Buffer): void {
    const { type, object } = decoded(() => readWatchEvent(frame));
    this.#events.event(this.#kind.kind);
    switch (type) {
      case 'ADDED':
      case 'MODIFIED':
        this.#inventory.putEnveloped(object);
        return this.#moved(object);
      case 'DELETED':
        this.#inventory.removeEnveloped(object);
        return this.#moved(object);
      case 'BOOKMARK':
        return this.#bookmark(object);
      case 'ERROR':
        throw this.#errorOf(object);
      default:
        throw new Failure(`watching ${this.#kind.plural}: an event of type ${JSON.stringify(type)}`, 'EVENT');
    }
  }

  /** While initial events come, the versions of objects are in no order: only the bookmark's counts. */
  #moved(object: Buffer): void {
    if (this.#version === undefined) return;
    try {
      this.#version = readMeta(openEnvelope(object).raw).resourceVersion || this.#version;
    } catch {
      // The Inventory has told of this object; the version before it resumes just as well.
    }
  }

  #bookmark(object: Buffer): void {
    const meta = decoded(() => readMeta(openEnvelope(object).raw));
    if (this.#version !== undefined) this.#version = meta.resourceVersion || this.#version;
    else if (meta.annotations[INITIAL_EVENTS_END] === 'true') this.#listed(meta.resourceVersion);
  }

  #listed(version: string): void {
    this.#inventory.finishListing();
    this.#inventory.flush();
    this.#version = version;
    this.#everListed = true;
    this.#backoff.reset();
    this.#events.listed(this.#kind.kind);
  }

  /** LIST in pages, without WatchList. Without a resourceVersion, the answer is the newest state. */
  async #list(signal: AbortSignal): Promise<void> {
    this.#inventory.startListing();
    const what = `listing ${this.#kind.plural}`;
    let next = '';
    do {
      const query = { limit: String(this.#pageSize), ...(next !== '' && { continue: next }) };
      const opened = await this.#ask(what, { query, accept: PROTOBUF, timeout: 60_000, signal });
      const body = await this.#client.collect(opened.body);
      const page = decoded(() => readList(openEnvelope(body).raw));
      for (const item of page.items) this.#inventory.putBare(item);
      this.#inventory.flush();
      next = page.continue;
      if (next === '') this.#listed(page.resourceVersion);
    } while (next !== '');
  }

  /** @throws Failure for any answer but 200 in protobuf. */
  async #ask(what: string, request: { query: Record<string, string>; accept: string; timeout: number; signal: AbortSignal }): Promise<Opened> {
    const { query, accept, timeout, signal } = request;
    const path = `${this.#kind.path}?${new URLSearchParams({ ...this.#kind.selectors, ...query })}`;
    const opened = await this.#client.open({ method: 'GET', path, headers: { accept }, timeout, signal });
    if (opened.status !== 200) throw failureOf(what, { ...opened, body: await this.#client.collect(opened.body) });
    const type = opened.headers['content-type'] ?? '';
    if (!type.startsWith(PROTOBUF)) throw new Failure(`${what}: an answer of type ${JSON.stringify(type)}, not ${PROTOBUF}`, 'CONTENT_TYPE');
    return opened;
  }

  #errorOf(object: Buffer): Failure {
    const { code, reason, message, retryAfter } = decoded(() => readStatus(openEnvelope(object).raw));
    const status = code === 0 && reason === 'Expired' ? 410 : code;
    return new Failure(`watching ${this.#kind.plural}: ${status} ${message}`, `HTTP ${status}`, { status, retryAfter: retryAfter * 1000 });
  }
}

/**
 * No answer at all, and answers that speak of the moment or of rights (401, 403, 429, 503), say nothing about a version.
 * After any other it is in doubt: 410, of course, but also 500 and 504 (a version from before etcd was restored).
 */
function resumable(failure: Failure): boolean {
  return [0, 401, 403, 429, 502, 503].includes(failure.status);
}

function cut(reader: FrameReader, chunk: Buffer): Buffer[] {
  return decoded(() => reader.push(chunk));
}

/** What does not decode outside of an object breaks the stream. */
function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw new Failure(error instanceof Error ? error.message : String(error), 'DECODE');
  }
}

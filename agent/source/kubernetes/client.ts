/**
 * A small HTTP/2 client for one API server.
 *
 * Invariants: new requests share one session, `#current`, undefined iff none is open or opening; a session that
 * closes, fails, or is told to go away (GOAWAY) is current no more, while what runs on it runs on to its end; every
 * error that leaves this file is a Failure.
 */
import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders, IncomingHttpStatusHeader } from 'node:http2';
import type { Access } from './access.ts';
import { Failure } from './failure.ts';
import { openEnvelope, readStatus } from './protobuf/envelope.ts';
import { openSession } from './session.ts';

export interface ClientOptions {
  /** Until TCP stands, ms: short, as the kernel's own tries over a way that swallows packets come ever further apart. @default 1500 */
  readonly tcpTimeout?: number;
  /** Until TCP, TLS and HTTP/2 stand, ms. @default 10000 */
  readonly connectTimeout?: number;
  /** Between two pings of a session, ms. @default 10000 */
  readonly pingInterval?: number;
  /** Without a sign of life after a ping, until a session is given up, ms. @default 5000 */
  readonly pingTimeout?: number;
  /** Until the headers of an answer; the server may queue a request for a minute (API Priority and Fairness), ms. @default 70000 */
  readonly answerTimeout?: number;
  /** Longest body that `request` collects, bytes. @default 67108864 */
  readonly maxBody?: number;
  /** @default "maglane" */
  readonly userAgent?: string;
}

export interface Request {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly signal: AbortSignal;
  /** Until the end of the answer, ms. @default 30000 for `request`, none for `open` */
  readonly timeout?: number;
}

/** An answer whose body still flows. */
export interface Opened {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** To be read, or left by `return`, which cancels the request. Throws Failure when the body is cut short. */
  readonly body: AsyncIterable<Buffer>;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export class Client {
  readonly #access: Access;
  readonly #options: Required<ClientOptions>;
  readonly #sessions = new Set<ClientHttp2Session>();
  #current: Promise<ClientHttp2Session> | undefined;
  readonly #closing = new AbortController();

  constructor(access: Access, options: ClientOptions = {}) {
    this.#access = access;
    this.#options = {
      tcpTimeout: 1_500,
      connectTimeout: 10_000,
      pingInterval: 10_000,
      pingTimeout: 5_000,
      answerTimeout: 70_000,
      maxBody: 64 << 20,
      userAgent: 'maglane',
      ...options,
    };
  }

  /**
   * Sends a request and resolves with the answer's headers.
   * @throws Failure when there is no answer. An answer of 400 and above is none: the caller judges it.
   */
  async open(request: Request): Promise<Opened> {
    try {
      const stream = await this.#send(request);
      const headers = await answered(stream, this.#options.answerTimeout);
      const status = Number(headers[':status']);
      if (status === 401) this.#refused();
      return { status, headers, body: bodyOf(stream) };
    } catch (error) {
      throw Failure.from(error);
    }
  }

  /**
   * Sends a request and collects the answer.
   * @throws Failure when there is none, or its body is above the limit.
   */
  async request(request: Request): Promise<Answer> {
    const { body, ...head } = await this.open({ timeout: 30_000, ...request });
    return { ...head, body: await this.collect(body) };
  }

  /** @throws Failure for a body above the limit. */
  async collect(body: AsyncIterable<Buffer>): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of body) {
      size += chunk.length;
      if (size > this.#options.maxBody) throw new Failure(`an answer above the limit of ${this.#options.maxBody} bytes`, 'TOO_LARGE');
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }

  /** Ends every session, and resolves when they are gone. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#current?.catch(() => {});
    await Promise.all(
      [...this.#sessions].map(async (session) => {
        const { promise, resolve } = Promise.withResolvers<void>();
        session.once('close', resolve);
        session.destroy();
        await promise;
      }),
    );
  }

  async #send({ method, path, headers, body, signal, timeout }: Request): Promise<ClientHttp2Stream> {
    const authorization = await unlessAborted(this.#access.authorization(), signal);
    const session = await unlessAborted(this.#session(), signal);
    const stream = session.request(
      {
        ...headers,
        ':method': method,
        ':path': this.#access.server.pathname.replace(/\/$/, '') + path,
        'user-agent': this.#options.userAgent,
        ...(authorization !== undefined && { authorization }),
      },
      { endStream: body === undefined, signal },
    );
    // Errors reach whoever reads the stream; one that comes when nobody does must not end the process.
    stream.on('error', () => {});
    if (timeout !== undefined) limit(stream, timeout, 'close', `no end of the answer to ${method} ${path}`);
    if (body !== undefined) stream.end(body);
    return stream;
  }

  async #session(): Promise<ClientHttp2Session> {
    this.#current ??= this.#open();
    return await this.#current;
  }

  async #open(): Promise<ClientHttp2Session> {
    try {
      const session = await openSession(this.#access.server, await this.#access.tls(), this.#options, this.#closing.signal);
      this.#sessions.add(session);
      const opened = this.#current;
      const retire = (): void => {
        if (this.#current === opened) this.#current = undefined;
      };
      session.once('goaway', retire);
      session.once('close', () => {
        retire();
        this.#sessions.delete(session);
      });
      return session;
    } catch (error) {
      this.#current = undefined;
      throw error;
    }
  }

  /** Client certificates belong to the session: with new ones, a new session. */
  #refused(): void {
    this.#access.refused();
    const session = this.#current;
    this.#current = undefined;
    void session?.then((open) => open.close());
  }
}

/** As `promise`, but rejects at once when `signal` aborts; what goes on behind it is shared with others. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = (): void => reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** Resolves with the headers of the answer. */
async function answered(stream: ClientHttp2Stream, timeout: number): Promise<IncomingHttpHeaders & IncomingHttpStatusHeader> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingHttpHeaders & IncomingHttpStatusHeader>();
  limit(stream, timeout, 'response', 'no answer');
  stream.once('response', resolve);
  stream.once('error', reject);
  stream.once('close', () => reject(new Failure('the connection closed before the answer', 'CLOSED')));
  return await promise;
}

/** Ends `stream` unless `event` comes within `ms`. */
function limit(stream: ClientHttp2Stream, ms: number, event: 'response' | 'close', message: string): void {
  const timer = setTimeout(() => stream.destroy(new Failure(`${message} within ${ms} ms`, 'TIMEOUT')), ms);
  stream.once(event, () => clearTimeout(timer));
  stream.once('close', () => clearTimeout(timer));
}

async function* bodyOf(stream: ClientHttp2Stream): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of stream) yield chunk as Buffer;
  } catch (error) {
    throw Failure.from(error);
  }
  if (stream.aborted) throw new Failure('the connection closed in the middle of an answer', 'CLOSED');
}

/**
 * The Failure that an answer of 400 and above stands for, in the words of the Status it carries.
 * @param what was asked: "watching services".
 */
export function failureOf(what: string, answer: Answer): Failure {
  const { status, headers, body } = answer;
  const told = statusIn(body);
  const retryAfter = Number(headers['retry-after'] ?? told.retryAfter) * 1000;
  return new Failure(`${what}: ${status} ${told.message}`.trimEnd(), `HTTP ${status}`, { status, retryAfter: retryAfter > 0 ? retryAfter : 0 });
}

/** Servers answer in protobuf, the proxies before them as they please. */
function statusIn(body: Buffer): { message: string; retryAfter: number } {
  try {
    return readStatus(openEnvelope(body).raw);
  } catch {
    const text = body.toString('utf8');
    return { message: /"message":\s*"([^"]*)"/.exec(text)?.[1] ?? text.slice(0, 200).trim(), retryAfter: 0 };
  }
}

/**
 * An API server small enough to misbehave on command: four kinds in protobuf over HTTP/2, WatchList,
 * bookmarks, compaction, and every answer that a watch has to survive.
 */
import { once } from 'node:events';
import http2 from 'node:http2';
import type { Http2Server, IncomingHttpHeaders, SecureServerOptions, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Fields } from './encode.ts';
import { encode, enveloped, frame, status } from './encode.ts';

export type FakeKind = 'Service' | 'EndpointSlice' | 'Node' | 'ServiceCIDR';

const KINDS: Readonly<Record<string, { kind: FakeKind; apiVersion: string }>> = {
  '/api/v1/services': { kind: 'Service', apiVersion: 'v1' },
  '/apis/discovery.k8s.io/v1/endpointslices': { kind: 'EndpointSlice', apiVersion: 'discovery.k8s.io/v1' },
  '/api/v1/nodes': { kind: 'Node', apiVersion: 'v1' },
  '/apis/networking.k8s.io/v1/servicecidrs': { kind: 'ServiceCIDR', apiVersion: 'networking.k8s.io/v1' },
};
const API_VERSION = Object.fromEntries(Object.values(KINDS).map(({ kind, apiVersion }) => [kind, apiVersion]));
const PROTOBUF = 'application/vnd.kubernetes.protobuf';

interface Stored {
  readonly kind: FakeKind;
  readonly key: string;
  readonly version: number;
  readonly fields: Fields;
  readonly bytes: Buffer;
}

interface Watcher {
  readonly kind: FakeKind;
  readonly query: URLSearchParams;
  readonly stream: ServerHttp2Stream;
}

export interface Asked {
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** Common name of the client's certificate. */
  readonly peer: string | undefined;
}

/** The next answers, instead of the right ones. */
export interface Refusal {
  readonly status: number;
  readonly retryAfter?: number;
  /** Only requests for this kind. */
  readonly kind?: FakeKind;
  readonly times: number;
}

export class FakeApiServer {
  /** false: sendInitialEvents is answered with 422, as by a server without the feature. */
  watchList = true;
  /** Whether a watch from a compacted version fails by its status or by an ERROR event. */
  goneAs: 'status' | 'event' = 'status';
  /** Bytes a DATA frame holds at most; 0: no limit. */
  split = 0;
  /** What Authorization must be; undefined: anything. */
  authorization: string | undefined;
  /** What was asked for, in order. */
  readonly asked: Asked[] = [];

  readonly #server: Http2Server;
  readonly #sessions = new Set<ServerHttp2Session>();
  #pings = 0;
  readonly #objects = new Map<string, Stored>();
  #history: { readonly type: string; readonly object: Stored }[] = [];
  readonly #watchers = new Set<Watcher>();
  #version = 1;
  #compacted = 0;
  #refusals: { -readonly [K in keyof Refusal]: Refusal[K] }[] = [];

  private constructor(server: Http2Server) {
    this.#server = server;
    server.on('stream', (stream, headers) => {
      stream.on('error', () => {});
      this.#answer(stream, headers);
    });
    server.on('session', (session) => {
      this.#sessions.add(session);
      session.on('error', () => {});
      session.on('ping', () => this.#pings++);
      session.on('close', () => this.#sessions.delete(session));
    });
  }

  /** @param tls undefined: HTTP/2 in the clear, with prior knowledge. */
  static async start(tls?: SecureServerOptions): Promise<FakeApiServer> {
    const server = tls === undefined ? http2.createServer() : http2.createSecureServer(tls);
    server.on('sessionError', () => {});
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new FakeApiServer(server as Http2Server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Connections that stand. */
  get sessions(): number {
    return this.#sessions.size;
  }

  /** How many of the client's pings were answered. */
  get pings(): number {
    return this.#pings;
  }

  /** Watches that stand. */
  get watches(): number {
    return this.#watchers.size;
  }

  async stop(): Promise<void> {
    this.#server.close();
    for (const session of this.#sessions) session.destroy();
    if (this.#server.listening) await once(this.#server, 'close');
  }

  /** Creates or replaces an object; its metadata gets the next resourceVersion. */
  put(kind: FakeKind, fields: Fields): void {
    const metadata = { ...(fields['metadata'] as Fields), resourceVersion: String(++this.#version) };
    const key = `${kind} ${metadata['namespace' as never] ?? ''}/${metadata['name' as never]}`;
    const object = { kind, key, version: this.#version, fields: { ...fields, metadata }, bytes: encode(kind, { ...fields, metadata }) };
    const type = this.#objects.has(key) ? 'MODIFIED' : 'ADDED';
    this.#objects.set(key, object);
    this.#record(type, object);
  }

  /** @param name "namespace/name", "/name" for a Node. */
  delete(kind: FakeKind, name: string): void {
    const object = this.#objects.get(`${kind} ${name}`);
    if (object === undefined) throw new Error(`no ${kind} ${name}`);
    this.#objects.delete(object.key);
    const metadata = { ...(object.fields['metadata'] as Fields), resourceVersion: String(++this.#version) };
    this.#record('DELETED', { ...object, version: this.#version, bytes: encode(kind, { ...object.fields, metadata }) });
  }

  /** Stores an object whose bytes are what they are. */
  putRaw(kind: FakeKind, name: string, bytes: Buffer): void {
    const object = { kind, key: `${kind} ${name}`, version: ++this.#version, fields: {}, bytes };
    this.#objects.set(object.key, object);
    this.#record('ADDED', object);
  }

  /** Writes bytes to the watches of `kind`, whatever they are. */
  sendRaw(kind: FakeKind, bytes: Buffer): void {
    for (const watcher of this.#watchers) if (watcher.kind === kind) watcher.stream.write(bytes);
  }

  bookmark(kind: FakeKind): void {
    this.sendRaw(kind, this.#bookmarkFrame(kind, {}));
  }

  /** As after etcd's compaction: no version up to now can be watched from. */
  compact(): void {
    this.#compacted = this.#version;
    this.#history = [];
  }

  refuse(refusal: Refusal): void {
    this.#refusals.push({ ...refusal });
  }

  /** Ends the watches of `kind`, or all, in order, as after timeoutSeconds. */
  endWatches(kind?: FakeKind): void {
    for (const watcher of this.#watchers) if (kind === undefined || watcher.kind === kind) watcher.stream.end();
  }

  /** Graceful GOAWAY, as of a server with --goaway-chance. */
  goaway(): void {
    for (const session of this.#sessions) session.goaway();
  }

  #record(type: string, object: Stored): void {
    this.#history.push({ type, object });
    for (const watcher of this.#watchers) if (watcher.kind === object.kind && selected(object, watcher.query)) this.#send(watcher, type, object);
  }

  #answer(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const url = new URL(headers[':path'] ?? '', 'http://fake');
    this.asked.push({ path: url.pathname, query: url.searchParams, headers, peer: peerOf(stream) });
    const found = KINDS[url.pathname];
    if (found === undefined) return refuse(stream, 404, 'NotFound', 'the server could not find the requested resource');
    if (this.authorization !== undefined && headers.authorization !== this.authorization) return refuse(stream, 401, 'Unauthorized', 'Unauthorized');
    const refusal = this.#refusals.find(({ kind, times }) => times > 0 && (kind === undefined || kind === found.kind));
    if (refusal !== undefined) {
      refusal.times--;
      return refuse(stream, refusal.status, 'Refused', `refused with ${refusal.status}`, refusal.retryAfter);
    }
    if (url.searchParams.get('watch') === '1') this.#watch(stream, found.kind, url.searchParams);
    else this.#list(stream, found.kind, url.searchParams);
  }

  #list(stream: ServerHttp2Stream, kind: FakeKind, query: URLSearchParams): void {
    const objects = this.#select(kind, query);
    const from = Number(query.get('continue') ?? 0);
    const limit = Number(query.get('limit') ?? 0) || objects.length;
    const rest = objects.length > from + limit ? { continue: String(from + limit) } : {};
    const list = encode('List', {
      metadata: { resourceVersion: String(this.#version), ...rest },
      items: objects.slice(from, from + limit).map((object) => object.bytes),
    });
    stream.respond({ ':status': 200, 'content-type': PROTOBUF });
    stream.end(enveloped(API_VERSION[kind] ?? '', `${kind}List`, list));
  }

  #watch(stream: ServerHttp2Stream, kind: FakeKind, query: URLSearchParams): void {
    const initial = query.get('sendInitialEvents') === 'true';
    if (initial && !this.watchList)
      return refuse(stream, 422, 'Invalid', 'sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled');
    const from = Number(query.get('resourceVersion') ?? 0);
    const gone = !initial && from < this.#compacted;
    const message = `too old resource version: ${from} (${this.#compacted})`;
    if (gone && this.goneAs === 'status') return refuse(stream, 410, 'Expired', message);
    stream.respond({ ':status': 200, 'content-type': `${PROTOBUF};stream=watch` });
    const watcher = { kind, query, stream };
    if (gone) return void stream.end(frame('ERROR', status(410, 'Expired', message)));
    if (initial) {
      for (const object of this.#select(kind, query)) this.#send(watcher, 'ADDED', object);
      this.#write(stream, this.#bookmarkFrame(kind, { 'k8s.io/initial-events-end': 'true' }));
    } else {
      for (const { type, object } of this.#history)
        if (object.version > from && object.kind === kind && selected(object, query)) this.#send(watcher, type, object);
    }
    this.#watchers.add(watcher);
    stream.once('close', () => this.#watchers.delete(watcher));
  }

  #select(kind: FakeKind, query: URLSearchParams): Stored[] {
    return [...this.#objects.values()].filter((object) => object.kind === kind && selected(object, query));
  }

  #send({ stream }: Watcher, type: string, object: Stored): void {
    this.#write(stream, frame(type, enveloped(API_VERSION[object.kind] ?? '', object.kind, object.bytes)));
  }

  #bookmarkFrame(kind: FakeKind, annotations: Fields): Buffer {
    const object = encode(kind, { metadata: { resourceVersion: String(this.#version), annotations } });
    return frame('BOOKMARK', enveloped(API_VERSION[kind] ?? '', kind, object));
  }

  #write(stream: ServerHttp2Stream, bytes: Buffer): void {
    const step = this.split || bytes.length;
    for (let at = 0; at < bytes.length; at += step) stream.write(bytes.subarray(at, at + step));
  }
}

function peerOf(stream: ServerHttp2Stream): string | undefined {
  const name = (stream.session?.socket as Partial<TLSSocket> | undefined)?.getPeerCertificate?.().subject?.CN;
  return Array.isArray(name) ? name[0] : name;
}

/** The selectors that the agent uses: `!label`, spec.clusterIP!=None, metadata.name=NAME. */
function selected({ fields }: Stored, query: URLSearchParams): boolean {
  const metadata = (fields['metadata'] ?? {}) as Fields;
  const [label, field] = [query.get('labelSelector'), query.get('fieldSelector')];
  if (label !== null && label.slice(1) in ((metadata['labels'] ?? {}) as Fields)) return false;
  if (field === 'spec.clusterIP!=None') return ((fields['spec'] ?? {}) as Fields)['clusterIP'] !== 'None';
  return field === null || field === `metadata.name=${String(metadata['name'])}`;
}

function refuse(stream: ServerHttp2Stream, code: number, reason: string, message: string, retryAfter?: number): void {
  stream.respond({ ':status': code, 'content-type': PROTOBUF, ...(retryAfter !== undefined && { 'retry-after': String(retryAfter) }) });
  stream.end(status(code, reason, message));
}

/**
 * The healthCheckNodePorts of Services: a load balancer asks there whether this node has endpoints of its own.
 * Answers are kube-proxy's to the byte (k8s.io/kubernetes/pkg/proxy/healthcheck/service_health.go).
 *
 * All ports share one HTTP server; each has bare listeners, one an address, so that a thousand of them are cheap.
 */
import { createServer as createHttpServer } from 'node:http';
import type { IncomingMessage, Server as HttpServer, ServerResponse } from 'node:http';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import type { Address } from '../model/address.ts';
import { familyOf } from '../model/address.ts';
import type { Family, HealthCheck } from '../model/desired.ts';
import type { Problems } from './problems.ts';

/** Open connections over all ports; more are closed at once. Checks are short, and come from outside. */
const MAX_CONNECTIONS = 512;
/** How long a connection may last, ms. */
const DEADLINE_MS = 10_000;

export interface HealthChecksInit {
  readonly problems: Problems;
  /** Whether this agent does its work: else every port answers 503. */
  readonly healthy: () => boolean;
  /** How soon an address that could not be listened on is tried again, ms. @default 5000 */
  readonly retryMs?: number;
}

/** A Service's port and its listeners, by address; "0.0.0.0" and "::" stand for all of a family. */
interface Entry {
  check: HealthCheck;
  readonly listeners: Map<string, Server>;
  /** What went wrong, by address. */
  readonly failed: Map<string, string>;
}

/** Whom a connection asks about. */
interface Asked {
  readonly entry: Entry;
  readonly family: Family;
}

export class HealthChecks {
  readonly #problems: Problems;
  readonly #healthy: () => boolean;
  readonly #retryMs: number;
  readonly #http: HttpServer;
  readonly #asked = new WeakMap<Socket, Asked>();
  readonly #connections = new Set<Socket>();
  readonly #entries = new Map<string, Entry>();
  #addresses: readonly Address[] = [];
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  constructor({ problems, healthy, retryMs = 5_000 }: HealthChecksInit) {
    this.#problems = problems;
    this.#healthy = healthy;
    this.#retryMs = retryMs;
    this.#http = createHttpServer({ maxHeaderSize: 8_192 }, (request, response) => this.#answer(request, response));
  }

  /** Listens on these from now on; on all of a family of which there are none, for Services of it. */
  listenOn(addresses: readonly Address[]): void {
    this.#addresses = addresses;
    for (const entry of this.#entries.values()) this.#reconcile(entry);
  }

  /** Opens, changes and closes ports. @param changes by "namespace/name"; undefined: it has none any more. */
  apply(changes: ReadonlyMap<string, HealthCheck | undefined>): void {
    // What goes frees its port for what comes.
    for (const [key, check] of changes) {
      const entry = this.#entries.get(key);
      if (entry === undefined || entry.check.port === check?.port) continue;
      closeAll(entry);
      this.#entries.delete(key);
      this.#problems.set('health check', objectOf(entry), []);
    }
    for (const [key, check] of changes) {
      if (check === undefined) continue;
      const entry: Entry = this.#entries.get(key) ?? { check, listeners: new Map(), failed: new Map() };
      entry.check = check;
      this.#entries.set(key, entry);
      this.#reconcile(entry);
    }
  }

  /** Closes everything. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    for (const entry of this.#entries.values()) closeAll(entry);
    for (const socket of this.#connections) socket.destroy();
  }

  #reconcile(entry: Entry): void {
    if (this.#closed) return;
    const wanted = this.#hostsFor(entry.check);
    for (const [host, server] of entry.listeners) if (!wanted.includes(host)) closeOne(entry, host, server);
    for (const host of entry.failed.keys()) if (!wanted.includes(host)) entry.failed.delete(host);
    for (const host of wanted) if (!entry.listeners.has(host)) this.#listen(entry, host);
  }

  /**
   * nodePortAddresses, as kube-proxy listens on. A Service of one family is answered for on the other, too, where the node has
   * addresses of it: load balancers check a dual-stack node by either (test/e2e/network "should only target nodes with endpoints").
   */
  #hostsFor({ endpoints4, endpoints6 }: HealthCheck): readonly string[] {
    const hosts: string[] = [...this.#addresses];
    const none = (family: Family): boolean => !this.#addresses.some((address) => familyOf(address) === family);
    if (endpoints4 !== undefined && none(4)) hosts.push('0.0.0.0');
    if (endpoints6 !== undefined && none(6)) hosts.push('::');
    return hosts;
  }

  #listen(entry: Entry, host: string): void {
    const family = host.includes(':') ? 6 : 4;
    const server = createServer((socket) => this.#accept(socket, { entry, family }));
    entry.listeners.set(host, server);
    server.once('listening', () => {
      if (entry.failed.delete(host)) this.#tell(entry);
    });
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (entry.listeners.get(host) !== server) return;
      entry.listeners.delete(host);
      entry.failed.set(host, error.code ?? error.message);
      this.#tell(entry);
      this.#retry ??= setTimeout(() => this.#tryAgain(), this.#retryMs);
    });
    server.listen({ host, port: entry.check.port, ipv6Only: family === 6 });
  }

  #tryAgain(): void {
    this.#retry = undefined;
    for (const entry of this.#entries.values()) if (entry.failed.size > 0) this.#reconcile(entry);
  }

  #tell(entry: Entry): void {
    const found = [...entry.failed].map(([host, code]) => ({
      object: objectOf(entry),
      field: 'spec.healthCheckNodePort',
      value: String(entry.check.port),
      message: `cannot be listened on at ${host} (${code}): load balancers see no endpoints here until it can; a free port would be right`,
      reason: 'health_check' as const,
    }));
    this.#problems.set('health check', objectOf(entry), found);
  }

  #accept(socket: Socket, asked: Asked): void {
    if (this.#connections.size >= MAX_CONNECTIONS) {
      socket.destroy();
      return;
    }
    this.#connections.add(socket);
    this.#asked.set(socket, asked);
    const deadline = setTimeout(() => socket.destroy(), DEADLINE_MS).unref();
    socket.once('close', () => {
      clearTimeout(deadline);
      this.#connections.delete(socket);
    });
    this.#http.emit('connection', socket);
  }

  /** Any path and method. */
  #answer({ socket }: IncomingMessage, response: ServerResponse): void {
    const asked = this.#asked.get(socket);
    if (asked === undefined) return void socket.destroy();
    const { namespace, name, endpoints4, endpoints6 } = asked.entry.check;
    const count = (asked.family === 4 ? (endpoints4 ?? endpoints6) : (endpoints6 ?? endpoints4)) ?? 0;
    const healthy = this.#healthy();
    response.writeHead(count !== 0 && healthy ? 200 : 503, {
      'Content-Type': 'application/json',
      'X-Content-Type-Options': 'nosniff',
      'X-Load-Balancing-Endpoint-Weight': String(count),
      Connection: 'close',
    });
    response.end(JSON.stringify({ service: { namespace, name }, localEndpoints: count, serviceProxyHealthy: healthy }, undefined, '\t'));
  }
}

function objectOf({ check }: Entry): string {
  return `Service ${check.namespace}/${check.name}`;
}

function closeAll(entry: Entry): void {
  for (const [host, server] of entry.listeners) closeOne(entry, host, server);
  entry.failed.clear();
}

function closeOne(entry: Entry, host: string, server: Server): void {
  entry.listeners.delete(host);
  server.close();
}

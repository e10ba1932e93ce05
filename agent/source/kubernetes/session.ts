/** One HTTP/2 connection to the API server, watched for signs of life. */
import http2 from 'node:http2';
import type { ClientHttp2Session } from 'node:http2';
import { connect as connectTcp, isIP } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { TlsOptions } from './access.ts';
import { Failure } from './failure.ts';

export interface SessionOptions {
  /** Until TCP stands, from each address's first packet, ms. */
  readonly tcpTimeout: number;
  /** Until TCP and TLS stand and the server has sent its settings, ms. */
  readonly connectTimeout: number;
  /** Between two pings, ms. */
  readonly pingInterval: number;
  /** Without any sign of life after a ping, ms. */
  readonly pingTimeout: number;
}

/** Large lists would crawl through the protocol's 64 KiB over a slow way. */
const STREAM_WINDOW = 1 << 20;
const SESSION_WINDOW = 4 << 20;

/**
 * Connects to `server`.
 * @param signal gives up the attempt; a session that stands outlives it.
 * @returns the session once it is usable; it pings until it closes, and destroys itself when nothing comes back.
 * @throws Failure when it cannot be had.
 */
export async function openSession(server: URL, tls: TlsOptions, options: SessionOptions, signal: AbortSignal): Promise<ClientHttp2Session> {
  signal.throwIfAborted();
  const socket = dial(server, tls);
  const session = http2.connect(server.origin, { createConnection: () => socket, settings: { enablePush: false, initialWindowSize: STREAM_WINDOW } });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  // A session that is destroyed while its socket connects lives on until that ends: it is the socket that has to go.
  const abandon = (): void => void socket.destroy();
  signal.addEventListener('abort', abandon, { once: true });
  const tooLong = new Failure(`no connection to ${server.host} within ${options.connectTimeout} ms`, 'CONNECT_TIMEOUT');
  const timer = setTimeout(() => socket.destroy(tooLong), options.connectTimeout);
  limitTcp(socket, server, options.tcpTimeout);
  // Stays for good: a later error ends the streams, which tell their readers; without a listener it would end the process.
  session.on('error', reject);
  session.once('close', () => reject(new Failure(`${server.host} closed the connection`, 'CLOSED')));
  // The server's first frame: proof that it speaks HTTP/2, which an open port is not.
  session.once('remoteSettings', () => resolve());
  try {
    await promise;
  } catch (error) {
    throw Failure.from(error);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abandon);
  }
  session.setLocalWindowSize(SESSION_WINDOW);
  keepAlive(session, server, options);
  return session;
}

/** A socket on its way to `server`, with TLS for "https:". */
function dial(server: URL, tls: TlsOptions): Socket {
  const host = server.hostname.replace(/^\[|\]$/g, '');
  const secure = server.protocol === 'https:';
  const target = { host, port: Number(server.port || (secure ? 443 : 80)) };
  if (!secure) return connectTcp(target);
  // An address is no name that SNI could carry (RFC 6066).
  return connectTls({ ...target, ALPNProtocols: ['h2'], ...(isIP(host) === 0 && { servername: host }), ...tls });
}

/** Ends `socket` unless TCP stands `ms` after an attempt on an address begins: name lookups are not counted. */
function limitTcp(socket: Socket, server: URL, ms: number): void {
  const tooLong = new Failure(`${server.host} did not take a connection within ${ms} ms`, 'CONNECT_TIMEOUT');
  let timer: NodeJS.Timeout | undefined;
  socket.on('connectionAttempt', () => {
    clearTimeout(timer);
    timer = setTimeout(() => socket.destroy(tooLong), ms);
  });
  socket.once('connect', () => clearTimeout(timer));
  socket.once('close', () => clearTimeout(timer));
}

/**
 * Pings: a peer that vanished without a word (power, a dropped NAT entry, a firewall) is told by its silence.
 * Whatever arrives counts as life, and the answer of a busy link may queue behind it.
 */
function keepAlive(session: ClientHttp2Session, server: URL, options: SessionOptions): void {
  let timeout: NodeJS.Timeout | undefined;
  const silent = new Failure(`no answer from ${server.host} to a ping within ${options.pingTimeout} ms`, 'PING');
  const ping = (): void => {
    if (session.destroyed || timeout !== undefined) return;
    const before = session.socket?.bytesRead;
    const judge = (): void => {
      timeout = undefined;
      if (!session.destroyed && session.socket?.bytesRead === before) session.destroy(silent);
    };
    // After the next poll: when it was this process that did not get round to reading, the answer is in by then.
    timeout = setTimeout(() => setImmediate(judge), options.pingTimeout);
    session.ping(() => {
      clearTimeout(timeout);
      timeout = undefined;
    });
  };
  const interval = setInterval(ping, options.pingInterval);
  session.once('close', () => {
    clearInterval(interval);
    clearTimeout(timeout);
  });
}

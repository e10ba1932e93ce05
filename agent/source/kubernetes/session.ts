/** One HTTP/2 connection to the API server, watched for signs of life. */
import http2 from 'node:http2';
import type { ClientHttp2Session } from 'node:http2';
import type { TlsOptions } from './access.ts';
import { Failure } from './failure.ts';

export interface SessionOptions {
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
  const session = http2.connect(server.origin, { ...tls, settings: { enablePush: false, initialWindowSize: STREAM_WINDOW } });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const tooLong = new Failure(`no connection to ${server.host} within ${options.connectTimeout} ms`, 'CONNECT_TIMEOUT');
  const abandon = (): void => session.destroy();
  signal.addEventListener('abort', abandon, { once: true });
  const timer = setTimeout(() => session.destroy(tooLong), options.connectTimeout);
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

/** The agent's small HTTP servers: /healthz and /livez, and /metrics. */
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { BindAddress } from '../config/values.ts';

export interface Answer {
  readonly status: number;
  readonly type: 'application/json' | 'text/plain; version=0.0.4; charset=utf-8' | 'text/plain; charset=utf-8';
  readonly body: string;
}

/** Answers by path; anything else is 404. */
export type Routes = Readonly<Record<string, () => Answer | Promise<Answer>>>;

/**
 * Serves GET requests until `signal` aborts. Requests, headers and connections are bounded, since
 * health checks come from outside the node.
 * @returns when the server listens.
 * @throws when the address cannot be bound: the message names flag and address.
 */
export async function serve(flag: string, bind: BindAddress, routes: Routes, signal: AbortSignal): Promise<void> {
  const server = createServer({ requestTimeout: 5_000, headersTimeout: 5_000, maxHeaderSize: 8_192 }, (request, response) => {
    const path = (request.url ?? '/').split('?')[0] ?? '/';
    const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
    if (request.method !== 'GET' && request.method !== 'HEAD') return send(response, 405, 'text/plain; charset=utf-8', 'GET only\n');
    if (route === undefined) return send(response, 404, 'text/plain; charset=utf-8', `${Object.keys(routes).join('\n')}\n`);
    Promise.resolve()
      .then(route)
      .then(
        (answer) => send(response, answer.status, answer.type, answer.body),
        (error: unknown) => send(response, 500, 'text/plain; charset=utf-8', `${String(error)}\n`),
      );
  });
  server.maxConnections = 256;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(new Error(`${flag} ${bind.host}:${bind.port}: ${error.code}: choose another address or port, or off`)),
    );
    server.listen(bind.port, bind.host, resolve);
  });
  signal.addEventListener(
    'abort',
    () => {
      server.close();
      server.closeAllConnections();
    },
    { once: true },
  );
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'x-content-type-options': 'nosniff' });
  response.end(body);
}

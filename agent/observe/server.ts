/** The agent's small HTTP servers: /healthz and /livez, and /metrics. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { BindAddress } from '../config/values.ts';

export interface Answer {
  readonly status: number;
  readonly type: 'application/json' | 'text/plain; version=0.0.4; charset=utf-8' | 'text/plain; charset=utf-8';
  readonly body: string;
}

/** A page to be read. @param query what stands behind the "?". */
export type Page = (query: URLSearchParams) => Answer | Promise<Answer>;

/** A page to be written to. @param body of the PUT, as text. */
export interface Setter {
  readonly put: (body: string) => Answer;
}

/** Answers by path; anything else is 404. */
export type Routes = Readonly<Record<string, Page | Setter>>;

/** Longest body of a PUT, in bytes: a value of one flag. */
const LONGEST_BODY = 64;

export function text(status: number, body: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body };
}

/**
 * Serves requests until `signal` aborts. Requests, headers and connections are bounded, since
 * health checks come from outside the node.
 * @returns when the server listens.
 * @throws when the address cannot be bound: the message names flag and address.
 */
export async function serve(flag: string, bind: BindAddress, routes: Routes, signal: AbortSignal): Promise<void> {
  const server = createServer({ requestTimeout: 5_000, headersTimeout: 5_000, maxHeaderSize: 8_192 }, (request, response) => {
    answerTo(request, routes)
      .catch((error: unknown) => text(500, `${String(error)}\n`))
      .then((answer) => send(response, answer));
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

async function answerTo(request: IncomingMessage, routes: Routes): Promise<Answer> {
  const [path = '/', query] = (request.url ?? '/').split('?', 2);
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (route === undefined) return text(404, `${Object.keys(routes).join('\n')}\n`);
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  if (typeof route === 'function') return isRead ? await route(new URLSearchParams(query)) : text(405, 'GET only\n');
  // As kube-proxy answers here (k8s.io/apiserver/pkg/server/routes: StringFlagPutHandler).
  if (request.method !== 'PUT') return text(406, 'unsupported http method\n');
  const body = await bodyOf(request);
  return body === undefined ? text(413, `at most ${LONGEST_BODY} bytes\n`) : route.put(body);
}

/** undefined: it is too long. */
async function bodyOf(request: IncomingMessage): Promise<string | undefined> {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) {
    body += chunk;
    if (body.length > LONGEST_BODY) return undefined;
  }
  return body;
}

function send(response: ServerResponse, { status, type, body }: Answer): void {
  response.writeHead(status, { 'content-type': type, 'x-content-type-options': 'nosniff' });
  response.end(body);
}

/** Hundreds of requests a second to the API server of a control plane, as its administrator: what kubectl, a process for each, is too slow for. */
import { existsSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { Component } from './component.ts';
import type { ControlHost, ControlPlane } from './control-plane.ts';

/** What the API server said no to. */
export class ApiError extends Error {
  /** The HTTP status: 404, 422. */
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Which body a PATCH has. */
const MERGE = 'application/merge-patch+json';

export class Api implements AsyncDisposable {
  readonly #proxy: Component;
  readonly #socket: string;
  readonly #connections = new Agent({ keepAlive: true });

  private constructor(proxy: Component, socket: string) {
    this.#proxy = proxy;
    this.#socket = socket;
  }

  /** Starts `kubectl proxy` on the control plane's host: its socket is a file, which any namespace can reach. */
  static async start(plane: ControlPlane, host: ControlHost): Promise<Api> {
    const socket = join(plane.folder, 'api.sock');
    const command = [join(plane.binaries, 'kubectl'), `--kubeconfig=${plane.adminKubeconfig}`, 'proxy', `--unix-socket=${socket}`];
    const ready = (): Promise<boolean> => Promise.resolve(existsSync(socket));
    const api = new Api(new Component({ name: 'kubectl proxy', command: host.command(command), ready, log: join(plane.folder, 'proxy.log') }), socket);
    await api.#proxy.start();
    return api;
  }

  get<T>(path: string): Promise<T> {
    return this.#request('GET', path);
  }

  /** Creates an object in a collection: "/api/v1/namespaces/default/services". */
  create<T>(collection: string, object: object): Promise<T> {
    return this.#request('POST', collection, object);
  }

  /** Replaces an object as a whole. */
  replace<T>(path: string, object: object): Promise<T> {
    return this.#request('PUT', path, object);
  }

  /** Changes an object, or with ".../status" its status, by a JSON merge patch. */
  patch<T>(path: string, patch: object): Promise<T> {
    return this.#request('PATCH', path, patch, MERGE);
  }

  /**
   * Deletes an object, or a whole collection. Nothing happens when it is not there.
   * @param graceSeconds a Pod that is given any stays, as terminating: no kubelet ends it. @default 0: at once
   */
  async delete(path: string, graceSeconds = 0): Promise<void> {
    await this.#request('DELETE', `${path}?gracePeriodSeconds=${graceSeconds}`).catch((error: unknown) => {
      if (!(error instanceof ApiError && error.status === 404)) throw error;
    });
  }

  async stop(): Promise<void> {
    this.#connections.destroy();
    await this.#proxy.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** @throws ApiError with the server's message when it refuses. */
  #request<T>(method: string, path: string, body?: object, type = 'application/json'): Promise<T> {
    return new Promise((resolve, reject) => {
      const call = request({ socketPath: this.#socket, agent: this.#connections, method, path, headers: { 'content-type': type } }, (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        answer.on('error', reject).on('end', () => {
          const status = answer.statusCode ?? 0;
          if (status < 300) resolve(JSON.parse(text) as T);
          else reject(new ApiError(status, `${method} ${path}: ${status} ${text.trim()}`));
        });
      });
      call.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}

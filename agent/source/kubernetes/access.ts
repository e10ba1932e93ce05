/** Where the API server is, and by what right the agent talks to it. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { SecureContextOptions } from 'node:tls';
import { AccessError } from './failure.ts';

/** What node:tls is given. */
export interface TlsOptions extends SecureContextOptions {
  readonly servername?: string;
  readonly rejectUnauthorized?: boolean;
}

export interface Access {
  /** "https://10.0.0.1:6443"; a path ("/k8s/clusters/c-1") goes before every request's. "http:" is HTTP/2 without TLS. */
  readonly server: URL;
  /** Read anew for every connection, as certificates rotate. Rejects when they cannot be had now. */
  tls(): Promise<TlsOptions>;
  /** Value of the header Authorization, undefined: none. Read anew for every request, as tokens rotate. */
  authorization(): Promise<string | undefined>;
  /** The server answered 401: what is cached is of no use. */
  refused(): void;
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/**
 * The access of a pod, as client-go's rest.InClusterConfig has it. KUBERNETES_SERVICE_HOST may be set
 * to an address of the API server itself, so that the agent does not depend on the VIP it serves.
 * @param env KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT.
 * @param folder of the mounted token and ca.crt.
 * @throws AccessError outside of a cluster.
 */
export function inClusterAccess(env: Readonly<Record<string, string | undefined>> = process.env, folder = SERVICE_ACCOUNT): Access {
  const [host, port] = [env['KUBERNETES_SERVICE_HOST'], env['KUBERNETES_SERVICE_PORT']];
  if (!host || !port) {
    throw new AccessError('not in a cluster (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set): --kubeconfig says where the API server is');
  }
  return {
    server: serverUrl(`https://${host.includes(':') ? `[${host}]` : host}:${port}`, 'KUBERNETES_SERVICE_HOST'),
    tls: async () => ({ ca: await readFile(join(folder, 'ca.crt')) }),
    authorization: async () => bearer(await readFile(join(folder, 'token'), 'utf8')),
    refused: () => {},
  };
}

/**
 * Access to another server, as kube-proxy's --master has it.
 * @param by whose rights it is asked with; undefined: with none, not even those of a pod.
 * @throws AccessError for what is no http(s) URL.
 */
export function accessAt(master: string, by: Access | undefined): Access {
  return {
    server: serverUrl(master, '--master'),
    tls: async () => (await by?.tls()) ?? {},
    authorization: async () => await by?.authorization(),
    refused: () => by?.refused(),
  };
}

/** @throws AccessError, naming `where`, for what is no http(s) URL. */
export function serverUrl(text: string, where: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw new AccessError(`${where} ${JSON.stringify(text)}: expected a URL such as https://10.0.0.1:6443`);
  }
  return url;
}

/** "Bearer ..."; undefined for an empty token. */
export function bearer(token: string): string | undefined {
  const trimmed = token.trim();
  return trimmed === '' ? undefined : `Bearer ${trimmed}`;
}

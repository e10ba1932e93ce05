/**
 * Access from a kubeconfig file. Certificates, tokens and passwords are read here; what needs a
 * program or a login flow (exec, auth-provider) is left to plugin.ts, as the library behind it costs 88 MB.
 * See docs/decisions/kubernetes-client.md.
 */
import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { Access, TlsOptions } from './access.ts';
import { bearer, serverUrl } from './access.ts';
import { AccessError } from './failure.ts';
import { pluginAccess } from './plugin.ts';

type Fields = Readonly<Record<string, unknown>>;

/** The current context of a kubeconfig. */
interface Current {
  readonly cluster: Fields;
  readonly user: Fields;
}

/**
 * Access by the current context of `file`. The file is read again when the server answers 401; the
 * certificates and tokens it points to, whenever they are used.
 * @throws AccessError for a file that cannot be read, or asks for what is not supported.
 */
export async function kubeconfigAccess(file: string): Promise<Access> {
  const current = await readCurrent(file);
  const server = serverUrl(text(current.cluster, 'server') ?? '', `${file}: cluster.server`);
  if ('exec' in current.user || 'auth-provider' in current.user) return await pluginAccess(file, server);
  return new FileAccess(file, server, current);
}

class FileAccess implements Access {
  readonly server: URL;
  readonly #file: string;
  /** undefined: to be read again. */
  #current: Current | undefined;

  constructor(file: string, server: URL, current: Current) {
    this.#file = file;
    this.server = server;
    this.#current = current;
  }

  async tls(): Promise<TlsOptions> {
    const { cluster, user } = await this.#read();
    const [ca, cert, key] = await Promise.all([
      this.#material(cluster, 'certificate-authority'),
      this.#material(user, 'client-certificate'),
      this.#material(user, 'client-key'),
    ]);
    const servername = text(cluster, 'tls-server-name');
    return {
      ...(ca && { ca }),
      ...(cert && { cert }),
      ...(key && { key }),
      ...(servername && { servername }),
      ...(cluster['insecure-skip-tls-verify'] === true && { rejectUnauthorized: false }),
    };
  }

  async authorization(): Promise<string | undefined> {
    const { user } = await this.#read();
    const tokenFile = text(user, 'tokenFile');
    if (tokenFile !== undefined) return bearer(await readFile(this.#path(tokenFile), 'utf8'));
    const token = text(user, 'token');
    if (token !== undefined) return bearer(token);
    const username = text(user, 'username');
    if (username === undefined) return undefined;
    return `Basic ${Buffer.from(`${username}:${text(user, 'password') ?? ''}`).toString('base64')}`;
  }

  refused(): void {
    this.#current = undefined;
  }

  async #read(): Promise<Current> {
    this.#current ??= await readCurrent(this.#file);
    return this.#current;
  }

  /** "client-key-data" in base64 goes before the file "client-key", as in client-go. */
  async #material(fields: Fields, name: string): Promise<Buffer | undefined> {
    const data = text(fields, `${name}-data`);
    if (data !== undefined) return Buffer.from(data, 'base64');
    const path = text(fields, name);
    return path === undefined ? undefined : await readFile(this.#path(path));
  }

  /** Paths are relative to the kubeconfig. */
  #path(path: string): string {
    return resolve(dirname(this.#file), path);
  }
}

async function readCurrent(file: string): Promise<Current> {
  const config = await parse(file);
  const name = text(config, 'current-context') ?? '';
  const context = find(file, config, 'contexts', name, 'context');
  const cluster = find(file, config, 'clusters', text(context, 'cluster') ?? '', 'cluster');
  const user = find(file, config, 'users', text(context, 'user') ?? '', 'user');
  if (text(cluster, 'proxy-url') !== undefined)
    throw new AccessError(`${file}: proxy-url is not supported: expected an API server that the node reaches directly`);
  if (text(user, 'as') !== undefined) throw new AccessError(`${file}: impersonation (as) is not supported: expected a user with the agent's own rights`);
  return { cluster, user };
}

async function parse(file: string): Promise<Fields> {
  try {
    const content = await readFile(file, 'utf8');
    const { parse: parseYaml } = await import('yaml');
    return fieldsOf(parseYaml(content));
  } catch (error) {
    const message = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new AccessError(`kubeconfig ${file}: ${message}`, { cause: error });
  }
}

/** The entry of `list` that is called `name`. */
function find(file: string, config: Fields, list: string, name: string, field: string): Fields {
  const entries: readonly unknown[] = Array.isArray(config[list]) ? config[list] : [];
  const entry = entries.map(fieldsOf).find((item) => item['name'] === name);
  if (entry === undefined) throw new AccessError(`${file}: no ${JSON.stringify(name)} in ${list}: the current context asks for it`);
  return fieldsOf(entry[field]);
}

function fieldsOf(value: unknown): Fields {
  return typeof value === 'object' && value !== null ? (value as Fields) : {};
}

/** A non-empty string; undefined for anything else. */
function text(fields: Fields, name: string): string | undefined {
  const value = fields[name];
  return typeof value === 'string' && value !== '' ? value : undefined;
}

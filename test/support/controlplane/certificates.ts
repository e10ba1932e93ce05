/** A certificate authority for one control plane, made with openssl and gone with its folder. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface KeyPair {
  /** Paths of PEM files. */
  readonly certificate: string;
  readonly key: string;
}

export class Authority {
  readonly certificate: string;
  readonly #folder: string;
  readonly #key: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.certificate = join(folder, 'ca.crt');
    this.#key = join(folder, 'ca.key');
  }

  /** A new authority, with its files in `folder`. Throws what openssl says. */
  static async create(folder: string): Promise<Authority> {
    const authority = new Authority(folder);
    await newKey(authority.#key);
    await run('openssl', ['req', '-x509', '-new', '-key', authority.#key, '-out', authority.certificate, '-days', '2', '-subj', '/CN=maglane test CA']);
    return authority;
  }

  /**
   * Signs a key pair. For a server, `addresses` are its IP addresses and DNS names; for a client,
   * Kubernetes reads its user from `user` and its groups from `groups`.
   */
  async issue(
    name: string,
    { user, groups = [], addresses = [] }: { user: string; groups?: readonly string[]; addresses?: readonly string[] },
  ): Promise<KeyPair> {
    const pair = { certificate: join(this.#folder, `${name}.crt`), key: join(this.#folder, `${name}.key`) };
    const subject = [...groups.map((group) => `/O=${group}`), `/CN=${user}`].join('');
    const names = addresses.map((address) => (/[:]|^[\d.]+$/.test(address) ? `IP:${address}` : `DNS:${address}`));
    await newKey(pair.key);
    // With -CA, `req -x509` signs with the authority instead of the key itself.
    const signed = [
      'req',
      '-x509',
      '-new',
      '-key',
      pair.key,
      '-CA',
      this.certificate,
      '-CAkey',
      this.#key,
      '-out',
      pair.certificate,
      '-days',
      '2',
      '-subj',
      subject,
    ];
    const extensions = ['basicConstraints=critical,CA:FALSE', `extendedKeyUsage=${names.length > 0 ? 'serverAuth' : 'clientAuth'}`];
    if (names.length > 0) extensions.push(`subjectAltName=${names.join(',')}`);
    await run('openssl', [...signed, ...extensions.flatMap((extension) => ['-addext', extension])]);
    return pair;
  }
}

/** A key pair that signs service account tokens: a bare public key, no certificate. */
export async function signingKey(folder: string): Promise<{ readonly publicKey: string; readonly key: string }> {
  const pair = { publicKey: join(folder, 'accounts.pub'), key: join(folder, 'accounts.key') };
  await newKey(pair.key);
  await run('openssl', ['pkey', '-in', pair.key, '-pubout', '-out', pair.publicKey]);
  return pair;
}

async function newKey(path: string): Promise<void> {
  await run('openssl', ['genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', path]);
}

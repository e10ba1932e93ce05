/** Certificates for tests, made by openssl. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const openssl = async (...args: string[]): Promise<void> => void (await promisify(execFile)('openssl', args));

/** Makes an authority in `folder`: NAME.crt and NAME.key. */
export async function makeAuthority(folder: string, name: string): Promise<void> {
  const [key, crt] = [join(folder, `${name}.key`), join(folder, `${name}.crt`)];
  const made = [
    '-keyout',
    key,
    '-out',
    crt,
    '-subj',
    `/CN=${name}`,
    '-addext',
    'basicConstraints=critical,CA:TRUE',
    '-addext',
    'keyUsage=critical,keyCertSign',
  ];
  await openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', ...made);
}

/**
 * Makes NAME.crt and NAME.key, signed by `authority`.
 * @param subject "/O=system:masters/CN=admin".
 * @param names for a server: "IP:127.0.0.1,DNS:kubernetes".
 */
export async function makeCertificate(folder: string, authority: string, name: string, subject: string, names?: string): Promise<void> {
  const at = (file: string): string => join(folder, file);
  const extensions = `extendedKeyUsage=serverAuth,clientAuth\n${names === undefined ? '' : `subjectAltName=${names}\n`}`;
  await writeFile(at(`${name}.ext`), extensions);
  await openssl(
    'req',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-keyout',
    at(`${name}.key`),
    '-out',
    at(`${name}.csr`),
    '-subj',
    subject,
  );
  const by = ['-CA', at(`${authority}.crt`), '-CAkey', at(`${authority}.key`), '-CAcreateserial', '-extfile', at(`${name}.ext`), '-days', '2'];
  await openssl('x509', '-req', '-in', at(`${name}.csr`), '-out', at(`${name}.crt`), ...by);
}

/** How the agent gets to an API server, and by what right: TLS, tokens, certificates, programs. */
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Access } from '../../agent/source/kubernetes/access.ts';
import { accessAt, inClusterAccess } from '../../agent/source/kubernetes/access.ts';
import { Client } from '../../agent/source/kubernetes/client.ts';
import { kubeconfigAccess } from '../../agent/source/kubernetes/kubeconfig.ts';
import { makeAuthority, makeCertificate } from '../support/fake-apiserver/certificates.ts';
import { FakeApiServer } from '../support/fake-apiserver/fake-apiserver.ts';

let folder: string;
let api: FakeApiServer;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'maglane-access-'));
  await Promise.all([makeAuthority(folder, 'ca'), makeAuthority(folder, 'other')]);
  await makeCertificate(folder, 'ca', 'server', '/CN=kube-apiserver', 'IP:127.0.0.1,DNS:kubernetes.default');
  await makeCertificate(folder, 'ca', 'client', '/O=system:nodes/CN=agent');
});

afterAll(async () => await rm(folder, { recursive: true }));

beforeEach(async () => {
  const [key, cert, ca] = await Promise.all(['server.key', 'server.crt', 'ca.crt'].map((name) => readFile(join(folder, name))));
  api = await FakeApiServer.start({ key, cert, ca, requestCert: true, rejectUnauthorized: false });
});

afterEach(async () => await api.stop());

async function kubeconfig(cluster: object, user: object = {}): Promise<string> {
  const file = join(folder, 'config');
  const server = `https://127.0.0.1:${api.port}`;
  const config = {
    'current-context': 'here',
    contexts: [{ name: 'here', context: { cluster: 'k', user: 'u' } }],
    clusters: [{ name: 'k', cluster: { server, ...cluster } }],
    users: [{ name: 'u', user }],
  };
  await writeFile(file, JSON.stringify(config));
  return file;
}

/** Asks for the Nodes. */
async function ask(access: Access): Promise<{ status: number; authorization: string | undefined }> {
  const client = new Client(access, { connectTimeout: 2000 });
  try {
    const { status } = await client.request({ method: 'GET', path: '/api/v1/nodes', signal: AbortSignal.timeout(4000) });
    return { status, authorization: api.asked.at(-1)?.headers.authorization };
  } finally {
    await client.close();
  }
}

const inline = async (name: string): Promise<string> => (await readFile(join(folder, name))).toString('base64');

describe('TLS', () => {
  test('an authority in a file beside the kubeconfig', async () => {
    expect(await ask(await kubeconfigAccess(await kubeconfig({ 'certificate-authority': 'ca.crt' })))).toMatchObject({ status: 200 });
  });

  test('an authority inline goes before the file', async () => {
    const file = await kubeconfig({ 'certificate-authority-data': await inline('ca.crt'), 'certificate-authority': 'missing.crt' });
    expect(await ask(await kubeconfigAccess(file))).toMatchObject({ status: 200 });
  });

  test('a server of another authority is refused', async () => {
    const access = await kubeconfigAccess(await kubeconfig({ 'certificate-authority': 'other.crt' }));
    await expect(ask(access)).rejects.toMatchObject({ name: 'Failure', status: 0 });
    expect(api.asked).toEqual([]);
  });

  test('without an authority the server is refused, unless insecure-skip-tls-verify', async () => {
    await expect(ask(await kubeconfigAccess(await kubeconfig({})))).rejects.toMatchObject({ name: 'Failure' });
    expect(await ask(await kubeconfigAccess(await kubeconfig({ 'insecure-skip-tls-verify': true })))).toMatchObject({ status: 200 });
  });

  test('tls-server-name is the name that is checked', async () => {
    const of = async (name: string): Promise<Access> =>
      await kubeconfigAccess(await kubeconfig({ 'certificate-authority': 'ca.crt', 'tls-server-name': name }));
    expect(await ask(await of('kubernetes.default'))).toMatchObject({ status: 200 });
    await expect(ask(await of('elsewhere.example'))).rejects.toMatchObject({ code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
  });

  test('a client certificate is presented', async () => {
    const access = await kubeconfigAccess(
      await kubeconfig({ 'certificate-authority': 'ca.crt' }, { 'client-certificate': 'client.crt', 'client-key-data': await inline('client.key') }),
    );
    expect(await ask(access)).toMatchObject({ status: 200 });
    expect(api.asked.at(-1)?.peer).toBe('agent');
  });
});

describe('a user', () => {
  const ca = { 'certificate-authority': 'ca.crt' };

  test('a token; a token file goes before it and is read anew each time', async () => {
    expect(await ask(await kubeconfigAccess(await kubeconfig(ca, { token: 'inline' })))).toMatchObject({ authorization: 'Bearer inline' });
    await writeFile(join(folder, 'token'), 'one\n');
    const access = await kubeconfigAccess(await kubeconfig(ca, { token: 'inline', tokenFile: 'token' }));
    expect(await ask(access)).toMatchObject({ authorization: 'Bearer one' });
    await writeFile(join(folder, 'token'), 'two\n');
    expect(await ask(access)).toMatchObject({ authorization: 'Bearer two' });
  });

  test('a name and password', async () => {
    expect(await ask(await kubeconfigAccess(await kubeconfig(ca, { username: 'u', password: 'p' })))).toMatchObject({ authorization: 'Basic dTpw' });
  });

  test('after 401 the kubeconfig is read again', async () => {
    const access = await kubeconfigAccess(await kubeconfig(ca, { token: 'old' }));
    api.authorization = 'Bearer new';
    expect(await ask(access)).toMatchObject({ status: 401 });
    await kubeconfig(ca, { token: 'new' });
    expect(await ask(access)).toMatchObject({ status: 200 });
  });

  test('a program (exec) is run, and run again after 401', async () => {
    const program = join(folder, 'program');
    await writeFile(join(folder, 'secret'), 'old');
    const credential = `{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"'$(cat ${folder}/secret)'","expirationTimestamp":"2100-01-01T00:00:00Z"}}`;
    await writeFile(program, `#!/bin/sh\necho run >> ${folder}/runs\necho '${credential}'\n`);
    await chmod(program, 0o755);
    const access = await kubeconfigAccess(
      await kubeconfig(ca, { exec: { apiVersion: 'client.authentication.k8s.io/v1', command: program, interactiveMode: 'Never' } }),
    );
    expect(await ask(access)).toMatchObject({ status: 200, authorization: 'Bearer old' });
    expect(await ask(access)).toMatchObject({ status: 200, authorization: 'Bearer old' });
    await writeFile(join(folder, 'secret'), 'new');
    api.authorization = 'Bearer new';
    expect(await ask(access)).toMatchObject({ status: 401 });
    expect(await ask(access)).toMatchObject({ status: 200, authorization: 'Bearer new' });
    expect((await readFile(join(folder, 'runs'), 'utf8')).split('\n').filter(Boolean)).toHaveLength(2);
  });
});

describe('in a cluster', () => {
  test('the service account of the pod, its token read anew', async () => {
    await writeFile(join(folder, 'token'), 'pod\n');
    const access = inClusterAccess({ KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: String(api.port) }, folder);
    expect(await ask(access)).toEqual({ status: 200, authorization: 'Bearer pod' });
    await writeFile(join(folder, 'token'), 'rotated\n');
    expect(await ask(access)).toEqual({ status: 200, authorization: 'Bearer rotated' });
  });

  test('an IPv6 address', () => {
    expect(inClusterAccess({ KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' }).server.host).toBe('[fd00::1]');
  });

  test('elsewhere, it says what is missing', () => {
    expect(() => inClusterAccess({})).toThrow('not in a cluster (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set): --kubeconfig');
  });
});

describe('a kubeconfig that is of no use says why, in one line', () => {
  test.each([
    ['server: expected a URL', { server: 'ftp://x' }, {}],
    ['proxy-url is not supported', { 'proxy-url': 'http://proxy:3128' }, {}],
    ['impersonation (as) is not supported', {}, { as: 'root' }],
  ])('%s', async (message, cluster, user) => {
    const failed = kubeconfigAccess(await kubeconfig(cluster, user));
    await expect(failed).rejects.toMatchObject({ code: 'KUBERNETES_ACCESS', message: expect.not.stringContaining('\n') as unknown });
    await expect(failed).rejects.toThrow(message.split(':')[0] ?? '');
  });

  test('missing, unparseable, or without its context', async () => {
    const file = join(folder, 'bad');
    await expect(kubeconfigAccess(file)).rejects.toThrow('ENOENT');
    await writeFile(file, 'a: [');
    await expect(kubeconfigAccess(file)).rejects.toThrow(`kubeconfig ${file}: `);
    await writeFile(file, 'current-context: nowhere\n');
    await expect(kubeconfigAccess(file)).rejects.toThrow('no "nowhere" in contexts');
  });
});

describe('another server (--master)', () => {
  const elsewhere = { server: 'https://192.0.2.1:6443', 'certificate-authority': 'ca.crt' };

  test('is asked with the credentials of the kubeconfig', async () => {
    const access = accessAt(`https://127.0.0.1:${api.port}`, await kubeconfigAccess(await kubeconfig(elsewhere, { token: 'mine' })));
    expect(await ask(access)).toEqual({ status: 200, authorization: 'Bearer mine' });
  });

  test('is asked without any where there is no kubeconfig', async () => {
    const plain = await FakeApiServer.start();
    try {
      const client = new Client(accessAt(`http://127.0.0.1:${plain.port}`, undefined));
      const { status } = await client.request({ method: 'GET', path: '/api/v1/nodes', signal: AbortSignal.timeout(4000) });
      expect([status, plain.asked.at(-1)?.headers.authorization]).toEqual([200, undefined]);
      await client.close();
    } finally {
      await plain.stop();
    }
  });
});

test('a path in the server URL goes before every request', async () => {
  const access = await kubeconfigAccess(await kubeconfig({ server: `https://127.0.0.1:${api.port}/k8s/clusters/c-1/`, 'certificate-authority': 'ca.crt' }));
  expect(await ask(access)).toMatchObject({ status: 404 });
  expect(api.asked.at(-1)?.path).toBe('/k8s/clusters/c-1/api/v1/nodes');
});

test('a request with a body', async () => {
  const client = new Client(await kubeconfigAccess(await kubeconfig({ 'certificate-authority': 'ca.crt' })));
  const signal = AbortSignal.timeout(4000);
  const answer = await client.request({
    method: 'POST',
    path: '/api/v1/events',
    headers: { 'content-type': 'application/json' },
    body: Buffer.from('{}'),
    signal,
  });
  expect(answer.status).toBe(404);
  expect(api.asked.at(-1)?.headers).toMatchObject({ ':method': 'POST', 'content-type': 'application/json' });
  await client.close();
});

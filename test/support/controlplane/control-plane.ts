/**
 * A real Kubernetes control plane for tests: etcd, kube-apiserver, and of the controller manager
 * the controllers that make Endpoints and EndpointSlices. Its binaries come from tools/components.
 *
 * It runs on a host of the lab, with certificates of its own and RBAC as deploy/rbac.yaml grants it:
 * an agent sees exactly what it would see in a cluster.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { KeyPair } from './certificates.ts';
import { Authority, signingKey } from './certificates.ts';
import { Component } from './component.ts';
import type { KubernetesObject } from './objects.ts';

export interface ControlPlaneInit {
  /** Where it runs: a host of the lab, on the nodes' network. Its first address, IPv4, is the API server's. */
  readonly host: ControlHost;
  /** Where its folder is made: the lab's, which goes with the lab however this process ends. */
  readonly parent: string;
  /** As kube-apiserver's --service-cluster-ip-range. @default "10.96.0.0/16,fd00:96::/112" */
  readonly serviceCidrs?: string;
}

/** A network namespace with its loopback up, as the lab's hosts are. */
export interface ControlHost {
  readonly addresses: readonly string[];
  /** The command line that runs `command` there. */
  command(command: readonly string[]): string[];
}

const ETCD = 'http://127.0.0.1:2379';
const ROLES = join(import.meta.dirname, '../../../deploy/rbac.yaml');

export class ControlPlane implements AsyncDisposable {
  /** "https://172.30.0.2:6443" */
  readonly url: string;
  /** Folder of everything that is written: certificates, kubeconfigs, etcd's data, logs. */
  readonly folder: string;
  /** Folder of etcd, kube-apiserver, kube-controller-manager, kubectl and kube-proxy. */
  readonly binaries: string;
  /** Path of a kubeconfig of a cluster administrator. */
  readonly adminKubeconfig: string;
  readonly #host: ControlHost;
  readonly #etcd: Component;
  readonly #api: Component;
  readonly #controllers: Component;

  private constructor(init: Required<ControlPlaneInit>, folder: string, pki: Pki) {
    const [address = ''] = init.host.addresses;
    this.url = `https://${address}:6443`;
    this.folder = folder;
    this.#host = init.host;
    this.binaries = binaries();
    this.adminKubeconfig = this.#kubeconfig('admin', pki, { 'client-certificate': pki.admin.certificate, 'client-key': pki.admin.key });
    const manager = this.#kubeconfig('manager', pki, { 'client-certificate': pki.manager.certificate, 'client-key': pki.manager.key });

    this.#etcd = this.#component('etcd', () => this.#etcdCall('/health').then(String), {
      name: 'test',
      'data-dir': join(folder, 'etcd'),
      'unsafe-no-fsync': 'true',
      'listen-client-urls': ETCD,
      'advertise-client-urls': ETCD,
      'listen-peer-urls': 'http://127.0.0.1:2380',
      'log-level': 'warn',
    });
    this.#api = this.#component('kube-apiserver', () => this.kubectl(['get', '--raw', '/readyz']), {
      'etcd-servers': ETCD,
      'bind-address': init.host.addresses.length > 1 ? '::' : '0.0.0.0',
      'advertise-address': address,
      'secure-port': '6443',
      'tls-cert-file': pki.server.certificate,
      'tls-private-key-file': pki.server.key,
      'client-ca-file': pki.authority.certificate,
      // The controller manager wants it configured, though nobody here aggregates APIs.
      'requestheader-client-ca-file': pki.authority.certificate,
      'requestheader-allowed-names': 'nobody',
      'authorization-mode': 'RBAC',
      'service-cluster-ip-range': init.serviceCidrs,
      'service-account-issuer': 'https://kubernetes.default.svc',
      'service-account-key-file': pki.accounts.publicKey,
      'service-account-signing-key-file': pki.accounts.key,
      // It would want each pod's account, which a controller that is not run makes.
      'disable-admission-plugins': 'ServiceAccount',
    });
    this.#controllers = this.#component('kube-controller-manager', () => Promise.resolve('what it makes shows that it runs'), {
      kubeconfig: manager,
      'authentication-kubeconfig': manager,
      'authorization-kubeconfig': manager,
      controllers: 'endpointslice-controller,endpointslice-mirroring-controller,endpoints-controller',
      // Each controller has a role of its own; the manager itself may do next to nothing.
      'use-service-account-credentials': 'true',
      'leader-elect': 'false',
      'bind-address': '127.0.0.1',
    });
  }

  /**
   * Starts everything and grants the agent its role; about 5 s. Throws when KUBEBUILDER_ASSETS is
   * not set, or with the last words of the component that failed; nothing is left running then.
   */
  static async start({ serviceCidrs = '10.96.0.0/16,fd00:96::/112', ...init }: ControlPlaneInit): Promise<ControlPlane> {
    const folder = mkdtempSync(join(init.parent, 'control-'));
    try {
      const pki = await makePki(folder, init.host.addresses);
      const plane = new ControlPlane({ ...init, serviceCidrs }, folder, pki);
      try {
        await plane.#etcd.start();
        await plane.#api.start();
        await plane.#controllers.start();
        await plane.kubectl(['apply', '-f', ROLES]);
      } catch (error) {
        await plane.stop();
        throw error;
      }
      return plane;
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** Stops everything and removes its files. */
  async stop(): Promise<void> {
    for (const component of [this.#controllers, this.#api, this.#etcd]) await component.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** Path of a kubeconfig for an agent, with a token of the service account that deploy/rbac.yaml binds. */
  async agentKubeconfig(): Promise<string> {
    const token = await this.kubectl(['create', 'token', 'maglane', '--namespace=kube-system', '--duration=24h']);
    return this.#kubeconfig('agent', { authority: { certificate: join(this.folder, 'ca.crt') } }, { token: token.trim() });
  }

  /** Runs kubectl as an administrator and returns its output. Throws with what it said on stderr. */
  kubectl(args: readonly string[], input = ''): Promise<string> {
    return this.#inside(join(this.binaries, 'kubectl'), [`--kubeconfig=${this.adminKubeconfig}`, ...args], input);
  }

  /** `kubectl apply`, and the status of those objects that carry one. */
  async apply(...objects: readonly KubernetesObject[]): Promise<void> {
    await this.kubectl(['apply', '-f', '-'], list(objects));
    for (const { kind, metadata, status } of objects) {
      if (status === undefined) continue;
      const namespace = metadata.namespace ?? 'default';
      await this.kubectl([
        'patch',
        kind,
        metadata.name,
        `--namespace=${namespace}`,
        '--subresource=status',
        '--type=merge',
        `--patch=${JSON.stringify({ status })}`,
      ]);
    }
  }

  /** Removes objects at once: there is no kubelet that would end a pod. `what` as for kubectl: "pod/web-1". */
  async delete(...what: readonly string[]): Promise<void> {
    await this.kubectl(['delete', '--grace-period=0', '--force', '--ignore-not-found', ...what]);
  }

  /** The API server goes away at once, as in a crash; etcd and the controllers stay. */
  async stopApiServer(): Promise<void> {
    await this.#api.stop();
  }

  /** It comes back, with etcd as it is then. Resolves once it serves. */
  async startApiServer(): Promise<void> {
    await this.#api.start();
  }

  /**
   * Forgets all of etcd's history: whoever resumes a watch from before is told 410 Gone. Two
   * writes of other keys come first, so that no resource version that anyone holds is the newest.
   */
  async compact(): Promise<void> {
    const key = Buffer.from('/maglane-test/compaction').toString('base64');
    for (const value of ['MQ==', 'Mg==']) await this.#etcdCall('/v3/kv/put', { key, value });
    const { header } = (await this.#etcdCall('/v3/kv/range', { key })) as { header: { revision: string } };
    await this.#etcdCall('/v3/kv/compaction', { revision: header.revision, physical: true });
  }

  #component(name: string, probe: () => Promise<unknown>, flags: Readonly<Record<string, string>>): Component {
    const args = Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`);
    const command = this.#host.command([join(this.binaries, name), ...args]);
    const ready = async (): Promise<boolean> =>
      probe().then(
        () => true,
        () => false,
      );
    return new Component({ name, command, ready, log: join(this.folder, `${name}.log`) });
  }

  /** etcd's JSON gateway; GET without a body. */
  async #etcdCall(path: string, body?: object): Promise<unknown> {
    const script = `fetch(process.argv[1], process.argv[2] ? { method: 'POST', body: process.argv[2] } : {})
      .then(async (answer) => { process.stdout.write(await answer.text()); process.exitCode = answer.ok ? 0 : 1; })`;
    const args = ['-e', script, `${ETCD}${path}`, ...(body === undefined ? [] : [JSON.stringify(body)])];
    return JSON.parse(await this.#inside(process.execPath, args)) as unknown;
  }

  #inside(command: string, args: readonly string[], input = ''): Promise<string> {
    const [file = '', ...rest] = this.#host.command([command, ...args]);
    return new Promise((resolve, reject) => {
      const child = execFile(file, rest, { maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else reject(new Error(`${command.replace(/.*\//, '')} ${args.slice(1).join(' ')}: ${stderr.trim() || error.message}`));
      });
      // A command that fails early closes its input before all of it is written: its exit code tells.
      child.stdin?.on('error', () => undefined);
      child.stdin?.end(input);
    });
  }

  #kubeconfig(name: string, { authority }: { authority: { readonly certificate: string } }, user: Readonly<Record<string, string>>): string {
    const path = join(this.folder, `${name}.kubeconfig`);
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'test', cluster: { server: this.url, 'certificate-authority': authority.certificate } }],
      users: [{ name, user }],
      contexts: [{ name, context: { cluster: 'test', user: name } }],
      'current-context': name,
    };
    writeFileSync(path, JSON.stringify(config), { mode: 0o600 });
    return path;
  }
}

interface Pki {
  readonly authority: Authority;
  readonly accounts: { readonly publicKey: string; readonly key: string };
  readonly server: KeyPair;
  readonly admin: KeyPair;
  readonly manager: KeyPair;
}

async function makePki(folder: string, addresses: readonly string[]): Promise<Pki> {
  const authority = await Authority.create(folder);
  return {
    authority,
    accounts: await signingKey(folder),
    server: await authority.issue('server', { user: 'kube-apiserver', addresses: [...addresses, '127.0.0.1', 'kubernetes.default.svc'] }),
    admin: await authority.issue('admin', { user: 'admin', groups: ['system:masters'] }),
    manager: await authority.issue('manager', { user: 'system:kube-controller-manager' }),
  };
}

function list(items: readonly KubernetesObject[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

/** The folder of Kubernetes' programs. @throws Error when nothing says where it is. */
export function binaries(): string {
  const folder = process.env['KUBEBUILDER_ASSETS'];
  if (folder === undefined || folder === '') throw new Error('KUBEBUILDER_ASSETS is not set: `make test-cluster` builds the binaries and sets it');
  return folder;
}

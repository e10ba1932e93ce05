/** The real kube-proxy on a host of the lab: what our own answers, and our own speed, are held against. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Component } from './component.ts';
import type { ControlPlane } from './control-plane.ts';
import type { Output } from '../lab/shell.ts';

export interface KubeProxyInit {
  readonly plane: ControlPlane;
  /** Where it runs. Its Node's InternalIPs must be on an interface there already, or it serves no nodePort. */
  readonly host: { command(command: readonly string[]): string[]; run(command: readonly string[]): Promise<Output> };
  /** Whose Node it is; the object must be there already. */
  readonly nodeName: string;
  /** @default 'nftables' */
  readonly mode?: 'nftables' | 'iptables';
  /** Pods' ranges, one a family, by which it tells pods from others (detectLocalMode ClusterCIDR). */
  readonly clusterCidrs: readonly string[];
  /** Further fields of its KubeProxyConfiguration. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Its least time between two syncs. @default '10ms' */
  readonly minSyncPeriod?: string;
  /** `start` resolves once its rules are there, or as soon as it runs. @default true */
  readonly ready?: boolean;
}

export type NftFamily = 'ip' | 'ip6';

export class KubeProxy implements AsyncDisposable {
  readonly #init: KubeProxyInit;
  readonly #component: Component;

  private constructor(init: KubeProxyInit) {
    this.#init = init;
    const config = join(init.plane.folder, `kube-proxy-${init.nodeName}.json`);
    writeFileSync(config, JSON.stringify(configuration(init)));
    const command = init.host.command([join(init.plane.binaries, 'kube-proxy'), `--config=${config}`]);
    this.#component = new Component({
      name: 'kube-proxy',
      command,
      ready: () => (init.ready === false ? Promise.resolve(true) : this.#hasSynced()),
      log: join(init.plane.folder, `kube-proxy-${init.nodeName}.log`),
    });
  }

  /** Starts it; its rules are there, in both families, when this resolves. @throws Error with its last words; nothing runs then. */
  static async start(init: KubeProxyInit): Promise<KubeProxy> {
    const proxy = new KubeProxy(init);
    try {
      await proxy.#component.start();
    } catch (error) {
      await proxy.stop();
      throw error;
    }
    return proxy;
  }

  /** Its table of one family, as `nft --json list table` prints it. @throws Error with what nft said. */
  async ruleset(family: NftFamily): Promise<unknown> {
    const { status, stdout, stderr } = await this.#init.host.run(['nft', '--json', 'list', 'table', family, 'kube-proxy']);
    if (status !== 0) throw new Error(`nft: ${stderr.trim()}`);
    return JSON.parse(stdout);
  }

  get pid(): number {
    return this.#component.pid;
  }

  /** Its rules go with the namespace. */
  async stop(): Promise<void> {
    await this.#component.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #hasSynced(): Promise<boolean> {
    if (this.#init.mode === 'iptables') return (await this.#init.host.run(['iptables', '-t', 'nat', '-S', 'KUBE-SERVICES'])).status === 0;
    const tables = await Promise.all((['ip', 'ip6'] as const).map((family) => this.ruleset(family).catch(() => undefined)));
    return tables.every((table) => table !== undefined);
  }
}

/** Nothing outside of its namespace is written: `maxPerCore: 0` leaves nf_conntrack_max alone. */
function configuration({ plane, nodeName, mode = 'nftables', clusterCidrs, settings = {}, minSyncPeriod = '10ms' }: KubeProxyInit): object {
  return {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    mode,
    hostnameOverride: nodeName,
    clientConnection: { kubeconfig: plane.adminKubeconfig },
    detectLocalMode: 'ClusterCIDR',
    clusterCIDR: clusterCidrs.join(','),
    conntrack: { maxPerCore: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
    ...settings,
    [mode]: { minSyncPeriod, syncPeriod: '30s', ...(settings[mode] as object | undefined) },
  };
}

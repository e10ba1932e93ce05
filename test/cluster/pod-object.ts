/** Pods as the API has them, for Services whose slices the controller writes. No kubelet runs: what it would report is said here. */
import type { Api } from '../support/controlplane/api.ts';
import type { PodInit } from '../support/controlplane/objects.ts';
import { pod } from '../support/controlplane/objects.ts';
import type { Host } from '../support/lab/host.ts';

const PODS = '/api/v1/namespaces/default/pods';

export type PodObjectInit = Pick<PodInit, 'labels' | 'ports' | 'ready'> & {
  /** Containers that start first and, with restartPolicy Always, stay. */
  readonly initContainers?: readonly object[];
};

export class PodObject {
  readonly #api: Api;
  readonly #path: string;

  private constructor(api: Api, path: string) {
    this.#api = api;
    this.#path = path;
  }

  /** The object of a pod of the lab, running. @param node its node's name. */
  static async create(api: Api, host: Host, node: string, { initContainers, ...init }: PodObjectInit): Promise<PodObject> {
    const { spec, status, ...object } = pod({ name: host.name, node, ips: host.addresses, ...init });
    await api.create(PODS, { ...object, spec: { ...spec, initContainers } });
    const created = new PodObject(api, `${PODS}/${host.name}`);
    await api.patch(`${created.#path}/status`, { status });
    return created;
  }

  /** What its readiness probe says. */
  async ready(is: boolean): Promise<void> {
    const status = is ? 'True' : 'False';
    await this.#status({ conditions: ['Ready', 'ContainersReady'].map((type) => ({ type, status })) });
  }

  /** As the kubelet does when its node runs out of something: the object stays. */
  async evict(): Promise<void> {
    await this.#status({ phase: 'Failed', reason: 'Evicted', conditions: [] });
  }

  /** Deleted, within its grace period: it runs on, as terminating. */
  async terminate(): Promise<void> {
    await this.#api.delete(this.#path, 30);
  }

  async remove(): Promise<void> {
    await this.#api.delete(this.#path);
  }

  async #status(status: object): Promise<void> {
    await this.#api.patch(`${this.#path}/status`, { status });
  }
}

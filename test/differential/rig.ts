/** Both proxies for one Node, each in a namespace of its own, following one control plane; and the hands that write histories into it. */
import type { View } from '../../agent/dataplane/view.ts';
import { openView } from '../../agent/dataplane/view.ts';
import { Api, ApiError } from '../support/controlplane/api.ts';
import { ControlPlane } from '../support/controlplane/control-plane.ts';
import { KubeProxy } from '../support/controlplane/kube-proxy.ts';
import type { KubernetesObject } from '../support/controlplane/objects.ts';
import { Lab } from '../support/lab/lab.ts';
import type { Agent, LabNode } from '../support/lab/node.ts';
import * as topology from '../support/lab/topology.ts';
import { PATIENCE } from '../support/patience.ts';
import type { HealthQuestion } from './health.ts';
import { compareHealth } from './health.ts';
import type { Change } from './history.ts';
import { namespaceOf, place } from './history.ts';
import { Maglane } from './maglane.ts';
import { Reference } from './reference.ts';
import { Sentinel } from './sentinel.ts';
import type { Setup } from './setups.ts';
import { HERE, HOLDS, isNodes, NODE_ADDRESSES, REGIONS } from './world.ts';

/** What both say of one state of the cluster. */
export interface Sides {
  readonly setup: Setup;
  readonly kubeProxy: { readonly 4: Reference; readonly 6: Reference };
  readonly maglane: Maglane;
}

const COLLECTIONS = {
  Service: (namespace: string) => `/api/v1/namespaces/${namespace}/services`,
  EndpointSlice: (namespace: string) => `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`,
} as const;

interface Parts {
  /** Maglane's node, and kube-proxy's. */
  readonly ours: LabNode;
  readonly theirs: LabNode;
  readonly api: Api;
  readonly agent: Agent;
  readonly startAgent: () => Promise<Agent>;
  readonly kubeProxy: KubeProxy;
  readonly view: View;
  readonly setup: Setup;
}

export class Rig implements AsyncDisposable {
  readonly api: Api;
  #stack: AsyncDisposableStack | undefined;
  #agent: Agent;
  readonly #startAgent: () => Promise<Agent>;
  readonly #kubeProxy: KubeProxy;
  readonly #ours: LabNode;
  readonly #theirs: LabNode;
  readonly #view: View;
  readonly #sentinel: Sentinel;
  readonly #setup: Setup;
  #zone = '';

  private constructor(parts: Parts) {
    this.api = parts.api;
    this.#agent = parts.agent;
    this.#ours = parts.ours;
    this.#theirs = parts.theirs;
    this.#startAgent = parts.startAgent;
    this.#kubeProxy = parts.kubeProxy;
    this.#view = parts.view;
    this.#setup = parts.setup;
    this.#sentinel = new Sentinel(parts.api);
  }

  /** Starts everything; about 6 s. Nothing is left when it throws. */
  static async start(setup: Setup): Promise<Rig> {
    await using stack = new AsyncDisposableStack();
    const lab = stack.use(await Lab.create({ nodes: 2 }));
    const plane = stack.use(await ControlPlane.start({ host: lab.control, parent: lab.folder }));
    const api = stack.use(await Api.start(plane, lab.control));
    const [ours, theirs] = lab.nodes as readonly [LabNode, LabNode];
    // Nobody asks for these by ARP: they are reached through each node's own address, if at all.
    for (const { netns } of lab.nodes)
      await topology.ip(
        netns,
        [...HOLDS].map((own) => topology.address(topology.whole(own), 'eth0')),
      );
    await api.create('/api/v1/nodes', { apiVersion: 'v1', kind: 'Node', metadata: { name: HERE }, spec: { podCIDRs: topology.podCidrs(1) } });
    await api.patch(`/api/v1/nodes/${HERE}/status`, { status: { addresses: NODE_ADDRESSES.map((address) => ({ type: 'InternalIP', address })) } });
    for (let region = 0; region <= REGIONS; region++) await api.create('/api/v1/namespaces', { metadata: { name: namespaceOf(region) } });

    const kubeProxy = stack.use(await KubeProxy.start({ plane, host: theirs, nodeName: HERE, clusterCidrs: setup.clusterCidrs, settings: setup.kubeProxy }));
    const options = ['--node-name', HERE, '--node-ip', NODE_ADDRESSES.join(','), '--cluster-cidr', setup.clusterCidrs.join(','), ...setup.maglane];
    const args = ['--source', 'kubernetes', '--kubeconfig', await plane.agentKubeconfig(), ...options];
    const startAgent = (): Promise<Agent> => ours.startAgent({ args });
    const agent = await startAgent();
    const view = stack.use(openView(ours.bpffs));
    const rig = new Rig({ ours, theirs, api, agent, startAgent, kubeProxy, view, setup });
    await rig.#sentinel.create();
    await rig.inStep();
    rig.#stack = stack.move();
    return rig;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack?.disposeAsync();
  }

  /** Writes changes in their order. @returns what the API server refused, which neither side hears of. */
  async write(changes: readonly Change[], region: number): Promise<string[]> {
    const refused: string[] = [];
    for (const { kind, name, object } of changes) {
      try {
        await this.#write(COLLECTIONS[kind](namespaceOf(region)), name, object === undefined ? undefined : place(object, region));
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        refused.push(error.message);
      }
    }
    return refused;
  }

  /** What Maglane's agent has logged since it started. */
  get log(): readonly string[] {
    return this.#agent.log;
  }

  /** Kills Maglane's agent and starts another one, which takes over what it finds. */
  async restartAgent(): Promise<void> {
    await this.#agent.kill();
    this.#agent = await this.#startAgent();
  }

  /** Whether both nodes answer alike at these health check node ports. @returns the first difference, in words. */
  compareHealth(questions: readonly HealthQuestion[]): Promise<string | undefined> {
    return compareHealth(this.#theirs, this.#ours, questions);
  }

  /** Sets the Node's zone label; "" takes it away. */
  async setZone(zone: string): Promise<void> {
    await this.api.patch(`/api/v1/nodes/${HERE}`, { metadata: { labels: { 'topology.kubernetes.io/zone': zone === '' ? null : zone } } });
    this.#zone = zone;
  }

  /**
   * Waits until both sides have everything that was written before, and reads what they say.
   * @throws Error naming the side that does not come.
   */
  async inStep(): Promise<Sides> {
    await this.#sentinel.move();
    return this.#until(
      () => this.#read(),
      ({ kubeProxy, maglane }) => [
        ...this.#sentinel.late("kube-proxy's IPv4", kubeProxy[4], 4, this.#zone),
        ...this.#sentinel.late("kube-proxy's IPv6", kubeProxy[6], 6, this.#zone),
        ...this.#late(maglane),
      ],
    );
  }

  /** Waits for Maglane alone: for what keeps kube-proxy from following. */
  async maglaneInStep(): Promise<Maglane> {
    await this.#sentinel.move();
    return this.#until(
      () => Promise.resolve(new Maglane(this.#view)),
      (maglane) => this.#late(maglane),
    );
  }

  #late(maglane: Maglane): string[] {
    return ([4, 6] as const).flatMap((family) => this.#sentinel.late(`maglane's IPv${family}`, maglane, family, this.#zone));
  }

  async #until<T>(read: () => Promise<T>, late: (read: T) => string[]): Promise<T> {
    for (const deadline = Date.now() + 20_000 * PATIENCE; ; await new Promise((resolve) => setTimeout(resolve, 5))) {
      const sides = await read();
      const missing = late(sides);
      if (missing.length === 0) return sides;
      if (Date.now() > deadline) throw new Error(`${missing.join(' and ')} did not come: ${this.#agent.log.slice(-5).join('\n')}`);
    }
  }

  async #read(): Promise<Sides> {
    const [v4, v6] = await Promise.all([this.#kubeProxy.ruleset('ip'), this.#kubeProxy.ruleset('ip6')]);
    const setup = this.#setup;
    const [proxy4, proxy6] = [v4, v6].map((ruleset) => new Reference(ruleset, isNodes, setup.podDevice)) as [Reference, Reference];
    return { setup, kubeProxy: { 4: proxy4, 6: proxy6 }, maglane: new Maglane(this.#view) };
  }

  async #write(collection: string, name: string, object: KubernetesObject | undefined): Promise<void> {
    const path = `${collection}/${name}`;
    if (object === undefined) return this.api.delete(path);
    const { status, ...rest } = object;
    try {
      await this.api.replace(path, rest);
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) throw error;
      await this.api.create(collection, rest);
    }
    if (status !== undefined) await this.api.patch(`${path}/status`, { status });
  }
}

/**
 * One API server, and three nodes: one for a Maglane agent, one for a kube-proxy in nftables mode, and one where the backends are.
 * On each of the first two a pod asks. What is started is stopped by who started it: one proxy at a time, as each would slow the other.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { Api } from '../support/controlplane/api.ts';
import { ControlPlane } from '../support/controlplane/control-plane.ts';
import { KubeProxy } from '../support/controlplane/kube-proxy.ts';
import * as objects from '../support/controlplane/objects.ts';
import type { Host } from '../support/lab/host.ts';
import { Lab } from '../support/lab/lab.ts';
import type { LabNode } from '../support/lab/node.ts';
import { podCidrs } from '../support/lab/topology.ts';

export const PROXIES = ['maglane', 'nftables'] as const;
export type Proxy = (typeof PROXIES)[number];

/** A proxy that runs. */
export interface Running {
  readonly pid: number;
  /** Leaves what it has programmed. */
  stop(): Promise<void>;
}

const SERVICES = '/api/v1/namespaces/default/services';
const SLICES = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices';
const PORT = 8080;
const CLUSTER_CIDR = '10.244.0.0/16';
/** Requests to the API server at a time. */
const AT_ONCE = 100;

export class AgentRig implements AsyncDisposable {
  readonly lab: Lab;
  readonly plane: ControlPlane;
  readonly api: Api;
  /** The agent's, with a token. */
  readonly kubeconfig: string;
  /** Cluster IP of the Service whose answers are watched, and the pods that it may lead to, by what they answer. */
  readonly watched: string;
  readonly #backends: readonly Host[];
  readonly #watchers: Readonly<Record<Proxy, Watcher>>;
  readonly #stack: AsyncDisposableStack;
  #services = 0;
  #each = 0;

  private constructor(
    parts: Pick<AgentRig, 'lab' | 'plane' | 'api' | 'kubeconfig' | 'watched'>,
    backends: readonly Host[],
    watchers: Readonly<Record<Proxy, Watcher>>,
    stack: AsyncDisposableStack,
  ) {
    ({ lab: this.lab, plane: this.plane, api: this.api, kubeconfig: this.kubeconfig, watched: this.watched } = parts);
    this.#backends = backends;
    this.#watchers = watchers;
    this.#stack = stack;
  }

  /** Builds it all, some 20 s; nothing is left when it throws. */
  static async start(): Promise<AgentRig> {
    await using stack = new AsyncDisposableStack();
    const lab = stack.use(await Lab.create({ nodes: 3, podAttach: 'ptp' }));
    const plane = stack.use(await ControlPlane.start({ host: lab.control, parent: lab.folder }));
    const api = stack.use(await Api.start(plane, lab.control));
    await plane.apply(...lab.nodes.map(({ name, addresses }, n) => objects.node(name, addresses, podCidrs(n + 1))));
    const [front, peer, back] = lab.nodes as [LabNode, LabNode, LabNode];
    const clients = { maglane: await lab.addPod('maglane-client', front, 10), nftables: await lab.addPod('nftables-client', peer, 10) };
    const backends = [await lab.addPod('backend-0', back, 20), await lab.addPod('backend-1', back, 21)];
    for (const backend of backends) await backend.serve({ name: backend.name, tcp: [PORT] });
    const { spec } = await api.create<{ spec: { clusterIP: string } }>(SERVICES, objects.service('watched', { ports: [{ port: PORT }] }));
    const watchers = { maglane: stack.use(new Watcher(clients.maglane, spec.clusterIP)), nftables: stack.use(new Watcher(clients.nftables, spec.clusterIP)) };
    const kubeconfig = await plane.agentKubeconfig();
    const rig = new AgentRig({ lab, plane, api, kubeconfig, watched: spec.clusterIP }, backends, watchers, stack.move());
    await api.create(SLICES, rig.#watchedSlice(0));
    return rig;
  }

  /** Nodes by what runs on them. */
  node(proxy: Proxy): LabNode {
    return this.lab.nodes[PROXIES.indexOf(proxy)] as LabNode;
  }

  /** Services, one of which has but one endpoint, and endpoints. */
  get size(): { readonly services: number; readonly endpoints: number } {
    return { services: this.#services + 1, endpoints: this.#services * this.#each + 1 };
  }

  /** Brings the number of Services to `services`, at least as many as there are, and of endpoints, which nobody asks, to `each` in each of them. */
  async resize(services: number, each: number, progress: (services: number) => void): Promise<void> {
    const former = this.#each === each ? this.#services : 0;
    for (let first = former; first < services - 1; first += AT_ONCE) {
      const batch = Array.from({ length: Math.min(AT_ONCE, services - 1 - first) }, (_, i) => first + i);
      await Promise.all(batch.map((n) => (n < this.#services ? this.api.replace(`${SLICES}/filler-${n}-1`, fillerSlice(n, each, 0)) : this.#filler(n, each))));
      if (first % 1000 === 0) progress(first);
    }
    this.#services = services - 1;
    this.#each = each;
  }

  /** Writes the slice of a filler anew: one of its endpoints is another one in each turn. */
  async touch(n: number, turn: number): Promise<void> {
    const filler = n % this.#services;
    await this.api.replace(`${SLICES}/filler-${filler}-1`, fillerSlice(filler, this.#each, turn));
  }

  /** Has the watched Service lead to the one backend or the other. @returns when the request went out, in ms of `performance`'s clock. */
  async lead(to: 0 | 1): Promise<number> {
    const sent = now();
    await this.api.replace(`${SLICES}/watched-1`, this.#watchedSlice(to));
    return sent;
  }

  /** Resolves with the time at which a pod of that proxy's node first got the answer of that backend. */
  answered(proxy: Proxy, by: 0 | 1): Promise<number> {
    return this.#watchers[proxy].wait(`backend-${by}`);
  }

  /** Starts one, with nothing programmed before; resolves as soon as the process runs. */
  async run(proxy: Proxy): Promise<Running> {
    const node = this.node(proxy);
    if (proxy === 'nftables') {
      const init = { plane: this.plane, host: node, nodeName: node.name, clusterCidrs: [CLUSTER_CIDR], minSyncPeriod: '1s' };
      const kubeProxy = await KubeProxy.start({ ...init, ready: false });
      return { pid: kubeProxy.pid, stop: () => kubeProxy.stop() };
    }
    const args = ['--source', 'kubernetes', '--kubeconfig', this.kubeconfig, '--cluster-cidr', CLUSTER_CIDR];
    const agent = await node.startAgent({ args, ready: false });
    return { pid: agent.pid, stop: async () => void (await agent.stop()) };
  }

  /** Takes away what a proxy that runs no more has programmed. */
  async clear(proxy: Proxy): Promise<void> {
    if (proxy === 'maglane') await this.node(proxy).maglane(['cleanup']);
    else await this.node(proxy).run(['sh', '-c', 'nft flush ruleset']);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }

  #watchedSlice(to: 0 | 1): object {
    return sliceOf('watched', [{ addresses: [this.#backends[to]?.addresses[0]], nodeName: this.lab.nodes[2]?.name }]);
  }

  async #filler(n: number, each: number): Promise<void> {
    await this.api.create(SERVICES, objects.service(`filler-${n}`, { ports: [{ port: 80, targetPort: PORT }] }));
    await this.api.create(SLICES, fillerSlice(n, each, 0));
  }
}

/** Now, on the clock that all processes of the machine share, in ms. */
export function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** `turn`: addresses of the last endpoint differ from turn to turn. */
function fillerSlice(n: number, each: number, turn: number): object {
  const endpoints = Array.from({ length: each }, (_, i) => {
    const host = n * each + i;
    const network = i === each - 1 ? turn % 10 : 0;
    return { addresses: [`10.${128 + 10 * network + (host >> 16)}.${(host >> 8) & 255}.${host & 255}`], nodeName: `elsewhere-${host % 500}` };
  });
  return sliceOf(`filler-${n}`, endpoints);
}

function sliceOf(service: string, endpoints: readonly object[]): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `${service}-1`, namespace: 'default', labels: { 'kubernetes.io/service-name': service } },
    addressType: 'IPv4',
    ports: [{ name: '', protocol: 'TCP', port: PORT }],
    endpoints: endpoints.map((endpoint) => ({ conditions: { ready: true, serving: true, terminating: false }, ...endpoint })),
  };
}

/** In a pod: connects again and again until somebody in particular answers. */
class Watcher implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #waiting: ((at: number) => void)[] = [];

  constructor(pod: Host, address: string) {
    const [file = '', ...args] = pod.command([process.execPath, join(import.meta.dirname, 'agent-watcher.ts'), address, String(PORT)]);
    this.#process = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: this.#process.stdout as NonNullable<ChildProcess['stdout']> }).on('line', (line) => this.#waiting.shift()?.(Number(line)));
  }

  wait(name: string): Promise<number> {
    this.#process.stdin?.write(`${name}\n`);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = new Promise((resolve) => this.#process.once('close', resolve));
    this.#process.kill('SIGKILL');
    await exited;
  }
}

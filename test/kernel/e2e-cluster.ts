/** A lab with an agent on each node, and the folder of manifests that both follow. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Algorithm, Forwarding } from '../../agent/model/desired.ts';
import type { Host } from '../support/lab/host.ts';
import type { LabOptions } from '../support/lab/lab.ts';
import { Lab } from '../support/lab/lab.ts';
import type { Agent, LabNode } from '../support/lab/node.ts';
import { PATIENCE } from '../support/patience.ts';

/** What the pods of these tests serve; SCTP where a test sees to it. */
export const TCP = 8080;
export const UDP = 5353;
export const SCTP = 9000;

export interface ServiceInit {
  /** Cluster IPs. */
  readonly ips: readonly string[];
  /** Addresses of pods of the lab, both families mixed. */
  readonly endpoints?: readonly string[];
  /** Those of the endpoints that terminate, and serve still. */
  readonly leaving?: readonly string[];
  readonly tcp?: number;
  readonly udp?: number;
  readonly sctp?: number;
  /** Where the endpoints serve UDP. @default UDP */
  readonly udpTarget?: number;
  readonly nodePort?: number;
  /** More of `spec`. */
  readonly spec?: Readonly<Record<string, unknown>>;
  /** Of a load balancer. */
  readonly ingress?: readonly string[];
  readonly algorithm?: Algorithm;
  readonly forwarding?: Forwarding;
}

/** A Service and its EndpointSlices, as a cluster's API would show them. */
export function service(name: string, init: ServiceInit): object[] {
  const { ips, endpoints = [], leaving = [], tcp, udp, sctp, udpTarget = UDP, nodePort, spec, ingress = [], algorithm, forwarding } = init;
  const annotations = { ...(algorithm && { 'maglane.io/algorithm': algorithm }), ...(forwarding && { 'maglane.io/forwarding': forwarding }) };
  const offered = [
    { protocol: 'TCP', port: tcp, target: TCP },
    { protocol: 'UDP', port: udp, target: udpTarget },
    { protocol: 'SCTP', port: sctp, target: SCTP },
  ].filter(({ port }) => port !== undefined);
  const ports = offered.map(({ protocol, port }) => ({ name: protocol.toLowerCase(), protocol, port, ...(nodePort === undefined ? {} : { nodePort }) }));
  const type = nodePort === undefined ? 'ClusterIP' : ingress.length > 0 ? 'LoadBalancer' : 'NodePort';
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: 'e2e', annotations },
      spec: { type, clusterIP: ips[0], clusterIPs: ips, ipFamilies: ips.map((ip) => (ip.includes(':') ? 'IPv6' : 'IPv4')), ports, ...spec },
      status: { loadBalancer: { ingress: ingress.map((ip) => ({ ip })) } },
    },
    ...(['IPv4', 'IPv6'] as const).map((addressType) => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: `${name}-${addressType.toLowerCase()}`, namespace: 'e2e', labels: { 'kubernetes.io/service-name': name } },
      addressType,
      ports: offered.map(({ protocol, target }) => ({ name: protocol.toLowerCase(), protocol, port: target })),
      endpoints: endpoints
        .filter((address) => address.includes(':') === (addressType === 'IPv6'))
        .map((address) => ({ addresses: [address], nodeName: nodeOf(address), ...(leaving.includes(address) ? { conditions: LEAVING } : {}) })),
    })),
  ];
}

const LEAVING = { ready: false, serving: true, terminating: true };

/** The lab's pods are 10.244.<node>.x and fd00:244:<node>::x. */
const nodeOf = (address: string): string => `node-${' abc'[Number(/^(?:10\.244\.|fd00:244:)(\d)/.exec(address)?.[1] ?? 2)]}`;

/** Nodes, as a cluster's API would show them. */
export function nodes(...hosts: readonly Host[]): object[] {
  return hosts.map(({ name, addresses }) => ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name },
    status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })) },
  }));
}

export const addressesOf = (...pods: readonly Host[]): string[] => pods.flatMap(({ addresses }) => addresses);

/** A folder of manifests, which goes with its lab. Files appear and change at once, never half written. */
export class Manifests {
  readonly folder: string;

  constructor(lab: Lab) {
    this.folder = mkdtempSync(join(lab.folder, 'manifests-'));
  }

  /** @param content objects, or text as it is. */
  put(file: string, content: readonly object[] | string): void {
    const text = typeof content === 'string' ? content : JSON.stringify({ apiVersion: 'v1', kind: 'List', items: content });
    const unseen = join(this.folder, `${file}.new`);
    writeFileSync(unseen, text);
    renameSync(unseen, join(this.folder, file));
  }

  remove(file: string): void {
    rmSync(join(this.folder, file));
  }
}

export interface ClusterOptions extends LabOptions {
  /** More of the agents' command line. */
  readonly args?: readonly string[];
  /** Pods by name, "a1" for number 11 on node-a; all serve TCP 8080 and UDP 5353. @default a1, a2, b1, b2 */
  readonly pods?: readonly string[];
  /** Nodes whose agents are started. @default all */
  readonly agentsOn?: readonly string[];
}

export class Cluster implements AsyncDisposable {
  readonly lab: Lab;
  readonly manifests: Manifests;
  readonly #args: readonly string[];
  /** The latest on each node. */
  readonly #agents = new Map<LabNode, Agent>();

  private constructor(lab: Lab, manifests: Manifests, args: readonly string[]) {
    this.lab = lab;
    this.manifests = manifests;
    this.#args = args;
  }

  /** Builds it; the agents serve when this resolves. Nothing is left behind when it throws. */
  static async start({ args = [], pods = ['a1', 'a2', 'b1', 'b2'], agentsOn, ...options }: ClusterOptions = {}): Promise<Cluster> {
    const lab = await Lab.create(options);
    const cluster = new Cluster(lab, new Manifests(lab), args);
    const nodes = cluster.lab.nodes.filter(({ name }) => agentsOn?.includes(name) ?? true);
    try {
      await Promise.all([...pods.map((name) => cluster.addPod(name)), ...nodes.map((node) => cluster.startAgent(node))]);
    } catch (error) {
      await cluster.destroy();
      throw error;
    }
    return cluster;
  }

  get nodeA(): LabNode {
    return this.lab.node('node-a');
  }

  get nodeB(): LabNode {
    return this.lab.node('node-b');
  }

  get client(): Host {
    return this.lab.client;
  }

  pod(name: string): Host {
    return this.lab.pod(name);
  }

  /** @param name "b2" is number 12 on node-b. */
  async addPod(name: string): Promise<Host> {
    const pod = await this.lab.addPod(name, this.lab.node(`node-${name[0]}`), 10 + Number(name.slice(1)));
    await pod.serve({ tcp: [TCP], udp: [UDP] });
    return pod;
  }

  /** The latest agent on a node. @throws when there was none. */
  agentOf(node: LabNode): Agent {
    const agent = this.#agents.get(node);
    if (agent === undefined) throw new Error(`no agent was started on ${node.name}`);
    return agent;
  }

  async startAgent(node: LabNode, env: Readonly<Record<string, string>> = {}): Promise<Agent> {
    const agent = await node.startAgent({ manifests: this.manifests.folder, args: this.#args, env });
    this.#agents.set(node, agent);
    return agent;
  }

  /** Stops the agent of a node; what is pinned stays. */
  async stopAgent(node: LabNode): Promise<void> {
    await this.#agents.get(node)?.stop();
  }

  /** Puts a Service into the folder; resolves when the kernel has it on every node with an agent. */
  apply(name: string, init: ServiceInit): Promise<void> {
    return this.put(name, service(name, init));
  }

  /** Puts objects into the folder; resolves likewise. */
  put(name: string, objects: readonly object[]): Promise<void> {
    return this.#written(() => this.manifests.put(`${name}.json`, objects));
  }

  /** Takes a Service away; resolves when every node with an agent has heard of it. */
  remove(name: string): Promise<void> {
    return this.#written(() => this.manifests.remove(`${name}.json`));
  }

  destroy(): Promise<void> {
    return this.lab.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy();
  }

  /** Makes a change and waits until each agent has written its maps once more. */
  async #written(change: () => void): Promise<void> {
    const nodes = [...this.#agents].filter(([, agent]) => agent.running).map(([node]) => node);
    const before = await Promise.all(nodes.map(syncs));
    change();
    await Promise.all(nodes.map((node, i) => until(`${node.name} has written the change`, async () => (await syncs(node)) > before[i]!)));
  }
}

const syncs = (node: LabNode): Promise<number> => metric(node, 'maglane_sync_duration_seconds_count');

/** A number of a node's /metrics: 'maglane_refused_total{reason="conflict"}'; 0 when it is not there. */
export async function metric(node: LabNode, series: string): Promise<number> {
  const { body } = await node.get('http://127.0.0.1:10249/metrics');
  const line = body.split('\n').find((line) => line.startsWith(`${series} `));
  return Number(line?.slice(series.length) ?? 0);
}

/** Waits for a condition. @throws Error naming it after half a minute. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + 30_000 * PATIENCE; !(await condition());) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

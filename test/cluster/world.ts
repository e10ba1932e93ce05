/**
 * What the acceptance tests speak: a cluster with pods, and Services whose slices the tests write themselves (or leave to the
 * controller, by a selector). A Service's targets are those of both families.
 */
import { expect } from 'vitest';
import { Api } from '../support/controlplane/api.ts';
import type { Host, Traffic } from '../support/lab/host.ts';
import type { LabNode } from '../support/lab/node.ts';
import type { Target } from './callers.ts';
import { expectReached } from './callers.ts';
import type { Way } from './cluster.ts';
import { Cluster } from './cluster.ts';

export interface ExposedPort {
  /** @default "" */
  readonly name?: string;
  readonly port: number;
  /** A number, or the name of a container's port where the controller writes the slices. @default port */
  readonly targetPort?: number | string;
  /** @default "TCP" */
  readonly protocol?: string;
  readonly nodePort?: number;
}

/** A pod (or a node, for a pod of its network) as an endpoint, ready unless it says otherwise. */
export interface EndpointOf {
  readonly host: Host;
  readonly conditions?: { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean };
  readonly hints?: { readonly forZones?: readonly { readonly name: string }[]; readonly forNodes?: readonly { readonly name: string }[] };
}

const SERVICES = '/api/v1/namespaces/default/services';
const SLICES = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices';
const FAMILIES = ['IPv4', 'IPv6'] as const;
/** The port that every pod serves over TCP, and the one it serves over UDP. */
export const HTTP = 8080;
export const DNS = 5353;
/** Ranges whose addresses the client sends to one node or the other, as a load balancer would: IPv4, IPv6. */
const VIA = { 'node-a': ['203.0.113.0/25', '2001:db8:a::/48'], 'node-b': ['203.0.113.128/25', '2001:db8:b::/48'] } as const;

export class World implements AsyncDisposable {
  readonly cluster: Cluster;
  readonly api: Api;
  readonly #nodeOf = new Map<Host, LabNode>();
  readonly #bystanders: Traffic[] = [];
  /** Of a short-lived pod: an address that comes back is looked for at its old device for a while. */
  #lastNumber = 150;
  readonly #tidy: (() => Promise<void>)[] = [];

  private constructor(cluster: Cluster, api: Api) {
    this.cluster = cluster;
    this.api = api;
    for (const node of cluster.lab.nodes) this.#nodeOf.set(node, node);
  }

  /** @param options for the agents. */
  static async start(options: readonly string[] = []): Promise<World> {
    const cluster = await Cluster.start(['--cluster-cidr', '10.244.0.0/16,fd00:244::/32', ...options]);
    try {
      const world = new World(cluster, await Api.start(cluster.plane, cluster.lab.control));
      for (const node of cluster.lab.nodes) for (const range of VIA[node.name as 'node-a']) await cluster.lab.routeThrough(range, node);
      await world.#stand();
      return world;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.api.stop();
    await this.cluster[Symbol.asyncDispose]();
  }

  get nodeA(): LabNode {
    return this.cluster.nodeA;
  }

  get nodeB(): LabNode {
    return this.cluster.nodeB;
  }

  get client(): Host {
    return this.cluster.lab.client;
  }

  /** A pod that serves HTTP and DNS, without an object in the API: endpoints are written by hand. */
  async pod(name: string, node: LabNode, number: number, servers: { tcp?: readonly number[]; udp?: readonly number[] } = {}): Promise<Host> {
    const pod = await this.cluster.lab.addPod(name, node, number);
    await pod.serve({ tcp: [HTTP, ...(servers.tcp ?? [])], udp: [DNS, ...(servers.udp ?? [])] });
    this.#nodeOf.set(pod, node);
    return pod;
  }

  /** A pod of one test: `end` takes it away, or the end of the test. */
  async shortLived(name: string, node: LabNode): Promise<Host> {
    const pod = await this.pod(name, node, ++this.#lastNumber);
    this.later(() => this.end(pod));
    return pod;
  }

  /** Ends a short-lived pod, and all that it serves, at once. */
  async end(pod: Host): Promise<void> {
    if (this.#nodeOf.delete(pod)) await this.cluster.lab.removePod(pod.name);
  }

  /** A Service of both families, as `spec` adds to that. With a selector its slices are the controller's; else they are `endpoints`. */
  async expose(name: string, spec: ServiceSpec, ...endpoints: Endpoint[]): Promise<Exposed> {
    const exposed = await this.exposeForAll(name, spec, ...endpoints);
    this.later(() => exposed.delete());
    return exposed;
  }

  /** As `expose`, for all tests of a file. */
  async exposeForAll(name: string, spec: ServiceSpec, ...endpoints: Endpoint[]): Promise<Exposed> {
    const dual = { ipFamilyPolicy: 'RequireDualStack', ipFamilies: FAMILIES };
    const object = { apiVersion: 'v1', kind: 'Service', metadata: { name, ...(spec['metadata'] as object) }, spec: { ...dual, ...spec, metadata: undefined } };
    const exposed = new Exposed(this, name, await this.api.create<ServiceObject>(SERVICES, object));
    if (spec['selector'] === undefined) await exposed.scale(...endpoints);
    return exposed;
  }

  /** What `tidy` is to do: a test need not end well for that. */
  later(undo: () => Promise<void>): void {
    this.#tidy.push(undo);
  }

  /** After each test: removes the Services that it exposed, and whatever it asked for. */
  async tidy(): Promise<void> {
    for (const undo of this.#tidy.splice(0).toReversed()) await undo();
  }

  /** Which node a host is, or hangs on. */
  nodeOf(host: Host): LabNode {
    const node = this.#nodeOf.get(host);
    if (node === undefined) throw new Error(`${host.name} is on no node`);
    return node;
  }

  /** Every connection to the Service that no test touches was answered, from both nodes and a pod, since the start. */
  async expectOthersUndisturbed(): Promise<void> {
    for (const traffic of this.#bystanders) {
      const { errors, answers } = await traffic.tally();
      expect(errors).toEqual({});
      expect(answers).toBeGreaterThan(0);
    }
  }

  /** The bystander: a Service with a pod of its own on each node, and steady callers. */
  async #stand(): Promise<void> {
    const pods = await Promise.all([this.pod('bystander-a', this.nodeA, 250), this.pod('bystander-b', this.nodeB, 250)]);
    const bystander = await this.exposeForAll('bystander', { ports: [{ port: 80, targetPort: HTTP }] }, ...pods);
    const callers = [this.nodeA, this.nodeB, ...pods.slice(0, 1)];
    const [first] = bystander.clusterIP();
    if (first === undefined) throw new Error('the bystander has no cluster IP');
    await expectReached(callers, bystander.clusterIP(), pods);
    for (const caller of callers) this.#bystanders.push(await caller.traffic(first.address, first.port, 10));
  }
}

/** What a Service's spec is given besides being of both families. */
export interface ServiceSpec {
  readonly ports: readonly ExposedPort[];
  readonly [field: string]: unknown;
}

export type Endpoint = Host | EndpointOf;

export interface ServiceObject {
  readonly metadata: { readonly name: string; readonly uid: string };
  readonly spec: {
    readonly clusterIPs?: readonly string[];
    readonly ports?: readonly ExposedPort[];
    readonly healthCheckNodePort?: number;
    readonly externalIPs?: readonly string[];
  };
  readonly status: { readonly loadBalancer?: { readonly ingress?: readonly { readonly ip?: string }[] } };
}

/** A Service in the API. */
export class Exposed {
  readonly #world: World;
  readonly name: string;
  #object: ServiceObject;
  #slices: readonly string[] = [];

  constructor(world: World, name: string, object: ServiceObject) {
    this.#world = world;
    this.name = name;
    this.#object = object;
  }

  /** As the API server answered last. */
  get object(): ServiceObject {
    return this.#object;
  }

  /** Merges into the object: `{ spec: { type: 'NodePort' } }`. */
  async change(patch: object): Promise<void> {
    this.#object = await this.#world.api.patch(`${SERVICES}/${this.name}`, patch);
  }

  /** What a cloud's controller writes: addresses of a load balancer that sends to these nodes. */
  async balance(...nodes: readonly LabNode[]): Promise<void> {
    const last = (Number(this.#object.spec.ports?.[0]?.nodePort ?? 0) % 100) + 1;
    const ips = nodes.flatMap((node) =>
      node.name === 'node-a' ? [`203.0.113.${last}`, `2001:db8:a::${last}`] : [`203.0.113.${last + 128}`, `2001:db8:b::${last}`],
    );
    this.#object = await this.#world.api.patch(`${SERVICES}/${this.name}/status`, { status: { loadBalancer: { ingress: ips.map((ip) => ({ ip })) } } });
  }

  /** Its endpoints are these and no others: one slice a family, with the Service's ports. */
  async scale(...endpoints: readonly Endpoint[]): Promise<void> {
    await this.slice('', this.#object.spec.ports ?? [], endpoints);
  }

  /** One slice a family among several, with ports of its own. */
  async slice(suffix: string, ports: readonly ExposedPort[], endpoints: readonly Endpoint[]): Promise<void> {
    for (const [family, addressType] of FAMILIES.entries()) {
      const name = `${this.name}${suffix}-${addressType.toLowerCase()}`;
      const slice = {
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: { name, labels: { 'kubernetes.io/service-name': this.name } },
        addressType,
        ports: ports.map(({ name: portName = '', port, targetPort, protocol = 'TCP' }) => ({ name: portName, port: Number(targetPort ?? port), protocol })),
        endpoints: endpoints.map((endpoint) => {
          const { host, conditions, hints } = 'host' in endpoint ? endpoint : { host: endpoint };
          return { addresses: [host.addresses[family]], nodeName: this.#world.nodeOf(host).name, conditions: { ready: true, ...conditions }, hints };
        }),
      };
      if (this.#slices.includes(name)) await this.#world.api.replace(`${SLICES}/${name}`, slice);
      else await this.#world.api.create(SLICES, slice);
      this.#slices = [...new Set([...this.#slices, name])];
    }
  }

  /** A label of its slices; null takes it away. */
  async label(key: string, value: string | null): Promise<void> {
    for (const slice of this.#slices) await this.#world.api.patch(`${SLICES}/${slice}`, { metadata: { labels: { [key]: value } } });
  }

  async delete(): Promise<void> {
    await this.#world.api.delete(`${SERVICES}/${this.name}`);
    for (const slice of this.#slices) await this.#world.api.delete(`${SLICES}/${slice}`);
    this.#slices = [];
  }

  /** Its cluster IPs. @param port the port's name. @default the first */
  clusterIP(port?: string): Target[] {
    const found = this.#port(port);
    return (this.#object.spec.clusterIPs ?? []).map((address) => ({ way: wayOf(found), address, port: found.port }));
  }

  /** Its node port on nodes. */
  nodePort(nodes: LabNode | readonly LabNode[], port?: string): Target[] {
    const found = this.#port(port);
    return [nodes].flat().flatMap((node) => node.addresses.map((address) => ({ way: wayOf(found), address, port: found.nodePort ?? 0 })));
  }

  /** Its load balancer addresses; of those that lead to one node, if given. */
  loadBalancer(node?: LabNode, port?: string): Target[] {
    const found = this.#port(port);
    const all = (this.#object.status.loadBalancer?.ingress ?? []).map(({ ip = '' }) => ip);
    const led = node === undefined ? all : all.filter((ip) => leadsTo(ip) === node.name);
    return led.map((address) => ({ way: wayOf(found), address, port: found.port }));
  }

  externalIP(port?: string): Target[] {
    const found = this.#port(port);
    return (this.#object.spec.externalIPs ?? []).map((address) => ({ way: wayOf(found), address, port: found.port }));
  }

  #port(name?: string): ExposedPort {
    const found = this.#object.spec.ports?.find((port) => name === undefined || port.name === name);
    if (found === undefined) throw new Error(`Service ${this.name} has no port ${name}`);
    return found;
  }
}

const wayOf = ({ protocol = 'TCP' }: ExposedPort): Way => (protocol === 'UDP' ? 'udp' : 'tcp');

function leadsTo(ip: string): string {
  if (ip.includes(':')) return ip.startsWith('2001:db8:a:') ? 'node-a' : 'node-b';
  return Number(ip.split('.')[3]) < 128 ? 'node-a' : 'node-b';
}

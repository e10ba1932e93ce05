/**
 * Up to four clusters side by side on one machine, two nodes each: one with nothing loaded (direct), one with Maglane, one with the
 * real kube-proxy in iptables mode and one in nftables mode. Each has a pod that asks on its first node and one that serves
 * on its second; the client outside asks through the first. All follow one API server, so that all carry the same Services.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Api } from '../support/controlplane/api.ts';
import { ControlPlane } from '../support/controlplane/control-plane.ts';
import { KubeProxy } from '../support/controlplane/kube-proxy.ts';
import * as objects from '../support/controlplane/objects.ts';
import type { Host } from '../support/lab/host.ts';
import { Lab } from '../support/lab/lab.ts';
import type { Agent, LabNode } from '../support/lab/node.ts';
import { podCidrs } from '../support/lab/topology.ts';
import { Daemon } from './daemon.ts';

export const VARIANTS = ['direct', 'maglane', 'iptables', 'nftables'] as const;
export type Variant = (typeof VARIANTS)[number];

export const HTTP = 8080;
export const BULK = 5201;
export const UDP = 11_111;
const PORTS = [
  { name: 'http', protocol: 'TCP', port: HTTP },
  { name: 'bulk', protocol: 'TCP', port: BULK },
  { name: 'udp', protocol: 'UDP', port: UDP },
] as const;

/** One of them. */
export interface Side {
  readonly variant: Variant;
  /** Where the client outside comes in; it has no backend. */
  readonly front: LabNode;
  readonly back: LabNode;
  readonly client: Host;
  readonly server: Host;
  /** The address that pods ask: the cluster IP, or of `direct` the pod's own. */
  readonly inside: string;
  /** What the client outside asks: a node port of `front`, or of `direct` the pod itself, through `front`. */
  readonly outside: { readonly host: string; readonly ports: Readonly<Record<'http' | 'bulk' | 'udp', number>> };
}

/** Connections come and go by the ten thousand: ports are many, and one in TIME_WAIT is taken again when its clock has moved on. */
const PATIENT = ['net.ipv4.ip_local_port_range=1024 60999', 'net.ipv4.tcp_timestamps=2', 'net.ipv4.tcp_tw_reuse=1'];
const SERVICES = '/api/v1/namespaces/default/services';
const SLICES = '/apis/discovery.k8s.io/v1/namespaces/default/endpointslices';

export class Rig implements AsyncDisposable {
  readonly lab: Lab;
  readonly plane: ControlPlane;
  readonly api: Api;
  readonly sides: readonly Side[];
  readonly proxies: ReadonlyMap<Variant, KubeProxy>;
  /** Of the front node. */
  #agent: Agent;
  readonly #stack: AsyncDisposableStack;
  #fillers = 0;

  private constructor(parts: Pick<Rig, 'lab' | 'plane' | 'api' | 'sides' | 'proxies' | 'agent'>, stack: AsyncDisposableStack) {
    ({ lab: this.lab, plane: this.plane, api: this.api, sides: this.sides, proxies: this.proxies, agent: this.#agent } = parts);
    this.#stack = stack;
  }

  /** Builds it all, some 30 s; nothing is left when it throws. @param variants `direct` and `maglane` among them */
  static async start(variants: readonly Variant[]): Promise<Rig> {
    await using stack = new AsyncDisposableStack();
    const lab = stack.use(await Lab.create({ nodes: 2 * variants.length, podAttach: 'ptp' }));
    const plane = stack.use(await ControlPlane.start({ host: lab.control, parent: lab.folder }));
    const api = stack.use(await Api.start(plane, lab.control));
    await plane.apply(...lab.nodes.map(({ name, addresses }, n) => objects.node(name, addresses.slice(0, 1), podCidrs(n + 1).slice(0, 1))));
    await setUp(lab.client);
    const sides: Side[] = [];
    for (const [i, variant] of variants.entries()) sides.push(await side(lab, api, stack, variant, i));
    const proxies = new Map<Variant, KubeProxy>();
    for (const { variant, front } of sides) if (isProxy(variant)) proxies.set(variant, await kubeProxy(plane, stack, variant, front));
    const { front, back } = sideOf(sides, 'maglane');
    const [agent] = await Promise.all([maglane(plane, front), maglane(plane, back)]);
    return new Rig({ lab, plane, api, sides, proxies, agent }, stack.move());
  }

  /** Maglane's on its front node. */
  get agent(): Agent {
    return this.#agent;
  }

  /** Has Maglane's front node use XDP, which veth devices get only when they are asked for it; until disposed of. */
  async useXdp(): Promise<AsyncDisposable> {
    await this.#restart(['--xdp-mode', 'native']);
    return { [Symbol.asyncDispose]: () => this.#restart([]) };
  }

  side(variant: Variant): Side {
    return sideOf(this.sides, variant);
  }

  /** Brings the number of Services to `total`: those beyond the measured ones lead to addresses nobody asks. */
  async fill(total: number, progress: (done: number) => void): Promise<void> {
    const wanted = Math.max(0, total - this.sides.length);
    while (this.#fillers < wanted) {
      const first = this.#fillers;
      const batch = Array.from({ length: Math.min(200, wanted - first) }, (_, n) => first + n);
      await Promise.all(batch.map((n) => filler(this.api, n)));
      this.#fillers += batch.length;
      progress(this.#fillers);
    }
  }

  /** Waits until the last Service is served everywhere: a sentinel after all others is reached from each front node. */
  async settle(size: number): Promise<void> {
    const name = `sentinel-${size}`;
    const { spec } = await this.api.create<{ spec: { clusterIP: string } }>(
      SERVICES,
      objects.service(name, { ports: PORTS.slice(0, 1).map((port) => ({ ...port, targetPort: HTTP })) }),
    );
    const back = this.side('maglane');
    await this.api.create(SLICES, slice(name, back.back.name, back.server.addresses[0] ?? ''));
    for (const { variant, client } of this.sides) {
      if (variant === 'direct') continue;
      const { status } = await client.run([
        'sh',
        '-c',
        `for i in $(seq 600); do curl -s -m 1 -o /dev/null http://${spec.clusterIP}:${HTTP}/ && exit 0; sleep 0.1; done; exit 1`,
      ]);
      if (status !== 0) throw new Error(`${variant} does not serve the last of ${size} Services`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }

  async #restart(args: readonly string[]): Promise<void> {
    await this.#agent.stop();
    this.#agent = await maglane(this.plane, this.side('maglane').front, args);
  }
}

const isProxy = (variant: Variant): variant is 'iptables' | 'nftables' => variant === 'iptables' || variant === 'nftables';
const sideOf = (sides: readonly Side[], variant: Variant): Side => sides.find((one) => one.variant === variant) as Side;

async function setUp(host: Host): Promise<void> {
  for (const setting of PATIENT) await host.run(['sysctl', '-qw', setting]);
}

async function side(lab: Lab, api: Api, stack: AsyncDisposableStack, variant: Variant, i: number): Promise<Side> {
  const [front, back] = [lab.nodes[2 * i] as LabNode, lab.nodes[2 * i + 1] as LabNode];
  const client = await lab.addPod(`${variant}-client`, front, 10);
  const server = await lab.addPod(`${variant}-server`, back, 20);
  await Promise.all([client, server].map(setUp));
  const pod = server.addresses[0] ?? '';
  if (variant === 'direct') await sameWay(lab, front, back, pod);
  await serve(lab, stack, server, pod);
  const service = await expose(api, variant, back.name, pod);
  const ports = variant === 'direct' ? { http: HTTP, bulk: BULK, udp: UDP } : service.nodePorts;
  return {
    variant,
    front,
    back,
    client,
    server,
    inside: variant === 'direct' ? pod : service.clusterIp,
    outside: { host: variant === 'direct' ? pod : (front.addresses[0] ?? ''), ports },
  };
}

/**
 * What the client outside exchanges with the pod itself passes the front node, too, both ways: a ratio to direct then says what
 * balancing costs, and nothing of how long a way is.
 */
async function sameWay(lab: Lab, front: LabNode, back: LabNode, pod: string): Promise<void> {
  const host = lab.client.addresses[0] ?? '';
  for (const one of [front, back, lab.client])
    for (const setting of ['send_redirects', 'accept_redirects'])
      await one.run(['sysctl', '-qw', `net.ipv4.conf.all.${setting}=0`, `net.ipv4.conf.eth0.${setting}=0`]);
  await lab.routeThrough(`${pod}/32`, front);
  await back.run(['ip', 'route', 'add', `${host}/32`, 'via', front.addresses[0] ?? '']);
}

/** nginx, iperf3 and sockperf in the serving pod. */
async function serve(lab: Lab, stack: AsyncDisposableStack, server: Host, address: string): Promise<void> {
  const folder = join(lab.folder, server.name);
  const nginx = `${folder}.nginx`;
  writeFileSync(nginx, nginxConfiguration(folder, address));
  for (const command of [
    ['nginx', '-c', nginx, '-e', `${folder}.log`],
    ['iperf3', '--server', '--bind', address, '--port', String(BULK)],
    ['sockperf', 'server', '--ip', address, '--port', String(UDP)],
  ])
    stack.use(Daemon.start(server, command));
  await server.run(['sh', '-c', `for i in $(seq 100); do curl -s -o /dev/null http://${address}:${HTTP}/ && exit 0; sleep 0.05; done; exit 1`]);
}

function nginxConfiguration(folder: string, address: string): string {
  const http = `access_log off; keepalive_requests 1000000000; keepalive_timeout 600; server { listen ${address}:${HTTP} backlog=4096; return 200 "hello\\n"; }`;
  return `daemon off; master_process off; pid ${folder}.pid; worker_rlimit_nofile 8192; events { worker_connections 4096; }\nhttp { ${http} }\n`;
}

interface Exposed {
  readonly clusterIp: string;
  readonly nodePorts: Readonly<Record<'http' | 'bulk' | 'udp', number>>;
}

async function expose(api: Api, variant: Variant, node: string, address: string): Promise<Exposed> {
  const name = `bench-${variant}`;
  const ports = PORTS.map(({ name: port, protocol, port: number }) => ({ name: port, protocol, port: number, targetPort: number }));
  const { spec } = await api.create<{ spec: { clusterIP: string; ports: { name: 'http' | 'bulk' | 'udp'; nodePort: number }[] } }>(
    SERVICES,
    objects.service(name, { type: 'NodePort', ports }),
  );
  await api.create(SLICES, slice(name, node, address));
  const nodePorts = Object.fromEntries(spec.ports.map(({ name: port, nodePort }) => [port, nodePort])) as Exposed['nodePorts'];
  return { clusterIp: spec.clusterIP, nodePorts };
}

/** The one slice of a Service without a selector. */
export function slice(service: string, nodeName: string, address: string): object {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `${service}-1`, namespace: 'default', labels: { 'kubernetes.io/service-name': service } },
    addressType: 'IPv4',
    ports: PORTS.map(({ name, protocol, port }) => ({ name, protocol, port })),
    endpoints: [{ addresses: [address], nodeName, conditions: { ready: true } }],
  };
}

async function filler(api: Api, n: number): Promise<void> {
  const name = `filler-${n}`;
  await api.create(SERVICES, objects.service(name, { ports: [{ name: 'http', protocol: 'TCP', port: 80, targetPort: HTTP }] }));
  await api.create(SLICES, {
    ...slice(name, 'elsewhere', `10.${200 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`),
    ports: [{ name: 'http', protocol: 'TCP', port: HTTP }],
  });
}

async function maglane(plane: ControlPlane, node: LabNode, more: readonly string[] = []): Promise<Agent> {
  return node.startAgent({ args: ['--source', 'kubernetes', '--kubeconfig', await plane.agentKubeconfig(), '--cluster-cidr', '10.244.0.0/16', ...more] });
}

async function kubeProxy(plane: ControlPlane, stack: AsyncDisposableStack, mode: 'iptables' | 'nftables', host: LabNode): Promise<KubeProxy> {
  return stack.use(await KubeProxy.start({ plane, host, nodeName: host.name, mode, clusterCidrs: ['10.244.0.0/16'], minSyncPeriod: '1s' }));
}

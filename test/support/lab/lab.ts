/**
 * Clusters out of network namespaces on one machine: nodes on a switch, pods behind them, a client
 * outside. Each node has a cgroup and a folder of pins of its own, so that one kernel carries an
 * agent for each. Demo, tests and benchmark all use it.
 */
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Host } from './host.ts';
import { BPFFS, cgroup2, killCgroup, mountBpffs, removeCgroup, removePins } from './kernel.ts';
import { LabNode } from './node.ts';
import { run, runSync } from './shell.ts';
import * as net from './topology.ts';
import { answerXdp } from './xdp.ts';

export interface LabOptions {
  /** @default 2 */
  readonly nodes?: number;
  /** How nodes reach each other's pods. @default 'routed' */
  readonly podNetwork?: 'routed' | 'vxlan';
  /** Pods on a bridge, or each on a routed veth, as kind's. @default 'bridge' */
  readonly podAttach?: 'bridge' | 'ptp';
  /** Make the far ends of the nodes' uplinks fit for native XDP. @default false */
  readonly xdp?: boolean;
}

export class Lab implements AsyncDisposable {
  /** Begins the name of everything that this lab makes. */
  readonly prefix: string;
  readonly nodes: readonly LabNode[];
  /** Outside of the cluster, on the nodes' network. */
  readonly client: Host;
  /** For a control plane: on the nodes' network, no node. */
  readonly control: Host;
  readonly #options: Required<LabOptions>;
  readonly #cgroup: string;
  readonly #pods = new Map<string, Host>();
  readonly #onExit = (): void => this.#destroyNow();
  #destroyed = false;

  private constructor(options: Required<LabOptions>, cgroupRoot: string) {
    this.prefix = newPrefix();
    this.#options = options;
    this.#cgroup = join(cgroupRoot, this.prefix);
    this.nodes = Array.from({ length: options.nodes }, (_, n) => {
      const name = nodeName(n + 1);
      return new LabNode(name, this.#netns(name), join(this.#cgroup, name), net.nodeAddresses(n + 1), join(BPFFS, this.prefix, name));
    });
    this.client = new Host('client', this.#netns('client'), join(this.#cgroup, 'client'), net.CLIENT);
    this.control = new Host('control', this.#netns('control'), join(this.#cgroup, 'control'), net.CONTROL);
  }

  /**
   * Builds a lab; what an ended process left of its labs is removed first. Ctrl-C removes this one.
   * @throws Error naming the command that failed; nothing is left then.
   */
  static async create(options: LabOptions = {}): Promise<Lab> {
    Lab.sweep();
    await mountBpffs();
    const lab = new Lab({ nodes: 2, podNetwork: 'routed', podAttach: 'bridge', xdp: false, ...options }, cgroup2());
    process.once('exit', lab.#onExit);
    handleSignals();
    try {
      await lab.#build();
    } catch (error) {
      await lab.destroy();
      throw error;
    }
    return lab;
  }

  /** Removes what labs of processes that have ended left behind. */
  static sweep(): void {
    for (const prefix of leftovers()) if (!existsSync(`/proc/${prefixPid(prefix)}`)) removeAll(prefix);
  }

  /** A node by its name: "node-a". @throws when there is none. */
  node(name: string): LabNode {
    const node = this.nodes.find((one) => one.name === name);
    if (node === undefined) throw new Error(`no node ${name} in this lab`);
    return node;
  }

  /** A pod by its name. @throws when there is none. */
  pod(name: string): Host {
    const pod = this.#pods.get(name);
    if (pod === undefined) throw new Error(`no pod ${name} in this lab`);
    return pod;
  }

  /**
   * Adds a pod to a node.
   * @param number last part of its addresses, 2 to 254: 10 makes 10.244.<node>.10 and fd00:244:<node>::10 (digits as written).
   */
  async addPod(name: string, node: LabNode, number: number): Promise<Host> {
    const i = this.nodes.indexOf(node) + 1;
    const pod = new Host(name, this.#netns(name), join(node.agentCgroup, name), net.podAddresses(i, number));
    await net.makeNamespaces([{ netns: pod.netns, forwards: false }]);
    const device = `pod${number}`;
    await net.cable(node.netns, device, pod.netns, 'eth0', this.#podMtu());
    const gateways = net.gatewayAddresses(i);
    if (this.#options.podAttach === 'bridge') {
      await net.ip(node.netns, [`link set ${device} master cni0`]);
      await net.ip(pod.netns, [...pod.addresses.map((own) => net.address(`${own}/${own.includes(':') ? 64 : 24}`, 'eth0')), ...net.defaults(gateways)]);
    } else {
      const hostSide = [
        ...gateways.map((own) => net.address(net.whole(own), device)),
        ...pod.addresses.map((own) => net.route(net.whole(own), `dev ${device}`)),
      ];
      await net.ip(node.netns, hostSide);
      const podSide = [
        ...pod.addresses.map((own) => net.address(net.whole(own), 'eth0')),
        ...gateways.map((own) => net.route(net.whole(own), 'dev eth0')),
        ...net.defaults(gateways, 'dev eth0 onlink'),
      ];
      await net.ip(pod.netns, podSide);
    }
    this.#pods.set(name, pod);
    return pod;
  }

  /** Takes a pod away: its processes, then its addresses; both are gone when this resolves. */
  async removePod(name: string): Promise<void> {
    const pod = this.pod(name);
    this.#pods.delete(name);
    pod.close();
    killCgroup(pod.cgroup);
    await removedSoon(pod.cgroup);
    // The kernel takes its time over a namespace, not over a device.
    await net.ip(pod.netns, ['link delete eth0']);
    await run(['ip', 'netns', 'delete', pod.netns]);
  }

  /** Sends the client's packets for an address range to a node: "10.96.0.0/16". */
  async routeThrough(cidr: string, node: LabNode): Promise<void> {
    const via = node.addresses.find((address) => address.includes(':') === cidr.includes(':'));
    await net.ip(this.client.netns, [net.route(cidr, `via ${via}`)]);
  }

  /** Removes everything, running or not. */
  async destroy(): Promise<void> {
    if (this.#destroyed) return;
    this.#destroyed = true;
    process.off('exit', this.#onExit);
    for (const host of this.#hosts()) host.close();
    killCgroup(this.#cgroup);
    removePins(join(BPFFS, this.prefix));
    const names = namespaces().filter((netns) => netns.startsWith(`${this.prefix}-`));
    if (names.length > 0) await run(['ip', '-batch', '-'], { input: names.map((netns) => `netns delete ${netns}\n`).join('') });
    await removedSoon(this.#cgroup);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy();
  }

  /** What is left of this lab: namespaces, pins and cgroups by name; empty after `destroy`. */
  remains(): string[] {
    const folders = [join(BPFFS, this.prefix), this.#cgroup].filter((folder) => existsSync(folder));
    return [...namespaces().filter((netns) => netns.startsWith(`${this.prefix}-`)), ...folders];
  }

  async #build(): Promise<void> {
    const fabric = this.#netns('fabric');
    const leaves = [this.client, this.control];
    await net.makeNamespaces([
      { netns: fabric, forwards: true },
      ...this.nodes.map(({ netns }) => ({ netns, forwards: true })),
      ...leaves.map(({ netns }) => ({ netns, forwards: false })),
    ]);
    await net.ip(fabric, ['link add br0 type bridge', 'link set br0 up', net.address(`${net.FABRIC[0]}/24`, 'br0'), net.address(`${net.FABRIC[1]}/64`, 'br0')]);
    await Promise.all([...this.nodes, ...leaves].map((host) => this.#plugIn(host, fabric)));
    await Promise.all(this.nodes.map((_, n) => this.#podNetwork(n + 1)));
    if (this.#options.podNetwork === 'routed') {
      await net.ip(
        fabric,
        this.nodes.flatMap(({ addresses }, n) => net.podCidrs(n + 1).map((cidr, family) => net.route(cidr, `via ${addresses[family]}`))),
      );
    }
    if (this.#options.xdp) {
      mkdirSync(join(BPFFS, this.prefix), { recursive: true });
      const ports = this.nodes.map(({ name }) => name);
      await answerXdp(fabric, ports, join(BPFFS, this.prefix, 'pass'));
    }
  }

  /** Connects a host to the switch. Its default route leads there, so that a VIP has a route before a hook sees it. */
  async #plugIn(host: Host, fabric: string): Promise<void> {
    await net.cable(fabric, host.name, host.netns, 'eth0');
    await net.ip(fabric, [`link set ${host.name} master br0`]);
    await net.ip(host.netns, [...host.addresses.map((own) => net.address(`${own}/${own.includes(':') ? 64 : 24}`, 'eth0')), ...net.defaults(net.FABRIC)]);
  }

  async #podNetwork(i: number): Promise<void> {
    const node = this.nodes[i - 1] as LabNode;
    if (this.#options.podAttach === 'bridge') {
      const gateways = net.gatewayAddresses(i).map((own) => net.address(`${own}/${own.includes(':') ? 64 : 24}`, 'cni0'));
      await net.ip(node.netns, [`link add cni0 address ${net.bridgeMac(i)} mtu ${this.#podMtu()} type bridge`, 'link set cni0 up', ...gateways]);
    }
    if (this.#options.podNetwork === 'vxlan') {
      await net.ip(node.netns, net.tunnel(i, this.nodes.length));
      await run(['bridge', '-n', node.netns, '-batch', '-'], { input: `${net.tunnelForwarding(i, this.nodes.length).join('\n')}\n` });
      return;
    }
    const others = this.nodes.map((_, n) => n + 1).filter((n) => n !== i);
    if (others.length > 0)
      await net.ip(
        node.netns,
        others.flatMap((n) => net.podCidrs(n).map((cidr, family) => net.route(cidr, `via ${net.nodeAddresses(n)[family]}`))),
      );
  }

  #podMtu(): number {
    return this.#options.podNetwork === 'vxlan' ? 1450 : 1500;
  }

  #netns(name: string): string {
    return `${this.prefix}-${name}`;
  }

  #hosts(): Host[] {
    return [...this.nodes, this.client, this.control, ...this.#pods.values()];
  }

  #destroyNow(): void {
    for (const host of this.#hosts()) host.close();
    removeAll(this.prefix);
  }
}

const nodeName = (i: number): string => `node-${String.fromCharCode(96 + i)}`;

/* ---- names: mg<pid>x<counter>, so that labs of several processes, and several of one, stay apart ---- */

let labs = 0;
const PREFIX = /^mg(\d+)x\d+$/;
const newPrefix = (): string => `mg${process.pid}x${labs++}`;
const prefixPid = (prefix: string): string => PREFIX.exec(prefix)?.[1] ?? '';

const namespaces = (): string[] => (existsSync('/run/netns') ? readdirSync('/run/netns') : []);

function leftovers(): string[] {
  const folders = [BPFFS, cgroup2()].flatMap((folder) => readdirSync(folder));
  const prefixes = [...folders, ...namespaces().map((netns) => netns.split('-')[0] ?? '')];
  return [...new Set(prefixes.filter((name) => PREFIX.test(name)))];
}

function removeAll(prefix: string): void {
  const cgroup = join(cgroup2(), prefix);
  killCgroup(cgroup);
  removePins(join(BPFFS, prefix));
  for (const netns of namespaces()) if (netns.startsWith(`${prefix}-`)) runSync(['ip', 'netns', 'delete', netns]);
  for (const deadline = Date.now() + 2_000; !removeCgroup(cgroup) && Date.now() < deadline;);
}

/** Removes a cgroup as soon as the killed processes in it are gone. */
async function removedSoon(cgroup: string): Promise<void> {
  for (const deadline = Date.now() + 5_000; !removeCgroup(cgroup) && Date.now() < deadline;) await new Promise((resolve) => setTimeout(resolve, 5));
}

let signalsHandled = false;

/** Ctrl-C must run the exit hooks. */
function handleSignals(): void {
  if (signalsHandled) return;
  signalsHandled = true;
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)
    process.once(signal, () => process.exit(code));
}

/**
 * Clusters out of network namespaces on one machine: nodes on a switch, pods behind them, a client
 * outside. Each node has a cgroup and a folder of pins of its own, so that one kernel carries an
 * agent for each. Demo, tests and benchmark all use it.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Host } from './host.ts';
import { killCgroup, mountBpffs, removeCgroup } from './kernel.ts';
import { LabNode } from './node.ts';
import { cgroupOf, folderOf, guardLab, newPrefix, pinsOf, remainsOf, removeLab, sweep, unguardLab } from './remains.ts';
import { run } from './shell.ts';
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
  /** Namespace of the switch, where each node's cable ends in a device of the node's name. */
  readonly fabric: string;
  /** For files that go with the lab: manifests, configuration. */
  readonly folder: string;
  readonly #options: Required<LabOptions>;
  readonly #pods = new Map<string, Host>();
  #destroyed: Promise<void> | undefined;

  private constructor(prefix: string, options: Required<LabOptions>) {
    this.prefix = prefix;
    this.fabric = this.#netns('fabric');
    this.folder = folderOf(prefix);
    this.#options = options;
    const cgroup = cgroupOf(prefix);
    this.nodes = Array.from({ length: options.nodes }, (_, n) => {
      const name = nodeName(n + 1);
      return new LabNode(name, this.#netns(name), join(cgroup, name), net.nodeAddresses(n + 1), join(pinsOf(prefix), name));
    });
    this.client = new Host('client', this.#netns('client'), join(cgroup, 'client'), net.CLIENT);
    this.control = new Host('control', this.#netns('control'), join(cgroup, 'control'), net.CONTROL);
  }

  /**
   * Builds a lab; what ended processes left of theirs is removed first. However this process ends, its labs go too.
   * @throws Error naming the command that failed; nothing is left then.
   */
  static async create(options: LabOptions = {}): Promise<Lab> {
    await mountBpffs();
    await sweep();
    const prefix = newPrefix();
    guardLab(prefix);
    const lab = new Lab(prefix, { nodes: 2, podNetwork: 'routed', podAttach: 'bridge', xdp: false, ...options });
    try {
      await lab.#build();
    } catch (error) {
      await lab.destroy();
      throw error;
    }
    return lab;
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
    await removeCgroup(pod.cgroup);
    // The kernel takes its time over a namespace, not over a device.
    await net.ip(pod.netns, ['link delete eth0']);
    await run(['ip', 'netns', 'delete', pod.netns]);
  }

  /** Sends the client's packets for an address range to a node: "10.96.0.0/16". */
  async routeThrough(cidr: string, node: LabNode): Promise<void> {
    const via = node.addresses.find((address) => address.includes(':') === cidr.includes(':'));
    await net.ip(this.client.netns, [net.route(cidr, `via ${via}`)]);
  }

  /** Removes everything, running or not. @throws Error naming what stays. */
  destroy(): Promise<void> {
    return (this.#destroyed ??= this.#remove());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.destroy();
  }

  /** What is left of this lab: namespaces, pins, cgroups and files by name; empty after `destroy`. */
  remains(): string[] {
    return remainsOf(this.prefix);
  }

  async #remove(): Promise<void> {
    for (const host of [...this.nodes, this.client, this.control, ...this.#pods.values()]) host.close();
    await removeLab(this.prefix);
    unguardLab(this.prefix);
  }

  async #build(): Promise<void> {
    mkdirSync(this.folder);
    const { fabric } = this;
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
      const pins = pinsOf(this.prefix);
      mkdirSync(pins, { recursive: true });
      const ports = this.nodes.map(({ name }) => name);
      await answerXdp(fabric, ports, join(pins, 'pass'));
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
}

const nodeName = (i: number): string => `node-${String.fromCharCode(96 + i)}`;

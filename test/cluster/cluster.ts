/** A cluster for tests: the lab's two nodes, an agent on each, and a real control plane that both follow. */
import { vi } from 'vitest';
import { ControlPlane } from '../support/controlplane/control-plane.ts';
import type { PodInit } from '../support/controlplane/objects.ts';
import * as objects from '../support/controlplane/objects.ts';
import type { Host } from '../support/lab/host.ts';
import { Lab } from '../support/lab/lab.ts';
import type { Agent, LabNode } from '../support/lab/node.ts';
import { PATIENCE } from '../support/patience.ts';
import { podCidrs } from '../support/lab/topology.ts';

export interface PodSetup extends Omit<PodInit, 'node' | 'ips' | 'ready'> {
  /** "node-a" or "node-b". */
  readonly node: string;
  /** Last part of its addresses. */
  readonly number: number;
}

export class Cluster implements AsyncDisposable {
  readonly lab: Lab;
  readonly plane: ControlPlane;
  /** The latest of each node. */
  agents: readonly Agent[] = [];
  readonly #args: readonly string[];

  private constructor(lab: Lab, plane: ControlPlane, args: readonly string[]) {
    this.lab = lab;
    this.plane = plane;
    this.#args = args;
  }

  /**
   * Builds it; the agents serve when this resolves. Nothing is left behind when it throws.
   * @param options for the agents, besides those that any cluster needs.
   */
  static async start(options: readonly string[] = []): Promise<Cluster> {
    const lab = await Lab.create();
    try {
      const plane = await ControlPlane.start({ host: lab.control, parent: lab.folder });
      try {
        await plane.apply(...lab.nodes.map(({ name, addresses }, n) => objects.node(name, addresses, podCidrs(n + 1))));
        const kubeconfig = await plane.agentKubeconfig();
        const args = ['--source', 'kubernetes', '--kubeconfig', kubeconfig, ...options];
        const cluster = new Cluster(lab, plane, args);
        await cluster.startAgents();
        return cluster;
      } catch (error) {
        await plane.stop();
        throw error;
      }
    } catch (error) {
      await lab.destroy();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.plane.stop();
    await this.lab.destroy();
  }

  /** Starts an agent on each node; all serve when this resolves. */
  async startAgents(): Promise<void> {
    this.agents = await Promise.all(this.lab.nodes.map((node) => node.startAgent({ args: this.#args })));
  }

  /** Stops the agents; what they have pinned stays. */
  async stopAgents(): Promise<void> {
    await Promise.all(this.agents.map((agent) => agent.stop()));
  }

  get nodeA(): LabNode {
    return this.lab.node('node-a');
  }

  get nodeB(): LabNode {
    return this.lab.node('node-b');
  }

  /** A pod in the lab that serves its container ports, and its object in the API. */
  async addPod({ node, number, ...init }: PodSetup): Promise<Host> {
    const pod = await this.lab.addPod(init.name, this.lab.node(node), number);
    const ports = (protocol: string): number[] => (init.ports ?? []).filter((port) => (port.protocol ?? 'TCP') === protocol).map((port) => port.containerPort);
    await pod.serve({ tcp: ports('TCP'), udp: ports('UDP') });
    await this.plane.apply(objects.pod({ ...init, node, ips: pod.addresses }));
    return pod;
  }

  /** Its object goes first, and its processes when both nodes have heard of it: as a pod that ends gracefully. */
  async removePod(name: string): Promise<void> {
    const { addresses } = this.lab.pod(name);
    await this.plane.delete(`pod/${name}`);
    await soon(async () => {
      for (const node of this.lab.nodes) {
        const { stdout } = await node.maglane(['backends', '-o', 'json']);
        if (addresses.some((address) => stdout.includes(`"${address}"`))) throw new Error(`${node.name} still has ${name}`);
      }
    });
    await this.lab.removePod(name);
  }
}

/** Tries again until `check` passes; throws its last error after 30 s. */
export function soon(check: () => Promise<void>): Promise<void> {
  return vi.waitFor(check, { timeout: 30_000 * PATIENCE, interval: 50 });
}

export type Way = 'tcp' | 'udp' | 'udp connected';

/** Who answers `count` attempts from `host`: names of pods, or an errno in their place; each once, sorted. */
export async function whoAnswers(host: Host, way: Way, address: string, port: number, count = 40): Promise<string[]> {
  const timeoutMs = 1_000 * PATIENCE;
  const answers =
    way === 'tcp'
      ? await host.connect(address, port, { count, timeoutMs })
      : await host.send(address, port, { count, timeoutMs, connected: way === 'udp connected' });
  return [...new Set(answers.map(({ server, error }) => error ?? server))].sort();
}

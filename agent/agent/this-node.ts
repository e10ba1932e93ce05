/**
 * What is known of this node, by options, by its Node object and by its interfaces: when that is enough to
 * begin, and what of it changes while the agent runs.
 */
import type { Interface } from '../../native/index.js';
import type { AgentOptions } from '../config/options.ts';
import { dsrPortOf } from '../config/options.ts';
import type { DetectByDevice } from '../dataplane/devices.ts';
import type { DetectLocal, NodeFacts } from '../model/facts.ts';
import type { Node } from '../model/objects.ts';
import type { Log } from '../observe/log.ts';
import { nodeAddresses, nodePortAddresses } from './node.ts';

/** How long is waited at start for what the Node does not say yet, ms: kube-proxy's times. */
export interface NodePatience {
  readonly addresses: number;
  readonly podCidrs: number;
}

export interface ThisNodeInit {
  readonly options: AgentOptions;
  readonly log: Log;
  readonly interfaces: readonly Interface[];
  /** Called when the agent cannot go on: it should end, and be started again. */
  readonly fail: (error: Error) => void;
  /** @default 30 s and 5 min */
  readonly patience?: NodePatience;
}

/** The cluster autoscaler marks a node with it before it deletes it. */
const TO_BE_DELETED = 'ToBeDeletedByClusterAutoscaler';

export class ThisNode {
  readonly #options: AgentOptions;
  readonly #log: Log;
  readonly #fail: (error: Error) => void;
  readonly #patience: NodePatience;
  /** As last seen: a deleted one still says what it said. */
  #node: Node | undefined;
  /** What the Node says, when NodeCIDR began to go by it. */
  #podCidrs: string | undefined;
  #facts: NodeFacts;
  #wake: () => void = () => undefined;

  constructor({ options, log, interfaces, fail, patience = { addresses: 30_000, podCidrs: 300_000 } }: ThisNodeInit) {
    this.#options = options;
    this.#log = log;
    this.#fail = fail;
    this.#patience = patience;
    this.#facts = this.#read(interfaces);
  }

  get facts(): NodeFacts {
    return this.#facts;
  }

  /** Whether load balancers may send here, as kube-proxy's /healthz sees it (KEP-3836). Manifests need not have a Node. */
  get eligible(): boolean {
    if (this.#node === undefined) return this.#options.source === 'manifests';
    return !this.#node.deleting && !this.#node.taints.includes(TO_BE_DELETED);
  }

  /** Its Node object appeared, changed, or (undefined) went away. */
  update(node: Node | undefined): void {
    if (node === undefined) {
      this.#log.warn('the Node object is deleted; what it said last goes on', { node: this.#options.nodeName });
      return;
    }
    this.#node = node;
    const podCidrs = node.podCIDRs.join(',');
    if (this.#podCidrs !== undefined && podCidrs !== this.#podCidrs)
      this.#fail(new Error(`the Node's podCIDRs changed from ${this.#podCidrs} to ${podCidrs}: with --detect-local-mode NodeCIDR, a fresh start is due`));
    this.#wake();
  }

  /**
   * Resolves when enough is known to begin: addresses, for which the API server is given some time, and podCIDRs where NodeCIDR
   * goes by them. Without addresses it begins all the same, and nodePorts come with them.
   * @param interfaces looked at in the end.
   * @throws Error when there are no podCIDRs in time.
   */
  async known(interfaces: () => readonly Interface[], signal: AbortSignal): Promise<void> {
    const { source, nodeIp, nodeName, detectLocalMode } = this.#options;
    if (source === 'kubernetes' && nodeIp.length === 0) {
      await this.#until(({ addresses }) => addresses.length > 0, this.#patience.addresses, signal);
      if (this.#node === undefined) this.#log.warn('there is no Node object of this name', { node: nodeName });
    }
    if (detectLocalMode === 'NodeCIDR') {
      await this.#until(({ podCIDRs }) => podCIDRs.length > 0, this.#patience.podCidrs, signal);
      this.#podCidrs = this.#node?.podCIDRs.join(',') ?? '';
      if (this.#podCidrs === '' && !signal.aborted) throw new Error(`--detect-local-mode NodeCIDR: the Node ${nodeName} has no podCIDRs`);
    }
    this.refresh(interfaces());
    if (this.#facts.nodeAddresses.length === 0)
      this.#log.warn('no address of this node is known, so no nodePort is served: give --node-ip, or a Node object with status.addresses');
  }

  /** Looks again. @returns the facts when they have changed. */
  refresh(interfaces: readonly Interface[]): NodeFacts | undefined {
    const facts = this.#read(interfaces);
    if (JSON.stringify(facts) === JSON.stringify(this.#facts)) return undefined;
    this.#facts = facts;
    return facts;
  }

  #read(interfaces: readonly Interface[]): NodeFacts {
    const { nodeName, nodeIp, nodeportAddresses, localhostNodeports, algorithm, forwarding, masqueradeAll, ownLbIps, vipPing, allowServiceExternalIps } =
      this.#options;
    const addresses = nodeAddresses(nodeIp, this.#node, interfaces);
    return {
      name: nodeName,
      zone: '',
      nodePortAddresses: nodePortAddresses(nodeportAddresses, addresses, interfaces),
      localhostNodePorts: localhostNodeports,
      defaultAlgorithm: algorithm,
      defaultForwarding: forwarding,
      dsr: dsrPortOf(this.#options) !== 0,
      nodeAddresses: addresses,
      detectLocal: detectLocal(this.#options),
      masqueradeAll,
      ownLbIps,
      vipPing,
      allowExternalIPs: allowServiceExternalIps,
    };
  }

  async #until(holds: (node: Node) => boolean, ms: number, signal: AbortSignal): Promise<void> {
    const deadline = AbortSignal.any([signal, AbortSignal.timeout(ms)]);
    while (!deadline.aborted && !(this.#node !== undefined && holds(this.#node))) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      deadline.addEventListener('abort', () => resolve(), { once: true });
      await promise;
    }
  }
}

/** detectLocalMode, with what it goes by (k8s.io/kubernetes/cmd/kube-proxy/app: getLocalDetectors). */
function detectLocal({ detectLocalMode, clusterCidr }: AgentOptions): DetectLocal {
  if (detectLocalMode === 'ClusterCIDR') return { by: 'ranges', ranges: clusterCidr };
  return { by: detectLocalMode === 'NodeCIDR' ? 'podCIDRs' : 'device' };
}

/** How the dataplane tells a pod where detectLocalMode goes by device. */
export function detectByDevice({ detectLocalMode, podBridgeInterface, podInterfaceNamePrefix }: AgentOptions): DetectByDevice | undefined {
  if (detectLocalMode === 'BridgeInterface') return { bridge: podBridgeInterface };
  return detectLocalMode === 'InterfaceNamePrefix' ? { prefix: podInterfaceNamePrefix } : undefined;
}

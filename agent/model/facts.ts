import type { Address, Cidr } from './address.ts';
import type { Algorithm, Forwarding } from './desired.ts';

/** What the model must know of its node that no Service or EndpointSlice says. */
export interface NodeFacts {
  /** The Node's name, as `nodeName` of endpoints and node hints spell it. */
  readonly name: string;
  /** The zone, while this node's own Node object has not been seen; "" when unknown. */
  readonly zone: string;
  /** Addresses of both families that serve nodePorts, resolved; loopback is not among them. */
  readonly nodePortAddresses: readonly Address[];
  /** NodePorts also on 127.0.0.1 and ::1, for the node's own processes alone. */
  readonly localhostNodePorts: boolean;
  /** For Services without the annotation `maglane.io/algorithm`. */
  readonly defaultAlgorithm: Algorithm;
  /** For Services without the annotation `maglane.io/forwarding`. */
  readonly defaultForwarding: Forwarding;
  /** Nodes may send each other packets as they are (--dsr-port): without it, all that is sent on is masqueraded. */
  readonly dsr: boolean;
  /** This node's own addresses, the first of each family: a source range that holds one lets load balancer IPs in, too. */
  readonly nodeAddresses: readonly Address[];
  /** How a source is told to be a pod (KubeProxyConfiguration.detectLocalMode). */
  readonly detectLocal: DetectLocal;
  /** Every client of a cluster IP is masqueraded (--masquerade-all, KubeProxyConfiguration's masqueradeAll). */
  readonly masqueradeAll: boolean;
  /** Unknown ports of load balancer and external IPs are rejected, too (--own-lb-ips). */
  readonly ownLbIps: boolean;
  /** Echo requests to VIPs are answered (--vip-ping). */
  readonly vipPing: boolean;
  /** false: spec.externalIPs are not programmed (kube-proxy's gate AllowServiceExternalIPs). */
  readonly allowExternalIPs: boolean;
}

/** ClusterCIDR: given ranges, the first of each family; NodeCIDR: the Node's podCIDRs; device: the dataplane knows. */
export type DetectLocal = { readonly by: 'ranges'; readonly ranges: readonly Cidr[] } | { readonly by: 'podCIDRs' } | { readonly by: 'device' };

/** How the node is configured while a history is played: the same for both sides, each in its own words. */
import { POD_CIDRS } from './world.ts';

export interface Setup {
  readonly name: string;
  readonly clusterCidrs: readonly string[];
  /** Further fields of KubeProxyConfiguration. */
  readonly kubeProxy: Readonly<Record<string, unknown>>;
  /** Further options of `maglane agent`. */
  readonly maglane: readonly string[];
  /** The device by which this node's pods send, as its rules see it. */
  readonly podDevice: string;
}

const CLUSTER_CIDR: Setup = { name: 'ClusterCIDR', clusterCidrs: POD_CIDRS, kubeProxy: {}, maglane: [], podDevice: 'veth0' };

/** The first is that of most clusters. */
export const SETUPS: readonly Setup[] = [
  CLUSTER_CIDR,
  {
    ...CLUSTER_CIDR,
    name: 'ClusterCIDR of IPv4 alone, and nodePortAddresses of IPv4 alone',
    clusterCidrs: POD_CIDRS.slice(0, 1),
    kubeProxy: { nodePortAddresses: ['192.0.3.0/24'] },
    maglane: ['--nodeport-addresses', '192.0.3.0/24'],
  },
  {
    ...CLUSTER_CIDR,
    name: 'NodeCIDR',
    kubeProxy: { detectLocalMode: 'NodeCIDR' },
    maglane: ['--detect-local-mode', 'NodeCIDR'],
  },
  {
    ...CLUSTER_CIDR,
    name: 'BridgeInterface',
    kubeProxy: { detectLocalMode: 'BridgeInterface', detectLocal: { bridgeInterface: 'cni0' } },
    maglane: ['--detect-local-mode', 'BridgeInterface', '--pod-bridge-interface', 'cni0'],
    podDevice: 'cni0',
  },
  {
    ...CLUSTER_CIDR,
    name: 'InterfaceNamePrefix',
    kubeProxy: { detectLocalMode: 'InterfaceNamePrefix', detectLocal: { interfaceNamePrefix: 'veth' } },
    maglane: ['--detect-local-mode', 'InterfaceNamePrefix', '--pod-interface-name-prefix', 'veth'],
  },
  {
    ...CLUSTER_CIDR,
    name: 'masqueradeAll',
    kubeProxy: { nftables: { masqueradeAll: true } },
    maglane: ['--masquerade-all', 'true'],
  },
  // kube-proxy has no such option: all else must stay as it is.
  { ...CLUSTER_CIDR, name: '--own-lb-ips', maglane: ['--own-lb-ips', 'true'] },
];

/** Seeds that follow each other share a setup, so that they can be played at once. */
const TOGETHER = 20;

/** How many histories it takes to have played in each setup. */
export const ROUND = 2 * TOGETHER * (SETUPS.length - 1);

/** The setup under which a seed's history is played: every other batch in the first, the others in turn in the rest. */
export function setupOf(seed: number): Setup {
  const batch = Math.floor((seed - 1) / TOGETHER);
  return SETUPS[batch % 2 === 0 ? 0 : 1 + (((batch - 1) / 2) % (SETUPS.length - 1))]!;
}

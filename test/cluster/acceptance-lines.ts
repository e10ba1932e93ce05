/**
 * The acceptance list: what Kubernetes' own end-to-end tests of [sig-network] ask of a service proxy, line by line. Each is a test of that
 * very name in test/cluster/acceptance-*.test.ts, or says why it is none. `node tools/acceptance.ts` makes docs/acceptance.md from this
 * and from the tests, and a unit test holds them against each other.
 */

/** A line that is a test, or [line, why it is none here, and what is there instead]. */
export type Line = string | readonly [line: string, why: string];

const NO_SCTP =
  'it takes a kernel with SCTP, and a client in C: test/kernel/e2e-sctp.test.ts, where the kernel has it; packets made by hand go through the same programs, and the oracle, everywhere';
const IPTABLES = 'about rules of iptables mode: there are none';

/** One after the other for both frontends that it is asked of. */
const both = (line: string): string[] => ['ClusterIP', 'NodePort'].map((frontend) => `${line} for ${frontend}`);

export const ACCEPTANCE: Readonly<Record<string, readonly Line[]>> = {
  'Services should (conformance)': [
    'serve a basic endpoint from pods',
    'serve multiport endpoints from pods',
    'serve endpoints on same port and different protocols',
    'be able to create a functioning NodePort service',
    'be able to change the type from ExternalName to ClusterIP',
    'be able to change the type from ExternalName to NodePort',
    'be able to change the type from ClusterIP to ExternalName',
    'be able to change the type from NodePort to ExternalName',
    ...both('have session affinity work'),
    ...both('be able to switch session affinity'),
    'secure master service',
  ],
  'Services should': [
    ...both('session affinity timeout work'),
    'pods hairpin back to themselves',
    'preserve source pod IP for cluster IP traffic',
    'up and down services',
    'work after the service has been recreated',
    'work after restarting kube-proxy',
    'work after restarting the apiserver',
    'updated after adding or deleting ports',
    'same port number different protocols on NodePort',
    'create endpoints for unready pods',
    'terminating and unready endpoints with publishNotReadyAddresses true',
    'terminating and unready endpoints with publishNotReadyAddresses false',
    'ExternalIP not assigned to a node',
    'rejected when no endpoints exist',
    'rejected for evicted pods',
    'service-proxy-name label',
    'headless label',
    'internalTrafficPolicy=Local: pod to pod',
    'internalTrafficPolicy=Local: hostNetwork pod to pod',
    'internalTrafficPolicy=Local: pod and node to hostNetwork pod',
    'externalTrafficPolicy=Local for NodePort',
    'NodePort and HealthCheckNodePort when externalTrafficPolicy changes',
    'health check node port fails with only terminating endpoints',
    'fall back to terminating endpoints: internalTrafficPolicy=Cluster',
    'fall back to terminating endpoints: internalTrafficPolicy=Local',
    'fall back to terminating endpoints: externalTrafficPolicy=Cluster',
    'fall back to terminating endpoints: externalTrafficPolicy=Local',
    'same port different protocols on LoadBalancer, internal',
    'named targetPorts that resolve differently per endpoint',
    'ports, named ports of restartable init containers',
    ['SCTP service', NO_SCTP],
  ],
  'Granular checks': [
    ...['IPv4', 'IPv6'].flatMap((family) => [
      ...['pod-Service', 'node-Service', 'endpoint-Service'].flatMap((way) => [
        `${way}: http, ${family}`,
        `${way}: udp, ${family}`,
        [`${way}: sctp, ${family}`, NO_SCTP] as const,
      ]),
      `hostNetwork endpoints, ${family}`,
      `client IP affinity: http, ${family}`,
      `client IP affinity: udp, ${family}`,
      `large requests: http, ${family}`,
      `large requests: udp, ${family}`,
      `update endpoints: http, ${family}`,
      `update endpoints: udp, ${family}`,
      `update nodePort: http, ${family}`,
      `update nodePort: udp, ${family}`,
      `basic nodePort: udp, ${family}`,
    ]),
    'several services with one selector',
    'kube-proxy URLs',
    [
      'CLOSE_WAIT timeout of 1 h',
      "about a timer of the kernel's conntrack, which forwards nothing of ours: socket-translated connections have no timer at all, and docs/decisions/flows.md tells those of flows",
    ],
  ],
  Conntrack: [
    'UDP traffic preserved when the server pod cycles: NodePort',
    'UDP traffic preserved when the server pod cycles: ClusterIP',
    'UDP traffic preserved when the server pod cycles: ClusterIP from hostNetwork',
    'UDP traffic preserved when the server pod cycles: internalTrafficPolicy=Local',
    'UDP traffic preserved when initially unready endpoints get ready',
    'UDP traffic preserved when the targetPort of a NodePort service changes',
    'not vulnerable to the invalid conntrack state bug',
  ],
  LoadBalancers: [
    'type and port changes: TCP',
    'type and port changes: UDP',
    'without NodePort and back',
    'only source ranges allowed',
    'affinity with externalTrafficPolicy=Cluster',
    'affinity with externalTrafficPolicy=Local',
    'switching affinity with externalTrafficPolicy=Cluster',
    'switching affinity with externalTrafficPolicy=Local',
    'UDP when the server pod cycles on the same node',
    'UDP when the server pod cycles on different nodes',
    'no disruption during a rolling update with externalTrafficPolicy=Cluster',
    'no disruption during a rolling update with externalTrafficPolicy=Local',
    'externalTrafficPolicy=Local: works',
    'externalTrafficPolicy=Local: only nodes with endpoints',
    'externalTrafficPolicy=Local: all nodes with endpoints',
    'externalTrafficPolicy=Local: from pods',
  ],
  'EndpointSlice, topology, addresses, pods': [
    'EndpointSlice: multiple ports and multiple IPs over several slices',
    'topology hints',
    'traffic distribution: PreferClose',
    'traffic distribution: PreferSameZone',
    'traffic distribution: PreferSameNode, with fallback',
    'Service CIDRs: Services on a CIDR added live',
    'Pod lifecycle: blue-green deployment without downtime',
    'DNS over the cluster IP, UDP and TCP',
  ],
  'kube-proxy in iptables mode': [
    ['deleted rules come back', IPTABLES],
    ['metric for localhost nodePorts', IPTABLES],
  ],
};

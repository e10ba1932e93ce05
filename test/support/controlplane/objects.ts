/** Kubernetes objects as the tests write them. No kubelet runs: what it would report is given here. */

export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels?: Readonly<Record<string, string>> };
  readonly spec?: object;
  readonly status?: object;
  /** What kinds without a spec have: addressType, endpoints... */
  readonly [field: string]: unknown;
}

export interface PodInit {
  readonly name: string;
  readonly node: string;
  /** One for each family. */
  readonly ips: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** Container ports by name; a Service's targetPort may name one. */
  readonly ports?: readonly { readonly name: string; readonly containerPort: number; readonly protocol?: string }[];
  /** @default true */
  readonly ready?: boolean;
}

/** A pod that runs, as its node's kubelet would report it. */
export function pod({ name, node, ips, labels, ports = [], ready = true }: PodInit): KubernetesObject {
  const is = ready ? 'True' : 'False';
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels },
    spec: { nodeName: node, terminationGracePeriodSeconds: 30, containers: [{ name: 'main', image: 'none', ports }] },
    status: {
      phase: 'Running',
      podIP: ips[0],
      podIPs: ips.map((ip) => ({ ip })),
      conditions: [
        { type: 'Ready', status: is },
        { type: 'ContainersReady', status: is },
      ],
    },
  };
}

/** A node that is ready. */
export function node(name: string, addresses: readonly string[], podCIDRs: readonly string[]): KubernetesObject {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'kubernetes.io/hostname': name } },
    spec: { podCIDR: podCIDRs[0], podCIDRs },
    status: { addresses: addresses.map((address) => ({ type: 'InternalIP', address })), conditions: [{ type: 'Ready', status: 'True' }] },
  };
}

/** A Service in "default", `spec` as in the API. */
export function service(name: string, spec: object): KubernetesObject {
  return { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: 'default' }, spec };
}

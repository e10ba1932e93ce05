/** What a load balancer hears when it asks a node, at a Service's healthCheckNodePort, whether to send it traffic. */
import type { Address } from '../../agent/model/address.ts';
import { familyOf, formatEndpoint } from '../../agent/model/address.ts';
import type { KubernetesObject } from '../support/controlplane/objects.ts';
import type { Host } from '../support/lab/host.ts';
import { PATIENCE } from '../support/patience.ts';
import type { History, ServiceSpec } from './history.ts';
import { nodePortIn, worlds } from './history.ts';
import { FURTHER, inRegion, NODE_ADDRESSES } from './world.ts';

/** What one side answers: "200, 2 endpoints"; "nobody" when nobody listens. */
type Health = string;

/** A health check node port, at one address of the node. */
export interface HealthQuestion {
  readonly address: Address;
  readonly port: number;
}

/**
 * Every healthCheckNodePort that a history has had so far, in a region, at an InternalIP and another one of each family. Not of the
 * family that its Service has not: 'A health check node port answers on the node's other family'.
 */
export function healthQuestionsOf(history: History, region: number): HealthQuestion[] {
  const portOf = (object: KubernetesObject | undefined): number | undefined => (object?.spec as ServiceSpec | undefined)?.healthCheckNodePort;
  const ever = new Set(history.flatMap(({ changes }) => changes.map(({ object }) => portOf(object))).filter((port) => port !== undefined));
  const now = new Map([...(worlds(history).toArray().at(-1)?.values() ?? [])].map((object) => [portOf(object), object]));
  return [...ever].flatMap((port) => {
    const families = (now.get(port)?.spec as { readonly ipFamilies?: readonly string[] } | undefined)?.ipFamilies;
    const node = [...NODE_ADDRESSES, ...FURTHER.map((text) => inRegion(text, region) as Address)];
    const asked = node.filter((address) => families === undefined || families.includes(`IPv${familyOf(address)}`));
    return asked.map((address) => ({ address, port: nodePortIn(region, port) }));
  });
}

/**
 * Asks both nodes. A server may open, or count, a moment after the rules are written.
 * @returns the first difference, in words; undefined: they agree.
 */
export async function compareHealth(kubeProxy: Host, maglane: Host, questions: readonly HealthQuestion[]): Promise<string | undefined> {
  for (const { address, port } of questions) {
    for (const deadline = Date.now() + 2_000 * PATIENCE; ; await new Promise((resolve) => setTimeout(resolve, 20))) {
      const [theirs, ours] = await Promise.all([ask(kubeProxy, address, port), ask(maglane, address, port)]);
      if (theirs === ours) break;
      if (Date.now() > deadline) return `health check node port ${formatEndpoint(address, port)}\n  kube-proxy: ${theirs}\n  maglane:    ${ours}`;
    }
  }
  return undefined;
}

async function ask(node: Host, address: Address, port: number): Promise<Health> {
  const answer = await node.get(`http://${formatEndpoint(address, port)}/`).catch(() => undefined);
  if (answer === undefined) return 'nobody';
  const { localEndpoints } = JSON.parse(answer.body) as { readonly localEndpoints: number };
  return `${answer.status}, ${localEndpoints} endpoints`;
}

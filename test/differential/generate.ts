/** Random histories. One seed gives one history, whatever others there are. */
import type { KubernetesObject } from '../support/controlplane/objects.ts';
import type { Change, History, ServiceSpec, Step } from './history.ts';
import { isSettled } from './history.ts';
import { generateSlice, PORTS, sliceNames } from './generate-slice.ts';
import { Random } from '../support/random.ts';
import { FURTHER, ZONES } from './world.ts';

const SERVICES = ['a', 'b', 'c'];

/** What happens to the node at each step: the same for all histories, so that many can be played at once. */
const STEPS: readonly Omit<Step, 'changes'>[] = [
  { zone: ZONES[0], restart: false },
  { zone: ZONES[0], restart: false },
  { zone: '', restart: false },
  { zone: ZONES[1], restart: true },
  { zone: ZONES[1], restart: false },
  { zone: ZONES[0], restart: false },
  { zone: ZONES[2], restart: false },
];

/** A Service as it stands; each part is rolled anew on its own, as people change one thing at a time. */
interface Plan {
  /** For as long as it lives. */
  families: readonly ['IPv4', 'IPv6'] | readonly ['IPv6', 'IPv4'];
  /** The last part of its cluster IPs, for as long as it lives. */
  last: number;
  dual: boolean;
  /** May change while it is an ExternalName. */
  headless: boolean;
  type: string;
  ports: NonNullable<ServiceSpec['ports']>;
  externalIPs: readonly string[];
  ingress: readonly object[];
  sourceRanges: readonly string[];
  affinity: object;
  internal: string;
  external: string;
  allocates: boolean;
  otherProxy: boolean;
  /** For as long as it lives. */
  healthCheckNodePort: number;
  /** Its ports as they were written last. */
  written: NonNullable<ServiceSpec['ports']>;
}

/** Parts of a plan that may change while the Service lives. */
const PARTS = ['dual', 'type', 'ports', 'externalIPs', 'ingress', 'sourceRanges', 'affinity', 'internal', 'external', 'allocates', 'otherProxy'] as const;

/** The history of a seed. */
export function generate(seed: number): History {
  const random = new Random(seed);
  const plans = new Map<string, Plan>();
  const steps: Step[] = [];
  for (const { zone, restart } of STEPS) {
    for (;;) {
      const before = structuredClone([...plans]);
      const step = { zone, restart, changes: generateChanges(random, plans) };
      if (isSettled([...steps, step])) {
        steps.push(step);
        break;
      }
      plans.clear();
      for (const [name, plan] of before) plans.set(name, plan);
    }
  }
  return steps;
}

function generateChanges(random: Random, plans: Map<string, Plan>): Change[] {
  return Array.from({ length: 1 + random.below(5) }, () => {
    const name = random.pick(SERVICES);
    const dice = random.below(100);
    if (dice < 45) return serviceChanges(random, name, plans);
    if (dice < 52) return [deletion(name, plans)];
    if (dice < 57) return [deletion(name, plans), ...serviceChanges(random, name, plans)];
    if (dice < 65) return [{ kind: 'EndpointSlice' as const, name: random.pick(sliceNames(name)), object: undefined }];
    return random.some(sliceNames(name)).map((slice) => ({ kind: 'EndpointSlice' as const, name: slice, object: generateSlice(random, name, slice) }));
  }).flat();
}

function deletion(name: string, plans: Map<string, Plan>): Change {
  plans.delete(name);
  return { kind: 'Service', name, object: undefined };
}

/** A new Service, or one or two parts of one rolled anew: deleted before, where the API would refuse the change. */
function serviceChanges(random: Random, name: string, plans: Map<string, Plan>): Change[] {
  const index = SERVICES.indexOf(name);
  const known = plans.get(name);
  const plan = known ?? createPlan(random, index);
  if (known !== undefined) for (const part of [random.pick(PARTS), random.pick(PARTS)]) Object.assign(plan, { [part]: ROLL[part](random, index) });
  if (plan.type === 'ExternalName') plan.headless = random.chance(1, 5);
  plans.set(name, plan);
  const before = plan.written;
  const object = toObject(name, plan);
  plan.written = (object.spec as ServiceSpec).ports ?? [];
  const change = { kind: 'Service' as const, name, object };
  return known !== undefined && isRefused(before, plan.written) ? [{ ...change, object: undefined }, change] : [change];
}

/** Whether the API sees a nodePort as taken by the Service itself: it lets protocols share one, but not come to share it by an update. */
function isRefused(before: Plan['ports'], after: Plan['ports']): boolean {
  const had = new Set(before.map(({ protocol, nodePort }) => `${protocol} ${nodePort}`));
  const numbers = [...before, ...after].map(({ nodePort }) => nodePort);
  return after.some(
    ({ protocol, nodePort }, i) => nodePort !== undefined && !had.has(`${protocol} ${nodePort}`) && numbers.slice(0, before.length + i).includes(nodePort),
  );
}

function createPlan(random: Random, index: number): Plan {
  return {
    families: random.pick([
      ['IPv4', 'IPv6'],
      ['IPv6', 'IPv4'],
    ]),
    last: 10 * (index + 1) + random.below(2),
    headless: random.chance(1, 25),
    dual: ROLL.dual(random, index),
    healthCheckNodePort: 80 + index,
    written: [],
    type: ROLL.type(random, index),
    ports: ROLL.ports(random, index),
    externalIPs: ROLL.externalIPs(random, index),
    ingress: ROLL.ingress(random, index),
    sourceRanges: ROLL.sourceRanges(random, index),
    affinity: ROLL.affinity(random, index),
    internal: ROLL.internal(random, index),
    external: ROLL.external(random, index),
    allocates: ROLL.allocates(random, index),
    otherProxy: ROLL.otherProxy(random, index),
  };
}

const ROLL: { readonly [P in (typeof PARTS)[number]]: (random: Random, index: number) => Plan[P] } = {
  dual: (random) => random.chance(2, 3),
  type: (random) =>
    random.pick(['ClusterIP', 'ClusterIP', 'ClusterIP', 'NodePort', 'NodePort', 'LoadBalancer', 'LoadBalancer', 'LoadBalancer', 'ExternalName']),
  ports: (random, index) => {
    const spread = random.chance(1, 6) ? 1000 : 0;
    const nodePort = index * 20 + random.below(2) * 10;
    if (random.chance(1, 5)) return [{ protocol: random.pick(['TCP', 'UDP']), port: 80 + spread, nodePort: nodePort + 9 }];
    const ports = random.some(PORTS).map(({ name, protocol, port, group }) => ({ name, protocol, port: port + spread, nodePort: nodePort + group }));
    return ports.length > 0 ? ports : [{ name: 'http', protocol: 'TCP', port: 80, nodePort }];
  },
  externalIPs: (random, index) =>
    random.chance(2, 3)
      ? []
      : random.some([`198.51.$.${index}`, `198.51.$.9`, `203.0.$.${index}`, random.pick([`fd00:51:$::${index}`, `FD00:51:$:0::${index}`]), ...FURTHER]),
  ingress: (random, index) =>
    random
      .some([
        { ip: `203.0.$.${index}` },
        { ip: `203.0.$.9` },
        { ip: random.pick([`fd00:203:$::${index}`, `FD00:203:$:0::${index}`]) },
        ...(random.chance(1, 4) ? FURTHER.map((ip) => ({ ip })) : []),
        { hostname: 'lb.example.com' },
        ...(random.chance(1, 12) ? [{ ip: '127.0.$.1' }] : []),
      ])
      .map((ingress) => ('hostname' in ingress || random.chance(1, 2) ? ingress : { ...ingress, ipMode: random.pick(['VIP', 'VIP', 'Proxy']) })),
  sourceRanges: (random, index) =>
    random.chance(2, 3)
      ? []
      : random.some(
          [
            '198.18.0.0/15',
            '100.64.0.0/10',
            '10.244.0.0/16',
            '10.244.1.0/24',
            '192.0.2.10/32',
            `203.0.$.${index}/32`,
            ' 198.18.0.0/24 ',
            'fd00:18::/32',
            'fd00:244::/32',
            'fd00:244:1::/48',
            'fd00:2::10/128',
            ...(random.chance(1, 4) ? ['0.0.0.0/0'] : []),
            ...(random.chance(1, 4) ? ['::/0'] : []),
          ],
          1,
          3,
        ),
  affinity: (random) =>
    random.chance(2, 3) ? {} : { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: random.pick([1, 60, 10_800, 86_400]) } } },
  internal: (random) => random.pick(['Cluster', 'Cluster', 'Local']),
  external: (random) => random.pick(['Cluster', 'Local']),
  allocates: (random) => random.chance(3, 4),
  otherProxy: (random) => random.chance(1, 30),
};

/** The object, without what the API would refuse for that type. */
function toObject(name: string, plan: Plan): KubernetesObject {
  const metadata = { name, ...(plan.otherProxy ? { labels: { 'service.kubernetes.io/service-proxy-name': 'other' } } : {}) };
  const { type, externalIPs, headless, last } = plan;
  const families = plan.families.slice(0, plan.dual ? 2 : 1);
  const clusterIPs = headless ? ['None'] : families.map((family) => (family === 'IPv4' ? `10.96.$.${last}` : `fd00:96::$${last}`));
  const object = { apiVersion: 'v1', kind: 'Service', metadata };
  if (type === 'ExternalName') return { ...object, spec: { type, externalName: 'example.com' } };
  const withNodePorts = !headless && (type === 'NodePort' || (type === 'LoadBalancer' && plan.allocates));
  const external = type !== 'ClusterIP' || externalIPs.length > 0;
  const spec = {
    type: headless ? 'ClusterIP' : type,
    clusterIP: clusterIPs[0],
    clusterIPs,
    ipFamilies: families,
    ipFamilyPolicy: families.length > 1 ? 'RequireDualStack' : 'SingleStack',
    ports: plan.ports.map(({ nodePort, ...port }) => (withNodePorts ? { ...port, nodePort } : port)),
    ...plan.affinity,
    ...(headless ? {} : { internalTrafficPolicy: plan.internal, externalIPs }),
    ...(external && !headless ? { externalTrafficPolicy: plan.external } : {}),
    ...(type === 'LoadBalancer' && !headless ? balancer(plan) : {}),
  };
  return { ...object, spec, ...(type === 'LoadBalancer' && !headless ? { status: { loadBalancer: { ingress: plan.ingress } } } : {}) };
}

function balancer({ sourceRanges, allocates, external, healthCheckNodePort }: Plan): object {
  return {
    loadBalancerSourceRanges: sourceRanges,
    allocateLoadBalancerNodePorts: allocates,
    ...(external === 'Local' ? { healthCheckNodePort } : {}),
  };
}

/** Counts what histories hold: a test of nothing would pass, too. */
import type { KubernetesObject } from '../support/controlplane/objects.ts';
import type { Endpoint, History, ServiceSpec } from './history.ts';
import { worlds } from './history.ts';
import { endpointsOf, FURTHER, HELD, HERE, NODE_ADDRESSES } from './world.ts';

type World = ReadonlyMap<string, KubernetesObject>;
/** A Service as the API has it; undefined: there is none. */
type Service = KubernetesObject | undefined;
type Row = Endpoint & { readonly nodeName?: string; readonly hints?: { readonly forZones?: object; readonly forNodes?: object } };
type Conditions = { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean };

const specOf = (service: Service): ServiceSpec | undefined => service?.spec as ServiceSpec | undefined;
const isHeadless = (service: Service): boolean => specOf(service)?.clusterIPs?.[0] === 'None';
const familiesOf = (service: Service): readonly string[] => (specOf(service)?.['ipFamilies'] as readonly string[] | undefined) ?? [];
const listOf = (service: Service, field: string): readonly string[] => (specOf(service)?.[field] as readonly string[] | undefined) ?? [];
const ingressOf = ({ status }: KubernetesObject): readonly { ip?: string; hostname?: string; ipMode?: string }[] =>
  (status as { readonly loadBalancer?: { readonly ingress?: readonly object[] } } | undefined)?.loadBalancer?.ingress ?? [];
const isLeaving = ({ conditions }: Row): boolean => {
  const { ready, serving = true, terminating } = (conditions ?? {}) as Conditions;
  return ready === false && serving && terminating === true;
};
const isReady = ({ conditions }: Row): boolean => (conditions as Conditions | undefined)?.ready !== false;
const vips = (service: KubernetesObject): readonly (string | undefined)[] => [...listOf(service, 'externalIPs'), ...ingressOf(service).map(({ ip }) => ip)];

/** What a Service may be like, given the rows of its slices. */
const SERVICES: Readonly<Record<string, (service: KubernetesObject, rows: readonly Row[]) => boolean>> = {
  'type ClusterIP': (service) => specOf(service)?.type === 'ClusterIP' && !isHeadless(service),
  'type NodePort': (service) => specOf(service)?.type === 'NodePort',
  'type LoadBalancer': (service) => specOf(service)?.type === 'LoadBalancer',
  'type ExternalName': (service) => specOf(service)?.type === 'ExternalName',
  headless: isHeadless,
  'of another proxy': ({ metadata }) => metadata.labels !== undefined,
  'IPv4 alone': (service) => familiesOf(service).join() === 'IPv4',
  'IPv6 alone': (service) => familiesOf(service).join() === 'IPv6',
  'dual stack, IPv4 first': (service) => familiesOf(service).join() === 'IPv4,IPv6',
  'dual stack, IPv6 first': (service) => familiesOf(service).join() === 'IPv6,IPv4',
  'SCTP beside TCP and UDP': (service) => new Set(specOf(service)?.ports?.map(({ protocol }) => protocol)).size === 3,
  'an unnamed port': (service) => specOf(service)?.ports?.some(({ name }) => name === undefined) === true,
  'source ranges': (service) => listOf(service, 'loadBalancerSourceRanges').length > 0 && ingressOf(service).length > 0,
  'source ranges of IPv4 alone': (service) =>
    listOf(service, 'loadBalancerSourceRanges').length > 0 && !listOf(service, 'loadBalancerSourceRanges').some((range) => range.includes(':')),
  'ipMode VIP': (service) => ingressOf(service).some(({ ipMode }) => ipMode === 'VIP'),
  'ipMode Proxy': (service) => ingressOf(service).some(({ ipMode }) => ipMode === 'Proxy'),
  'a load balancer with a hostname': (service) => ingressOf(service).some(({ hostname }) => hostname !== undefined),
  'a load balancer without nodePorts': (service) =>
    specOf(service)?.type === 'LoadBalancer' && specOf(service)?.ports?.every(({ nodePort }) => nodePort === undefined) === true,
  externalIPs: (service) => listOf(service, 'externalIPs').length > 0,
  'an external or load balancer IP that the node holds': (service) => vips(service).some((ip) => FURTHER.includes(ip ?? '')),
  'a cluster IP that the node holds': (service) => listOf(service, 'clusterIPs').some((ip) => HELD.includes(ip)),
  affinity: (service) => specOf(service)?.['sessionAffinity'] === 'ClientIP',
  'iTP Local with a local endpoint': (service, rows) => isLocal(service, 'internal') && rows.some(isHere),
  'iTP Local without': (service, rows) => isLocal(service, 'internal') && rows.length > 0 && !rows.some(isHere),
  'eTP Local with a local endpoint': (service, rows) => isLocal(service, 'external') && rows.some(isHere),
  'eTP Local without': (service, rows) => isLocal(service, 'external') && rows.length > 0 && !rows.some(isHere),
  'a health check node port': (service) => specOf(service)?.healthCheckNodePort !== undefined,
  'zone hints of all that is ready': (_, rows) => rows.some(isReady) && rows.filter(isReady).every(({ hints }) => hints?.forZones !== undefined),
  'node hints of all that is ready': (_, rows) => rows.some(isReady) && rows.filter(isReady).every(({ hints }) => hints?.forNodes !== undefined),
  'all endpoints terminating, some serving': (_, rows) => rows.some(isLeaving) && !rows.some(isReady),
  'endpoints, none of them serving': (_, rows) => rows.length > 0 && !rows.some((row) => isLeaving(row) || isReady(row)),
  'no endpoints': (_, rows) => rows.length === 0,
  'an endpoint on the host network': (_, rows) => rows.some(({ addresses }) => NODE_ADDRESSES.some((own) => own === addresses[0])),
  'an endpoint on no node': (_, rows) => rows.some(({ addresses }) => ([4, 6] as const).some((family) => endpointsOf(family).beyond === addresses[0])),
  'an endpoint of which no node is named': (_, rows) => rows.some(({ nodeName }) => nodeName === undefined),
};

/** What may happen to a Service in a step. */
const CHANGES: Readonly<Record<string, (before: Service, after: Service) => boolean>> = {
  'a Service is deleted': (before, after) => before !== undefined && after === undefined,
  'a Service gets another cluster IP': (before, after) =>
    familiesOf(before).length > 0 &&
    familiesOf(after).length > 0 &&
    lastOf(before) !== undefined &&
    lastOf(after) !== undefined &&
    lastOf(before) !== lastOf(after),
  'a Service becomes an ExternalName': (before, after) => before !== undefined && !isExternalName(before) && isExternalName(after),
  'an ExternalName becomes a Service': (before, after) => isExternalName(before) && after !== undefined && !isExternalName(after),
  'an ExternalName becomes headless': (before, after) => isExternalName(before) && isHeadless(after),
  'a Service gains a family': (before, after) => familiesOf(before).length === 1 && familiesOf(after).length === 2,
  'a Service loses a family': (before, after) => familiesOf(before).length === 2 && familiesOf(after).length === 1,
  'a Service goes over to another proxy': (before, after) =>
    before !== undefined && before.metadata.labels === undefined && after?.metadata.labels !== undefined,
  'iTP is switched': (before, after) => differ(before, after, 'internalTrafficPolicy'),
  'eTP is switched': (before, after) => differ(before, after, 'externalTrafficPolicy'),
  'affinity is switched': (before, after) =>
    before !== undefined && after !== undefined && specOf(before)?.['sessionAffinity'] !== specOf(after)?.['sessionAffinity'],
};

const isExternalName = (service: Service): boolean => specOf(service)?.type === 'ExternalName';
const isHere = ({ nodeName }: Row): boolean => nodeName === HERE;
const isLocal = (service: KubernetesObject, side: 'internal' | 'external'): boolean => specOf(service)?.[`${side}TrafficPolicy`] === 'Local';
const lastOf = (service: Service): string | undefined => listOf(service, 'clusterIPs')[0]?.match(/\d\d$/)?.[0];

function differ(before: Service, after: Service, field: string): boolean {
  const [one, other] = [specOf(before)?.[field], specOf(after)?.[field]];
  return one !== undefined && other !== undefined && one !== other;
}

/** In how many of these histories there is what, by its name. */
export function census(histories: readonly History[]): Map<string, number> {
  const counts = new Map(
    [...Object.keys(SERVICES), ...Object.keys(CHANGES), 'a slice is deleted', 'a Service is deleted and made anew at once'].map((name) => [name, 0]),
  );
  for (const history of histories) for (const name of namesIn(history)) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}

function namesIn(history: History): ReadonlySet<string> {
  const found = new Set<string>();
  const anew = history.some(({ changes }) =>
    changes.some(({ kind, name, object }, i) => kind === 'Service' && object === undefined && changes[i + 1]?.name === name),
  );
  if (anew) found.add('a Service is deleted and made anew at once');
  let before: World = new Map();
  for (const world of worlds(history)) {
    for (const key of new Set([...before.keys(), ...world.keys()])) {
      const [was, is] = [before.get(key), world.get(key)];
      if (!key.startsWith('Service/')) {
        if (was !== undefined && is === undefined) found.add('a slice is deleted');
        continue;
      }
      for (const [name, happens] of Object.entries(CHANGES)) if (happens(was, is)) found.add(name);
      if (is === undefined) continue;
      const rows = rowsOf(world, is.metadata.name);
      for (const [name, holds] of Object.entries(SERVICES)) if (holds(is, rows)) found.add(name);
    }
    before = new Map(world);
  }
  return found;
}

function rowsOf(world: World, service: string): Row[] {
  const slices = [...world.values()].filter(({ kind, metadata }) => kind === 'EndpointSlice' && metadata.labels?.['kubernetes.io/service-name'] === service);
  return slices.filter((slice) => slice['addressType'] !== 'FQDN').flatMap((slice) => slice['endpoints'] as Row[]);
}

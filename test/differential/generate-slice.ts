/** Random EndpointSlices: in every mood of readiness and hints that a controller, or somebody's own, might leave them. */
import type { KubernetesObject } from '../support/controlplane/objects.ts';
import type { Family } from '../../agent/model/desired.ts';
import type { Endpoint } from './history.ts';
import type { Random } from '../support/random.ts';
import { endpointsOf, HERE, THERE, ZONES } from './world.ts';

/** Service ports to choose from. One group, one nodePort: protocols of one port may share it. */
export const PORTS = [
  { name: 'http', protocol: 'TCP', port: 80, group: 0 },
  { name: 'alt', protocol: 'TCP', port: 8081, group: 1 },
  { name: 'dns', protocol: 'UDP', port: 53, group: 2 },
  { name: 'dns-tcp', protocol: 'TCP', port: 53, group: 2 },
  { name: 'quic', protocol: 'UDP', port: 80, group: 3 },
  { name: 'sctp', protocol: 'SCTP', port: 80, group: 0 },
] as const;

/** Names of the slices that a Service may have. */
export const sliceNames = (service: string): string[] => ['v4-0', 'v4-1', 'v6-0', 'v6-1', 'fqdn-0'].map((suffix) => `${service}-${suffix}`);

/** A whole slice. */
export function generateSlice(random: Random, service: string, name: string): KubernetesObject {
  const family: Family = name.includes('-v6-') ? 6 : 4;
  const isFqdn = name.includes('-fqdn-');
  const addressType = isFqdn ? 'FQDN' : `IPv${family}`;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, labels: { 'kubernetes.io/service-name': service, ...(random.chance(1, 40) ? { 'service.kubernetes.io/headless': '' } : {}) } },
    addressType,
    ports: generatePorts(random),
    endpoints: isFqdn ? [{ addresses: ['web.example.com'] }] : generateEndpoints(random, family),
  };
}

function generatePorts(random: Random): object[] {
  const named = PORTS.map(({ name, protocol }, i) => ({ name, protocol, port: 8000 + i + (random.chance(1, 6) ? 100 : 0) }));
  const unnamed = ['TCP', 'UDP'].map((protocol) => ({ protocol, port: 9000 }));
  // Names must differ, so a slice has either.
  const ports: { name?: string; protocol: string; port?: number }[] = random.chance(1, 5) ? [random.pick(unnamed)] : random.some(named, 5, 6);
  return ports.map((port) => {
    const dice = random.below(60);
    if (dice === 0) return { name: port.name, protocol: port.protocol };
    if (dice === 1) return { ...port, port: 0 };
    if (dice === 2) return { ...port, protocol: 'TCP' };
    return port;
  });
}

function generateEndpoints(random: Random, family: Family): Endpoint[] {
  const { here, there, beyond } = endpointsOf(family);
  const state = random.pick(STATES);
  const hints = random.pick(HINTS);
  const endpoints = random.some(random.pick([[...here, ...there], [...here, ...there], here, there, there])).map((address): Endpoint => {
    const nodeName = random.chance(1, 12) ? undefined : here.includes(address) ? HERE : THERE;
    const more = random.chance(1, 20) ? [family === 4 ? '10.244.7.7' : 'fd00:244:7::7'] : [];
    return { addresses: [address, ...more], nodeName, conditions: state(random), ...hints(random) };
  });
  if (random.chance(1, 8)) endpoints.push({ addresses: [beyond], conditions: state(random), ...hints(random) });
  // A row twice, in another state: the same pod's address, reused.
  const again = random.chance(1, 8) ? random.some(endpoints).map((endpoint) => ({ ...endpoint, conditions: random.pick(STATES)(random) })) : [];
  return [...endpoints, ...again];
}

type Conditions = { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean };

const READY: readonly Conditions[] = [{}, { ready: true }, { ready: true, serving: true, terminating: false }];
const NOT_READY: readonly Conditions[] = [{ ready: false }, { ready: false, serving: true }, { ready: false, serving: false, terminating: false }];
const LEAVING: readonly Conditions[] = [
  { ready: false, serving: true, terminating: true },
  { ready: false, serving: true, terminating: true },
  { ready: false, terminating: true },
  { ready: false, serving: false, terminating: true },
];
/** publishNotReadyAddresses makes what is leaving ready. */
const BOTH: readonly Conditions[] = [{ ready: true, serving: true, terminating: true }];

/** What the endpoints of one slice are like. */
const STATES: readonly ((random: Random) => Conditions)[] = [
  (random) => random.pick(READY),
  (random) => random.pick(READY),
  (random) => random.pick(LEAVING),
  (random) => random.pick(NOT_READY),
  (random) => random.pick([...READY, ...READY, ...NOT_READY, ...LEAVING, ...BOTH]),
  (random) => random.pick([...NOT_READY, ...LEAVING]),
];

const zones = (names: readonly string[]): object => ({ forZones: names.map((name) => ({ name })) });
const nodes = (names: readonly string[]): object => ({ forNodes: names.map((name) => ({ name })) });
const someOf = (random: Random, names: readonly string[]): readonly string[] => (random.chance(4, 5) ? [random.pick(names)] : random.some(names));

/** Hints of the endpoints of one slice. */
const HINTS: readonly ((random: Random) => object)[] = [
  () => ({}),
  () => ({}),
  (random) => ({ hints: zones([random.pick(ZONES)]) }),
  (random) => ({ hints: zones([ZONES[0]]), ...(random.chance(1, 8) ? { hints: undefined } : {}) }),
  (random) => ({ hints: { ...zones(someOf(random, ZONES)), ...nodes([random.pick([HERE, THERE])]) } }),
  (random) => ({ hints: { ...zones([random.pick(ZONES)]), ...(random.chance(2, 3) ? nodes(someOf(random, [HERE, THERE])) : {}) } }),
];

/**
 * Reads a Service: which service ports it has in each IP family, which frontends each of them
 * asks for, and what must be refused. Knows nothing of endpoints and of other Services.
 */
import { familyOf, formatEndpoint, parseAddress } from './address.ts';
import type { Address, Cidr } from './address.ts';
import { Checker } from './checks.ts';
import { ALGORITHMS, FORWARDINGS } from './desired.ts';
import type { Algorithm, Family, Forwarding, Frontend, FrontendKind, Protocol, ServiceKey } from './desired.ts';
import type { NodeFacts } from './facts.ts';
import type { Service, ServicePort } from './objects.ts';
import type { Problem } from './problem.ts';
import { rangesOf, readSourceRanges } from './source-ranges.ts';

/** `sessionAffinityConfig.clientIP.timeoutSeconds`, as the API bounds it. */
const LONGEST_AFFINITY = 86_400;
const DEFAULT_AFFINITY = 10_800;

export const ALGORITHM_ANNOTATION = 'maglane.io/algorithm';
export const FORWARDING_ANNOTATION = 'maglane.io/forwarding';

/** A frontend that a service port asks for; another Service may own it already. */
export interface Wanted {
  readonly frontend: Frontend;
  /** Names address, port and protocol: two frontends with one claim cannot both be. */
  readonly claim: string;
  /** Where the Service says so: "spec.externalIPs[0]". */
  readonly field: string;
}

/** One service port of one family, before endpoints are chosen. */
export interface ReadPort {
  readonly key: ServiceKey;
  readonly portName: string;
  readonly protocol: Protocol;
  readonly family: Family;
  readonly wanted: readonly Wanted[];
  /** Some policy chooses among all endpoints; among this node's (kube-proxy's UsesClusterEndpoints, UsesLocalEndpoints). */
  readonly usesCluster: boolean;
  readonly usesLocal: boolean;
  /** Of this family; undefined: open. */
  readonly sourceRanges: readonly Cidr[] | undefined;
}

export interface ReadService {
  readonly ports: readonly ReadPort[];
  /** Its addresses, of the families that it is of. */
  readonly vips: readonly Vip[];
  readonly algorithm: Algorithm;
  readonly forwarding: Forwarding;
  readonly affinitySeconds: number;
  readonly internalLocal: boolean;
  readonly externalLocal: boolean;
  /** 0: none. */
  readonly healthCheckNodePort: number;
  readonly problems: readonly Problem[];
}

/** An address of the Service that every one of its ports is served on. */
export interface Vip {
  readonly address: Address;
  readonly kind: FrontendKind;
  readonly field: string;
}

/** "Service namespace/name", as problems name it. */
export function nameOfService(service: Service): string {
  return `Service ${service.namespace}/${service.name}`;
}

/**
 * Whether kube-proxy's rules leave this Service to others: ExternalName, headless, no cluster IP
 * allocated yet, or labelled for another proxy.
 */
function isSkipped(service: Service): boolean {
  const first = service.clusterIPs[0] ?? '';
  return service.type === 'ExternalName' || first === '' || first === 'None' || service.proxyName !== '';
}

/** Reads one Service; undefined for one that is not ours to serve. */
export function readService(service: Service, facts: NodeFacts): ReadService | undefined {
  if (isSkipped(service)) return undefined;
  const check = new Checker(nameOfService(service));
  const type = check.choice('spec.type', service.type, ['ClusterIP', 'NodePort', 'LoadBalancer']);
  const externalPolicy = check.choice('spec.externalTrafficPolicy', service.externalTrafficPolicy, ['Cluster', 'Local']);
  const internalLocal = check.choice('spec.internalTrafficPolicy', service.internalTrafficPolicy, ['Cluster', 'Local']) === 'Local';
  // A ClusterIP Service without external IPs may carry a policy: it is not read (ExternalPolicyLocal).
  const externalLocal = externalPolicy === 'Local' && (type !== 'ClusterIP' || service.externalIPs.length > 0);

  const read = readVips(service, check);
  const families = new Set(read.filter((vip) => vip.kind === 'ClusterIP').map((vip) => familyOf(vip.address)));
  const vips = read.filter(({ address, field }) => {
    const family = familyOf(address);
    // Without any cluster IP that one is the problem, and told already.
    if (!families.has(family) && families.size > 0)
      check.refuse(field, address, `is IPv${family}, and the Service has no IPv${family} cluster IP`, 'invalid_address');
    return families.has(family);
  });
  const ranges = readSourceRanges(service, check);
  // With its gate AllowServiceExternalIPs off kube-proxy programs none of them, but they open the Service to the outside all the same.
  const programmed = facts.allowExternalIPs ? vips : vips.filter(({ kind }) => kind !== 'ExternalIP');

  const ports: ReadPort[] = [];
  const taken = new Set<string>();
  const named = new Set<string>();
  service.ports.forEach((port, index) => {
    const field = `spec.ports[${index}]`;
    const number = check.port(`${field}.port`, port.port);
    const protocol = check.protocol(`${field}.protocol`, port.protocol);
    const nodePort = readNodePort(port, `${field}.nodePort`, type, check);
    if (number === undefined || protocol === undefined) return;
    const name = `${port.name}/${protocol}`;
    if (named.has(name)) {
      check.refuse(`${field}.name`, port.name, 'is the name of an earlier port: a name of its own would be right', 'invalid_value');
      return;
    }
    named.add(name);
    for (const family of families) {
      const ours = vips.filter((vip) => familyOf(vip.address) === family);
      const served = programmed.filter((vip) => familyOf(vip.address) === family);
      const wanted = [...wantVips(served, number, protocol), ...wantNodePort(nodePort, family, protocol, `${field}.nodePort`, facts)];
      const external = nodePort !== 0 || ours.some((vip) => vip.kind !== 'ClusterIP');
      const loadBalancers = ours.filter((vip) => vip.kind === 'LoadBalancer').map((vip) => vip.address);
      ports.push({
        key: `${service.namespace}/${service.name}:${port.name}/${protocol}/${family}`,
        portName: port.name,
        protocol,
        family,
        wanted: withoutTaken(wanted, taken, check),
        usesCluster: !internalLocal || external,
        usesLocal: internalLocal || (externalLocal && external),
        sourceRanges: rangesOf(ranges, family, loadBalancers, facts),
      });
    }
  });
  // Read by the API's own rule (NeedsHealthCheck): elsewhere the field means nothing.
  const needsHealthCheck = type === 'LoadBalancer' && externalLocal && service.healthCheckNodePort !== 0;
  return {
    ports,
    vips: ports.length === 0 ? [] : programmed,
    algorithm: readChoice(service, ALGORITHM_ANNOTATION, ALGORITHMS, facts.defaultAlgorithm, check),
    forwarding: readForwarding(service, facts, check),
    affinitySeconds: readAffinity(service, check),
    internalLocal,
    externalLocal,
    healthCheckNodePort: needsHealthCheck ? (check.port('spec.healthCheckNodePort', service.healthCheckNodePort) ?? 0) : 0,
    problems: check.problems,
  };
}

/** The Service's addresses, the most telling kind first: the first frontend of an address and port stays. */
function readVips(service: Service, check: Checker): Vip[] {
  const vips: Vip[] = [];
  const add = (kind: FrontendKind, field: string, address: Address | undefined): void => {
    if (address !== undefined) vips.push({ address, kind, field });
  };
  service.clusterIPs.forEach((text, i) => {
    if (text === '') return;
    const family = readFamily(service, i, text, check);
    if (family !== undefined) add('ClusterIP', `spec.clusterIPs[${i}]`, check.addressOf(family, `spec.clusterIPs[${i}]`, text));
  });
  service.loadBalancerIngress.forEach((ingress, i) => {
    // Only a hostname, or a balancer that ends connections itself (KEP-1860): nothing for us to take.
    if (ingress.ip === '' || ingress.ipMode === 'Proxy') return;
    const field = `status.loadBalancer.ingress[${i}]`;
    if (ingress.ipMode !== 'VIP')
      check.refuse(`${field}.ipMode`, ingress.ipMode, 'is unknown, so the address is left alone: VIP or Proxy would be right', 'invalid_value');
    else add('LoadBalancer', `${field}.ip`, check.address(`${field}.ip`, ingress.ip));
  });
  service.externalIPs.forEach((text, i) => add('ExternalIP', `spec.externalIPs[${i}]`, check.address(`spec.externalIPs[${i}]`, text)));
  return vips;
}

/** The family that cluster IP `i` serves: its own where the Service, an old one, names no families. */
function readFamily(service: Service, i: number, text: string, check: Checker): Family | undefined {
  const written = service.ipFamilies[i];
  if (written === 'IPv4') return 4;
  if (written === 'IPv6') return 6;
  if (written !== undefined) return check.refuse(`spec.ipFamilies[${i}]`, written, 'is not a family: IPv4 or IPv6 would be', 'invalid_value');
  const address = parseAddress(text);
  return address === undefined ? 4 : familyOf(address);
}

/** The node port, or 0 when there is none or it is refused. */
function readNodePort(port: ServicePort, field: string, type: string, check: Checker): number {
  if (port.nodePort === 0) return 0;
  if (type !== 'ClusterIP') return check.port(field, port.nodePort) ?? 0;
  check.refuse(field, port.nodePort, 'needs a Service of type NodePort or LoadBalancer', 'invalid_value');
  return 0;
}

function want(frontend: Frontend, protocol: Protocol, field: string): Wanted {
  return { frontend, claim: `${formatEndpoint(frontend.address, frontend.port)}/${protocol}`, field };
}

function wantVips(vips: readonly Vip[], port: number, protocol: Protocol): Wanted[] {
  return vips.map(({ address, kind, field }) => want({ address, port, kind, hostOnly: false }, protocol, field));
}

function wantNodePort(port: number, family: Family, protocol: Protocol, field: string, facts: NodeFacts): Wanted[] {
  if (port === 0) return [];
  const of = (address: Address, hostOnly: boolean): Wanted => want({ address, port, kind: 'NodePort', hostOnly }, protocol, field);
  const wanted = facts.nodePortAddresses.filter((address) => familyOf(address) === family).map((address) => of(address, false));
  if (facts.localhostNodePorts) wanted.unshift(of((family === 4 ? '127.0.0.1' : '::1') as Address, true));
  return wanted;
}

/**
 * Drops what this Service has already: an external IP that is also the load balancer's says the same
 * twice, while a second port of the same number and protocol is told off.
 */
function withoutTaken(wanted: readonly Wanted[], taken: Set<string>, check: Checker): Wanted[] {
  const own = new Set<string>();
  const told = new Set<string>();
  const kept = wanted.filter(({ claim, field }) => {
    if (own.has(claim)) return false;
    if (!taken.has(claim)) {
      own.add(claim);
      return true;
    }
    if (!told.has(field)) check.refuse(field, claim, 'is taken by an earlier port of this Service: a port number of its own would be right', 'conflict');
    told.add(field);
    return false;
  });
  own.forEach((claim) => taken.add(claim));
  return kept;
}

/** One of the words that an annotation may have; the default where there is none, or none of them. */
function readChoice<T extends string>(service: Service, annotation: string, choices: readonly T[], otherwise: T, check: Checker): T {
  const written = service.annotations[annotation];
  if (written === undefined) return otherwise;
  const known = choices.find((choice) => choice === written);
  if (known !== undefined) return known;
  const message = `is unknown, so ${otherwise} stands: one of ${choices.join(', ')} would be right`;
  check.refuse(`metadata.annotations["${annotation}"]`, written, message, 'invalid_value');
  return otherwise;
}

function readForwarding(service: Service, facts: NodeFacts, check: Checker): Forwarding {
  const forwarding = readChoice(service, FORWARDING_ANNOTATION, FORWARDINGS, facts.defaultForwarding, check);
  if (forwarding === 'snat' || facts.dsr) return forwarding;
  const message = 'needs agents with --dsr-port, on every node, so snat stands';
  check.refuse(`metadata.annotations["${FORWARDING_ANNOTATION}"]`, forwarding, message, 'invalid_value');
  return 'snat';
}

function readAffinity(service: Service, check: Checker): number {
  const seconds = service.affinitySeconds;
  if (Number.isInteger(seconds) && seconds >= 0 && seconds <= LONGEST_AFFINITY) return seconds;
  const message = `is out of range, so ${DEFAULT_AFFINITY} stands: 1 to ${LONGEST_AFFINITY} would be right`;
  check.refuse('spec.sessionAffinityConfig.clientIP.timeoutSeconds', seconds, message, 'invalid_value');
  return DEFAULT_AFFINITY;
}

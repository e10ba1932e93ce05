/**
 * Every option of `maglane agent`, once: its flag, its key in the --config file, its reader, its
 * default and its help. The command line, the file and the reference page are made from this table.
 */
import { hostname } from 'node:os';
import { UsageError } from './usage-error.ts';
import type { Cidr } from '../model/address.ts';
import { ALGORITHMS, FORWARDINGS } from '../model/desired.ts';
import type { Reader } from './values.ts';
import { address, bindAddress, bool, cidr, Expected, integer, list, oneOf, portRange, text, url } from './values.ts';

interface Option<T> {
  /** What stands for the value in the help: "IP[,IP]". */
  readonly value: string;
  readonly read: Reader<T>;
  /** As written on a command line. */
  readonly default: string;
  /** How the default reads in the help where it is not a constant. */
  readonly defaultHelp?: string;
  readonly help: string;
}

const option = <T>(spec: Option<T>): Option<T> => spec;
const anyText: Reader<string> = (value) => value;

/** The key is the name in the file; the flag is the same in kebab case. */
const TABLE = {
  source: option({
    value: 'kubernetes|manifests',
    read: oneOf('kubernetes', 'manifests'),
    default: 'kubernetes',
    help: 'where Services and EndpointSlices come from',
  }),
  kubeconfig: option({ value: 'FILE', read: anyText, default: '', defaultHelp: 'in cluster', help: 'how to reach the API server' }),
  master: option({
    value: 'URL',
    read: url,
    default: '',
    help: "the API server, in place of the kubeconfig's; without a kubeconfig it is asked with no credentials",
  }),
  manifests: option({ value: 'PATH', read: anyText, default: '', help: 'file or folder of manifests, watched (with --source manifests)' }),
  nodeName: option({
    value: 'NAME',
    read: text('the name of the Node object'),
    default: hostname().toLowerCase(),
    defaultHelp: 'the host name',
    help: "this node's name",
  }),
  nodeIp: option({
    value: 'IP[,IP]',
    read: list(address),
    default: '',
    defaultHelp: "the Node object's, else the first uplink's",
    help: "this node's addresses, one a family",
  }),
  devices: option({
    value: 'DEV[,DEV]',
    read: list(text('a device name')),
    default: '',
    defaultHelp: 'the uplinks that hold the node IPs',
    help: 'devices that face the outside',
  }),
  podDevices: option({
    value: 'auto|none|PATTERN',
    read: text('auto, none or a pattern such as veth*'),
    default: 'auto',
    help: "devices that lead to this node's pods",
  }),
  clusterCidr: option({ value: 'CIDR[,CIDR]', read: list(cidr), default: '', help: "the pods' address ranges" }),
  detectLocalMode: option({
    value: 'MODE',
    read: oneOf('ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix'),
    default: 'ClusterCIDR',
    help: "how a source is told to be a pod: by --cluster-cidr, the Node's podCIDRs, or the device it comes from (BridgeInterface, InterfaceNamePrefix)",
  }),
  podBridgeInterface: option({
    value: 'DEV',
    read: anyText,
    default: '',
    help: 'the bridge that pods hang on (with --detect-local-mode BridgeInterface)',
  }),
  podInterfaceNamePrefix: option({
    value: 'PREFIX',
    read: anyText,
    default: '',
    help: "what names of pods' devices begin with (with --detect-local-mode InterfaceNamePrefix)",
  }),
  nodeportAddresses: option({
    value: 'primary|CIDR[,CIDR]',
    read: nodePortAddresses,
    default: 'primary',
    help: 'local addresses that serve nodePorts; of a family without a range, all',
  }),
  localhostNodeports: option({ value: 'true|false', read: bool, default: 'true', help: "serve nodePorts on 127.0.0.1 and ::1 to the node's own processes" }),
  masqueradeAll: option({
    value: 'true|false',
    read: bool,
    default: 'false',
    help: 'backends see an address of this node in place of the sources of packets to cluster IPs; sockets are not concerned',
  }),
  allowServiceExternalIps: option({ value: 'true|false', read: bool, default: 'true', help: 'serve the externalIPs of Services' }),
  ownLbIps: option({
    value: 'true|false',
    read: bool,
    default: 'false',
    help: 'reject unknown ports of load balancer and external IPs that no interface holds; where they are routed to this node, it avoids a loop',
  }),
  vipPing: option({ value: 'true|false', read: bool, default: 'true', help: 'answer pings of Services that have endpoints' }),
  algorithm: option({
    value: ALGORITHMS.join('|'),
    read: oneOf(...ALGORITHMS),
    default: 'maglev',
    help: 'choice of backend, where the annotation maglane.io/algorithm does not say: see docs/balancing.md',
  }),
  xdpMode: option({
    value: 'auto|native|generic|off',
    read: oneOf('auto', 'native', 'generic', 'off'),
    default: 'auto',
    help: 'XDP on the devices, or tc alone',
  }),
  forwarding: option({
    value: FORWARDINGS.join('|'),
    read: oneOf(...FORWARDINGS),
    default: 'snat',
    help: "how packets from outside reach other nodes' backends, where the annotation maglane.io/forwarding does not say: masqueraded, or as they are",
  }),
  dsrPort: option({
    value: 'PORT|off',
    read: dsrPort,
    default: '',
    defaultHelp: '6091 with --forwarding dsr, else off',
    help: 'UDP port at which nodes take what they send each other as it is; the same on all of them',
  }),
  snatPorts: option({ value: 'MIN-MAX', read: portRange, default: '61000-65535', help: 'source ports reserved for what is sent on' }),
  cgroup: option({ value: 'PATH', read: anyText, default: '', defaultHelp: 'the cgroup2 mount', help: 'cgroup whose sockets are served' }),
  bpffs: option({ value: 'PATH', read: text('a folder on a bpffs'), default: '/sys/fs/bpf/maglane', help: 'folder for the pinned maps and links' }),
  maxServices: option({
    value: 'N',
    read: integer(16, 1_048_576),
    default: '65536',
    help: 'service ports, one a family: 1 MB, and 300 bytes for each that is there',
  }),
  maxFrontends: option({
    value: 'N',
    read: integer(16, 4_194_304),
    default: '131072',
    help: 'address, port and protocol triples, and one for each address: 2 MB, and 88 bytes for each that is there',
  }),
  maxSourceRanges: option({
    value: 'N',
    read: integer(16, 4_194_304),
    default: '65536',
    help: 'loadBalancerSourceRanges, of each service port: 48 to 96 bytes for each that is there',
  }),
  maxBackends: option({ value: 'N', read: integer(16, 4_194_304), default: '262144', help: 'backends, 40 bytes each, 56 with --forwarding dsr: 10 MB' }),
  ringSlots: option({ value: 'N', read: integer(1024, 67_108_864), default: '4194304', help: 'slots for backend sets and Maglev tables, 4 bytes each: 17 MB' }),
  maxFlows: option({
    value: 'N',
    read: integer(1024, 16_777_216),
    default: '131072',
    help: 'tracked flows, 320 bytes each: 42 MB; the least recently used go first',
  }),
  maxAffinity: option({
    value: 'N',
    read: integer(64, 16_777_216),
    default: '65536',
    help: 'remembered clients, 96 bytes each: 6 MB; the least recently used go first',
  }),
  maxUdpPeers: option({
    value: 'N',
    read: integer(64, 8_388_608),
    default: '32768',
    help: 'VIPs that unconnected UDP sockets talk to, one for each socket and VIP, 256 bytes each: 8 MB; the least recently used go first',
  }),
  maxDevices: option({
    value: 'N',
    read: integer(16, 65_536),
    default: '1024',
    help: 'devices with programs: the uplinks, the tunnels, and one for each pod of this node; 130 bytes for each that is there',
  }),
  healthzBindAddress: option({ value: 'IP[:PORT]|off', read: bindAddress(10_256), default: '0.0.0.0:10256', help: '/healthz and /livez' }),
  metricsBindAddress: option({
    value: 'IP[:PORT]|off',
    read: bindAddress(10_249),
    default: '127.0.0.1:10249',
    help: '/metrics, /metrics/slis, /proxyMode, /configz, /statusz, /flagz',
  }),
  profiling: option({
    value: 'true|false',
    read: bool,
    default: 'false',
    help: 'with --metrics-bind-address also /debug/pprof/profile, a CPU profile of the agent, and /debug/flags/v, which sets its log level',
  }),
  logLevel: option({ value: 'debug|info|warn|error', read: oneOf('debug', 'info', 'warn', 'error'), default: 'info', help: 'the least that is logged' }),
  logFormat: option({ value: 'text|json', read: oneOf('text', 'json'), default: 'text', help: 'one line an entry, to standard error' }),
} as const;

export type OptionKey = keyof typeof TABLE;

/** The agent's options, read and checked. Lists are empty and texts "" where the default stands. */
export type AgentOptions = { readonly [K in OptionKey]: (typeof TABLE)[K] extends Option<infer T> ? T : never };

/** "nodeIp" -> "--node-ip". */
export function flagOf(key: string): string {
  return `--${key.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** The table's rows for the help and the reference page; `initial` is the default as a value. */
export function optionRows(): readonly { key: OptionKey; flag: string; value: string; default: string; initial: string; help: string }[] {
  return (Object.entries(TABLE) as [OptionKey, Option<unknown>][]).map(([key, spec]) => ({
    key,
    flag: flagOf(key),
    value: spec.value,
    default: spec.defaultHelp ?? spec.default,
    initial: spec.default,
    help: spec.help,
  }));
}

/** A value with the place it came from, for messages. */
export interface Given {
  readonly from: string;
  readonly value: string;
}

/**
 * Reads the options.
 * @param given by key: flags over file; what is missing takes its default.
 * @throws UsageError for a value that cannot be read, or options that contradict each other.
 */
export function readOptions(given: ReadonlyMap<OptionKey, Given>): AgentOptions {
  const options: Record<string, unknown> = {};
  for (const [key, spec] of Object.entries(TABLE) as [OptionKey, Option<unknown>][]) {
    const { from, value } = given.get(key) ?? { from: flagOf(key), value: spec.default };
    const read = spec.read(value);
    if (read instanceof Expected) throw new UsageError(from, value, read.right);
    options[key] = read;
  }
  const read = options as AgentOptions;
  if (read.source === 'manifests' && read.manifests === '') throw new UsageError('--manifests', '', 'a file or folder, as --source is manifests');
  if (read.detectLocalMode === 'BridgeInterface' && read.podBridgeInterface === '')
    throw new UsageError('--pod-bridge-interface', '', 'the name of a bridge, as --detect-local-mode is BridgeInterface');
  if (read.detectLocalMode === 'InterfaceNamePrefix' && read.podInterfaceNamePrefix === '')
    throw new UsageError('--pod-interface-name-prefix', '', 'what device names begin with, as --detect-local-mode is InterfaceNamePrefix');
  if (read.forwarding === 'dsr' && read.dsrPort === 0) throw new UsageError('--dsr-port', 'off', 'a port, as --forwarding is dsr');
  if (read.nodeName !== read.nodeName.toLowerCase()) throw new UsageError('--node-name', read.nodeName, 'lower case, as Node names are');
  return read;
}

function nodePortAddresses(value: string): 'primary' | readonly Cidr[] | Expected {
  if (value === 'primary') return 'primary';
  const read = list(cidr)(value);
  return read instanceof Expected || read.length === 0 ? new Expected('primary, or a comma-separated list of CIDRs') : read;
}

/** Undefined: as --forwarding asks for. 0: off. */
function dsrPort(value: string): number | undefined | Expected {
  if (value === '') return undefined;
  if (value === 'off') return 0;
  const read = integer(1, 65_535)(value);
  return read instanceof Expected ? new Expected('a port, 1 to 65535, or off') : read;
}

const DSR_PORT = 6091;

/** The UDP port at which nodes take what they send each other as it is; 0: they send nothing so. */
export function dsrPortOf({ forwarding, dsrPort: given }: AgentOptions): number {
  return given ?? (forwarding === 'dsr' ? DSR_PORT : 0);
}

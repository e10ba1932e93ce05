/**
 * KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1) in --config: the file of a cluster that
 * ran kube-proxy serves as it is. Every field is in one table: what it may hold, and what becomes of it.
 */
import { isIP } from 'node:net';
import type { ConfigFile } from './file.ts';
import { algorithmFor, lineFor } from './ipvs.ts';
import type { Given, OptionKey } from './options.ts';
import { UsageError } from './usage-error.ts';
import { cidr, Expected, list } from './values.ts';
import { familyOf } from '../model/address.ts';

export const API_VERSION = 'kubeproxy.config.k8s.io/v1alpha1';
export const KIND = 'KubeProxyConfiguration';

/** Whether a file says that it is of some API: Maglane's own keys have neither field. */
export function hasKind(fields: Readonly<Record<string, unknown>>): boolean {
  return 'apiVersion' in fields || 'kind' in fields;
}

/** What a field may hold; the text completes "expected ...". */
interface Type {
  readonly right: string;
  readonly holds: (value: unknown) => boolean;
}

interface Field {
  readonly type: Type;
  /** The option that it sets, undefined: it means nothing to eBPF; `text` gives undefined where the option's own default stands. */
  readonly sets?: OptionKey;
  readonly text?: (value: never, all: Settings) => string | undefined;
  /** What the log says of it, behind its name and value, where it becomes something else here. */
  readonly line?: (value: never, all: Settings) => string | undefined;
}

/** All that is set, by path: "clientConnection.kubeconfig". */
type Settings = ReadonlyMap<string, unknown>;

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);
const everyValue = (value: unknown, holds: (one: unknown) => boolean): boolean => isRecord(value) && Object.values(value).every(holds);
const whole = (min: number, max: number) => (value: unknown) => Number.isInteger(value) && Number(value) >= min && Number(value) <= max;

const text: Type = { right: 'a text', holds: (value) => typeof value === 'string' };
const bool: Type = { right: 'true or false', holds: (value) => typeof value === 'boolean' };
const texts: Type = { right: 'a list of texts', holds: (value) => Array.isArray(value) && value.every((one) => typeof one === 'string') };
const number: Type = { right: 'a number', holds: (value) => typeof value === 'number' };
const count: Type = { right: 'a whole number from 0', holds: whole(0, 2 ** 31 - 1) };
const gates: Type = { right: 'a mapping of gates to true or false', holds: (value) => everyValue(value, (one) => typeof one === 'boolean') };
const mapping: Type = { right: 'a mapping', holds: isRecord };
const mappings: Type = { right: 'a list of mappings', holds: (value) => Array.isArray(value) && value.every(isRecord) };
const integer = (min: number, max: number): Type => ({ right: `a whole number from ${min} to ${max}`, holds: whole(min, max) });
/** As Go's time.ParseDuration reads it. */
const duration: Type = {
  right: 'a duration such as 30s or 1h30m',
  holds: (value) => typeof value === 'string' && /^[+-]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+)$/.test(value),
};
const address: Type = { right: 'an IP address', holds: (value) => value === '' || (typeof value === 'string' && isIP(value) !== 0) };
const among = (...words: readonly string[]): Type => ({ right: `one of ${words.join(', ')}`, holds: (value) => value === '' || words.includes(String(value)) });
/** "v4", "v6" or one of each: more of one family would have no meaning (ValidateKubeProxyConfiguration). */
const clusterCidr: Type = {
  right: 'a CIDR, or one of each family: 10.244.0.0/16,fd00:244::/56',
  holds(value) {
    const read = typeof value === 'string' ? list(cidr)(value) : new Expected('');
    return !(read instanceof Expected) && read.length <= 2 && new Set(read.map(({ base }) => familyOf(base))).size === read.length;
  },
};

const sets = <T>(option: OptionKey, type: Type, text: (value: T, all: Settings) => string | undefined): Field => ({ type, sets: option, text });
const idle = (type: Type): Field => ({ type });

const orDefault = (value: string): string | undefined => (value === '' ? undefined : value);

/** Field by field, the names as v1alpha1 spells them. */
const FIELDS: Readonly<Record<string, Field>> = {
  featureGates: sets('allowServiceExternalIps', gates, (given: Readonly<Record<string, boolean>>) => given['AllowServiceExternalIPs']?.toString()),
  'clientConnection.kubeconfig': sets('kubeconfig', text, orDefault),
  'clientConnection.acceptContentTypes': idle(text),
  'clientConnection.contentType': idle(text),
  'clientConnection.qps': idle(number),
  'clientConnection.burst': idle(integer(-(2 ** 31), 2 ** 31 - 1)),
  'logging.format': sets('logFormat', among('text', 'json'), orDefault),
  'logging.flushFrequency': idle({ right: duration.right, holds: (value) => typeof value === 'number' || duration.holds(value) }),
  'logging.verbosity': sets('logLevel', count, levelOf),
  'logging.vmodule': idle(mappings),
  'logging.options': idle(mapping),
  // Trimmed and in lower case, as kube-proxy takes it (k8s.io/component-helpers/node/util.GetHostname).
  hostnameOverride: sets('nodeName', text, (name: string) => orDefault(name.trim().toLowerCase())),
  // Takes the place of the Node's address of its family, and moves the defaults below (SetDefaults_KubeProxyConfiguration).
  bindAddress: sets('nodeIp', address, (value: string) => (isUnspecified(value) ? undefined : value)),
  healthzBindAddress: sets('healthzBindAddress', text, (value: string, all) => value || (isIPv6(all) ? '[::]:10256' : '0.0.0.0:10256')),
  metricsBindAddress: sets('metricsBindAddress', text, (value: string, all) => value || (isIPv6(all) ? '[::1]:10249' : '127.0.0.1:10249')),
  bindAddressHardFail: idle(bool),
  enableProfiling: sets('profiling', bool, String),
  showHiddenMetricsForVersion: idle(text),
  mode: idle(among('iptables', 'ipvs', 'nftables')),
  detectLocalMode: sets('detectLocalMode', among('ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix'), orDefault),
  'detectLocal.bridgeInterface': sets('podBridgeInterface', text, orDefault),
  'detectLocal.interfaceNamePrefix': sets('podInterfaceNamePrefix', text, orDefault),
  clusterCIDR: sets('clusterCidr', clusterCidr, orDefault),
  nodePortAddresses: sets('nodeportAddresses', texts, (ranges: readonly string[]) => orDefault(ranges.join(','))),
  oomScoreAdj: idle(integer(-1000, 1000)),
  configSyncPeriod: idle(duration),
  'iptables.masqueradeBit': idle(integer(0, 31)),
  'iptables.masqueradeAll': sets('masqueradeAll', bool, (value: boolean, all) => (all.get('mode') === 'nftables' ? undefined : String(value))),
  'iptables.localhostNodePorts': sets('localhostNodeports', bool, String),
  'iptables.syncPeriod': idle(duration),
  'iptables.minSyncPeriod': idle(duration),
  'nftables.masqueradeBit': idle(integer(0, 31)),
  // Of the two that of the chosen mode counts, and iptables is the default (pkg/proxy/apis/config/v1alpha1/conversion.go).
  'nftables.masqueradeAll': sets('masqueradeAll', bool, (value: boolean, all) => (all.get('mode') === 'nftables' ? String(value) : undefined)),
  'nftables.syncPeriod': idle(duration),
  'nftables.minSyncPeriod': idle(duration),
  'ipvs.syncPeriod': idle(duration),
  'ipvs.minSyncPeriod': idle(duration),
  'ipvs.scheduler': {
    ...sets('algorithm', text, (scheduler: string, all) => algorithmFor(scheduler, all.get('mode'))),
    line: (scheduler: never, all) => lineFor(scheduler, all.get('mode')),
  },
  'ipvs.excludeCIDRs': idle(texts),
  'ipvs.strictARP': idle(bool),
  'ipvs.tcpTimeout': idle(duration),
  'ipvs.tcpFinTimeout': idle(duration),
  'ipvs.udpTimeout': idle(duration),
  'conntrack.maxPerCore': idle(count),
  'conntrack.min': idle(count),
  'conntrack.tcpEstablishedTimeout': idle(duration),
  'conntrack.tcpCloseWaitTimeout': idle(duration),
  'conntrack.tcpBeLiberal': idle(bool),
  'conntrack.udpTimeout': idle(duration),
  'conntrack.udpStreamTimeout': idle(duration),
  winkernel: idle(mapping),
  windowsRunAsService: idle(bool),
  portRange: idle(text),
};

/** What klog's verbosity means here. Its custom: 4 and more is for those who look for a fault. */
export function levelOf(verbosity: number): 'debug' | 'info' {
  return verbosity >= 4 ? 'debug' : 'info';
}

/** Every field that is known, with the option that it sets: for the documentation. undefined: it has no effect. */
export function kubeProxyFields(): readonly { path: string; option: OptionKey | undefined }[] {
  return Object.entries(FIELDS).map(([path, { sets: option }]) => ({ path, option }));
}

/**
 * Reads a KubeProxyConfiguration as kube-proxy does: what it does not know is warned of and passed over.
 * @param fields the parsed file. @param file its path, for messages.
 * @throws UsageError for another kind or version, a wrong type, a bad value or an unknown feature gate.
 */
export async function readKubeProxyConfiguration(fields: Readonly<Record<string, unknown>>, file: string): Promise<ConfigFile> {
  const { apiVersion, kind, ...rest } = fields;
  if (apiVersion !== API_VERSION) throw new UsageError(`${file}: apiVersion`, apiVersion ?? '', `${API_VERSION}, or neither apiVersion nor kind`);
  if (kind !== KIND) throw new UsageError(`${file}: kind`, kind ?? '', KIND);
  // Absent is as good as "": these defaults follow bindAddress.
  const settings = new Map<string, unknown>([
    ['healthzBindAddress', ''],
    ['metricsBindAddress', ''],
  ]);
  const warnings = flatten(rest, '', file, settings).map((path) => `${file}: unknown field "${path}" is passed over`);

  const read = await readSettings(
    settings,
    (path) => `${file}: ${path}`,
    (path) => path,
  );
  return { ...read, warnings: [...warnings, ...read.warnings] };
}

/**
 * What becomes of each field that is set.
 * @param settings by path, all known. @param from says in a message where a field is set. @param name says in `idle` which it is.
 * @throws UsageError for a wrong type, a bad value or an unknown feature gate.
 */
export async function readSettings(settings: Settings, from: (path: string) => string, name: (path: string) => string): Promise<ConfigFile> {
  const given = new Map<OptionKey, Given>();
  const warnings: string[] = [];
  const idle: string[] = [];
  for (const [path, value] of settings) {
    const field = FIELDS[path] as Field;
    if (!field.type.holds(value)) throw new UsageError(from(path), value, field.type.right);
    if (path === 'featureGates') idle.push(...(await otherGates(value, from(path))).map((gate) => `${name(path)}.${gate}`));
    if (field.sets !== undefined) {
      const written = field.text?.(value as never, settings);
      if (written !== undefined) given.set(field.sets, { from: from(path), value: written });
      const line = field.line?.(value as never, settings);
      if (line !== undefined) warnings.push(`${from(path)} ${JSON.stringify(value)} ${line}`);
    } else if (!isZero(value)) {
      idle.push(name(path));
    }
  }
  return { given, warnings, idle };
}

/** The gates that are named, but for the one that means something here. @throws UsageError for one that Kubernetes has not. */
async function otherGates(given: unknown, from: string): Promise<string[]> {
  const names = isRecord(given) ? Object.keys(given).filter((name) => name !== 'AllowServiceExternalIPs') : [];
  if (names.length === 0) return [];
  const { FEATURE_GATES } = await import('./feature-gates.ts');
  const unknown = names.find((name) => !FEATURE_GATES.has(name));
  if (unknown !== undefined) throw new UsageError(from, unknown, 'a feature gate of Kubernetes 1.36');
  return names;
}

/** Collects what is set, by path; null is as good as absent. @returns the paths of unknown fields. */
function flatten(fields: Readonly<Record<string, unknown>>, prefix: string, file: string, into: Map<string, unknown>): string[] {
  return Object.entries(fields).flatMap(([name, value]) => {
    const path = `${prefix}${name}`;
    const section = Object.keys(FIELDS).some((known) => known.startsWith(`${path}.`));
    if (!section && !Object.hasOwn(FIELDS, path)) return [path];
    if (value === null) return [];
    if (!section) into.set(path, value);
    else if (isRecord(value)) return flatten(value, `${path}.`, file, into);
    else throw new UsageError(`${file}: ${path}`, value, 'a mapping');
    return [];
  });
}

/** Files made by tools spell out every zero: those ask for nothing. */
function isZero(value: unknown): boolean {
  if (typeof value === 'object') return Object.values(value ?? {}).every(isZero);
  return value === 0 || value === false || /^(0+(s|m0s|h0m0s)?)?$/.test(String(value));
}

function isUnspecified(address: string): boolean {
  return address === '' || address === '0.0.0.0' || address === '::';
}

function isIPv6(all: Settings): boolean {
  return isIP(String(all.get('bindAddress') ?? '')) === 6;
}

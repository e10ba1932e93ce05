/**
 * kube-proxy's own flags, for DaemonSets that give it flags instead of a file. Each sets a field of KubeProxyConfiguration, as it
 * does there, and the field says what becomes of it. Those that Maglane has by the same name are in options.ts.
 */
import type { ConfigFile } from './file.ts';
import { readSettings } from './kube-proxy.ts';

/** What a flag is written as. "port": of a bind address, 0 for none. */
type Kind = 'text' | 'bool' | 'number' | 'list' | 'gates' | 'port';

export interface KubeProxyFlag {
  /** "--proxy-mode". */
  readonly flag: string;
  /** The field that it sets; undefined: it has none, and no effect here. */
  readonly path: string | undefined;
  readonly kind: Kind;
}

/** As `kube-proxy --help` of v1.36.3 has them; --healthz-port and --metrics-port are hidden there. */
const FLAGS: readonly (readonly [name: string, kind: Kind, path?: string])[] = [
  ['bind-address', 'text', 'bindAddress'],
  ['bind-address-hard-fail', 'bool', 'bindAddressHardFail'],
  ['boot-id-file', 'text'],
  ['config-sync-period', 'text', 'configSyncPeriod'],
  ['conntrack-max-per-core', 'number', 'conntrack.maxPerCore'],
  ['conntrack-min', 'number', 'conntrack.min'],
  ['conntrack-tcp-be-liberal', 'bool', 'conntrack.tcpBeLiberal'],
  ['conntrack-tcp-timeout-close-wait', 'text', 'conntrack.tcpCloseWaitTimeout'],
  ['conntrack-tcp-timeout-established', 'text', 'conntrack.tcpEstablishedTimeout'],
  ['conntrack-udp-timeout', 'text', 'conntrack.udpTimeout'],
  ['conntrack-udp-timeout-stream', 'text', 'conntrack.udpStreamTimeout'],
  ['feature-gates', 'gates', 'featureGates'],
  ['healthz-port', 'port', 'healthzBindAddress'],
  ['hostname-override', 'text', 'hostnameOverride'],
  ['iptables-localhost-nodeports', 'bool', 'iptables.localhostNodePorts'],
  ['iptables-masquerade-bit', 'number', 'iptables.masqueradeBit'],
  ['iptables-min-sync-period', 'text', 'iptables.minSyncPeriod'],
  ['iptables-sync-period', 'text', 'iptables.syncPeriod'],
  ['ipvs-exclude-cidrs', 'list', 'ipvs.excludeCIDRs'],
  ['ipvs-min-sync-period', 'text', 'ipvs.minSyncPeriod'],
  ['ipvs-scheduler', 'text', 'ipvs.scheduler'],
  ['ipvs-strict-arp', 'bool', 'ipvs.strictARP'],
  ['ipvs-sync-period', 'text', 'ipvs.syncPeriod'],
  ['ipvs-tcp-timeout', 'text', 'ipvs.tcpTimeout'],
  ['ipvs-tcpfin-timeout', 'text', 'ipvs.tcpFinTimeout'],
  ['ipvs-udp-timeout', 'text', 'ipvs.udpTimeout'],
  ['kube-api-burst', 'number', 'clientConnection.burst'],
  ['kube-api-content-type', 'text', 'clientConnection.contentType'],
  ['kube-api-qps', 'number', 'clientConnection.qps'],
  ['log-flush-frequency', 'text', 'logging.flushFrequency'],
  ['log-json-info-buffer-size', 'text'],
  ['log-json-split-stream', 'bool'],
  ['log-text-info-buffer-size', 'text'],
  ['log-text-split-stream', 'bool'],
  ['logging-format', 'text', 'logging.format'],
  ['machine-id-file', 'text'],
  ['metrics-port', 'port', 'metricsBindAddress'],
  ['oom-score-adj', 'number', 'oomScoreAdj'],
  ['proxy-mode', 'text', 'mode'],
  ['show-hidden-metrics-for-version', 'text', 'showHiddenMetricsForVersion'],
  ['v', 'number', 'logging.verbosity'],
  ['vmodule', 'text'],
];

/** These fields win over --config, as they do in kube-proxy; the others it passes over where there is a file. */
const WINNING = /^(hostnameOverride|logging\..*)$/;
/** Where a port alone is listened on. */
const HOSTS: Readonly<Record<string, string>> = { healthzBindAddress: '0.0.0.0', metricsBindAddress: '127.0.0.1' };

/** Every flag, for the command line and the documentation. */
export function kubeProxyFlags(): readonly KubeProxyFlag[] {
  return FLAGS.map(([name, kind, path]) => ({ flag: name.length === 1 ? `-${name}` : `--${name}`, path, kind }));
}

/**
 * Reads those of kube-proxy's flags that are given.
 * @param flags by their names in camel case; true for one without a value.
 * @param hasFile there is a --config: of the flags only those count that win over it.
 * @throws UsageError for a value that kube-proxy would not take.
 */
export async function readKubeProxyFlags(flags: Readonly<Record<string, string | true>>, hasFile: boolean): Promise<ConfigFile> {
  const settings = new Map<string, unknown>();
  const flagOf = new Map<string, string>();
  const warnings: string[] = [];
  const idle: string[] = [];
  for (const { flag, path, kind } of kubeProxyFlags()) {
    const written = flags[flag.replace(/^-+/, '').replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())];
    if (written === undefined) continue;
    if (path === undefined) idle.push(flag);
    else if (hasFile && !WINNING.test(path)) warnings.push(`${flag} is passed over: --config stands`);
    else {
      flagOf.set(path, flag);
      settings.set(path, valueOf(written, kind, path));
    }
  }
  // Of an IPv6 node the pages' addresses are IPv6 by default (SetDefaults_KubeProxyConfiguration).
  if (settings.has('bindAddress')) for (const path of Object.keys(HOSTS)) if (!settings.has(path)) settings.set(path, '');
  const nameOf = (path: string): string => flagOf.get(path) ?? '--bind-address';
  const read = await readSettings(settings, nameOf, nameOf);
  return { given: read.given, warnings: [...warnings, ...read.warnings], idle: [...idle, ...read.idle] };
}

/** The value as a file would hold it. What cannot be read stays text, and is refused as such. */
function valueOf(written: string | true, kind: Kind, path: string): unknown {
  // "-v=4": a short flag's value keeps the sign.
  const value = written === true ? 'true' : written.replace(/^=/, '');
  if (kind === 'bool') return value === 'true' ? true : value === 'false' ? false : value;
  if (kind === 'list') return value === '' ? [] : value.split(',');
  if (kind === 'gates') return Object.fromEntries(value.split(',').map((gate) => gateOf(gate)));
  const number = value === '' ? Number.NaN : Number(value);
  if (kind === 'number') return Number.isNaN(number) ? value : number;
  if (kind === 'port') return number === 0 ? 'off' : `${HOSTS[path] ?? ''}:${value}`;
  return value;
}

function gateOf(text: string): [string, unknown] {
  const [name = '', value] = text.trim().split('=');
  return [name, value === 'true' ? true : value === 'false' ? false : value];
}

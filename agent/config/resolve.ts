/** From a command line and the file it names to the options in force, with where each comes from. */
import type { ConfigFile } from './file.ts';
import { readConfigFile } from './file.ts';
import type { AgentOptions, Given, OptionKey } from './options.ts';
import { optionRows, readOptions } from './options.ts';
import { UsageError } from './usage-error.ts';

/** Flags of `maglane agent` by their names in camel case; true for one without a value. */
export type Flags = Readonly<Record<string, string | true>>;

/** One option in force. */
export interface Setting {
  readonly key: OptionKey;
  readonly flag: string;
  /** As on a command line. */
  readonly value: string;
  /** "default", "--node-ip", "/etc/maglane.yaml: nodeIp". */
  readonly from: string;
}

export interface Resolved {
  readonly options: AgentOptions;
  readonly settings: readonly Setting[];
  /** The --config file; undefined when there is none. */
  readonly file: { readonly path: string; readonly warnings: ConfigFile['warnings']; readonly idle: ConfigFile['idle'] } | undefined;
}

/**
 * Resolves the options: flags win over the file, the file over the defaults. kube-proxy's `--hostname-override`
 * and `-v` are read as what they set here, where Maglane's own flag is not given.
 * @throws UsageError for what cannot be read.
 */
export async function resolveOptions(flags: Flags): Promise<Resolved> {
  const path = typeof flags['config'] === 'string' ? flags['config'] : undefined;
  const file = path === undefined ? undefined : await readConfigFile(path);
  const given = new Map<OptionKey, Given>([...(file?.given ?? []), ...ofKubeProxy(flags)]);
  for (const { key, flag } of optionRows()) {
    const value = flags[key];
    if (value !== undefined) given.set(key, { from: flag, value: value === true ? 'true' : value });
  }
  const options = readOptions(given);
  const settings = optionRows().map(({ key, flag, initial }) => ({ key, flag, ...(given.get(key) ?? { value: initial, from: 'default' }) }));
  return { options, settings, file: path === undefined || file === undefined ? undefined : { path, warnings: file.warnings, idle: file.idle } };
}

/** kube-proxy's own flags that its DaemonSets carry beside --config, and that win over the file there, too. */
function ofKubeProxy({ hostnameOverride, v }: Flags): [OptionKey, Given][] {
  const given: [OptionKey, Given][] = [];
  // Trimmed and in lower case, as kube-proxy takes it; "" is as good as absent.
  const name = typeof hostnameOverride === 'string' ? hostnameOverride.trim().toLowerCase() : '';
  if (name !== '') given.push(['nodeName', { from: '--hostname-override', value: name }]);
  // klog's custom: 4 and more is for those who look for a fault. Written "-v=4", a short flag's value keeps the sign.
  const verbosity = typeof v === 'string' ? v.replace(/^=/, '') : undefined;
  if (verbosity !== undefined && !/^\d+$/.test(verbosity)) throw new UsageError('-v', verbosity, 'a whole number from 0');
  if (verbosity !== undefined) given.push(['logLevel', { from: '-v', value: Number(verbosity) >= 4 ? 'debug' : 'info' }]);
  return given;
}

/** Whether two resolutions come to the same. */
export function sameSettings(one: Resolved, other: Resolved): boolean {
  return one.settings.every(({ value }, i) => value === other.settings[i]?.value);
}

/** The settings as a --config file: those that are not the default. */
export function configText(settings: readonly Setting[]): string {
  const given = settings.filter(({ from }) => from !== 'default');
  const lines = given.map(({ key, value }) => `${key}: ${/^(true|false|\d+)$/.test(value) ? value : JSON.stringify(value)}\n`);
  return `# Options of maglane agent: docs/reference/options.md\n${lines.length === 0 ? '{}\n' : lines.join('')}`;
}

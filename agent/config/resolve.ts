/** From a command line and the file it names to the options in force, with where each comes from. */
import type { ConfigFile } from './file.ts';
import { readConfigFile } from './file.ts';
import { readKubeProxyFlags } from './kube-proxy-flags.ts';
import type { AgentOptions, Given, OptionKey } from './options.ts';
import { optionRows, readOptions } from './options.ts';

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
  /** Path of the --config file; undefined when there is none. */
  readonly path: string | undefined;
  /** For the log, a line each: what is passed over, or becomes something else here. */
  readonly warnings: readonly string[];
  /** Fields, by path, and flags of kube-proxy that are set and mean nothing to eBPF. */
  readonly idle: readonly string[];
}

/**
 * Resolves the options: flags win over the file, the file over the defaults. kube-proxy's own flags are read as what
 * they set here, where Maglane's own flag is not given.
 * @throws UsageError for what cannot be read.
 */
export async function resolveOptions(flags: Flags): Promise<Resolved> {
  const path = typeof flags['config'] === 'string' ? flags['config'] : undefined;
  const file = path === undefined ? NOTHING : await readConfigFile(path);
  const ofKubeProxy = await readKubeProxyFlags(flags, path !== undefined);
  const given = new Map<OptionKey, Given>([...file.given, ...ofKubeProxy.given]);
  for (const { key, flag } of optionRows()) {
    const value = flags[key];
    if (value !== undefined) given.set(key, { from: flag, value: value === true ? 'true' : value });
  }
  const options = readOptions(given);
  const settings = optionRows().map(({ key, flag, initial }) => ({ key, flag, ...(given.get(key) ?? { value: initial, from: 'default' }) }));
  return { options, settings, path, warnings: [...file.warnings, ...ofKubeProxy.warnings], idle: [...file.idle, ...ofKubeProxy.idle] };
}

const NOTHING: ConfigFile = { given: new Map(), warnings: [], idle: [] };

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

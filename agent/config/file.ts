/** The --config file: YAML with the options' names as keys, or a KubeProxyConfiguration. */
import { readFileSync } from 'node:fs';
import type { Document, YAMLError } from 'yaml';
import { hasKind, readKubeProxyConfiguration } from './kube-proxy.ts';
import type { Given, OptionKey } from './options.ts';
import { optionRows } from './options.ts';
import { UsageError } from './usage-error.ts';

/** What a configuration file gives. */
export interface ConfigFile {
  readonly given: ReadonlyMap<OptionKey, Given>;
  /** For the log, a line each: unknown and repeated fields, and those that become something else here. */
  readonly warnings: readonly string[];
  /** Fields, by path, that are set and mean nothing to eBPF. */
  readonly idle: readonly string[];
}

/**
 * Reads a configuration file.
 * @returns what it gives, by option key, lists joined by commas as on a command line; and what the log should say.
 * @throws UsageError when the file cannot be read or parsed, holds an unknown key (of Maglane's own) or a wrong value.
 */
export async function readConfigFile(path: string): Promise<ConfigFile> {
  const { parseDocument, LineCounter } = await import('yaml');
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError('--config', path, `a readable file (${(error as NodeJS.ErrnoException).code})`);
  }
  const lines = new LineCounter();
  const document = parseDocument(content, { lineCounter: lines, prettyErrors: false });
  // Not the end of a KubeProxyConfiguration: the last of several stands in what was parsed.
  const isRepeated = ({ code }: YAMLError): boolean => code === 'DUPLICATE_KEY';
  const repeated = document.errors.filter(isRepeated);
  const broken = document.errors.find((error) => !isRepeated(error));
  const line = ({ pos }: YAMLError): number => lines.linePos(pos[0]).line;
  refuse(path, broken, line);
  const fields = topOf(document, path);
  if (!hasKind(fields)) {
    refuse(path, repeated[0], line);
    return { given: ownOptions(fields, path), warnings: [], idle: [] };
  }
  const settings = await readKubeProxyConfiguration(fields, path);
  const name = ({ pos }: YAMLError): string => /^["']?([^\s"':]+)/.exec(content.slice(pos[0]))?.[1] ?? '';
  const told = repeated.map((error) => `${path}: repeated field "${name(error)}" at line ${line(error)}: the last one stands`);
  return { ...settings, warnings: [...told, ...settings.warnings] };
}

function refuse(path: string, error: YAMLError | undefined, line: (error: YAMLError) => number): void {
  if (error !== undefined) throw new UsageError('--config', path, `YAML: ${error.message} at line ${line(error)}`);
}

function topOf(document: Document.Parsed, path: string): Record<string, unknown> {
  const fields: unknown = document.toJS() ?? {};
  if (typeof fields !== 'object' || Array.isArray(fields)) throw new UsageError('--config', path, 'a mapping of options at the top');
  return fields as Record<string, unknown>;
}

function ownOptions(fields: Readonly<Record<string, unknown>>, path: string): Map<OptionKey, Given> {
  const known = new Map<string, OptionKey>(optionRows().map(({ key }) => [key, key]));
  const given = new Map<OptionKey, Given>();
  for (const [name, value] of Object.entries(fields)) {
    const key = known.get(name);
    if (key === undefined) throw new UsageError(`${path}:`, name, `one of ${[...known.keys()].join(', ')}`);
    given.set(key, { from: `${path}: ${name}`, value: asText(`${path}: ${name}`, value) });
  }
  return given;
}

function asText(from: string, value: unknown): string {
  if (Array.isArray(value)) return value.map((item) => asText(from, item)).join(',');
  if (value === null) return '';
  if (typeof value === 'object') throw new UsageError(from, value, 'a value or a list of values');
  return String(value);
}

/** The --config file: YAML with the options' names as keys. */
import { readFileSync } from 'node:fs';
import type { Given, OptionKey } from './options.ts';
import { optionRows } from './options.ts';
import { UsageError } from './usage-error.ts';

/**
 * Reads a configuration file.
 * @returns by option key what the file gives, lists joined by commas as on a command line.
 * @throws UsageError when the file cannot be read or parsed, or holds an unknown key.
 */
export async function readConfigFile(path: string): Promise<Map<OptionKey, Given>> {
  const { parseDocument } = await import('yaml');
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError('--config', path, `a readable file (${(error as NodeJS.ErrnoException).code})`);
  }
  const document = parseDocument(content);
  const broken = document.errors[0];
  if (broken !== undefined) throw new UsageError('--config', path, `YAML: ${broken.message.split('\n')[0]}`);
  const fields: unknown = document.toJS() ?? {};
  if (typeof fields !== 'object' || Array.isArray(fields)) throw new UsageError('--config', path, 'a mapping of options at the top');

  const known = new Map<string, OptionKey>(optionRows().map(({ key }) => [key, key]));
  const given = new Map<OptionKey, Given>();
  for (const [name, value] of Object.entries(fields as Record<string, unknown>)) {
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

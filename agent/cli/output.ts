/** How commands print: a table for eyes, JSON or YAML for programs. */
import { UsageError } from '../config/usage-error.ts';

export type OutputFormat = 'table' | 'json' | 'yaml';

/**
 * Reads `-o`.
 * @throws UsageError for anything but table, json and yaml.
 */
export function outputFormat(text: string): OutputFormat {
  if (text === 'table' || text === 'json' || text === 'yaml') return text;
  throw new UsageError('-o', text, 'table, json or yaml');
}

/** A column of a table; `right` aligns numbers. */
export interface Column {
  readonly title: string;
  readonly right?: boolean;
}

/** Lines of a table: columns as wide as their widest cell, two spaces between, nothing at line ends. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map(({ title }, i) => rows.reduce((most, row) => Math.max(most, row[i]?.length ?? 0), title.length));
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ right }, i) => (right === true ? (cells[i] ?? '').padStart(widths[i] ?? 0) : (cells[i] ?? '').padEnd(widths[i] ?? 0)))
      .join('  ')
      .trimEnd();
  return [line(columns.map(({ title }) => title)), ...rows.map(line)].map((text) => `${text}\n`).join('');
}

/**
 * Prints `data` as JSON or YAML, or what `table` makes of it.
 * @param table called only for the format table.
 */
export async function print<T>(format: OutputFormat, data: T, table: (data: T) => string): Promise<void> {
  if (format === 'table') process.stdout.write(table(data));
  else if (format === 'json') process.stdout.write(`${JSON.stringify(data, undefined, 2)}\n`);
  else process.stdout.write((await import('yaml')).stringify(data));
}

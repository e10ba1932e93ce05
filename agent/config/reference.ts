/** The reference page of the agent's options, made from their table: `node agent/config/reference.ts > docs/reference/options.md`. */
import { optionRows } from './options.ts';

/** The page in Markdown. */
export function optionsPage(): string {
  const rows = optionRows().map(
    ({ key, flag, value, default: standard, help }) =>
      `| \`${flag}\` | \`${key}\` | ${cell(value)} | ${key === 'nodeName' ? 'the host name' : cell(standard)} | ${help} |`,
  );
  return [
    '# Options of `maglane agent`',
    '',
    'On the command line, or by the name in the second column in the YAML file that `--config` names; the command line wins. Made from `agent/config/options.ts`.',
    '',
    '| flag | in the file | value | default | |',
    '|---|---|---|---|---|',
    ...rows,
    '',
    'Exit codes: 0 done, 1 failed, 2 bad usage or configuration. An error is one line: what was wrong, the value, what would be right.',
    '',
  ].join('\n');
}

const cell = (text: string): string => text.replaceAll('|', '\\|');

if (import.meta.main) process.stdout.write(optionsPage());

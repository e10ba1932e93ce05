/** Prints docs/acceptance.md, from the acceptance list and the tests that bear its lines' names: `node tools/acceptance.ts > docs/acceptance.md`. */
import { execFileSync } from 'node:child_process';
import { basename, join } from 'node:path';
import type { Line } from '../test/cluster/acceptance-lines.ts';
import { ACCEPTANCE } from '../test/cluster/acceptance-lines.ts';

const ROOT = join(import.meta.dirname, '..');

/**
 * The acceptance tests as vitest knows them, without running any: names by file.
 * @throws Error with what vitest said, when a file does not load.
 */
export function acceptanceTests(): Map<string, string> {
  const vitest = [join(ROOT, 'node_modules/vitest/vitest.mjs'), 'list', 'test/cluster/acceptance', '--project', 'cluster', '--json', '--staticParse=false'];
  const listed = JSON.parse(execFileSync(process.execPath, vitest, { cwd: ROOT, encoding: 'utf8' })) as { name: string; file: string }[];
  return new Map(listed.map(({ name, file }) => [name.split(' > ').at(-1) ?? name, basename(file)]));
}

/**
 * The page docs/acceptance.md.
 * @param tests files by the names of their tests.
 * @throws Error naming a line that is neither a test nor says why.
 */
export function acceptancePage(tests: ReadonlyMap<string, string>): string {
  const row = (line: Line): string => {
    if (typeof line !== 'string') return `| ${line[0]} | none: ${line[1]} |`;
    const file = tests.get(line);
    if (file === undefined) throw new Error(`no acceptance test is called "${line}", and no reason is given`);
    return `| ${line} | \`${file}\` |`;
  };
  const sections = Object.entries(ACCEPTANCE).map(([section, lines]) => `## ${section}\n\n| line | test |\n|---|---|\n${lines.map(row).join('\n')}\n`);
  return `# The acceptance list

What Kubernetes' own end-to-end tests ask of a service proxy. Every line is a test of that name in \`test/cluster/\`: driven through a real API server, with an agent on each of two nodes and real sockets in pods, on nodes and
outside, over IPv4 and IPv6. Or it says why it is none. Made by \`node tools/acceptance.ts\`.

${sections.join('\n')}`;
}

if (import.meta.main) process.stdout.write(acceptancePage(acceptanceTests()));

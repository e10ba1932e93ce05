/** The part of docs/benchmarks.md that speaks of the programs beside the data path. */
import { AGENT_CELLS } from './agent-cells.ts';
import type { Figure } from './agent-cells.ts';

const count = (value: number): string => value.toLocaleString('en-US');
const text = (value: number | undefined): string => (value === undefined ? '' : value >= 100 ? count(Math.round(value)) : value.toPrecision(3));

function section(name: string, title: string, figures: readonly Figure[]): string[] {
  if (figures.length === 0) return [];
  const rows = figures.map(
    ({ who, what, unit, services, endpoints, p50, spread, p99, samples }) =>
      `| ${count(services)} / ${count(endpoints)} | ${who} | ${what} | ${text(p50)}${spread === undefined ? '' : ` ± ${text(spread)}`} | ${text(p99)} | ${unit} | ${samples} |`,
  );
  return [`### ${name}`, '', `${title}.`, '', '| Services / endpoints | | | median | p99 | | samples |', '|--:|---|---|--:|--:|---|--:|', ...rows, ''];
}

/** Markdown; "" when nothing of it was measured. */
export function agentSections(figures: readonly Figure[]): string {
  if (figures.length === 0) return '';
  const intro =
    'One API server, and on a node of its own each the agent and the real kube-proxy, one after the other: both would slow each other. All of it, the API server too, shares the CPUs.';
  return [
    '## The agent and its peer',
    '',
    intro,
    '',
    ...AGENT_CELLS.flatMap(({ name, title }) =>
      section(
        name,
        title,
        figures.filter(({ cell }) => cell === name),
      ),
    ),
  ].join('\n');
}

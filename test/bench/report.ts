/**
 * Makes docs/benchmarks.md and its charts of build/bench.json, whose copy stands beside them: `node test/bench/report.ts [RESULTS]`.
 * Nothing in them is written by hand.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Report, Result } from './bench.ts';
import { agentSections } from './agent-report.ts';
import { chart } from './chart.ts';
import type { Variant } from './rig.ts';
import { isDistinct } from './statistics.ts';
import type { Summary } from './statistics.ts';

const ROOT = join(import.meta.dirname, '../..');
const PEERS: readonly Variant[] = ['maglane', 'iptables', 'nftables'];
const TITLES: Readonly<Record<Variant, string>> = { direct: 'direct', maglane: 'Maglane', iptables: 'kube-proxy iptables', nftables: 'kube-proxy nftables' };

const number = (value: number): string => (value >= 1_000 ? Math.round(value).toLocaleString('en-US') : value.toPrecision(3));
const ratio = ({ median, spread }: Summary): string => `${median.toFixed(3)} ± ${spread.toFixed(3)}`;

/** Those that were measured beside direct. */
const peersOf = ({ sides }: Result): Variant[] => PEERS.filter((peer) => sides[peer] !== undefined);

/** Which one is better, and how many times; a sentence for cells that do not tell Maglane from the better kube-proxy. */
function verdict({ sides: { maglane, iptables, nftables } }: Result): string {
  const [best] = [iptables, nftables].flatMap((peer) => (peer === undefined ? [] : [peer.ratio])).toSorted((a, b) => b.median - a.median);
  if (best === undefined) return '';
  if (!isDistinct(maglane.ratio, best)) return 'no difference beyond the spread';
  return `${maglane.ratio.median > best.median ? 'ahead' : 'behind'}, × ${(maglane.ratio.median / best.median).toFixed(2)}`;
}

function cellSection(cell: string, results: readonly Result[]): string {
  const [first] = results;
  if (first === undefined) return '';
  const rows = results.map((result) => {
    const { direct } = result.sides;
    const ratios = peersOf(result).map((peer) => ratio(result.sides[peer]!.ratio));
    return `| ${result.services.toLocaleString('en-US')} | ${number(direct.value.median)} | ${ratios.join(' | ')} | ${verdict(result)} |`;
  });
  const peers = peersOf(first);
  return [
    `## ${cell}: ${first.title}`,
    '',
    ...(first.note === undefined ? [] : [first.note, '']),
    `![${cell}](benchmarks/${cell}.svg)`,
    '',
    `| Services | direct (${first.unit}) | ${peers.map((peer) => TITLES[peer]).join(' | ')} | Maglane against ${peers.length > 2 ? 'the better of them' : 'it'} |`,
    `|--:|--:|${peers.map(() => '--:|').join('')}---|`,
    ...rows,
    '',
  ].join('\n');
}

function memorySection({ memory }: Report): string {
  const sizes = [...new Set(memory.map(({ services }) => services))];
  const names = [...new Set(memory.map(({ what }) => what))];
  const cell = (what: string, services: number): string => {
    const bytes = memory.find((one) => one.what === what && one.services === services)?.bytes;
    return bytes === undefined ? '-' : `${(bytes / 1e6).toFixed(0)} MB`;
  };
  return [
    '## Memory',
    '',
    'Resident memory of the process; of the maps, what the kernel charges for them.',
    '',
    `| | ${sizes.map((size) => `${size.toLocaleString('en-US')} Services`).join(' | ')} |`,
    `|---|${sizes.map(() => '--:').join('|')}|`,
    ...names.map((what) => `| ${what} | ${sizes.map((size) => cell(what, size)).join(' | ')} |`),
    '',
  ].join('\n');
}

/** @returns nothing when it was not measured. */
function packetSection({ packets }: Report): string[] {
  if (packets.length === 0) return [];
  return [
    '## One packet',
    '',
    'ns a packet in each program, over an empty one: BPF_PROG_TEST_RUN with 65,536 packets a round, on one CPU. Flows are met in no order: 256 of them fit into a CPU’s caches, 65,536 do not.',
    'A frame is 128 bytes of TCP from a client outside.',
    '',
    '| program | | a packet | flows | ns |',
    '|---|---|---|--:|--:|',
    ...packets.map(
      ({ program, family, title, flows, ns }) =>
        `| \`${program}\` | IPv${family} | ${title} | ${flows.toLocaleString('en-US')} | ${ns.median.toFixed(0)} ± ${ns.spread.toFixed(0)} |`,
    ),
    '',
  ];
}

function head(report: Report): string {
  const rounds = report.results[0]?.sides.direct.value.rounds ?? 0;
  return [
    '# Benchmarks',
    '',
    'Made by `make bench`, never by hand. Everything runs on one machine at once: clusters out of network namespaces, with nothing loaded (direct), with Maglane, and with the real kube-proxy v1.36.3 in',
    'iptables and in nftables mode, all following one API server. From outside, direct is the pod’s own address, by way of the same node as the node ports. Runs are interleaved; each ratio is to the direct run of the same round, above 1 is better. Medians ± half the distance between the quartiles.',
    'Absolute figures are this machine’s and mean little; the ratios are the result.',
    '',
    `${report.date.slice(0, 10)}, Linux ${report.kernel}, ${report.cpus} CPUs that clients, servers and forwarding share; ${rounds} rounds of ${report.seconds} s a cell.`,
    '',
    ...(report.leftOut?.length ? [`A short run, which leaves out: ${report.leftOut.join('; ')}.`, ''] : []),
  ].join('\n');
}

/** The bars of one cell at all sizes, as SVG. */
function chartOf(cell: string, results: readonly Result[]): string {
  const groups = results.map((result) => ({
    label: `${result.services.toLocaleString('en-US')} Services`,
    bars: peersOf(result).map((peer) => ({ label: TITLES[peer], value: result.sides[peer]!.ratio.median, spread: result.sides[peer]!.ratio.spread })),
  }));
  return chart(results[0]?.title ?? cell, groups);
}

/**
 * Everything that is made of a run, by its path below docs/.
 * @param text what bench.ts has written.
 */
export function benchmarkPages(text: string): ReadonlyMap<string, string> {
  const report = JSON.parse(text) as Report;
  const cells = [...Map.groupBy(report.results, ({ cell }) => cell)];
  const sections = cells.map(([cell, results]) => cellSection(cell, results));
  return new Map([
    ['benchmarks.md', [head(report), ...sections, ...packetSection(report), memorySection(report), agentSections(report.agent)].join('\n')],
    ['benchmarks/results.json', text],
    ...cells.map(([cell, results]): [string, string] => [`benchmarks/${cell}.svg`, chartOf(cell, results)]),
  ]);
}

if (import.meta.main) {
  const pages = benchmarkPages(readFileSync(process.argv[2] ?? join(ROOT, 'build/bench.json'), 'utf8'));
  // Charts of cells that were not measured would stay.
  rmSync(join(ROOT, 'docs/benchmarks'), { recursive: true, force: true });
  mkdirSync(join(ROOT, 'docs/benchmarks'));
  for (const [path, text] of pages) writeFileSync(join(ROOT, 'docs', path), text);
}

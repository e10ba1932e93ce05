/**
 * `make bench`: Maglane, the real kube-proxy in both modes and no proxy at all, side by side, interleaved, in one run.
 *
 *   node test/bench/bench.ts [--quick] [--sizes 1,1000] [CELL...]
 *
 * Writes build/bench.json; report.ts makes docs/benchmarks.md of it.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { AGENT_CELLS } from './agent-cells.ts';
import type { Figure } from './agent-cells.ts';
import { AgentRig } from './agent-rig.ts';
import type { Cell } from './cells.ts';
import { CELLS } from './cells.ts';
import { memoryOf } from './memory.ts';
import type { Memory } from './memory.ts';
import { packetCosts } from './packets.ts';
import type { PacketCost } from './packets.ts';
import type { Side, Variant } from './rig.ts';
import { Rig, VARIANTS } from './rig.ts';
import type { Summary } from './statistics.ts';
import { summarise } from './statistics.ts';

/** One cell at one number of Services. */
export interface Result {
  readonly cell: string;
  readonly title: string;
  /** How it was measured, where the title does not say it all. */
  readonly note?: string | undefined;
  readonly unit: string;
  readonly services: number;
  /** By variant: what was measured, and its ratio to direct in the same round; above 1 is better. */
  readonly sides: Readonly<Partial<Record<Variant, Measured>>> & { readonly direct: Measured; readonly maglane: Measured };
}

export interface Measured {
  readonly value: Summary;
  readonly ratio: Summary;
}

export interface Report {
  readonly date: string;
  readonly kernel: string;
  readonly cpus: number;
  readonly seconds: number;
  /** What a quick run, or one that was asked for some cells alone, is without; absent in older reports. */
  readonly leftOut?: readonly string[];
  readonly results: readonly Result[];
  readonly memory: readonly Memory[];
  readonly agent: readonly Figure[];
  readonly packets: readonly PacketCost[];
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: 'boolean', default: false }, sizes: { type: 'string', default: '' }, rounds: { type: 'string', default: '' } },
});
const say = (line: string): void => void process.stderr.write(`${clock()}  ${line}\n`);
const rounds = Number(values.rounds || (values.quick ? 4 : 9));
const seconds = values.quick ? 1 : 2;
const SIZES = [4, 1_000, 10_000];
const sizes = values.sizes === '' ? SIZES.filter((size) => !values.quick || size === 1_000) : values.sizes.split(',').map(Number);
const variants: readonly Variant[] = values.quick ? VARIANTS.filter((variant) => variant !== 'iptables') : VARIANTS;
/** A quick run is without these, so that it takes five minutes on two CPUs. */
const FULL_ONLY = new Set(['pod-udp', 'outside-bulk', 'connect-udp', 'footprint', 'coldstart']);
const names = [...CELLS, ...AGENT_CELLS].map(({ name }) => name).concat('packets');
const unknown = positionals.filter((name) => !names.includes(name));
if (unknown.length > 0) throw new Error(`no cell is called ${unknown.join(' or ')}: one of ${names.join(', ')} would be`);
const wanted = new Set(names.filter((name) => (positionals.length === 0 ? !values.quick || !FULL_ONLY.has(name) : positionals.includes(name))));
const isWanted = ({ name }: { readonly name: string }): boolean => wanted.has(name);
const cells = CELLS.filter(isWanted);
const agentCells = AGENT_CELLS.filter(isWanted);

/** Since the start, as minutes and seconds. */
function clock(): string {
  const passed = Math.round(process.uptime());
  return `${String(Math.floor(passed / 60)).padStart(2)}:${String(passed % 60).padStart(2, '0')}`;
}

async function measure(rig: Rig, cell: Cell, services: number): Promise<Result> {
  await using stack = new AsyncDisposableStack();
  stack.use(await cell.prepare?.(rig));
  const taken: Record<Variant, number[]> = { direct: [], maglane: [], iptables: [], nftables: [] };
  for (let round = 0; round < rounds; round++) {
    // Each round begins with another, so that none always comes after the same.
    const order = variants.map((_, i) => variants[(i + round) % variants.length] as Variant);
    for (const variant of order) {
      const side = rig.side(variant);
      await forget(side);
      taken[variant].push(await cell.measure(rig, side, seconds));
    }
  }
  const ratios = (variant: Variant): number[] =>
    taken[variant].map((value, round) => (cell.moreIsBetter ? value / (taken.direct[round] ?? NaN) : (taken.direct[round] ?? NaN) / value));
  const sides = Object.fromEntries(
    variants.map((variant): [Variant, Measured] => [variant, { value: summarise(taken[variant]), ratio: summarise(ratios(variant)) }]),
  ) as unknown as Result['sides'];
  const line = Object.entries(sides)
    .map(([variant, { ratio }]) => `${variant} ${ratio.median.toFixed(3)}±${ratio.spread.toFixed(3)}`)
    .join('  ');
  say(`${cell.name.padEnd(18)} ${String(services).padStart(6)} services  ${line}`);
  return { cell: cell.name, title: cell.title, note: cell.note, unit: cell.unit, services, sides };
}

/** Conntrack of the run before would slow down the next one, and only kube-proxy has it. */
async function forget({ front, back }: Side): Promise<void> {
  await Promise.all([front, back].map((node) => node.run(['conntrack', '--flush'])));
}

async function dataPath(results: Result[], memory: Memory[]): Promise<void> {
  say(`data path: ${cells.map(({ name }) => name).join(', ')}; ${rounds} rounds of ${seconds} s each for ${variants.join(', ')}`);
  await using rig = await Rig.start(variants);
  for (const size of sizes) {
    await rig.fill(size, (done) => say(`${done} Services`));
    await rig.settle(size);
    memory.push(...(await memoryOf(rig, size)));
    for (const cell of cells) results.push(await measure(rig, cell, size));
  }
}

async function agents(figures: Figure[]): Promise<void> {
  say(`agent: ${agentCells.map(({ name }) => name).join(', ')}`);
  await using rig = await AgentRig.start();
  for (const cell of agentCells) {
    const measured = await cell.measure(rig, { quick: values.quick, say });
    for (const { cell: name, services, endpoints, who, what, p50, p99, unit } of measured)
      say(
        `${name.padEnd(10)} ${services} / ${endpoints}  ${who}: ${what}: ${p50.toPrecision(3)} ${unit}${p99 === undefined ? '' : `, p99 ${p99.toPrecision(3)}`}`,
      );
    figures.push(...measured);
  }
}

async function programs(): Promise<PacketCost[]> {
  const costs = await packetCosts(rounds);
  for (const { program, family, title, flows, ns } of costs)
    say(`${program.padEnd(18)} IPv${family}, ${title}, ${flows} flows: ${ns.median.toFixed(0)} ns ± ${ns.spread.toFixed(0)}`);
  return costs;
}

const results: Result[] = [];
const memory: Memory[] = [];
const agent: Figure[] = [];
const packets = isWanted({ name: 'packets' }) ? await programs() : [];
if (cells.length > 0) await dataPath(results, memory);
if (agentCells.length > 0) await agents(agent);
const leftOut = [
  ...names.filter((name) => !wanted.has(name)),
  ...VARIANTS.filter((variant) => !variants.includes(variant)).map((variant) => `kube-proxy ${variant}`),
  ...SIZES.filter((size) => !sizes.includes(size)).map((size) => `${size.toLocaleString('en-US')} Services`),
];
const report: Report = { date: new Date().toISOString(), kernel: release(), cpus: cpus().length, seconds, leftOut, results, memory, agent, packets };
const folder = join(import.meta.dirname, '../../build');
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, 'bench.json'), JSON.stringify(report, undefined, 1));
if (leftOut.length > 0) say(`left out: ${leftOut.join(', ')}`);
say('written to build/bench.json');

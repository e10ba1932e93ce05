/**
 * What is measured of the programs beside the data path, the agent's and the real kube-proxy's: how long they take to start, how soon a
 * change is in force, and what they cost. Every cell brings its rig to the size that it wants.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Measured } from './agent-maps.ts';
import { now, PROXIES } from './agent-rig.ts';
import type { AgentRig, Proxy, Running } from './agent-rig.ts';
import { residentOf } from './memory.ts';
import { quantile, summarise } from './statistics.ts';

/** One row of one cell. */
export interface Figure {
  readonly cell: string;
  readonly who: string;
  readonly what: string;
  readonly unit: 'ms' | 's' | 'MB' | '%' | '1/s';
  readonly services: number;
  readonly endpoints: number;
  readonly p50: number;
  /** As of a `Summary`; absent where there are too few samples for one. */
  readonly spread?: number | undefined;
  /** undefined where there are too few samples for one. */
  readonly p99: number | undefined;
  readonly samples: number;
}

export interface Effort {
  readonly quick: boolean;
  readonly say: (line: string) => void;
}

export interface AgentCell {
  readonly name: string;
  /** For the reader: what was done. */
  readonly title: string;
  measure(rig: AgentRig, effort: Effort): Promise<Figure[]>;
}

const NAMES: Readonly<Record<Proxy, string>> = { maglane: 'Maglane', nftables: 'kube-proxy nftables' };
/** Samples from which on a 99th percentile says something. */
const MANY = 50;
/** Samples from which on a spread does. */
const FEW = 3;

/** Until a proxy that starts is given up, ms. */
const PATIENCE_MS = 300_000;

const FOOTPRINT = 'Resident memory and CPU of a process that has nothing to do, 10 s (with QUICK, 2 s) after it has programmed all';

/** In an order in which Services only become more. */
export const AGENT_CELLS: readonly AgentCell[] = [
  {
    name: 'footprint-small',
    title: `${FOOTPRINT}, of few Services`,
    measure: (rig, effort) => footprint('footprint-small', rig, 10, 1, effort),
  },
  {
    name: 'change',
    title: 'An EndpointSlice is written to the API server: until a pod gets its first answer from the new backend, which it asks for every millisecond',
    measure: async (rig, effort) => {
      await resize(rig, effort.quick ? 500 : 5_000, 1, effort);
      return eachProxy(rig, effort, async (proxy) => [...(await changes(rig, proxy, 1_000, effort)), ...(await changes(rig, proxy, 0, effort))]);
    },
  },
  {
    name: 'churn',
    title:
      'Slices of other Services are written as fast as the API server takes them, up to 1,000 a second: CPU of the proxy, and how soon a change after them is in force',
    measure: async (rig, effort) => {
      await resize(rig, effort.quick ? 500 : 5_000, 1, effort);
      return eachProxy(rig, effort, (proxy, running) => churn(rig, proxy, running, effort));
    },
  },
  {
    name: 'footprint',
    title: `${FOOTPRINT}, of many`,
    measure: (rig, effort) => footprint('footprint', rig, effort.quick ? 500 : 10_000, 10, effort),
  },
  {
    name: 'coldstart',
    title: `From the start of the process, with nothing programmed, to the first answer: all is programmed then. What takes longer than ${PATIENCE_MS / 1000} s is stopped, and counts as that`,
    measure: async (rig, effort) => {
      await resize(rig, effort.quick ? 500 : 10_000, 25, effort);
      return [...(await listing(rig, effort)), ...(await coldStarts(rig, effort))];
    },
  },
  {
    name: 'maps',
    title: 'The agent alone: from the event that was read to the maps written',
    measure: (_, effort) => inProcess(effort),
  },
];

async function resize(rig: AgentRig, services: number, each: number, { say }: Effort): Promise<void> {
  await rig.resize(services, each, (done) => say(`${done} of ${services} Services with ${each} endpoints`));
}

function figure(rig: { readonly size: AgentRig['size'] }, fields: Pick<Figure, 'cell' | 'who' | 'what' | 'unit'>, values: readonly number[]): Figure {
  const sorted = values.toSorted((a, b) => a - b);
  const p99 = values.length < MANY ? undefined : quantile(sorted, 0.99);
  const { median, spread, rounds: samples } = summarise(values);
  return { ...fields, ...rig.size, p50: median, spread: samples < FEW ? undefined : spread, p99, samples };
}

/** Runs one after the other, each from the first answer on; leaves nothing. */
async function eachProxy(rig: AgentRig, { say }: Effort, measure: (proxy: Proxy, running: Running) => Promise<Figure[]>): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const proxy of PROXIES) {
    say(NAMES[proxy]);
    await rig.lead(0);
    const answered = rig.answered(proxy, 0);
    const running = await rig.run(proxy);
    try {
      await answered;
      figures.push(...(await measure(proxy, running)));
    } finally {
      await running.stop();
      await rig.clear(proxy);
    }
  }
  return figures;
}

async function footprint(cell: string, rig: AgentRig, services: number, each: number, effort: Effort): Promise<Figure[]> {
  await resize(rig, services, each, effort);
  return eachProxy(rig, effort, async (proxy, { pid }) => {
    await sleep(effort.quick ? 2_000 : 10_000);
    const [before, at] = [cpuOf(pid), now()];
    await sleep(effort.quick ? 3_000 : 20_000);
    const share = (100 * (cpuOf(pid) - before)) / ((now() - at) / 1000);
    const of = { cell, who: NAMES[proxy] };
    return [
      figure(rig, { ...of, what: 'resident memory', unit: 'MB' }, [residentOf(pid) / 1e6]),
      figure(rig, { ...of, what: 'CPU when idle, of one CPU', unit: '%' }, [share]),
    ];
  });
}

/** @param gap ms between an answer and the next change. */
async function changes(rig: AgentRig, proxy: Proxy, gap: number, { quick }: Effort): Promise<Figure[]> {
  const count = { maglane: gap > 0 ? [5, 60] : [60, 500], nftables: gap > 0 ? [3, 30] : [3, 60] }[proxy][quick ? 0 : 1] ?? 0;
  const taken: number[] = [];
  for (let i = 1; i <= count; i++) {
    await sleep(gap);
    const to = i % 2 === 1 ? 1 : 0;
    const answered = rig.answered(proxy, to);
    const written = await rig.lead(to);
    taken.push((await answered) - written);
  }
  // The next ones begin where these did.
  const back = rig.answered(proxy, 0);
  await rig.lead(0);
  await back;
  const what = gap > 0 ? `${gap / 1000} s after the one before` : 'right after the one before';
  return [figure(rig, { cell: 'change', who: NAMES[proxy], what, unit: 'ms' }, taken)];
}

async function churn(rig: AgentRig, proxy: Proxy, { pid }: Running, { quick }: Effort): Promise<Figure[]> {
  const [seconds, perSecond, atOnce] = [quick ? 3 : 20, 1_000, 50];
  const [cpu, started] = [cpuOf(pid), now()];
  let done = 0;
  const writers = Array.from({ length: atOnce }, async () => {
    while (now() - started < seconds * 1000) {
      const n = done++;
      const due = started + (n * 1000) / perSecond;
      if (due > now()) await sleep(due - now());
      await rig.touch(n, Math.floor(n / rig.size.services) + 1);
    }
  });
  await Promise.all(writers);
  const answered = rig.answered(proxy, 1);
  const written = await rig.lead(1);
  const late = (await answered) - written;
  const of = { cell: 'churn', who: NAMES[proxy] };
  const back = rig.answered(proxy, 0);
  await rig.lead(0);
  await back;
  return [
    figure(rig, { ...of, what: 'changes that the API server took', unit: '1/s' }, [done / seconds]),
    figure(rig, { ...of, what: 'CPU for 1,000 changes', unit: 's' }, [((cpuOf(pid) - cpu) * 1000) / done]),
    figure(rig, { ...of, what: 'a change after all of them, to the first answer', unit: 'ms' }, [late]),
  ];
}

async function coldStarts(rig: AgentRig, { quick, say }: Effort): Promise<Figure[]> {
  const taken: Record<Proxy, { ms: number; cpu: number; resident: number }[]> = { maglane: [], nftables: [] };
  const rounds: Readonly<Record<Proxy, number>> = { maglane: quick ? 1 : 3, nftables: 1 };
  for (let round = 0; round < Math.max(...Object.values(rounds)); round++) {
    for (const proxy of PROXIES.filter((one) => round < rounds[one])) {
      const answered = rig.answered(proxy, 0);
      const started = now();
      const running = await rig.run(proxy);
      const ms = await Promise.race([answered.then((at) => at - started), sleep(PATIENCE_MS, PATIENCE_MS, { ref: false })]);
      taken[proxy].push({ ms, cpu: cpuOf(running.pid), resident: residentOf(running.pid) });
      say(`${NAMES[proxy]}: ${Math.round(ms)} ms`);
      await running.stop();
      await rig.clear(proxy);
    }
  }
  return PROXIES.flatMap((proxy) => {
    const of = { cell: 'coldstart', who: NAMES[proxy] };
    return [
      figure(
        rig,
        { ...of, what: 'process start to first answer', unit: 's' },
        taken[proxy].map(({ ms }) => ms / 1000),
      ),
      figure(
        rig,
        { ...of, what: 'CPU of the process until then', unit: 's' },
        taken[proxy].map(({ cpu }) => cpu),
      ),
      figure(
        rig,
        { ...of, what: 'resident memory then', unit: 'MB' },
        taken[proxy].map(({ resident }) => resident / 1e6),
      ),
    ];
  });
}

/** How long the API server takes to send it all, to one who does nothing with it. */
async function listing(rig: AgentRig, { quick }: Effort): Promise<Figure[]> {
  const node = rig.node('maglane');
  const taken: number[] = [];
  for (let round = 0; round < (quick ? 1 : 3); round++) {
    const { stdout, stderr } = await node.run([process.execPath, join(import.meta.dirname, 'agent-list.ts'), rig.kubeconfig, node.name]);
    const ms = Number(stdout.split(' ')[0]);
    if (!(ms > 0)) throw new Error(`listing: ${stderr}`);
    taken.push(ms / 1000);
  }
  return [figure(rig, { cell: 'coldstart', who: 'API server', what: 'its part: all lists, read and thrown away', unit: 's' }, taken)];
}

async function inProcess({ quick }: Effort): Promise<Figure[]> {
  const [services, each] = [quick ? 1_000 : 10_000, 25];
  const command = ['--max-semi-space-size=1', join(import.meta.dirname, 'agent-maps.ts'), String(services), String(each), quick ? '200' : '2000'];
  const { stdout } = await promisify(execFile)(process.execPath, command);
  const { cold, change, changeCpu, reclaimCpu, changes: samples } = JSON.parse(stdout) as Measured;
  const of = { cell: 'maps', who: 'Maglane', services, endpoints: services * each, p99: undefined, samples: 1 };
  return [
    { ...of, what: 'one endpoint changes: event read to maps written', unit: 'ms', p50: change.p50, p99: change.p99, samples },
    { ...of, what: 'its CPU, mean', unit: 'ms', p50: changeCpu, samples },
    { ...of, what: 'CPU to reclaim what it replaced, mean', unit: 'ms', p50: reclaimCpu, samples },
    { ...of, what: 'all at once: listing read to maps written', unit: 's', p50: cold.ms / 1000 },
    { ...of, what: 'its CPU', unit: 's', p50: cold.cpu / 1000 },
  ];
}

/** User and system time that a process has had, seconds, with that of the commands it has run: kube-proxy's nft. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / 100;
}

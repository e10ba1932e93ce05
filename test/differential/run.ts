/** Many histories, by seed: `make test-differential HISTORIES=N SEED=S`. */
import { generate } from './generate.ts';
import type { History } from './history.ts';
import type { Failure, Totals } from './play.ts';
import { newTotals, play } from './play.ts';
import type { Rig } from './rig.ts';
import { shrink } from './shrink.ts';
import { REGIONS } from './world.ts';

/** How long a history that failed is shrunk, in ms. */
const SHRINK_MS = 60_000;

export interface Result {
  readonly totals: Totals;
  /** For each history that failed, in words: its seed, the least of it that fails, both answers. */
  readonly failures: readonly string[];
}

/** Plays the histories of these seeds, and shrinks the first few that fail. */
export async function run(rig: Rig, seeds: readonly number[]): Promise<Result> {
  const totals = newTotals();
  const failed: { seed: number; history: History; failure: Failure }[] = [];
  for (let at = 0; at < seeds.length && failed.length < REGIONS; at += REGIONS) {
    const together = seeds.slice(at, at + REGIONS);
    const histories = together.map(generate);
    const failures = await play(rig, histories, totals);
    failures.forEach((failure, i) => {
      if (failure !== undefined && failure.refused !== true) failed.push({ seed: together[i]!, history: histories[i]!, failure });
    });
  }
  const playAll = async (some: readonly History[]): Promise<(Failure | undefined)[]> =>
    (await play(rig, some, newTotals())).map((failure) => (failure?.refused === true ? undefined : failure));
  const told: string[] = [];
  for (const { seed, history, failure } of failed.slice(0, 3)) {
    const least = await shrink(history, failure, { playAll, width: REGIONS, until: Date.now() + SHRINK_MS });
    told.push(format(seed, least.history, least.failure));
  }
  return { totals, failures: [...told, ...failed.slice(3).map(({ seed, failure }) => `seed ${seed}: ${failure.text}`)] };
}

function format(seed: number, history: History, failure: Failure): string {
  const steps = history.flatMap(({ zone, restart, changes }, step) => [
    `step ${step}, zone ${JSON.stringify(zone)}${restart ? ', after the agent was killed and started again' : ''}`,
    ...changes.map(({ kind, name, object }) => `  ${kind} ${name}: ${object === undefined ? 'deleted' : JSON.stringify(object)}`),
  ]);
  const when = failure.step >= history.length ? 'when all of it was deleted' : `at step ${failure.step}`;
  return [`seed ${seed}, ${when}: ${failure.text}`, ...steps].join('\n');
}

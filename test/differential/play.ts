/** Plays histories on the rig, as many at once as there are regions, and compares both sides after each step. */
import type { Tally } from './compare.ts';
import { compare, formatDifference } from './compare.ts';
import { healthQuestionsOf } from './health.ts';
import type { Change, History } from './history.ts';
import { questionsOf } from './questions.ts';
import type { Rig } from './rig.ts';
import { REGIONS } from './world.ts';

/** What went wrong with a history, and at which step of it; its length: after everything was deleted. */
export interface Failure {
  readonly step: number;
  readonly text: string;
  /** The API server refused a part of it: both sides saw something else than the history says, which proves nothing. */
  readonly refused?: true;
}

/** What was done in all. */
export interface Totals {
  steps: number;
  changes: number;
  refused: number;
  questions: number;
  readonly tally: Tally;
}

export const newTotals = (): Totals => ({ steps: 0, changes: 0, refused: 0, questions: 0, tally: new Map() });

/**
 * Plays histories with the same zones at the same steps, one to a region, and deletes what they made.
 * @returns the first failure of each; undefined: both sides agreed all along.
 */
export async function play(rig: Rig, histories: readonly History[], totals: Totals): Promise<(Failure | undefined)[]> {
  if (histories.length > REGIONS) throw new Error(`${histories.length} histories do not fit into ${REGIONS} regions`);
  const failures: (Failure | undefined)[] = histories.map(() => undefined);
  const steps = Math.max(...histories.map((history) => history.length));
  for (let step = 0; step < steps; step++) {
    const changes = histories.map((history, i) => (failures[i] === undefined ? (history[step]?.changes ?? []) : []));
    const { zone = '', restart = false } = histories[0]?.[step] ?? {};
    if (restart) await rig.restartAgent();
    if (changes.every((own) => own.length === 0) && zone === histories[0]?.[step + 1]?.zone) continue;
    await rig.setZone(zone);
    await takeStep(rig, histories, step, changes, failures, totals);
  }
  const { maglane } = await rig.inStep();
  const contradictions = maglane.contradictions();
  if (contradictions.length > 0) throw new Error(contradictions.join('; '));
  await takeStep(rig, histories, steps, histories.map(deletions), failures, totals);
  return failures;
}

/** Writes the changes of one step and compares. */
async function takeStep(
  rig: Rig,
  histories: readonly History[],
  step: number,
  changes: readonly (readonly Change[])[],
  failures: (Failure | undefined)[],
  totals: Totals,
): Promise<void> {
  const refused = await Promise.all(changes.map((own, i) => rig.write(own, i + 1)));
  const sides = await rig.inStep();
  totals.refused += refused.flat().length;
  await Promise.all(
    histories.map(async (history, i) => {
      if (failures[i] !== undefined) return;
      const no = refused[i]?.[0];
      if (no !== undefined) {
        failures[i] = { step, text: no, refused: true };
        return;
      }
      // After its last step all that it made is deleted.
      const past = step < history.length ? history.slice(0, step + 1) : [...history, { zone: '', restart: false, changes: changes[i] ?? [] }];
      const questions = questionsOf(past, i + 1);
      const difference = compare(sides, questions, totals.tally);
      totals.steps++;
      totals.changes += changes[i]?.length ?? 0;
      totals.questions += questions.length;
      const text = difference === undefined ? await rig.compareHealth(healthQuestionsOf(past, i + 1)) : formatDifference(difference, sides);
      if (text !== undefined) failures[i] = { step, text };
    }),
  );
}

/** What takes away all that a history made. */
function deletions(history: History): Change[] {
  const made = new Map(history.flatMap(({ changes }) => changes).map(({ kind, name }) => [`${kind}/${name}`, { kind, name, object: undefined }]));
  return [...made.values()];
}

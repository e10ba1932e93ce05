/** The least of a history that still differs: part after part is left out, as long as both sides still disagree. */
import type { Change, History, Step } from './history.ts';
import { isSettled } from './history.ts';
import type { Failure } from './play.ts';

/** What can be left out within an object: elements of lists, and fields. */
const FIXED = new Set([
  'apiVersion',
  'kind',
  'metadata',
  'addressType',
  'type',
  'name',
  'protocol',
  'port',
  'clusterIP',
  'clusterIPs',
  'ipFamilies',
  'addresses',
]);

/**
 * Shrinks a history that fails.
 * @param playAll plays histories, as many as `width`, each with the same zones as the first.
 * @param until ms since the epoch, when to make do with what there is.
 */
export async function shrink(
  history: History,
  failure: Failure,
  { playAll, width, until }: { playAll: (histories: readonly History[]) => Promise<(Failure | undefined)[]>; width: number; until: number },
): Promise<{ readonly history: History; readonly failure: Failure }> {
  let least: { readonly history: History; readonly failure: Failure } = { history: history.slice(0, failure.step + 1), failure };
  for (let at = 0; Date.now() < until;) {
    const candidates = smaller(least.history).slice(at, at + width);
    if (candidates.length === 0) break;
    const failures = await playAll(candidates);
    const found = failures.findIndex((one) => one !== undefined);
    if (found < 0) {
      at += candidates.length;
      continue;
    }
    least = { history: candidates[found]!, failure: failures[found]! };
    at += found;
  }
  return least;
}

/** Every history with one thing less, the biggest things first. Steps stay where they are, so that zones do. */
function smaller(history: History): History[] {
  const withStep = (index: number, step: Step): History => history.map((one, i) => (i === index ? step : one));
  const all = history.flatMap((step, s) => {
    const withChanges = (changes: readonly Change[]): History => withStep(s, { ...step, changes });
    const without = step.changes.map((_, c) => withChanges(step.changes.toSpliced(c, 1)));
    const inside = step.changes.flatMap((change, c) =>
      change.object === undefined ? [] : pieces(change.object).map((object) => withChanges(step.changes.with(c, { ...change, object }))),
    );
    return [...(step.changes.length > 1 ? [withChanges([])] : []), ...without, ...inside];
  });
  const sizes = new Map(all.map((one) => [one, JSON.stringify(one).length]));
  return all.filter(isSettled).sort((a, b) => sizes.get(a)! - sizes.get(b)!);
}

/** A value with one element or field less, at any depth. */
function pieces<T>(value: T): T[] {
  if (Array.isArray(value))
    return value.flatMap((element: unknown, i) => [value.toSpliced(i, 1), ...pieces(element).map((less) => value.with(i, less))]) as T[];
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, field]) => {
    const { [key]: _, ...rest } = value as Record<string, unknown>;
    const inner = key === 'metadata' ? [] : pieces(field as unknown).map((less) => ({ ...value, [key]: less }));
    return [...(FIXED.has(key) || key === 'spec' ? [] : [rest]), ...inner];
  }) as T[];
}

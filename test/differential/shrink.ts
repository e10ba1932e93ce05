/** The least of a history that still differs: part after part is left out, many at once, as long as both sides still disagree. */
import type { History } from './history.ts';
import { isSettled } from './history.ts';
import type { Failure } from './play.ts';

/** Where something is in a history: keys and indexes, from its steps down. */
type Path = readonly (string | number)[];

/** Fields without which an object is none, or another one. */
const FIXED = new Set(['apiVersion', 'kind', 'metadata', 'spec', 'addressType', 'type', 'name', 'protocol', 'port', 'clusterIP', 'clusterIPs', 'addresses']);

export interface Shrunk {
  readonly history: History;
  readonly failure: Failure;
}

export interface ShrinkOptions {
  /** Plays histories, as many as `width`, that all have the same zones at the same steps. */
  readonly playAll: (histories: readonly History[]) => Promise<(Failure | undefined)[]>;
  readonly width: number;
  /** ms since the epoch, when to make do with what there is. */
  readonly until: number;
}

/** Shrinks a history that fails: whole changes first, then what is in them. */
export async function shrink(history: History, failure: Failure, options: ShrinkOptions): Promise<Shrunk> {
  let least: Shrunk = { history: history.slice(0, failure.step + 1), failure };
  for (const parts of [changesOf, insidesOf]) least = await leaveOut(least, parts, options);
  return least;
}

/** Leaves out as much as it can of what `parts` names: coarse at first, then one by one. */
async function leaveOut(from: Shrunk, parts: (history: History) => Path[], { playAll, width, until }: ShrinkOptions): Promise<Shrunk> {
  let least = from;
  /** The first of these that still fails, after what all of them together give. */
  const attempt = async (groups: readonly (readonly Path[])[]): Promise<(readonly Path[])[]> => {
    const histories = groups.map((group) => without(least.history, group));
    const settled = histories.filter(isSettled);
    const failures = await playAll(settled);
    const failing = new Map(settled.map((one, i) => [one, failures[i]] as const).filter(([, failure]) => failure !== undefined));
    const found = histories.find((one) => failing.has(one));
    const good = groups.filter((_, i) => failing.has(histories[i]!));
    if (found !== undefined) least = { history: found, failure: failing.get(found)! };
    return good;
  };
  for (let size = Math.ceil(parts(least.history).length / width), at = 0; Date.now() < until;) {
    const groups = chunks(parts(least.history), size).slice(at, at + width);
    if (groups.length === 0) {
      if (size <= 1) break;
      size = Math.ceil(size / 4);
      at = 0;
      continue;
    }
    const before = least;
    const good = await attempt(groups);
    at += groups.length - good.length;
    if (good.length < 2) continue;
    // Each of them can go alone: all together, or the first half of them, if they may.
    least = before;
    await attempt([good.flat(), good.slice(0, Math.ceil(good.length / 2)).flat(), good[0]!]);
  }
  return least;
}

function chunks<T>(list: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size));
}

const changesOf = (history: History): Path[] => history.flatMap(({ changes }, step) => changes.map((_, i) => [step, 'changes', i]));

/** Every element and field of every object that can be left out. */
const insidesOf = (history: History): Path[] =>
  history.flatMap(({ changes }, step) => changes.flatMap(({ object }, i) => (object === undefined ? [] : pathsIn(object, [step, 'changes', i, 'object']))));

function pathsIn(value: unknown, at: Path): Path[] {
  if (Array.isArray(value)) return value.flatMap((element, i) => [[...at, i], ...pathsIn(element, [...at, i])]);
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, field]) => [
    ...(FIXED.has(key) ? [] : [[...at, key]]),
    ...(key === 'metadata' ? [] : pathsIn(field, [...at, key])),
  ]);
}

/** A history without some of its parts. Steps stay where they are, so that zones do. */
function without(history: History, paths: readonly Path[]): History {
  // Parts that a history has in several places must not go in all of them at once, as they would in a structured clone.
  const rest = JSON.parse(JSON.stringify(history)) as unknown;
  // From the end, and inner parts first, so that no path moves before its turn.
  for (const path of paths.toSorted(comparePaths).toReversed()) {
    const parent = path.slice(0, -1).reduce((value, key) => (value as Record<string | number, unknown>)[key], rest);
    const key = path.at(-1)!;
    if (Array.isArray(parent)) parent.splice(key as number, 1);
    else delete (parent as Record<string, unknown>)[key];
  }
  return rest as History;
}

function comparePaths(a: Path, b: Path): number {
  const differs = a.findIndex((key, i) => key !== b[i]);
  if (differs < 0) return a.length - b.length;
  const [one, other] = [a[differs]!, b[differs]];
  return other === undefined || one > other ? 1 : -1;
}

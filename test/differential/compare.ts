/** Both answers side by side: what differs, and whether it is meant to. */
import { familyOf, formatEndpoint } from '../../agent/model/address.ts';
import type { Answer, Question, Target } from './answer.ts';
import { formatAnswer, formatQuestion } from './answer.ts';
import { DIFFERENCES } from './differences.ts';
import type { Way } from './maglane.ts';
import { waysOf } from './maglane.ts';
import type { Sides } from './rig.ts';
import type { Setup } from './setups.ts';

/** One thing in which two answers to a question differ. */
export interface Difference {
  readonly setup: Setup;
  readonly question: Question;
  /** How the connection came to Maglane: kube-proxy knows packets alone. */
  readonly way: Way;
  readonly theirs: Answer;
  readonly ours: Answer;
  readonly in: 'verdict' | 'targets' | 'affinity' | 'masquerade';
  /** The target that only one side has, or that is masqueraded by one side alone; undefined for the others. */
  readonly target: Target | undefined;
}

/** Everything in which two answers differ: the verdicts alone where those do. */
export function differencesOf(asked: Pick<Difference, 'setup' | 'question' | 'way'>, theirs: Answer, ours: Answer): Difference[] {
  const difference = (what: Difference['in'], target?: Target): Difference => ({ ...asked, theirs, ours, in: what, target });
  if (theirs.verdict !== ours.verdict) return [difference('verdict')];
  const found = theirs.affinity === ours.affinity ? [] : [difference('affinity')];
  const nameOf = ({ address, port }: Target): string => formatEndpoint(address, port);
  const known = new Map(theirs.targets.map((target) => [nameOf(target), target]));
  for (const target of ours.targets) {
    const same = known.get(nameOf(target));
    known.delete(nameOf(target));
    if (same === undefined) found.push(difference('targets', target));
    else if (same.masquerade !== target.masquerade) found.push(difference('masquerade', target));
  }
  return [...found, ...[...known.values()].map((target) => difference('targets', target))];
}

/** Counts of what differs on purpose, by its name in the table. */
export type Tally = Map<string, number>;

/**
 * Asks both sides.
 * @param tally what differs on purpose is counted there.
 * @returns the first difference that no entry of the table explains; undefined: they agree.
 */
export function compare({ setup, kubeProxy, maglane }: Sides, questions: readonly Question[], tally: Tally): Difference | undefined {
  for (const question of questions) {
    const theirs = kubeProxy[familyOf(question.address)].ask(question);
    const found = waysOf(question.source).flatMap((way) => differencesOf({ setup, question, way }, theirs, maglane.ask(question, way)));
    for (const difference of found) {
      const meant = DIFFERENCES.find(({ explains }) => explains?.(difference) === true);
      if (meant === undefined) return difference;
      tally.set(meant.name, (tally.get(meant.name) ?? 0) + 1);
    }
  }
  return undefined;
}

/** Both answers, with the steps by which Maglane came to its own. */
export function formatDifference({ question, way, theirs, ours }: Difference, { maglane }: Sides): string {
  const why = maglane.explain(question, way).why.map((step) => `\n    ${step}`);
  return `${formatQuestion(question)}, by ${way}\n  kube-proxy: ${formatAnswer(theirs)}\n  maglane:    ${formatAnswer(ours)}${why.join('')}`;
}

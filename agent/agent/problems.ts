/** Standing problems: each told once when it appears, counted, and listed for whoever asks. */
import type { Problem, ProblemReason } from '../model/problem.ts';
import { formatProblem } from '../model/problem.ts';
import type { Log } from '../observe/log.ts';
import type { Counter, Metrics } from '../observe/metrics.ts';

/** Who found it: each stage has its own list for an object. */
export type Stage = 'source' | 'model' | 'plan' | 'devices' | 'health check';

export class Problems {
  readonly #log: Log;
  readonly #standing = new Map<string, readonly Problem[]>();
  readonly #refused: Counter;
  readonly #tell: (problem: Problem) => void;

  /** @param tell called with each problem that appears, besides the log. */
  constructor(log: Log, metrics: Metrics, tell: (problem: Problem) => void = () => undefined) {
    this.#log = log;
    this.#tell = tell;
    this.#refused = metrics.counter('maglane_refused_total', 'Items refused because they were wrong, by reason.');
    metrics.gauge('maglane_problems', 'Items that are refused now, by reason.', () => this.#byReason());
  }

  /** The problems that an object has now; an empty list clears them. Those that stood before are not told again. */
  set(stage: Stage, object: string, problems: readonly Problem[]): void {
    const key = `${stage} ${object}`;
    const known = new Set((this.#standing.get(key) ?? []).map(formatProblem));
    if (problems.length === 0) this.#standing.delete(key);
    else this.#standing.set(key, problems);
    for (const problem of problems) {
      const line = formatProblem(problem);
      if (known.has(line)) continue;
      this.#refused.add({ reason: problem.reason });
      this.#log.warn(line);
      this.#tell(problem);
    }
  }

  /** Clears what a stage found earlier, but for these objects. */
  retain(stage: Stage, objects: ReadonlySet<string>): void {
    for (const key of this.#standing.keys()) {
      if (key.startsWith(`${stage} `) && !objects.has(key.slice(stage.length + 1))) this.#standing.delete(key);
    }
  }

  #byReason(): [{ reason: string }, number][] {
    const counts = new Map<ProblemReason, number>();
    for (const problems of this.#standing.values()) for (const { reason } of problems) counts.set(reason, (counts.get(reason) ?? 0) + 1);
    return [...counts].map(([reason, count]) => [{ reason }, count]);
  }
}

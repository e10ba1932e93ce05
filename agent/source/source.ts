/** The contract between a source of Kubernetes objects and what consumes them. */
import type { Change } from '../model/objects.ts';
import type { Problem } from '../model/problem.ts';

export interface SourceSink {
  /** Objects that changed, in order. A fresh listing comes as the difference to the last one. */
  changes(changes: readonly Change[]): void;
  /**
   * Every kind has been listed once: what was never mentioned does not exist.
   * Called once; nothing may be removed from the dataplane before.
   */
  synced(): void;
  /** The standing problems of one object or file; an empty list clears them. */
  problems(object: string, problems: readonly Problem[]): void;
}

export interface Source {
  /** For people: "manifests ./examples", "kubernetes https://10.0.0.1:6443". */
  readonly name: string;
  /**
   * Feeds the sink until `signal` aborts, then resolves with nothing left running.
   * Rejects only for what no retry can mend (a folder that does not exist, an unreadable kubeconfig).
   */
  run(sink: SourceSink, signal: AbortSignal): Promise<void>;
}

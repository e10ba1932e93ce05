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

/** Writes objects where they come from. */
export interface ObjectWriter {
  /**
   * Creates an object.
   * @param path of its collection: "/apis/events.k8s.io/v1/namespaces/default/events".
   * @returns the HTTP status. Rejects when there is no answer.
   */
  create(path: string, object: object, signal: AbortSignal): Promise<number>;
}

export interface Source {
  /** For people: "manifests ./examples", "kubernetes https://10.0.0.1:6443". */
  readonly name: string;
  /** undefined where nothing can be written: files are the user's. */
  readonly writer?: ObjectWriter;
  /**
   * Feeds the sink until `signal` aborts, then resolves with nothing left running.
   * Rejects only for what no retry can mend (a folder that does not exist, an unreadable kubeconfig).
   */
  run(sink: SourceSink, signal: AbortSignal): Promise<void>;
}

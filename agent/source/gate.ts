/** Keeps what a source says until there is somebody to hear it: it lists while the kernel still verifies the programs. */
import type { SourceSink } from './source.ts';

export class Gate implements SourceSink {
  #sink: SourceSink | undefined;
  #kept: ((sink: SourceSink) => void)[] = [];

  changes(...said: Parameters<SourceSink['changes']>): void {
    this.#pass((sink) => sink.changes(...said));
  }

  synced(): void {
    this.#pass((sink) => sink.synced());
  }

  problems(...said: Parameters<SourceSink['problems']>): void {
    this.#pass((sink) => sink.problems(...said));
  }

  /** Hands all that was kept, in order, and from now on everything at once. To be called once. */
  open(sink: SourceSink): void {
    this.#sink = sink;
    const kept = this.#kept;
    this.#kept = [];
    for (const tell of kept) tell(sink);
  }

  #pass(tell: (sink: SourceSink) => void): void {
    if (this.#sink === undefined) this.#kept.push(tell);
    else tell(this.#sink);
  }
}

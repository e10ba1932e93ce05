/** A sink that remembers what a source told it. */
import type { Change } from '../../../agent/model/objects.ts';
import type { Problem } from '../../../agent/model/problem.ts';
import type { SourceSink } from '../../../agent/source/source.ts';

export class Recorder implements SourceSink {
  /** "Service default/web +" for what appeared or changed, "-" for what went away; "synced" among them. */
  readonly log: string[] = [];
  /** What stands now, by "Kind key". */
  readonly objects = new Map<string, NonNullable<Change['object']>>();
  readonly standing = new Map<string, readonly Problem[]>();
  syncs = 0;

  changes(changes: readonly Change[]): void {
    for (const { kind, key, object } of changes) {
      this.log.push(`${kind} ${key} ${object === undefined ? '-' : '+'}`);
      if (object === undefined) this.objects.delete(`${kind} ${key}`);
      else this.objects.set(`${kind} ${key}`, object);
    }
  }

  synced(): void {
    this.syncs++;
    this.log.push('synced');
  }

  problems(object: string, problems: readonly Problem[]): void {
    if (problems.length === 0) this.standing.delete(object);
    else this.standing.set(object, problems);
  }
}

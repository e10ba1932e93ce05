/**
 * What the sink has been told about one kind, and what to tell it next.
 *
 * Invariants:
 * - `#told` holds exactly the keys whose object the sink holds, with the resourceVersion it was told. Objects are not kept.
 * - A key leaves it only on a DELETED event, or at the end of a listing that was read in full and did not mention it.
 *   So nothing is removed while disconnected, nor in the middle of a listing, nor on the strength of a listing that
 *   held an object without a readable name (it may have been any of them).
 * - An object that does not decode is one standing Problem; the last version that did decode stays.
 */
import type { Change } from '../../model/objects.ts';
import type { SourceSink } from '../source.ts';
import type { Kind } from './kinds.ts';
import { openEnvelope } from './protobuf/envelope.ts';
import type { Meta } from './protobuf/meta.ts';
import { readMeta } from './protobuf/meta.ts';

export class Inventory {
  readonly #kind: Kind;
  readonly #sink: SourceSink;
  readonly #told = new Map<string, string>();
  readonly #unreadable = new Set<string>();
  /** Keys that the listing under way has mentioned; undefined outside of one. */
  #mentioned: Set<string> | undefined;
  #nameless = false;
  #pending: Change[] = [];

  constructor(kind: Kind, sink: SourceSink) {
    this.#kind = kind;
    this.#sink = sink;
  }

  /** A fresh listing begins; one that was under way is forgotten. */
  startListing(): void {
    this.#mentioned = new Set();
    this.#nameless = false;
  }

  /** The listing is complete: what it did not mention is gone. */
  finishListing(): void {
    const mentioned = this.#mentioned ?? new Set();
    this.#mentioned = undefined;
    if (this.#nameless) return;
    this.#readable('');
    for (const key of [...this.#told.keys(), ...this.#unreadable]) if (!mentioned.has(key)) this.#remove(key);
  }

  /** An object that exists, in an envelope: from an ADDED or MODIFIED event. */
  putEnveloped(bytes: Buffer): void {
    const object = this.#decoded('', () => this.#opened(bytes));
    if (object !== undefined) this.#put(object);
  }

  /** An object that exists, bare: from a list. */
  putBare(raw: Buffer): void {
    const object = this.#decoded('', () => named(raw));
    if (object !== undefined) this.#put(object);
  }

  /** An object that exists no more, or no longer matches the selectors: from a DELETED event. */
  removeEnveloped(bytes: Buffer): void {
    const object = this.#decoded('', () => this.#opened(bytes));
    if (object === undefined) return;
    this.#mentioned?.delete(object.key);
    this.#remove(object.key);
  }

  /** Hands the sink what has changed since the last call. */
  flush(): void {
    if (this.#pending.length === 0) return;
    const changes = this.#pending;
    this.#pending = [];
    this.#sink.changes(changes);
  }

  #opened(bytes: Buffer): Named {
    const { kind, raw } = openEnvelope(bytes);
    if (kind !== this.#kind.kind) throw new Error(`it says it is a ${JSON.stringify(kind)}`);
    return named(raw);
  }

  #put({ key, meta, raw }: Named): void {
    this.#mentioned?.add(key);
    if (this.#told.get(key) === meta.resourceVersion && !this.#unreadable.has(key)) return;
    const change = this.#decoded(key, () => this.#kind.changed(key, meta, raw));
    if (change === undefined) return;
    this.#pending.push(change);
    this.#told.set(key, meta.resourceVersion);
    this.#readable(key);
  }

  #remove(key: string): void {
    this.#readable(key);
    if (this.#told.delete(key)) this.#pending.push(this.#kind.gone(key));
  }

  /** What `decode` returns; undefined when it throws, which becomes the Problem of `key` ("": an object whose name is unknown). */
  #decoded<T>(key: string, decode: () => T): T | undefined {
    try {
      return decode();
    } catch (error) {
      if (key === '') this.#nameless = true;
      this.#unreadable.add(key);
      const message = `does not decode (${error instanceof Error ? error.message : String(error)}): its last readable version stays in force`;
      this.#sink.problems(this.#nameOf(key), [{ object: this.#nameOf(key), field: '', value: '', message, reason: 'unreadable' }]);
      return undefined;
    }
  }

  #readable(key: string): void {
    if (this.#unreadable.delete(key)) this.#sink.problems(this.#nameOf(key), []);
  }

  #nameOf(key: string): string {
    return `${this.#kind.kind} ${key === '' ? '(name unreadable)' : key}`;
  }
}

interface Named {
  readonly key: string;
  readonly meta: Meta;
  readonly raw: Buffer;
}

/** @throws Error for an object without a name. */
function named(raw: Buffer): Named {
  const meta = readMeta(raw);
  if (meta.name === '') throw new Error('it has no name');
  return { key: meta.namespace === '' ? meta.name : `${meta.namespace}/${meta.name}`, meta, raw };
}

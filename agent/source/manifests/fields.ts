/** Reading JSON that may have any shape. */
import type { ProblemReason } from '../../model/problem.ts';

/** What is wrong with one field. Thrown by the readers, caught where the smallest thing that can be refused is read. */
export class FieldError extends Error {
  override readonly name = 'FieldError';
  readonly field: string;
  readonly value: string;
  readonly reason: ProblemReason;

  constructor(field: string, value: unknown, message: string, reason: ProblemReason = 'unreadable') {
    super(message);
    this.field = field;
    this.value = typeof value === 'string' ? value : (JSON.stringify(value) ?? '').slice(0, 80);
    this.reason = reason;
  }
}

/** DNS labels (RFC 1123), the API's rule for most names. */
const LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/**
 * An object of JSON. Each reader takes null for absent, as the API does, and throws a FieldError for
 * another type than its own.
 */
export class Fields {
  readonly path: string;
  readonly #values: Readonly<Record<string, unknown>>;
  /** Takes an error that is not the end of the whole object: of a list item, or of a field with a default. */
  readonly refuse: (error: FieldError) => void;

  /** @param path of this object, "" for the whole. */
  constructor(value: unknown, path: string, refuse: (error: FieldError) => void) {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new FieldError(path, value, 'is not an object: names with values would be right');
    this.path = path;
    this.#values = value as Record<string, unknown>;
    this.refuse = refuse;
  }

  /** The path of a field of this object. */
  at(name: string): string {
    const step = /^[\w-]+$/.test(name) ? name : `[${JSON.stringify(name)}]`;
    return this.path === '' || step.startsWith('[') ? `${this.path}${step}` : `${this.path}.${step}`;
  }

  has(name: string): boolean {
    return this.#value(name) !== undefined;
  }

  text(name: string, absent = ''): string {
    const value = this.#value(name) ?? absent;
    if (typeof value === 'string') return value;
    throw new FieldError(this.at(name), value, 'is not a string: quotes would make it one');
  }

  /** A text that must be a DNS label; `absent` need not be. */
  label(name: string, absent: string): string {
    const value = this.text(name, absent);
    if (value === absent || LABEL.test(value)) return value;
    throw new FieldError(this.at(name), value, 'is not a name: at most 63 of a-z, 0-9 and - would be', 'invalid_value');
  }

  /** Any number: whether it may be a port or a time is for the model to say. */
  number(name: string, absent = 0): number {
    const value = this.#value(name) ?? absent;
    if (typeof value === 'number') return value;
    throw new FieldError(this.at(name), value, 'is not a number');
  }

  flag(name: string, absent: boolean): boolean {
    const value = this.#value(name) ?? absent;
    if (typeof value === 'boolean') return value;
    throw new FieldError(this.at(name), value, 'is neither true nor false');
  }

  /** ms since the epoch; 0 when absent or no time. */
  time(name: string): number {
    return Date.parse(this.text(name)) || 0;
  }

  /** An object within; an empty one when absent. */
  fields(name: string): Fields {
    return new Fields(this.#value(name) ?? {}, this.at(name), this.refuse);
  }

  /** A list of objects; an item whose reader throws is refused and left out. */
  list<T>(name: string, read: (item: Fields) => T): T[] {
    return this.#items(name, (value, path) => read(new Fields(value, path, this.refuse)));
  }

  /** A list of strings. */
  texts(name: string): string[] {
    return this.#items(name, (value, path) => {
      if (typeof value === 'string') return value;
      throw new FieldError(path, value, 'is not a string: quotes would make it one');
    });
  }

  /** All fields whose name begins with `prefix`; those that are no text are refused. */
  textsByName(prefix = ''): Record<string, string> {
    const texts: Record<string, string> = {};
    for (const name of Object.keys(this.#values)) {
      if (name.startsWith(prefix) && this.has(name)) this.#guard(() => (texts[name] = this.text(name)));
    }
    return texts;
  }

  #items<T>(name: string, read: (value: unknown, path: string) => T): T[] {
    const values = this.#value(name) ?? [];
    if (!Array.isArray(values)) throw new FieldError(this.at(name), values, 'is not a list');
    const items: T[] = [];
    values.forEach((value: unknown, i) => this.#guard(() => items.push(read(value, `${this.at(name)}[${i}]`))));
    return items;
  }

  #guard(read: () => void): void {
    try {
      read();
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      this.refuse(error);
    }
  }

  #value(name: string): unknown {
    return Object.hasOwn(this.#values, name) ? (this.#values[name] ?? undefined) : undefined;
  }
}

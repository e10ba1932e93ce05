/** The embedded source: Kubernetes objects in files, followed as they change. No cluster needed. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Source, SourceSink } from '../source.ts';
import { Catalog } from './catalog.ts';
import { readManifests, unreadable } from './file.ts';
import type { Note } from './file.ts';
import { findManifests, FolderWatch } from './folder.ts';
import type { Found, FoundFile, WatchTimes } from './folder.ts';

export interface ManifestsOptions {
  /** Is told of kinds that are no business of a service proxy. @default nobody */
  readonly log?: { debug(message: string): void };
  /** @default 100 ms to settle, 1 s of patience, a look every 5 s */
  readonly times?: WatchTimes;
}

const TIMES: WatchTimes = { settle: 100, patience: 1000, poll: 5000 };

/**
 * Reads a file, or every .yaml, .yml and .json file of a folder and its subfolders, and follows them.
 * A file that does not parse, an object of the wrong shape, and a path that is gone for the moment
 * keep what they last gave; a file that is deleted takes its objects along.
 */
export class ManifestsSource implements Source {
  readonly name: string;
  readonly #given: string;
  readonly #path: string;
  readonly #note: Note;
  readonly #watch: FolderWatch;
  readonly #catalog = new Catalog();
  /** Stamps of the files read, by name. */
  readonly #read = new Map<string, string>();

  /** @param path of a file or a folder; it must exist when `run` is called. */
  constructor(path: string, options: ManifestsOptions = {}) {
    this.name = `manifests ${path}`;
    this.#given = path;
    this.#path = resolve(path);
    this.#note = (message) => options.log?.debug(message);
    this.#watch = new FolderWatch(options.times ?? TIMES);
  }

  async run(sink: SourceSink, signal: AbortSignal): Promise<void> {
    const first = await this.#firstLook();
    try {
      await this.#take(first);
      if (signal.aborted) return;
      this.#tell(sink);
      sink.synced();
      for (;;) {
        await this.#watch.changed(signal);
        if (signal.aborted) return;
        await this.#lookAgain();
        if (signal.aborted) return;
        this.#tell(sink);
      }
    } finally {
      this.#watch.close();
    }
  }

  async #firstLook(): Promise<Found> {
    const right = 'a file or a folder of .yaml, .yml or .json files would be right';
    try {
      const found = await findManifests(this.#path);
      if (found !== undefined) return found;
    } catch (error) {
      throw new Error(`manifests ${JSON.stringify(this.#given)} cannot be read (${(error as NodeJS.ErrnoException).code}): ${right}`, { cause: error });
    }
    throw new Error(`manifests ${JSON.stringify(this.#given)} is not there: ${right}`);
  }

  async #lookAgain(): Promise<void> {
    try {
      const found = await findManifests(this.#path);
      if (found !== undefined) return await this.#take(found);
      this.#catalog.fail('', unreadable(this.#given, '', 'is gone, so what was read before stays until it is back'));
    } catch (error) {
      this.#catalog.fail('', unreadable(this.#given, '', `cannot be read, so what was read before stays: ${(error as Error).message}`));
    }
  }

  /** Reads what is new, and forgets what is gone. */
  async #take({ files, folders }: Found): Promise<void> {
    this.#watch.follow(folders);
    this.#catalog.recover('');
    const names = new Set(files.map((file) => file.name));
    for (const name of this.#read.keys()) {
      if (names.has(name)) continue;
      this.#read.delete(name);
      this.#catalog.delete(name);
    }
    for (const file of files) if (this.#read.get(file.name) !== file.stamp) await this.#takeFile(file);
  }

  async #takeFile({ name, path, stamp }: FoundFile): Promise<void> {
    this.#read.set(name, stamp);
    let text: string;
    try {
      text = await readFile(path, 'utf8');
    } catch (error) {
      this.#catalog.fail(name, unreadable(name, '', `cannot be read, so what was read before stays: ${(error as Error).message}`));
      return;
    }
    const content = await readManifests(name, text, this.#note);
    if ('manifests' in content) this.#catalog.put(name, content);
    else this.#catalog.fail(name, content);
  }

  #tell(sink: SourceSink): void {
    const { changes, problems } = this.#catalog.take();
    if (changes.length > 0) sink.changes(changes);
    for (const [object, list] of problems) sink.problems(object, list);
  }
}

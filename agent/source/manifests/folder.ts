/** Which manifest files there are, and when they may have changed. */
import { watch } from 'node:fs';
import type { FSWatcher } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

export interface FoundFile {
  /** Relative to the folder; the file's own name when the path is a file. */
  readonly name: string;
  readonly path: string;
  /** Differs whenever the content may. */
  readonly stamp: string;
}

/** A folder to watch. */
export interface FoundFolder {
  readonly path: string;
  /** Names the folder itself: another one may take its place. */
  readonly id: string;
  /** Only what happens to this name matters. */
  readonly only: string | undefined;
}

export interface Found {
  readonly files: readonly FoundFile[];
  readonly folders: readonly FoundFolder[];
}

const MANIFEST = /\.(ya?ml|json)$/;

/**
 * Finds a manifest file, or all of a folder and its subfolders. Hidden names are passed over: editors
 * keep their scratch there, and a mounted ConfigMap its versions.
 * @returns undefined when there is nothing at `root`.
 * Throws when it, or a folder within, cannot be read.
 */
export async function findManifests(root: string): Promise<Found | undefined> {
  const files: FoundFile[] = [];
  const folders: FoundFolder[] = [];
  const self = await look(root);
  if (self === undefined || self.kind === 'other') return undefined;
  const above = await look(dirname(root));
  // The name itself may be replaced or flipped: that happens in the folder above.
  if (above !== undefined) folders.push({ path: dirname(root), id: above.id, only: self.kind === 'file' ? undefined : basename(root) });
  if (self.kind === 'file') files.push({ name: basename(root), path: root, stamp: self.stamp });
  else await walk(root, '', self.id, new Set(), files, folders);
  return { files, folders };
}

async function walk(path: string, prefix: string, id: string, seen: Set<string>, files: FoundFile[], folders: FoundFolder[]): Promise<void> {
  if (seen.has(id)) return; // a link in a circle
  seen.add(id);
  folders.push({ path, id, only: undefined });
  const names = await orGone(readdir(path));
  for (const name of names?.sort() ?? []) {
    if (name.startsWith('.')) continue;
    const own = join(path, name);
    const entry = await look(own);
    if (entry?.kind === 'folder') await walk(own, `${prefix}${name}/`, entry.id, seen, files, folders);
    else if (entry?.kind === 'file' && MANIFEST.test(name)) files.push({ name: `${prefix}${name}`, path: own, stamp: entry.stamp });
  }
}

async function look(path: string): Promise<{ kind: 'file' | 'folder' | 'other'; id: string; stamp: string } | undefined> {
  const found = await orGone(stat(path, { bigint: true }));
  if (found === undefined) return undefined;
  const id = `${found.dev}:${found.ino}`;
  return { kind: found.isFile() ? 'file' : found.isDirectory() ? 'folder' : 'other', id, stamp: `${id}:${found.size}:${found.mtimeNs}:${found.ctimeNs}` };
}

/** Undefined for what is not there, or no longer. */
async function orGone<T>(result: Promise<T>): Promise<T | undefined> {
  try {
    return await result;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** How long folders must be quiet before they are read, how long that may be put off, and how often they are read unasked; ms. */
export interface WatchTimes {
  readonly settle: number;
  readonly patience: number;
  readonly poll: number;
}

/**
 * Watches folders by inotify. Where that is blind (network file systems, files behind links, too many
 * watches) `changed` still returns once every `poll`.
 */
export class FolderWatch {
  readonly #times: WatchTimes;
  readonly #watchers = new Map<string, { id: string; watcher: FSWatcher }>();
  #pending = false;
  #poked: (() => void) | undefined;

  constructor(times: WatchTimes) {
    this.#times = times;
  }

  /** Watches these folders and no others. */
  follow(folders: readonly FoundFolder[]): void {
    const wanted = new Map(folders.map((folder) => [`${folder.path}/${folder.only ?? ''}`, folder]));
    for (const [name, { id }] of this.#watchers) {
      if (wanted.get(name)?.id === id) wanted.delete(name);
      else this.#drop(name);
    }
    for (const [name, folder] of wanted) this.#watch(name, folder);
  }

  /** Returns when something happened and it is quiet again, or it is time to look anyway, or `signal` aborts. */
  changed(signal: AbortSignal): Promise<void> {
    const { settle, patience, poll } = this.#times;
    return new Promise((resolve) => {
      let first: number | undefined;
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        this.#poked = undefined;
        this.#pending = false;
        resolve();
      };
      let timer = setTimeout(done, poll);
      this.#poked = (): void => {
        const now = performance.now();
        first ??= now;
        clearTimeout(timer);
        timer = setTimeout(done, Math.max(0, Math.min(settle, first + patience - now)));
      };
      signal.addEventListener('abort', done);
      if (signal.aborted) done();
      else if (this.#pending) this.#poked();
    });
  }

  close(): void {
    this.follow([]);
  }

  #watch(name: string, folder: FoundFolder): void {
    try {
      const watcher = watch(folder.path, (_, changed) => {
        // Its own name: the folder was moved or deleted. Another one there may even have its inode.
        if (changed === basename(folder.path)) this.#drop(name);
        if (folder.only === undefined || changed === null || changed === folder.only) this.#poke();
      });
      watcher.on('error', () => this.#drop(name));
      this.#watchers.set(name, { id: folder.id, watcher });
      // What happened between the look and the watch was seen by neither.
      this.#poke();
    } catch {
      // Gone again, or no watches left: polling finds it.
    }
  }

  #drop(name: string): void {
    this.#watchers.get(name)?.watcher.close();
    this.#watchers.delete(name);
  }

  #poke(): void {
    this.#pending = true;
    this.#poked?.();
  }
}

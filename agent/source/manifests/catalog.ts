/** The objects of all files together, and how they differ from what was told last. */
import { isDeepStrictEqual } from 'node:util';
import type { Change } from '../../model/objects.ts';
import type { Problem } from '../../model/problem.ts';
import type { FileContent, Manifest, Present } from './file.ts';

export interface CatalogDelta {
  readonly changes: readonly Change[];
  /** Standing problems by object, for those whose problems changed; an empty list clears them. */
  readonly problems: ReadonlyMap<string, readonly Problem[]>;
}

/** A manifest and the file it is taken from. */
interface Placed extends Manifest {
  readonly file: string;
}

export class Catalog {
  readonly #files = new Map<string, FileContent>();
  /** Problems of files that could not be read: their former content stays. */
  readonly #unreadable = new Map<string, Problem>();
  /** What was told last. */
  #objects = new Map<string, Present>();
  #problems = new Map<string, readonly Problem[]>();
  #stale = true;

  /** A file was read. An object in it that cannot be used now stays as it was, as after a refused `kubectl apply`. */
  put(file: string, content: FileContent): void {
    const former = this.#files.get(file)?.manifests.filter((manifest) => content.refused.has(manifest.id)) ?? [];
    this.#files.set(file, { ...content, manifests: [...content.manifests, ...former] });
    this.#unreadable.delete(file);
    this.#stale = true;
  }

  /** A file, or the folder itself, is there but could not be read; what it held stays. */
  fail(file: string, problem: Problem): void {
    this.#unreadable.set(file, problem);
    this.#stale = true;
  }

  /** The opposite of `fail`, for what has no content. */
  recover(file: string): void {
    if (this.#unreadable.delete(file)) this.#stale = true;
  }

  /** A file is gone, and its objects with it. */
  delete(file: string): void {
    this.#files.delete(file);
    this.#unreadable.delete(file);
    this.#stale = true;
  }

  /** What changed since the last call. */
  take(): CatalogDelta {
    if (!this.#stale) return { changes: [], problems: new Map() };
    this.#stale = false;
    const problems: Problem[] = [...this.#unreadable.values(), ...[...this.#files.values()].flatMap((content) => content.problems)];
    const manifests = this.#unique(problems);
    const objects = new Map<string, Present>();
    for (const object of withoutMirrored(manifests)) objects.set(`${object.kind} ${object.key}`, object);
    for (const manifest of manifests) {
      const problem = missingService(manifest, objects);
      if (problem !== undefined) problems.push(problem);
    }
    return { changes: this.#changes(objects), problems: this.#changedProblems(problems) };
  }

  /** Each object once: of two with one name, the first by path stays. */
  #unique(problems: Problem[]): Placed[] {
    const found = new Map<string, Placed>();
    for (const [file, { manifests }] of [...this.#files].sort(([a], [b]) => (a < b ? -1 : 1))) {
      for (const manifest of manifests) {
        const first = found.get(manifest.id);
        if (first === undefined) found.set(manifest.id, { ...manifest, file });
        else
          problems.push({
            object: `${manifest.id} in ${file}`,
            field: '',
            value: '',
            message: `is in ${first.file} already, which stays: one of the two would be right`,
            reason: 'invalid_value',
          });
      }
    }
    return [...found.values()];
  }

  #changes(objects: Map<string, Present>): Change[] {
    const changes: Change[] = [];
    for (const [id, { kind, key }] of this.#objects) if (!objects.has(id)) changes.push({ kind, key, object: undefined });
    for (const [id, present] of objects) {
      const former = this.#objects.get(id);
      // The former object is kept where nothing changed: the model holds it too.
      if (former !== undefined && isDeepStrictEqual(former.object, present.object)) objects.set(id, former);
      else changes.push(present);
    }
    this.#objects = objects;
    return changes;
  }

  #changedProblems(standing: readonly Problem[]): Map<string, readonly Problem[]> {
    const problems = new Map<string, Problem[]>();
    for (const problem of standing) problems.set(problem.object, [...(problems.get(problem.object) ?? []), problem]);
    const changed = new Map<string, readonly Problem[]>();
    for (const object of this.#problems.keys()) if (!problems.has(object)) changed.set(object, []);
    for (const [object, list] of problems) if (!isDeepStrictEqual(list, this.#problems.get(object))) changed.set(object, list);
    this.#problems = problems;
    return changed;
  }
}

/**
 * All objects, but for Endpoints whose Service has slices of its own: in a cluster those are made of
 * the same pods, and the mirroring controller leaves such Endpoints alone.
 */
function withoutMirrored(manifests: readonly Placed[]): Present[] {
  const sliced = new Set<string>();
  for (const { id, objects } of manifests) {
    for (const { kind, object } of objects)
      if (kind === 'EndpointSlice' && !id.startsWith('Endpoints ')) sliced.add(`Endpoints ${object.namespace}/${object.service}`);
  }
  return manifests.flatMap(({ id, objects }) => (sliced.has(id) ? [] : objects));
}

/** In a cluster a slice may well come before its Service; in files it is a mistake. */
function missingService({ id, file, objects: [first] }: Placed, objects: ReadonlyMap<string, Present>): Problem | undefined {
  if (first?.kind !== 'EndpointSlice') return undefined;
  const { namespace, service } = first.object;
  if (objects.has(`Service ${namespace}/${service}`)) return undefined;
  const [field, message] =
    service === ''
      ? ['metadata.labels', 'lack kubernetes.io/service-name, so no Service uses these endpoints']
      : ['', `belongs to Service ${namespace}/${service}, which does not exist`];
  return { object: `${id} in ${file}`, field, value: '', message, reason: 'no_service' };
}

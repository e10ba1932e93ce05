/**
 * Turns the crank: changes from the source through model and plan into the dataplane.
 *
 * - Nothing is written before the source has listed everything once: what is missing until then
 *   may only be late, and deleting it would cut live connections.
 * - Changes that come within one turn of the event loop are planned together.
 * - When a write fails, the maps are read back and everything is planned anew against them.
 */
import type { Held, Write } from '../plan/held.ts';
import type { ServiceKey } from '../model/desired.ts';
import type { Plan, Retired } from '../plan/planner.ts';
import type { Usage } from '../plan/planner.ts';
import { Planner } from '../plan/planner.ts';
import type { Delta } from '../model/delta.ts';
import type { Model } from '../model/model.ts';
import type { Change } from '../model/objects.ts';
import type { Problem } from '../model/problem.ts';
import type { Log } from '../observe/log.ts';
import type { SourceSink } from '../source/source.ts';
import type { Problems } from './problems.ts';

/** What the controller needs of the dataplane. */
export interface Maps {
  /** What the maps hold now. */
  read(): Held;
  /** Runs the writes in order; throws at the first that fails, those before it done. */
  execute(writes: readonly Write[]): void;
  /** Connected sockets that have this backend now. */
  openSockets(backend: number): number;
}

export interface ControllerOptions {
  readonly model: Model;
  readonly maps: Maps;
  readonly problems: Problems;
  readonly log: Log;
  /** Called with the changes of the source, before anything is made of them. */
  readonly onChanges: (changes: readonly Change[]) => void;
  /** Called with what the model made of the changes, before it is written. */
  readonly onDelta: (delta: Delta) => void;
  /** Called with what was written, also when not all of it could be. */
  readonly onWrites: (writes: readonly Write[]) => void;
  /** Called after each complete write, with its duration in seconds, and whether all was planned anew. */
  readonly onSync: (seconds: number, full: boolean) => void;
  readonly onFailure: () => void;
  /** How long a removed backend's slot and an old set stay readable for packets under way, ms. @default 5000 */
  readonly graceMs?: number;
  /** First and longest wait before a failed write is tried again, ms. @default [100, 30000] */
  readonly retryMs?: readonly [number, number];
}

export class Controller implements SourceSink {
  readonly #options: ControllerOptions;
  readonly #grace: number;
  readonly #retry: readonly [number, number];
  /** undefined: the maps must be read before anything is planned. */
  #planner: Planner | undefined;
  /** Whether planning may begin: listed, and the node's facts are known. */
  #ready = false;
  #scheduled: NodeJS.Immediate | undefined;
  #retrying: NodeJS.Timeout | undefined;
  #failures = 0;
  readonly #reclaims = new Set<NodeJS.Timeout>();
  readonly #firstSync = Promise.withResolvers<void>();
  readonly #listed = Promise.withResolvers<void>();

  constructor(options: ControllerOptions) {
    this.#options = options;
    this.#grace = options.graceMs ?? 5_000;
    this.#retry = options.retryMs ?? [100, 30_000];
  }

  /** Resolves when the source has listed everything once. */
  get listed(): Promise<void> {
    return this.#listed.promise;
  }

  /** Resolves when the maps have held all that is desired for the first time. */
  get firstSync(): Promise<void> {
    return this.#firstSync.promise;
  }

  /** Entries of the maps that the agent writes; undefined before the first plan and while writes fail. */
  get usage(): Usage | undefined {
    return this.#planner?.usage;
  }

  /** Whether writes fail at the moment. */
  get failing(): boolean {
    return this.#failures > 0;
  }

  changes(changes: readonly Change[]): void {
    this.#options.onChanges(changes);
    this.#options.model.apply(changes);
    this.schedule();
  }

  synced(): void {
    this.#listed.resolve();
  }

  problems(object: string, problems: readonly Problem[]): void {
    this.#options.problems.set('source', object, problems);
  }

  /** Lets planning begin: called once, when all is listed and the model has its facts. */
  start(): void {
    this.#ready = true;
    this.schedule();
  }

  /** Plans soon, together with whatever else comes in this turn. */
  schedule(): void {
    if (!this.#ready || this.#scheduled !== undefined || this.#retrying !== undefined) return;
    this.#scheduled = setImmediate(() => {
      this.#scheduled = undefined;
      this.#sync();
    });
  }

  /** Stops; the maps stay as they are. */
  stop(): void {
    this.#ready = false;
    clearImmediate(this.#scheduled);
    clearTimeout(this.#retrying);
    for (const timer of this.#reclaims) clearTimeout(timer);
  }

  #sync(): void {
    const started = performance.now();
    const full = this.#planner === undefined;
    if (!this.#attempt(() => this.#write())) return;
    if (this.#failures > 0) this.#options.log.info('the maps are written again', { failures: this.#failures });
    this.#failures = 0;
    this.#options.onSync((performance.now() - started) / 1000, full);
    this.#firstSync.resolve();
  }

  #attempt(write: () => void): boolean {
    try {
      write();
      return true;
    } catch (error) {
      this.#failed(error);
      return false;
    }
  }

  #write(): void {
    const { model, maps } = this.#options;
    if (this.#planner !== undefined) return this.#carryOut(this.#planner.plan(this.#heard(model.takeChanged())));
    // A new planner knows nothing: neither what stands nor what an earlier one refused.
    const planner = (this.#planner = new Planner(maps.read()));
    const planned = new Set<ServiceKey>();
    const refused = new Set<string>();
    const carryOut = (plan: Plan): void => {
      for (const object of plan.problems.keys()) refused.add(object);
      this.#carryOut(plan);
    };
    const delta = model.takeAll((part) => {
      for (const { key } of part.services) planned.add(key);
      carryOut(planner.plan(this.#heard(part)));
    });
    carryOut(planner.planAll(this.#heard(delta), planned));
    this.#options.problems.retain('plan', refused);
  }

  #heard(delta: Delta): Delta {
    this.#options.onDelta(delta);
    for (const [object, list] of delta.problems) this.#options.problems.set('model', object, list);
    return delta;
  }

  #carryOut(plan: Plan): void {
    for (const [key, problem] of plan.problems) this.#options.problems.set('plan', key, problem === undefined ? [] : [problem]);
    try {
      this.#options.maps.execute(plan.writes);
    } finally {
      this.#options.onWrites(plan.writes);
    }
    if (plan.retired !== undefined) this.#reclaimLater(plan.retired);
  }

  /** What was retired is cleared when no packet can be under way with it; what did not fit may fit then. */
  #reclaimLater(retired: Retired): void {
    const isOpen = (backend: number): boolean => this.#options.maps.openSockets(backend) > 0;
    const timer = setTimeout(() => {
      this.#reclaims.delete(timer);
      const planner = this.#planner;
      if (planner !== undefined) this.#attempt(() => this.#carryOut(planner.reclaim(retired, isOpen)));
    }, this.#grace);
    timer.unref();
    this.#reclaims.add(timer);
  }

  #failed(error: unknown): void {
    this.#planner = undefined;
    for (const timer of this.#reclaims) clearTimeout(timer);
    this.#reclaims.clear();
    this.#failures++;
    this.#options.onFailure();
    const [first, longest] = this.#retry;
    const wait = Math.min(longest, first * 2 ** Math.min(this.#failures - 1, 16));
    this.#options.log.error('cannot write the maps; will read them back and plan anew', { error: String(error), retryMs: wait });
    this.#retrying = setTimeout(() => {
      this.#retrying = undefined;
      this.schedule();
    }, wait);
  }
}

/**
 * Events (events.k8s.io/v1) on the Node and on Services, for whoever runs `kubectl describe`.
 *
 * - A problem is one event, however many nodes see it: its name is made of what it says, and the second to create it is
 *   told that it exists.
 * - Nothing waits for an event: the queue is bounded, the oldest goes first, and the API server gets one a second after a first burst.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Problem, ProblemReason } from '../model/problem.ts';
import { formatProblem } from '../model/problem.ts';
import type { Log } from '../observe/log.ts';
import type { Counter, Metrics } from '../observe/metrics.ts';
import type { ObjectWriter } from '../source/source.ts';

export interface EventsInit {
  readonly writer: ObjectWriter;
  readonly nodeName: string;
  /** The uid of a Service, "namespace/name"; "" when it is not known. */
  readonly uidOf: (service: string) => string;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Longest wait before problems are told, ms: all nodes see them at once. @default 5000 */
  readonly spreadMs?: number;
  /** First wait after a failure, ms; each next one is twice as long. @default 1000 */
  readonly retryMs?: number;
}

/** What an event is about. */
interface Regarding {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace?: string;
  readonly name: string;
  readonly uid?: string;
}

interface Event {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly regarding: Regarding;
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly action: string;
  readonly note: string;
  readonly eventTime: string;
}

const MAX_QUEUED = 256;
/** Names of events told lately: the API server keeps an event for an hour, and so is it not told again within one. */
const MAX_TOLD = 4_096;
const TOLD_MS = 3_600_000;
const BURST = 20;
const REFILL_MS = 1_000;
const MAX_TRIES = 6;
/** The API refuses longer notes. */
const MAX_NOTE = 1_000;

/** kube-proxy's name for the one, names of our own for the rest. */
const REASONS: Readonly<Record<ProblemReason, string>> = {
  unreadable: 'Unreadable',
  invalid_address: 'InvalidAddress',
  unsafe_address: 'UnsafeAddress',
  invalid_port: 'InvalidPort',
  invalid_protocol: 'InvalidProtocol',
  invalid_value: 'InvalidValue',
  conflict: 'FrontendConflict',
  no_service: 'NoService',
  capacity: 'OutOfCapacity',
  health_check: 'FailedToStartServiceHealthcheck',
  device: 'Device',
};
/** These are of one node, and each node tells its own. */
const OF_NODE: ReadonlySet<ProblemReason> = new Set(['capacity', 'health_check', 'unreadable']);

export class Events {
  readonly #init: Required<EventsInit>;
  readonly #queue: Event[] = [];
  readonly #told = new Map<string, number>();
  readonly #counts: Counter;
  #wake: () => void = () => undefined;

  constructor(init: EventsInit) {
    this.#init = { spreadMs: 5_000, retryMs: 1_000, ...init };
    this.#counts = init.metrics.counter('maglane_events_total', 'Kubernetes events, by what became of them.');
  }

  /** kube-proxy's "Starting" on the Node. Its uid is its name, as `kubectl describe node` looks for it. */
  started(version: string): void {
    const { nodeName } = this.#init;
    const regarding = { apiVersion: 'v1', kind: 'Node', name: nodeName, uid: nodeName };
    const about = { type: 'Normal', reason: 'Starting', action: 'StartKubeProxy' } as const;
    this.#put({ ...about, regarding, note: `maglane ${version} serves Services on this node`, same: String(process.hrtime.bigint()) });
  }

  /** A problem that appeared, if it is of a Service or an EndpointSlice. */
  problem(problem: Problem): void {
    const regarding = this.#regarding(problem.object);
    if (regarding === undefined) return;
    const line = formatProblem(problem);
    const ofNode = OF_NODE.has(problem.reason);
    this.#put({
      regarding,
      type: 'Warning',
      reason: REASONS[problem.reason],
      action: problem.reason === 'health_check' ? 'Listen' : 'Program',
      note: ofNode ? `node ${this.#init.nodeName}: ${line}` : line,
      same: line,
    });
  }

  /** Tells what is queued, until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { spreadMs } = this.#init;
    let tokens = BURST;
    let refilled = Date.now();
    while (!signal.aborted) {
      if (this.#queue.length === 0) {
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#wake = resolve;
        signal.addEventListener('abort', () => resolve(), { once: true });
        await promise;
        await pause(Math.random() * spreadMs, signal);
      }
      const now = Date.now();
      tokens = Math.min(BURST, tokens + (now - refilled) / REFILL_MS);
      refilled = now;
      if (tokens < 1) await pause((1 - tokens) * REFILL_MS, signal);
      tokens--;
      const event = this.#queue.shift();
      if (event !== undefined && !signal.aborted) await this.#send(event, signal);
    }
  }

  #put({ same, ...event }: Omit<Event, 'metadata' | 'eventTime'> & { readonly same: string }): void {
    const { name, namespace = 'default', uid = '' } = event.regarding;
    const hash = createHash('sha256').update([uid, event.reason, event.note, same].join('\0')).digest('hex').slice(0, 16);
    const metadata = { name: `${name}.${hash}`, namespace };
    const key = `${namespace}/${metadata.name}`;
    const now = Date.now();
    if (now - (this.#told.get(key) ?? -Infinity) < TOLD_MS) return;
    this.#told.delete(key);
    this.#told.set(key, now);
    const [oldest = ''] = this.#told.keys();
    if (this.#told.size > MAX_TOLD) this.#told.delete(oldest);
    if (this.#queue.length >= MAX_QUEUED) {
      this.#queue.shift();
      this.#counts.add({ result: 'dropped' });
    }
    this.#queue.push({ ...event, note: event.note.slice(0, MAX_NOTE), metadata, eventTime: new Date(now).toISOString().replace('Z', '000Z') });
    this.#wake();
  }

  async #send(event: Event, signal: AbortSignal): Promise<void> {
    const { writer, nodeName, log, retryMs } = this.#init;
    const object = { apiVersion: 'events.k8s.io/v1', kind: 'Event', ...event, reportingController: 'maglane', reportingInstance: nodeName };
    for (let tried = 1; ; tried++) {
      const answer = await writer.create(`/apis/events.k8s.io/v1/namespaces/${event.metadata.namespace}/events`, object, signal).catch(String);
      if (signal.aborted) return;
      // It exists: another node, or this one before, has told it.
      if (answer === 201 || answer === 409) return this.#counts.add({ result: answer === 201 ? 'sent' : 'known' });
      const again = typeof answer === 'string' || answer === 429 || answer >= 500;
      if (!again || tried === MAX_TRIES) {
        log.debug('an event was not taken', { regarding: event.regarding.name, reason: event.reason, answer });
        return this.#counts.add({ result: 'failed' });
      }
      await pause(retryMs * 2 ** (tried - 1), signal);
    }
  }

  /** @param object "Service default/web". */
  #regarding(object: string): Regarding | undefined {
    const [, kind = '', namespace = '', name = ''] = /^(Service|EndpointSlice) ([^/]+)\/(.+)$/.exec(object) ?? [];
    if (kind === 'EndpointSlice') return { apiVersion: 'discovery.k8s.io/v1', kind, namespace, name };
    const uid = this.#init.uidOf(`${namespace}/${name}`);
    return kind === '' ? undefined : { apiVersion: 'v1', kind, namespace, name, ...(uid !== '' && { uid }) };
  }
}

/** Waits, and no longer than until `signal` aborts. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined);
}

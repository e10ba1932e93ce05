/** What /healthz and /livez answer, as kube-proxy spells it (k8s.io/kubernetes/pkg/proxy/healthcheck). */
import type { Answer } from '../observe/server.ts';

/** As Kubernetes spells an address family. */
export type IpFamily = 'IPv4' | 'IPv6';
export const IP_FAMILIES: readonly IpFamily[] = ['IPv4', 'IPv6'];

/** A change may wait this long to be written before the node is called unhealthy: kube-proxy's 2 x syncPeriod. */
const PATIENCE_MS = 60_000;

/** Go's zero time, which stands for "never". */
const NEVER = '0001-01-01T00:00:00Z';

export class Health {
  readonly #now: () => number;
  /** When the oldest change that is not yet written came, ms since the epoch; 0: all is written. */
  #pending = 0;
  /** When what concerns a family was written last. */
  readonly #updated = new Map<IpFamily, number>();

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** A change has come. */
  queued(): void {
    this.#pending ||= this.#now();
  }

  /** All that had come is written; it concerned these families. */
  written(families: Iterable<IpFamily>): void {
    this.#pending = 0;
    for (const family of families) this.#updated.set(family, this.#now());
  }

  /**
   * Whether the maps hold what they should, or have been waiting for less than a minute. Unlike kube-proxy it is not so
   * before the first complete write: a load balancer should not send yet.
   */
  get healthy(): boolean {
    return this.#updated.size > 0 && (this.#pending === 0 || this.#now() - this.#pending < PATIENCE_MS);
  }

  /** /livez. */
  livez(): Answer {
    return this.#answer(this.healthy, {});
  }

  /** /healthz. @param nodeEligible whether load balancers may send to this node at all. */
  healthz(nodeEligible: boolean): Answer {
    return this.#answer(this.healthy && nodeEligible, { nodeEligible });
  }

  #answer(good: boolean, more: object): Answer {
    const { healthy } = this;
    const updated = [...this.#updated].sort(([a], [b]) => (a < b ? -1 : 1));
    const latest = Math.max(0, ...updated.map(([, at]) => at));
    const body = {
      // With 200 it is now: what asks how old it is has always got that (kube-proxy keeps it for compatibility).
      lastUpdated: good ? time(this.#now()) : time(latest),
      currentTime: time(this.#now()),
      ...more,
      healthy,
      status: Object.fromEntries(updated.map(([family, at]) => [family, { lastUpdated: time(at), healthy }])),
    };
    return { status: good ? 200 : 503, type: 'application/json', body: JSON.stringify(body) };
  }
}

const time = (ms: number): string => (ms === 0 ? NEVER : new Date(ms).toISOString());

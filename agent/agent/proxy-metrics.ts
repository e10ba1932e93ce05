/**
 * kube-proxy's metrics, by its names (k8s.io/kubernetes/pkg/proxy/metrics), as far as they have a meaning here: dashboards and alerts go on.
 * docs/kube-proxy.md lists those that have none.
 */
import type { DesiredService } from '../model/desired.ts';
import type { Delta } from '../model/delta.ts';
import type { Change } from '../model/objects.ts';
import type { Metrics } from '../observe/metrics.ts';
import type { IpFamily } from './health.ts';
import { IP_FAMILIES } from './health.ts';

/** 0.001 x 2^n, n = 0 to 14. */
const SYNC_BOUNDS = Array.from({ length: 15 }, (_, n) => Number((0.001 * 2 ** n).toFixed(3)));
/** 0, 0.25, 0.5, 1 to 59 by 1, 60 to 115 by 5, 120 to 300 by 30: those of the cluster's service level objective. */
const PROGRAMMING_BOUNDS = [0, 0.25, 0.5, ...range(1, 59, 1), ...range(60, 115, 5), ...range(120, 300, 30)];

/** Changes of slices whose time is kept until they are written: a bound for a time of failures. */
const MAX_TRIGGERS = 65_536;

type Feed = ReturnType<typeof register>;

export class ProxyMetrics {
  readonly #started: number;
  readonly #feed: Feed;
  /** When what made a slice change happened, of those not yet written. */
  #triggers: { readonly family: IpFamily; readonly at: number }[] = [];
  /** Since the last complete write. */
  #pending = { endpoints: 0, services: 0 };
  /** When a family was last written, and when a change of it came last, in seconds since the epoch. */
  readonly #written = new Map<IpFamily, number>();
  readonly #queued = new Map<IpFamily, number>();
  /** Families that the changes since the last complete write concern. */
  #touched = new Set<IpFamily>();
  /** Service ports whose traffic is dropped here for want of a local endpoint, by policy. */
  readonly #without = { internal: new Map<string, IpFamily>(), external: new Map<string, IpFamily>() };

  /** @param started ms since the epoch: what happened before is no latency of this run. */
  constructor(metrics: Metrics, started: number) {
    this.#started = started;
    this.#feed = register(metrics, {
      pending: () => this.#pending,
      written: () => this.#written,
      queued: () => this.#queued,
      without: (policy) => this.#without[policy].values(),
    });
  }

  /** Changes have come from the source. */
  changes(changes: readonly Change[]): void {
    const now = Date.now() / 1000;
    for (const change of changes) {
      if (change.kind === 'Service') {
        this.#pending.services++;
        this.#feed.serviceChanges.add();
        for (const family of familiesOf(change.object?.clusterIPs)) this.#queued.set(family, now);
      } else if (change.kind === 'EndpointSlice') {
        this.#pending.endpoints++;
        this.#feed.endpointChanges.add();
        const family = IP_FAMILIES.find((name) => name === change.object?.addressType);
        if (family !== undefined) this.#queued.set(family, now);
        const at = change.object?.triggered ?? 0;
        if (family !== undefined && at > this.#started && this.#triggers.length < MAX_TRIGGERS) this.#triggers.push({ family, at });
      }
    }
  }

  /** What the model made of them; not yet written. */
  delta({ services }: Delta): void {
    for (const { key, desired } of services) {
      const family = key.endsWith('/4') ? 'IPv4' : 'IPv6';
      this.#touched.add(family);
      note(this.#without.internal, key, family, desired?.internalLocal === true && lacksLocal(desired));
      note(this.#without.external, key, family, desired?.externalLocal === true && lacksLocal(desired));
    }
  }

  /**
   * All of it is written.
   * @param seconds it took. @param full everything was planned anew, not only what had changed.
   * @returns the families that it concerned.
   */
  written(seconds: number, full: boolean): readonly IpFamily[] {
    const now = Date.now();
    const families = full ? IP_FAMILIES : [...this.#touched];
    for (const ip_family of families) {
      this.#feed.syncs.observe(seconds, { ip_family });
      (full ? this.#feed.fullSyncs : this.#feed.partialSyncs).observe(seconds, { ip_family });
      this.#written.set(ip_family, now / 1000);
    }
    for (const { family, at } of this.#triggers) this.#feed.programming.observe((now - at) / 1000, { ip_family: family });
    this.#triggers = [];
    this.#pending = { endpoints: 0, services: 0 };
    this.#touched = new Set();
    return families;
  }

  /** /healthz or /livez was answered. */
  answered(page: 'healthz' | 'livez', code: number): void {
    this.#feed[page].add({ code: String(code) });
  }
}

interface Read {
  readonly pending: () => { readonly endpoints: number; readonly services: number };
  readonly written: () => ReadonlyMap<IpFamily, number>;
  readonly queued: () => ReadonlyMap<IpFamily, number>;
  readonly without: (policy: 'internal' | 'external') => Iterable<IpFamily>;
}

function register(metrics: Metrics, read: Read) {
  const sync = 'kubeproxy_sync_proxy_rules';
  const byFamily = (values: ReadonlyMap<IpFamily, number>) => [...values].map(([ip_family, value]) => [{ ip_family }, value] as const);
  metrics.gauge(`${sync}_last_timestamp_seconds`, 'When the maps were last written completely.', () => byFamily(read.written()));
  metrics.gauge(`${sync}_last_queued_timestamp_seconds`, 'When a change last came.', () => byFamily(read.queued()));
  metrics.gauge(`${sync}_endpoint_changes_pending`, 'EndpointSlice changes that are not yet written.', () => [[{}, read.pending().endpoints]]);
  metrics.gauge(`${sync}_service_changes_pending`, 'Service changes that are not yet written.', () => [[{}, read.pending().services]]);
  metrics.gauge(`${sync}_no_local_endpoints_total`, 'Service ports with a Local policy and endpoints, none of them here.', () =>
    (['internal', 'external'] as const).flatMap((traffic_policy) => {
      const families = [...read.without(traffic_policy)];
      return IP_FAMILIES.map((ip_family) => [{ ip_family, traffic_policy }, families.filter((one) => one === ip_family).length] as const);
    }),
  );
  return {
    syncs: metrics.histogram(`${sync}_duration_seconds`, 'Time from planning to all maps written.', SYNC_BOUNDS),
    fullSyncs: metrics.histogram('kubeproxy_sync_full_proxy_rules_duration_seconds', 'Of these, where everything was planned anew.', SYNC_BOUNDS),
    partialSyncs: metrics.histogram('kubeproxy_sync_partial_proxy_rules_duration_seconds', 'Of these, where only changes were planned.', SYNC_BOUNDS),
    programming: metrics.histogram(
      'kubeproxy_network_programming_duration_seconds',
      'Time from what changed an EndpointSlice (a pod became ready) to the maps that hold it.',
      PROGRAMMING_BOUNDS,
    ),
    endpointChanges: metrics.counter(`${sync}_endpoint_changes_total`, 'EndpointSlice changes that came.'),
    serviceChanges: metrics.counter(`${sync}_service_changes_total`, 'Service changes that came.'),
    healthz: metrics.counter('kubeproxy_proxy_healthz_total', 'Answers of /healthz, by status.'),
    livez: metrics.counter('kubeproxy_proxy_livez_total', 'Answers of /livez, by status.'),
  };
}

/** Endpoints elsewhere, none here: what has a Local policy is dropped. */
function lacksLocal({ hasAny, local }: DesiredService): boolean {
  return hasAny && local.length === 0;
}

function note(map: Map<string, IpFamily>, key: string, family: IpFamily, holds: boolean): void {
  if (holds) map.set(key, family);
  else map.delete(key);
}

/** Both, for a Service that is gone. */
function familiesOf(clusterIps: readonly string[] | undefined): readonly IpFamily[] {
  if (clusterIps === undefined) return IP_FAMILIES;
  return IP_FAMILIES.filter((family) => clusterIps.some((ip) => ip.includes(':') === (family === 'IPv6')));
}

function range(from: number, to: number, step: number): number[] {
  return Array.from({ length: (to - from) / step + 1 }, (_, i) => from + i * step);
}

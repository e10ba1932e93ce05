/** The agent's own metrics; what the kernel counts is read when the page is. */
import type { Dataplane } from '../dataplane/dataplane.ts';
import type { Model } from '../model/model.ts';
import type { Counter, Histogram, Metrics } from '../observe/metrics.ts';
import type { Usage } from '../plan/planner.ts';
import type { SourceObserver } from '../source/kubernetes/kubernetes.ts';

const SYNC_BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Maps whose entries only the kernel knows. */
const WRITTEN_BY_PROGRAMS = ['flows', 'affinity', 'udp_peers'];

/** Registers everything and returns what the controller feeds. @param usage of the maps that the agent writes. */
export function agentMetrics(
  metrics: Metrics,
  model: Model,
  dataplane: Dataplane,
  usage: () => Usage | undefined,
): { syncs: Histogram; failures: Counter; cuts: Counter } {
  metrics.gauge('maglane_objects', 'Objects known, by kind.', () => {
    const { services, slices, endpoints } = model.counts;
    return [
      [{ kind: 'service' }, services],
      [{ kind: 'endpointslice' }, slices],
      [{ kind: 'endpoint' }, endpoints],
    ];
  });
  metrics.gauge('maglane_map_entries', 'Entries of each map in use.', () => [
    ...written(usage()),
    ...WRITTEN_BY_PROGRAMS.map((map) => [{ map }, dataplane.view().fill(map).entries] as const),
  ]);
  metrics.gauge('maglane_verdict_packets_total', 'Packets, or socket calls, by what became of them.', () => counters(dataplane, 'packets'), 'counter');
  metrics.gauge('maglane_verdict_bytes_total', 'Bytes, by what became of them.', () => counters(dataplane, 'bytes'), 'counter');
  metrics.gauge('process_resident_memory_bytes', 'Memory of the agent.', () => [[{}, process.memoryUsage.rss()]]);
  metrics.gauge('process_cpu_seconds_total', 'CPU time of the agent.', () => [[{}, cpuSeconds()]], 'counter');
  return {
    syncs: metrics.histogram('maglane_sync_duration_seconds', 'Time from planning to all maps written.', SYNC_BOUNDS),
    failures: metrics.counter('maglane_sync_failures_total', 'Writes of the maps that failed and were planned anew.'),
    cuts: metrics.counter('maglane_sockets_cut_total', 'Connected UDP sockets that were ended because their backend serves no more.'),
  };
}

/** Registers what the watches of the API server do, and returns what they report to. */
export function watchMetrics(metrics: Metrics): SourceObserver {
  const connected = new Map<string, number>();
  metrics.gauge('maglane_watch_connected', 'Whether the watch of each kind stands.', () => [...connected].map(([kind, up]) => [{ kind }, up]));
  const breaks = metrics.counter('maglane_watch_breaks_total', 'Watches that broke or could not be had, by kind and reason.');
  const lists = metrics.counter('maglane_watch_relists_total', 'Fresh listings after the first, by kind.');
  const events = metrics.counter('maglane_watch_events_total', 'Watch events, bookmarks included, by kind.');
  return {
    connected: (kind) => void connected.set(kind, 1),
    disconnected: (kind, reason) => {
      connected.set(kind, 0);
      breaks.add({ kind, reason });
    },
    relisted: (kind) => lists.add({ kind }),
    event: (kind) => events.add({ kind }),
  };
}

function written(usage: Usage | undefined): [{ map: string }, number][] {
  if (usage === undefined) return [];
  const { services, frontends, backends, ringSlots, sourceRanges, peers } = usage;
  return Object.entries({ services, frontends, backends, ring: ringSlots, source_ranges: sourceRanges, peers }).map(([map, entries]) => [{ map }, entries]);
}

function counters(dataplane: Dataplane, what: 'packets' | 'bytes'): [{ reason: string }, number][] {
  return dataplane
    .view()
    .counters()
    .map((counter) => [{ reason: counter.reason }, counter[what]]);
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** What /healthz and /livez answer, as kube-proxy spells it. */
import type { Answer } from '../observe/server.ts';

/** The state that health is read from. */
export interface Health {
  /** ms since the epoch of the last complete write; 0: none yet. */
  synced: number;
  /** ms since the epoch since which writes have failed; 0: they do not. */
  failingSince: number;
}

/** Writes may fail for this long before the node is called unhealthy: kube-proxy's 2 x syncPeriod. */
const PATIENCE_MS = 60_000;

/**
 * 200 once the maps hold all that is desired and writes work, else 503. Unlike kube-proxy it is not
 * healthy before the first complete write: a load balancer should not send yet.
 */
export function healthz(health: Health, now: number): Answer {
  const healthy = health.synced !== 0 && (health.failingSince === 0 || now - health.failingSince < PATIENCE_MS);
  const body = {
    lastUpdated: new Date(healthy ? now : health.synced).toISOString(),
    currentTime: new Date(now).toISOString(),
    healthy,
  };
  return { status: healthy ? 200 : 503, type: 'application/json', body: `${JSON.stringify(body)}\n` };
}

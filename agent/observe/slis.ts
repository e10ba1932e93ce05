/**
 * /metrics/slis, as Kubernetes' components have it: what their health checks said (k8s.io/component-base/metrics/prometheus/slis).
 * kube-proxy has one check there, "ping", which is made whenever its metrics port is asked for /healthz.
 */
import { Metrics } from './metrics.ts';

const PING = { name: 'ping', type: 'healthz' } as const;

export class Slis {
  readonly #metrics = new Metrics();
  readonly #total;
  #wasAsked = false;

  constructor() {
    this.#metrics.gauge('kubernetes_healthcheck', 'Result of each health check: 1 is good.', () => (this.#wasAsked ? [[PING, 1]] : []));
    this.#total = this.#metrics.counter('kubernetes_healthchecks_total', 'Health checks that were made, by their result.');
    this.#metrics.gauge('process_start_time_seconds', 'When the agent started, in seconds since the epoch.', () => [[{}, performance.timeOrigin / 1000]]);
  }

  /** /healthz was answered, and with it the check. */
  pinged(): void {
    this.#wasAsked = true;
    this.#total.add({ ...PING, status: 'success' });
  }

  render(): string {
    return this.#metrics.render();
  }
}

import { describe, expect, test } from 'vitest';
import { ProxyMetrics } from '../../agent/agent/proxy-metrics.ts';
import type { Change } from '../../agent/model/objects.ts';
import { Model } from '../../agent/model/model.ts';
import { Metrics } from '../../agent/observe/metrics.ts';
import { FACTS, put, remove, service, slice } from './model-builders.ts';

function rig() {
  const metrics = new Metrics();
  const started = Date.now() - 10_000;
  const proxy = new ProxyMetrics(metrics, started);
  const model = new Model(FACTS);
  const take = (...changes: Change[]): void => {
    proxy.changes(changes);
    model.apply(changes);
    proxy.delta(model.takeChanged());
  };
  const value = (series: string): number | undefined => {
    const line = metrics
      .render()
      .split('\n')
      .find((line) => line.startsWith(`${series} `));
    return line === undefined ? undefined : Number(line.slice(series.length));
  };
  return { proxy, take, value, started };
}

describe("kube-proxy's metrics", () => {
  test('a sync is told under the families that it concerns, as full or partial', () => {
    const { proxy, take, value } = rig();
    expect(proxy.written(0.004, true)).toEqual(['IPv4', 'IPv6']);
    take(put(service({ clusterIPs: ['fd00::1'] })));
    expect(proxy.written(0.02, false)).toEqual(['IPv6']);
    expect(value('kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}')).toBe(1);
    expect(value('kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv6"}')).toBe(2);
    expect(value('kubeproxy_sync_full_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="0.002"}')).toBe(0);
    expect(value('kubeproxy_sync_full_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="0.004"}')).toBe(1);
    expect(value('kubeproxy_sync_partial_proxy_rules_duration_seconds_bucket{ip_family="IPv6",le="16.384"}')).toBe(1);
    expect(value('kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv4"}')).toBeUndefined();
    expect(value('kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"}')).toBeGreaterThan(Date.now() / 1000 - 5);
  });

  test('changes are pending until they are written', () => {
    const { proxy, take, value } = rig();
    take(put(service()), put(slice([])), remove(slice([])));
    expect(value('kubeproxy_sync_proxy_rules_service_changes_pending')).toBe(1);
    expect(value('kubeproxy_sync_proxy_rules_endpoint_changes_pending')).toBe(2);
    expect(value('kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"}')).toBeGreaterThan(Date.now() / 1000 - 5);
    expect(value('kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"}')).toBeUndefined();
    proxy.written(0.001, false);
    expect(value('kubeproxy_sync_proxy_rules_endpoint_changes_pending')).toBe(0);
    expect(value('kubeproxy_sync_proxy_rules_endpoint_changes_total')).toBe(2);
    expect(value('kubeproxy_sync_proxy_rules_service_changes_total')).toBe(1);
  });

  test('programming latency is one a changed slice, without what happened before the start, and without deletions', () => {
    const { proxy, take, value, started } = rig();
    const triggered = Date.now() - 3_500;
    take(put(slice([], { triggered })), put(slice([], { name: 'old', triggered: started - 1 })), put(slice([], { name: 'without' })), remove(slice([])));
    proxy.written(0.001, false);
    const series = (le: string): string => `kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="${le}"}`;
    expect([value(series('3')), value(series('5')), value(series('300'))]).toEqual([0, 1, 1]);
    proxy.written(0.001, false);
    expect(value('kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"}')).toBe(1);
  });

  test('service ports without a local endpoint are counted by policy and family', () => {
    const { take, value } = rig();
    const local = service({ internalTrafficPolicy: 'Local' });
    const count = (policy: string): number | undefined =>
      value(`kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="${policy}"}`);
    take(put(local));
    expect(count('internal')).toBe(0);
    take(put(slice([{ address: '10.244.2.1' }])));
    expect([count('internal'), count('external')]).toEqual([1, 0]);
    take(put(slice([{ address: '10.244.1.1', node: 'node-a' }])));
    expect(count('internal')).toBe(0);
    take(put(slice([{ address: '10.244.2.1' }])));
    take(remove(local));
    expect(count('internal')).toBe(0);
  });
});

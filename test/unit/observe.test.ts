import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import { Health } from '../../agent/agent/health.ts';
import { createLog } from '../../agent/observe/log.ts';
import { Metrics } from '../../agent/observe/metrics.ts';
import { serve } from '../../agent/observe/server.ts';

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

describe('the log', () => {
  test('one entry is one line, whatever an object is called', () => {
    const lines: string[] = [];
    const log = createLog('info', 'text', (line) => lines.push(line));
    log.debug('not this');
    log.warn('Service a\nb\u001b[31m', { port: 80, name: 'x y' });
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^\S+ warn {2}Service a\\x0ab\\x1b\[31m port=80 name="x y"\n$/);
  });

  test('as JSON it parses, and long entries are cut', () => {
    const lines: string[] = [];
    const log = createLog('debug', 'json', (line) => lines.push(line));
    log.info('ready', { services: 2 });
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ level: 'info', message: 'ready', services: 2 });
    log.info('x'.repeat(10_000));
    expect(lines[1]?.length).toBeLessThan(5_000);
  });
});

describe('metrics', () => {
  test('are written in the text format', () => {
    const metrics = new Metrics();
    metrics.counter('c_total', 'Counts.').add({ reason: 'a"b' }, 2);
    metrics.gauge('g', 'Gauge.', () => [[{}, 1.5]]);
    const histogram = metrics.histogram('h_seconds', 'Times.', [0.1, 1]);
    histogram.observe(0.1);
    histogram.observe(5);
    expect(metrics.render()).toBe(
      '# HELP c_total Counts.\n# TYPE c_total counter\nc_total{reason="a\\"b"} 2\n' +
        '# HELP g Gauge.\n# TYPE g gauge\ng 1.5\n' +
        '# HELP h_seconds Times.\n# TYPE h_seconds histogram\n' +
        'h_seconds_bucket{le="0.1"} 1\nh_seconds_bucket{le="1"} 1\nh_seconds_bucket{le="+Inf"} 2\nh_seconds_sum 5.1\nh_seconds_count 2\n',
    );
    const labelled = new Metrics();
    const times = labelled.histogram('t', 'Times.', [1]);
    times.observe(2, { ip_family: 'IPv4' });
    times.observe(1, { ip_family: 'IPv6' });
    expect(labelled.render()).toContain('t_bucket{ip_family="IPv4",le="1"} 0\nt_bucket{ip_family="IPv4",le="+Inf"} 1\nt_sum{ip_family="IPv4"} 2\n');
    expect(labelled.render()).toContain('t_count{ip_family="IPv6"} 1\n');
    expect(() => metrics.counter('g', 'again')).toThrow('metric g exists');
  });
});

describe('the servers', () => {
  test('answer their paths, refuse the rest, and stop', async () => {
    const stop = new AbortController();
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const routes = {
      '/healthz': () => ({ status: 503, type: 'application/json', body: '{}' }) as const,
      '/broken': () => Promise.reject(new Error('no view')),
    };
    await serve('--metrics-bind-address', { host: '127.0.0.1', port }, routes, stop.signal);
    const answer = await fetch(`${url}/healthz?verbose`);
    expect([answer.status, answer.headers.get('content-type'), await answer.text()]).toEqual([503, 'application/json', '{}']);
    expect((await fetch(`${url}/nothing`)).status).toBe(404);
    expect((await fetch(`${url}/__proto__`)).status).toBe(404);
    expect((await fetch(`${url}/healthz`, { method: 'POST' })).status).toBe(405);
    expect((await fetch(`${url}/broken`)).status).toBe(500);
    await expect(serve('--metrics-bind-address', { host: '127.0.0.1', port }, {}, stop.signal)).rejects.toThrow(
      `--metrics-bind-address 127.0.0.1:${port}: EADDRINUSE: choose another address or port, or off`,
    );
    stop.abort();
    await expect(fetch(`${url}/healthz`)).rejects.toThrow();
  });
});

describe('health', () => {
  let now = Date.parse('2026-01-01T00:10:00Z');
  const rig = (): Health => new Health(() => now);
  const read = ({ status, body }: { status: number; body: string }) => [status, JSON.parse(body)] as const;

  test('nothing written yet: not healthy, and no family has a status', () => {
    const health = rig();
    health.queued();
    const never = '0001-01-01T00:00:00Z';
    expect(read(health.livez())).toEqual([503, { lastUpdated: never, currentTime: '2026-01-01T00:10:00.000Z', healthy: false, status: {} }]);
  });

  test('a change may wait for a minute, from when the first of them came', () => {
    const health = rig();
    health.written(['IPv4', 'IPv6']);
    now += 1_000;
    health.queued();
    now += 30_000;
    health.queued();
    expect(read(health.livez())).toMatchObject([200, { lastUpdated: '2026-01-01T00:10:31.000Z', healthy: true }]);
    now += 30_000;
    const lastUpdated = '2026-01-01T00:10:00.000Z';
    const status = { lastUpdated, healthy: false };
    expect(read(health.livez())).toEqual([
      503,
      { lastUpdated, currentTime: '2026-01-01T00:11:01.000Z', healthy: false, status: { IPv4: status, IPv6: status } },
    ]);
    health.written(['IPv6']);
    expect(read(health.livez())).toMatchObject([200, { status: { IPv4: { lastUpdated }, IPv6: { lastUpdated: '2026-01-01T00:11:01.000Z' } } }]);
  });

  test('/healthz takes the node, too', () => {
    const health = rig();
    health.written(['IPv4']);
    expect(read(health.healthz(true))).toMatchObject([200, { nodeEligible: true, healthy: true }]);
    expect(read(health.healthz(false))).toMatchObject([503, { nodeEligible: false, healthy: true }]);
    expect(Object.keys(JSON.parse(health.healthz(true).body) as object)).toEqual(['lastUpdated', 'currentTime', 'nodeEligible', 'healthy', 'status']);
    expect(health.livez().body).not.toContain('nodeEligible');
  });
});

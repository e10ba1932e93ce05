import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import { healthz } from '../../agent/agent/health.ts';
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
  const now = Date.parse('2026-01-01T00:10:00Z');

  test.each([
    ['nothing written yet', { synced: 0, failingSince: 0 }, 503],
    ['written', { synced: now - 600_000, failingSince: 0 }, 200],
    ['failing for a moment', { synced: now - 5_000, failingSince: now - 4_000 }, 200],
    ['failing for a minute', { synced: now - 90_000, failingSince: now - 60_000 }, 503],
  ])('%s: %o is %i', (_, health, status) => {
    const answer = healthz(health, now);
    expect(answer.status).toBe(status);
    expect(JSON.parse(answer.body)).toMatchObject({ healthy: status === 200, currentTime: '2026-01-01T00:10:00.000Z' });
  });
});

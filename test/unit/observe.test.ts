import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Health } from '../../agent/agent/health.ts';
import { pages } from '../../agent/agent/pages.ts';
import type { Flags } from '../../agent/config/resolve.ts';
import { resolveOptions } from '../../agent/config/resolve.ts';
import type { AdjustableLog } from '../../agent/observe/log.ts';
import { createLog } from '../../agent/observe/log.ts';
import { Metrics } from '../../agent/observe/metrics.ts';
import { serve, text } from '../../agent/observe/server.ts';

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
      '/asked': (query: URLSearchParams) => text(200, `${query.get('seconds')}`),
      '/broken': () => Promise.reject(new Error('no view')),
    };
    await serve('--metrics-bind-address', { host: '127.0.0.1', port }, routes, stop.signal);
    const answer = await fetch(`${url}/healthz?verbose`);
    expect([answer.status, answer.headers.get('content-type'), await answer.text()]).toEqual([503, 'application/json', '{}']);
    expect((await fetch(`${url}/nothing`)).status).toBe(404);
    expect((await fetch(`${url}/__proto__`)).status).toBe(404);
    expect((await fetch(`${url}/healthz`, { method: 'POST' })).status).toBe(405);
    expect((await fetch(`${url}/broken`)).status).toBe(500);
    expect(await (await fetch(`${url}/asked?seconds=5`)).text()).toBe('5');
    await expect(serve('--metrics-bind-address', { host: '127.0.0.1', port }, {}, stop.signal)).rejects.toThrow(
      `--metrics-bind-address 127.0.0.1:${port}: EADDRINUSE: choose another address or port, or off`,
    );
    stop.abort();
    await expect(fetch(`${url}/healthz`)).rejects.toThrow();
  });
});

/** kube-proxy's pages, served. */
async function servePages(flags: Flags): Promise<{ log: AdjustableLog; ask: (path: string, init?: RequestInit) => Promise<[number, string]> }> {
  const stop = new AbortController();
  onTestFinished(() => stop.abort());
  const port = await freePort();
  const log = createLog('info', 'text');
  await serve('--metrics-bind-address', { host: '127.0.0.1', port }, pages({ resolved: await resolveOptions(flags), started: 0, log }), stop.signal);
  const ask = async (path: string, init: RequestInit = {}): Promise<[number, string]> => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`, init);
    return [answer.status, await answer.text()];
  };
  return { log, ask };
}

describe('the pages', () => {
  test('/metrics/slis counts what /healthz was asked', async () => {
    const { ask } = await servePages({});
    const series = async (): Promise<string[]> => (await ask('/metrics/slis'))[1].split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    expect(await series()).toEqual([expect.stringMatching(/^process_start_time_seconds \d+\.\d+$/)]);
    for (const _ of [1, 2]) await ask('/healthz');
    expect(await series()).toEqual([
      'kubernetes_healthcheck{name="ping",type="healthz"} 1',
      'kubernetes_healthchecks_total{name="ping",type="healthz",status="success"} 2',
      expect.stringContaining('process_start_time_seconds'),
    ]);
  });

  test('/debug is there only when it is asked for', async () => {
    const { ask } = await servePages({});
    for (const path of ['/debug/pprof/profile', '/debug/flags/v']) expect((await ask(path))[0]).toBe(404);
    expect((await ask('/debug/flags/v', { method: 'PUT', body: '5' }))[0]).toBe(404);
  });

  test('/debug/flags/v sets the level of the log', async () => {
    const { ask, log } = await servePages({ profiling: true });
    const put = (body: string) => ask('/debug/flags/v', { method: 'PUT', body });
    expect(await put('4')).toEqual([200, 'the log level is debug now\n']);
    expect(log.level).toBe('debug');
    for (const wrong of ['', 'x', '-1', '1.5', ' 1']) expect((await put(wrong))[0], wrong).toBe(400);
    expect((await put('1'.repeat(100)))[0]).toBe(413);
    expect(log.level).toBe('debug');
    expect((await put('0'))[0]).toBe(200);
    expect(log.level).toBe('info');
    expect((await ask('/debug/flags/v'))[0]).toBe(406);
  });

  test('/debug/pprof/profile tells where time was spent, one at a time', async () => {
    const { ask } = await servePages({ profiling: true });
    for (const seconds of ['0', '-1', '61', 'x', '']) expect((await ask(`/debug/pprof/profile?seconds=${seconds}`))[0], seconds).toBe(400);
    // Whichever comes first is made; that the other one is refused says that it has begun.
    const both = [ask('/debug/pprof/profile?seconds=1'), ask('/debug/pprof/profile?seconds=1')];
    expect((await Promise.race(both))[0]).toBe(503);
    const busyLoop = (until: number): void => {
      while (Date.now() < until);
    };
    busyLoop(Date.now() + 500);
    const answers = await Promise.all(both);
    const [, body] = answers.find(([status]) => status === 200)!;
    const { nodes } = JSON.parse(body) as { nodes: readonly { callFrame: { functionName: string }; hitCount: number }[] };
    expect(nodes.filter(({ callFrame }) => callFrame.functionName === 'busyLoop').reduce((sum, { hitCount }) => sum + hitCount, 0)).toBeGreaterThan(10);
    expect((await ask('/debug/pprof/profile?seconds=0.01'))[0]).toBe(200);
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

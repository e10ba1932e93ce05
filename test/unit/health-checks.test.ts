import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { HealthChecks } from '../../agent/agent/health-checks.ts';
import { Problems } from '../../agent/agent/problems.ts';
import type { Address } from '../../agent/model/address.ts';
import type { HealthCheck } from '../../agent/model/desired.ts';
import { createLog } from '../../agent/observe/log.ts';
import { Metrics } from '../../agent/observe/metrics.ts';

const BOTH = ['127.0.0.1', '::1'] as Address[];
const open: { close(): unknown }[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

async function taken(port = 0, host = '127.0.0.1'): Promise<Server> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, host, resolve));
  open.push(server);
  return server;
}

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const server = await taken();
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function rig(addresses: readonly Address[] = BOTH) {
  const log: string[] = [];
  const state = { healthy: true };
  const metrics = new Metrics();
  const problems = new Problems(
    createLog('info', 'text', (line) => log.push(line)),
    metrics,
  );
  const checks = new HealthChecks({ problems, healthy: () => state.healthy, retryMs: 20 });
  open.push(checks);
  checks.listenOn(addresses);
  const set = (name: string, fields: Partial<HealthCheck> | undefined): void => {
    const check = fields && { namespace: 'default', name, port: 1, endpoints4: undefined, endpoints6: undefined, ...fields };
    checks.apply(new Map([[`default/${name}`, check]]));
  };
  return { checks, set, log, state, metrics };
}

const ask = (port: number, host = '127.0.0.1', path = '/') => fetch(`http://${host}:${port}${path}`);
const refused = (port: number, host = '127.0.0.1') => vi.waitFor(async () => expect(ask(port, host)).rejects.toThrow());

describe('a healthCheckNodePort', () => {
  test("answers to the byte as kube-proxy's, each family with its own count", async () => {
    const port = await freePort();
    const { set, state } = rig();
    set('web', { port, endpoints4: 2, endpoints6: 0 });
    const answer = await ask(port, '127.0.0.1', '/whatever');
    expect(answer.status).toBe(200);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'application/json',
      'x-content-type-options': 'nosniff',
      'x-load-balancing-endpoint-weight': '2',
    });
    expect(await answer.text()).toBe(
      '{\n\t"service": {\n\t\t"namespace": "default",\n\t\t"name": "web"\n\t},\n\t"localEndpoints": 2,\n\t"serviceProxyHealthy": true\n}',
    );
    const none = await ask(port, '[::1]');
    expect([none.status, none.headers.get('x-load-balancing-endpoint-weight'), await none.text()]).toEqual([503, '0', expect.stringContaining('": 0,')]);

    set('web', { port, endpoints4: 0, endpoints6: 1 });
    expect([(await ask(port)).status, (await ask(port, '[::1]')).status]).toEqual([503, 200]);
    state.healthy = false;
    const unhealthy = await ask(port, '[::1]');
    expect([unhealthy.status, await unhealthy.json()]).toMatchObject([503, { localEndpoints: 1, serviceProxyHealthy: false }]);
  });

  test('of one family answers for it on the other, too', async () => {
    const port = await freePort();
    const { set } = rig();
    set('web', { port, endpoints4: 3 });
    expect((await ask(port, '[::1]')).headers.get('x-load-balancing-endpoint-weight')).toBe('3');
  });

  test('is on nodePortAddresses alone; on all of its family where there are none', async () => {
    const port = await freePort();
    const { set, checks } = rig(['127.0.0.1'] as Address[]);
    set('web', { port, endpoints4: 1 });
    expect((await ask(port)).status).toBe(200);
    await refused(port, '127.0.0.2');
    await refused(port, '[::1]');
    checks.listenOn([]);
    await vi.waitFor(async () => expect((await ask(port, '127.0.0.2')).status).toBe(200));
    await refused(port, '[::1]');
  });

  test('moves, goes, and changes hands', async () => {
    const [one, other] = [await freePort(), await freePort()];
    const { set, checks, log } = rig();
    set('web', { port: one, endpoints4: 1 });
    expect((await ask(one)).status).toBe(200);
    set('web', { port: other, endpoints4: 1 });
    await refused(one);
    expect((await ask(other)).status).toBe(200);
    // One delta: the port goes from one Service to another, whatever their order.
    const next = { namespace: 'default', name: 'next', port: other, endpoints4: 1, endpoints6: undefined };
    checks.apply(
      new Map([
        ['default/next', next],
        ['default/web', undefined],
      ]),
    );
    await vi.waitFor(async () => expect(await (await ask(other)).text()).toContain('"next"'));
    expect(log).toEqual([]);
    checks.close();
    await refused(other);
  });

  test('that is taken is a problem, once, and tried again until it is free', async () => {
    const holder = await taken();
    const { port } = holder.address() as AddressInfo;
    const { set, log, metrics } = rig();
    set('web', { port, endpoints4: 1 });
    await vi.waitFor(() => expect(log).toHaveLength(1));
    expect(log[0]).toContain(`Service default/web: spec.healthCheckNodePort "${port}" cannot be listened on at 127.0.0.1 (EADDRINUSE)`);
    expect(metrics.render()).toContain('maglane_problems{reason="health_check"} 1\n');
    expect((await ask(port, '[::1]')).status).toBe(200);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(log).toHaveLength(1);
    await new Promise((resolve) => holder.close(resolve));
    await vi.waitFor(async () => expect((await ask(port)).status).toBe(200), 5_000);
    expect(metrics.render()).not.toContain('maglane_problems{reason="health_check"}');
  });

  test('costs next to nothing: five hundred of them', async () => {
    const { checks } = rig(['127.0.0.1'] as Address[]);
    const before = process.memoryUsage.rss();
    const first = 20_000;
    const all = Array.from({ length: 500 }, (_, i) => ({ namespace: 'default', name: `s${i}`, port: first + i, endpoints4: 1, endpoints6: undefined }));
    checks.apply(new Map(all.map((check) => [`default/${check.name}`, check])));
    await vi.waitFor(async () => expect((await ask(first + 499)).status).toBe(200), 5_000);
    expect(process.memoryUsage.rss() - before).toBeLessThan(20 << 20);
  });
});

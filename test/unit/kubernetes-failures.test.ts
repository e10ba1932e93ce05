/** The source against a network and an API server that fail: what counts is what the sink is told. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { service, slice } from '../support/fake-apiserver/objects.ts';
import { api, asked, folder, lines, observed, relay, sink, start, startSynced, until } from './kubernetes-rig.ts';

test('a watch that ends in order resumes where it was, without a word', async () => {
  api.put('Service', service('web'));
  await startSynced();
  api.put('EndpointSlice', slice('web-1', ['10.244.0.5']));
  await until(() => sink.objects.size === 2);
  api.bookmark('Service');
  await new Promise((resolve) => setTimeout(resolve, 1000)); // a silent watch under 1 s counts as a failure
  api.endWatches();
  await until(() => api.asked.length === 8 && api.watches === 4);
  expect(api.asked.slice(4).map(({ query }) => query.get('sendInitialEvents'))).toEqual([null, null, null, null]);
  expect(asked('/api/v1/services')[1]?.query.get('resourceVersion'), 'by the bookmark').toBe('3');
  expect(asked('/apis/discovery.k8s.io/v1/endpointslices')[1]?.query.get('resourceVersion'), 'by the event').toBe('3');
  expect(lines).toEqual([]);
  expect(sink.log).toHaveLength(3);
});

test('an outage removes nothing; what happened meanwhile comes by the watch', async () => {
  api.put('Service', service('web'));
  api.put('Service', service('old'));
  await startSynced();
  const before = sink.log.length;
  await relay.leave();
  await until(() => lines.length === 1);
  api.delete('Service', 'default/old');
  api.put('Service', service('new'));
  await until(() => observed.filter((line) => line === 'disconnected Service ECONNREFUSED').length >= 4);
  expect(sink.log).toHaveLength(before);

  const back = performance.now();
  await relay.listen();
  await until(() => sink.objects.has('Service default/new') && lines.length === 3);
  expect(performance.now() - back).toBeLessThan(2000);
  expect(sink.log.slice(before)).toEqual(['Service default/old -', 'Service default/new +']);
  expect(sink.syncs).toBe(1);
  expect(lines[0]).toMatch(/^warn connection to the API server lost: what is in force stays in force .*127\.0\.0\.1/);
  expect(lines[1]).toMatch(/^warn no connection to the API server: .*ECONNREFUSED/);
  expect(lines[2]).toMatch(/^info connection to the API server regained .*"seconds":[0-9.]+/);
});

test.each(['status', 'event'] as const)('410 as %s: a fresh listing, of which the sink sees the difference', async (goneAs) => {
  api.goneAs = goneAs;
  for (const name of ['same', 'changed', 'deleted']) api.put('Service', service(name));
  await startSynced();
  const before = sink.log.length;
  await relay.leave();
  await until(() => lines.length > 0);
  api.delete('Service', 'default/deleted');
  api.put('Service', service('changed', { clusterIP: '10.96.0.99', clusterIPs: ['10.96.0.99'] }));
  api.put('Service', service('added'));
  api.compact();
  expect(sink.log).toHaveLength(before);
  await relay.listen();
  await until(() => observed.includes('relisted Service'));
  expect(new Set(sink.log.slice(before))).toEqual(new Set(['Service default/changed +', 'Service default/added +', 'Service default/deleted -']));
  expect(sink.log.at(-1)).toBe('Service default/deleted -');
  expect(observed.filter((line) => line.endsWith('HTTP 410'))).toEqual([]);
  expect(sink.log).toHaveLength(before + 3);
  expect(sink.syncs).toBe(1);
});

test('410 without WatchList, over several pages', async () => {
  api.watchList = false;
  for (let i = 0; i < 6; i++) api.put('Service', service(`s${i}`));
  await startSynced({ reflector: { pageSize: 2 } });
  const before = sink.log.length;
  await relay.leave();
  await until(() => lines.length > 0);
  api.delete('Service', 'default/s1');
  api.delete('Service', 'default/s5');
  api.compact();
  await relay.listen();
  await until(() => observed.includes('relisted Service'));
  expect(sink.log.slice(before)).toEqual(['Service default/s1 -', 'Service default/s5 -']);
});

test('a listing that breaks off removes nothing and begins again', async () => {
  api.put('Service', service('web'));
  api.put('Service', service('gone'));
  await startSynced();
  await relay.leave();
  await until(() => lines.length > 0);
  api.delete('Service', 'default/gone');
  api.compact();
  api.refuse({ status: 500, kind: 'Service', times: 2 });
  const before = sink.log.length;
  await relay.listen();
  await until(() => observed.filter((line) => line === 'disconnected Service HTTP 500').length === 2);
  expect(sink.log).toHaveLength(before);
  await until(() => observed.includes('relisted Service'));
  expect(sink.log.slice(before)).toEqual(['Service default/gone -']);
});

test('429 with Retry-After is waited for; the log says who asked', async () => {
  api.refuse({ status: 429, retryAfter: 1, kind: 'Service', times: 1 });
  api.put('Service', service('web'));
  const began = performance.now();
  await startSynced();
  expect(performance.now() - began).toBeGreaterThan(1000);
  expect(sink.log, 'synced waits for every kind').toEqual(['Service default/web +', 'synced']);
  expect(asked('/api/v1/services')).toHaveLength(2);
  expect(lines[0]).toMatch(/^warn the API server refuses: .*refused with 429/);
  expect(lines[1]).toContain('regained');
});

test('503 a few times', async () => {
  api.refuse({ status: 503, times: 6 });
  await startSynced();
  expect(observed.filter((line) => line.endsWith('HTTP 503'))).toHaveLength(6);
  expect(lines.filter((line) => line.startsWith('warn'))).toHaveLength(1);
});

test('half-open: pings find out, and another connection takes over', async () => {
  api.put('Service', service('web'));
  await startSynced({ client: { pingInterval: 50, pingTimeout: 100 } });
  relay.freeze();
  api.put('Service', service('new'));
  await until(() => sink.objects.has('Service default/new'));
  expect(observed).toContain('disconnected Service PING');
  expect(lines[0]).toMatch(/lost.*no answer from .* to a ping/);
  expect(sink.log.filter((line) => line.endsWith('-'))).toEqual([]);
});

test('a connection that answers pings stands', async () => {
  await startSynced({ client: { pingInterval: 20, pingTimeout: 100 } });
  await until(() => api.pings >= 10);
  expect(lines).toEqual([]);
  expect(api.asked).toHaveLength(4);
});

test('a server that takes connections and says nothing', async () => {
  relay.freezeAll();
  await start({ client: { connectTimeout: 100 } });
  await until(() => lines.some((line) => line.includes('within 100 ms')));
  relay.thaw();
  await until(() => sink.syncs === 1);
});

test('a connection cut in the middle of a frame', async () => {
  api.put('Service', service('web'));
  await startSynced();
  api.sendRaw('Service', Buffer.of(0, 0, 1, 0, 1, 2, 3));
  relay.cut();
  api.put('Service', service('new'));
  await until(() => sink.objects.has('Service default/new') && api.watches === 4);
  expect(asked('/api/v1/services')[1]?.query.get('resourceVersion')).toBe('2');
  expect(sink.standing.size).toBe(0);
});

test('GOAWAY: what runs runs on, what is new takes a new connection', async () => {
  api.put('Service', service('web'));
  await startSynced();
  api.goaway();
  api.put('Service', service('on-the-old'));
  await until(() => sink.objects.has('Service default/on-the-old'));
  await new Promise((resolve) => setTimeout(resolve, 1000)); // a silent watch under 1 s counts as a failure
  api.endWatches('Service');
  await until(() => api.asked.length === 5 && api.watches === 4 && api.sessions === 2);
  api.put('Service', service('on-the-new'));
  await until(() => sink.objects.has('Service default/on-the-new'));
  api.put('EndpointSlice', slice('on-the-old', ['10.244.0.5']));
  await until(() => sink.objects.has('EndpointSlice default/on-the-old'));
  api.endWatches();
  await until(() => api.sessions === 1 && api.watches === 4);
  expect(lines).toEqual([]);
});

test('401: the token is read again', async () => {
  api.authorization = 'Bearer first';
  await startSynced();
  api.authorization = 'Bearer second';
  relay.cut();
  await until(() => lines.some((line) => line.includes('401 Unauthorized')));
  const before = sink.log.length;
  await writeFile(join(folder, 'token'), 'second\n');
  await until(() => api.watches === 4 && lines.some((line) => line.includes('regained')));
  expect(sink.log).toHaveLength(before);
  expect(observed.filter((line) => line.startsWith('relisted'))).toEqual([]);
});

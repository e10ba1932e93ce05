/** What the source asks of an API server, and what the sink is told of the answers. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { EndpointSlice, Service } from '../../agent/model/objects.ts';
import { encode, enveloped, frame, status } from '../support/fake-apiserver/encode.ts';
import { node, service, serviceCidr, slice } from '../support/fake-apiserver/objects.ts';
import { api, asked, folder, lines, observed, relay, running, sink, source, start, startSynced, stop, takeEnd, until } from './kubernetes-rig.ts';

test('the initial state, then synced once, then changes as they come', async () => {
  api.put('Service', service('web'));
  api.put('EndpointSlice', slice('web-1', ['10.244.0.5', '10.244.0.6']));
  api.put('Node', node('node-a'));
  api.put('Node', node('node-b'));
  await startSynced();
  expect(new Set(sink.log.slice(0, 3))).toEqual(new Set(['Service default/web +', 'EndpointSlice default/web-1 +', 'Node node-a +']));
  expect(sink.log.slice(3)).toEqual(['synced']);
  expect((sink.objects.get('EndpointSlice default/web-1') as EndpointSlice).addresses).toEqual(['10.244.0.5', '10.244.0.6']);

  api.put('Service', service('web', { clusterIP: '10.96.0.11', clusterIPs: ['10.96.0.11'] }));
  await until(() => (sink.objects.get('Service default/web') as Service).clusterIPs[0] === '10.96.0.11');
  api.delete('Service', 'default/web');
  await until(() => !sink.objects.has('Service default/web'));
  expect(sink.log.slice(4)).toEqual(['Service default/web +', 'Service default/web -']);
});

test('all Nodes, where packets may go to the others as they are', async () => {
  for (const name of ['node-a', 'node-b']) api.put('Node', node(name));
  await startSynced({ allNodes: true });
  expect(asked('/api/v1/nodes')[0]?.query.get('fieldSelector')).toBeNull();
  expect([...sink.objects.keys()].sort()).toEqual(['Node node-a', 'Node node-b']);
});

test('--master is asked in place of the server that the kubeconfig names, by the same rights', async () => {
  await relay.leave();
  await startSynced({ master: `http://127.0.0.1:${api.port}` });
  expect(source.name).toBe(`kubernetes http://127.0.0.1:${api.port}`);
  expect(api.asked[0]?.headers.authorization).toBe('Bearer first');
});

test('what is asked for: selectors, WatchList, bookmarks, protobuf, a token, an end that varies', async () => {
  await startSynced();
  const [services] = asked('/api/v1/services');
  expect(Object.fromEntries(services?.query ?? [])).toMatchObject({
    watch: '1',
    sendInitialEvents: 'true',
    resourceVersionMatch: 'NotOlderThan',
    allowWatchBookmarks: 'true',
    labelSelector: '!service.kubernetes.io/service-proxy-name',
    fieldSelector: 'spec.clusterIP!=None',
  });
  expect(services?.headers).toMatchObject({
    accept: 'application/vnd.kubernetes.protobuf;stream=watch',
    authorization: 'Bearer first',
    'user-agent': 'maglane',
  });
  const seconds = api.asked.map((item) => Number(item.query.get('timeoutSeconds')));
  for (const value of seconds) expect(value).toSatisfy((n: number) => n >= 300 && n < 600);
  expect(asked('/apis/discovery.k8s.io/v1/endpointslices')[0]?.query.get('labelSelector')).toBe('!service.kubernetes.io/headless');
  expect(asked('/api/v1/nodes')[0]?.query.get('fieldSelector')).toBe('metadata.name=node-a');
  expect(api.sessions).toBe(1);
  expect(source.name).toBe(`kubernetes http://127.0.0.1:${relay.port}`);
});

test('ServiceCIDRs come and go like the rest', async () => {
  api.put('ServiceCIDR', serviceCidr('kubernetes', ['10.96.0.0/16', 'fd00:96::/112']));
  await startSynced();
  expect(sink.objects.get('ServiceCIDR kubernetes')).toEqual({ name: 'kubernetes', cidrs: ['10.96.0.0/16', 'fd00:96::/112'] });
  api.put('ServiceCIDR', serviceCidr('more', ['10.97.0.0/24']));
  await until(() => sink.objects.has('ServiceCIDR more'));
  api.delete('ServiceCIDR', '/more');
  await until(() => !sink.objects.has('ServiceCIDR more'));
});

test.each([404, 403])('ServiceCIDRs answered with %d: the rest goes on, it is said once, and asked for rarely', async (status) => {
  api.put('Service', service('web'));
  api.refuse({ status, kind: 'ServiceCIDR', times: 3 });
  api.put('ServiceCIDR', serviceCidr('kubernetes', ['10.96.0.0/16']));
  await start({ reflector: { absence: { initial: 300, maxConnect: 300 } } });
  await until(() => sink.syncs === 1 && api.watches === 3);
  expect(sink.objects.has('ServiceCIDR kubernetes')).toBe(false);
  const began = performance.now();
  await until(() => sink.objects.has('ServiceCIDR kubernetes'));
  expect(performance.now() - began, 'three times half of 300 ms at the least, but for what passed before').toBeGreaterThan(300);
  expect(lines.filter((line) => line.startsWith('warn'))).toEqual([expect.stringMatching(/no ServiceCIDRs to be had: going on without.*refused with/)]);
  expect(sink.syncs).toBe(1);
  expect(observed.filter((line) => line.startsWith('relisted') || line.startsWith('disconnected'))).toEqual([]);
});

test('a 403 for ServiceCIDRs that were there is a moment’s, and tried again at once', async () => {
  api.put('ServiceCIDR', serviceCidr('kubernetes', ['10.96.0.0/16']));
  await startSynced();
  api.refuse({ status: 403, kind: 'ServiceCIDR', times: 2 });
  relay.cut();
  api.put('ServiceCIDR', serviceCidr('more', ['10.97.0.0/24']));
  await until(() => sink.objects.has('ServiceCIDR more'));
  expect(sink.objects.has('ServiceCIDR kubernetes')).toBe(true);
});

test.each([404, 403])('Services answered with %d are waited for', async (status) => {
  api.refuse({ status, kind: 'Service', times: 3 });
  api.put('Service', service('web'));
  await startSynced();
  expect(sink.log).toEqual(['Service default/web +', 'synced']);
});

test('a kubeconfig that is not there ends it at once', async () => {
  await start({ kubeconfig: join(folder, 'missing') });
  await expect(takeEnd()).rejects.toMatchObject({ code: 'KUBERNETES_ACCESS' });
});

test('without WatchList: LIST in pages, then WATCH', async () => {
  api.watchList = false;
  for (let i = 0; i < 7; i++) api.put('Service', service(`s${i}`));
  await startSynced({ reflector: { pageSize: 3 } });
  expect([...sink.objects.keys()]).toEqual([0, 1, 2, 3, 4, 5, 6].map((i) => `Service default/s${i}`));
  expect(asked('/api/v1/services').map(({ query }) => query.get('continue') ?? query.get('resourceVersion'))).toEqual([null, null, '3', '6', '8']);
  api.put('Service', service('s7'));
  await until(() => sink.objects.has('Service default/s7'));
  expect(sink.syncs).toBe(1);
  expect(lines).toEqual([]);
});

test('frames in pieces of one byte', async () => {
  api.split = 1;
  api.put('Service', service('web'));
  await startSynced();
  api.put('Service', service('api'));
  await until(() => sink.objects.size === 2);
});

test('an object that does not decode is one problem; the stream goes on and its last version stays', async () => {
  api.put('Service', service('web'));
  await startSynced();
  const broken = Buffer.concat([encode('Service', { metadata: { namespace: 'default', name: 'web', resourceVersion: '50' } }), Buffer.of(0x12, 0x05, 0x0a)]);
  api.sendRaw('Service', frame('MODIFIED', enveloped('v1', 'Service', broken)));
  api.put('Service', service('next'));
  await until(() => sink.objects.has('Service default/next'));
  expect([...sink.standing.keys()]).toEqual(['Service default/web']);
  expect(sink.standing.get('Service default/web')).toMatchObject([{ object: 'Service default/web', reason: 'unreadable' }]);
  expect(sink.objects.has('Service default/web')).toBe(true);
  expect(api.asked).toHaveLength(4);

  api.put('Service', service('web', { clusterIP: '10.96.0.12', clusterIPs: ['10.96.0.12'] }));
  await until(() => sink.standing.size === 0);
  expect((sink.objects.get('Service default/web') as Service).clusterIPs).toEqual(['10.96.0.12']);
});

test.each([true, false])('an unreadable object in the initial state (WatchList: %s) keeps nobody from being synced', async (watchList) => {
  api.watchList = watchList;
  const named = encode('Service', { metadata: { namespace: 'default', name: 'bad', resourceVersion: '2' } });
  api.putRaw('Service', 'default/bad', Buffer.concat([named, Buffer.of(0x12, 0x05, 0x0a)]));
  api.put('Service', service('web'));
  await startSynced();
  expect([...sink.objects.keys()]).toEqual(['Service default/web']);
  expect([...sink.standing.keys()]).toEqual(['Service default/bad']);
});

test('a listing with an object whose name is unreadable removes nothing, as it may be any', async () => {
  api.put('Service', service('a'));
  api.put('Service', service('b'));
  await startSynced();
  const before = sink.log.length;
  await relay.leave();
  await until(() => lines.length > 0);
  api.delete('Service', 'default/b');
  api.putRaw('Service', 'default/b', Buffer.of(0x0a, 0x05, 0x0a));
  api.compact();
  await relay.listen();
  await until(() => observed.includes('relisted Service'));
  expect(sink.log).toHaveLength(before);
  expect([...sink.standing.keys()]).toEqual(['Service (name unreadable)']);
});

test('a frame above the limit breaks the stream, not the source', async () => {
  await startSynced({ reflector: { maxFrame: 10_000 } });
  api.sendRaw('Service', Buffer.of(0x7f, 0xff, 0xff, 0xff));
  api.put('Service', service('web'));
  await until(() => sink.objects.has('Service default/web'));
  expect(lines[0]).toContain('a watch frame of 2147483647 bytes, above the limit of 10000');
});

test('an ERROR event that is no 410 brings a fresh listing', async () => {
  api.put('Service', service('web'));
  await startSynced();
  api.sendRaw('Service', frame('ERROR', status(500, 'InternalError', 'etcdserver: no leader')));
  await until(() => observed.includes('relisted Service'));
  expect(sink.log).toHaveLength(2);
  expect(lines[0]).toContain('etcdserver: no leader');
});

test('a Service that gains the label of another proxy is gone', async () => {
  api.put('Service', service('web'));
  api.put('Service', service('other', {}, { labels: { 'service.kubernetes.io/service-proxy-name': 'x' } }));
  api.put('Service', service('headless', { clusterIP: 'None', clusterIPs: ['None'] }));
  await startSynced();
  expect([...sink.objects.keys()]).toEqual(['Service default/web']);
});

test('an error in the sink is no failure of the API server: the source ends with it', async () => {
  api.put('Service', service('web'));
  sink.changes = () => {
    throw new Error('a bug');
  };
  await start();
  await expect(takeEnd()).rejects.toThrow('a bug');
  await until(() => api.sessions === 0);
});

test('aborting ends everything at once, connected or not', async () => {
  await startSynced();
  stop.abort();
  await running;
  await until(() => api.sessions === 0);

  relay.freezeAll();
  await start();
  await until(() => relay.connections > 0);
  const began = performance.now();
  stop.abort();
  await running;
  expect(performance.now() - began).toBeLessThan(2000);
});

/** The acceptance list: Services as people create, change and delete them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import { soon } from './cluster.ts';
import { expectNobody, expectReached, expectRefused, expectSourceOf, expectSticky } from './callers.ts';
import type { Exposed } from './world.ts';
import { DNS, HTTP, World } from './world.ts';

const WEB = [{ port: 80, targetPort: HTTP }];
const AFFINITY = { sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } } };

let world: World;
/** Pods: two on node-a, one on node-b. */
let a1: Host;
let a2: Host;
let b1: Host;
/** Who calls: a pod, both nodes. */
let inside: readonly Host[];

beforeAll(async () => {
  world = await World.start();
  a1 = await world.pod('a1', world.nodeA, 11, { tcp: [9090], udp: [8080] });
  a2 = await world.pod('a2', world.nodeA, 12, { tcp: [9090] });
  b1 = await world.pod('b1', world.nodeB, 13, { tcp: [9090], udp: [8080] });
  inside = [await world.pod('caller', world.nodeA, 100), world.nodeA, world.nodeB];
});

afterEach(() => world.tidy());
afterAll(async () => world?.[Symbol.asyncDispose]());

test('serve a basic endpoint from pods', async () => {
  const web = await world.expose('basic', { ports: WEB });
  await expectRefused(inside, web.clusterIP());
  await web.scale(a1);
  await expectReached(inside, web.clusterIP(), a1);
  await web.scale(a1, b1);
  await expectReached(inside, web.clusterIP(), [a1, b1]);
  await web.scale(b1);
  await expectReached(inside, web.clusterIP(), b1);
  await web.scale();
  await expectRefused(inside, web.clusterIP());
  await web.delete();
  await expectNobody(inside, web.clusterIP());
});

test('serve multiport endpoints from pods', async () => {
  const ports = [
    { name: 'one', port: 80, targetPort: HTTP },
    { name: 'two', port: 81, targetPort: 9090 },
  ];
  const web = await world.expose('multiport', { ports });
  // Each port has a pod of its own, then one pod has both.
  await web.slice('-one', ports.slice(0, 1), [a1]);
  await web.slice('-two', ports.slice(1), [b1]);
  await expectReached(inside, web.clusterIP('one'), a1);
  await expectReached(inside, web.clusterIP('two'), b1);
  await web.slice('-two', ports.slice(1), []);
  await expectReached(inside, web.clusterIP('one'), a1);
  await expectRefused(inside, web.clusterIP('two'));
  await web.slice('-two', ports.slice(1), [a1]);
  await expectReached(inside, [...web.clusterIP('one'), ...web.clusterIP('two')], a1);
});

test('serve endpoints on same port and different protocols', async () => {
  const tcp = { name: 'tcp', port: 80, targetPort: HTTP };
  const udp = { name: 'udp', port: 80, targetPort: HTTP, protocol: 'UDP' };
  const web = await world.expose('protocols', { ports: [tcp, udp] }, a1, b1);
  await expectReached(inside, [...web.clusterIP('tcp'), ...web.clusterIP('udp')], [a1, b1]);
  await web.change({ spec: { ports: [udp] } });
  await web.scale(a1, b1);
  await expectReached(inside, web.clusterIP('udp'), [a1, b1]);
  await expectNobody(
    inside,
    web.clusterIP('udp').map((target) => ({ ...target, way: 'tcp' })),
  );
});

test('be able to create a functioning NodePort service', async () => {
  const web = await world.expose('nodeport', { type: 'NodePort', ports: WEB }, a1, b1);
  await expectReached([world.client, ...inside], web.nodePort([world.nodeA, world.nodeB]), [a1, b1]);
  await expectReached(inside, web.clusterIP(), [a1, b1]);
  await web.delete();
  await expectNobody(world.client, web.nodePort([world.nodeA, world.nodeB]));
});

const AS_CLUSTER_IP = { type: 'ClusterIP', externalName: null, ipFamilyPolicy: 'RequireDualStack', ports: WEB };
const AS_NODE_PORT = { ...AS_CLUSTER_IP, type: 'NodePort' };
const AS_EXTERNAL_NAME = {
  type: 'ExternalName',
  externalName: 'example.com',
  clusterIP: null,
  clusterIPs: null,
  ipFamilies: null,
  ipFamilyPolicy: null,
  ports: null,
};

test.each([
  ['be able to change the type from ExternalName to ClusterIP', AS_CLUSTER_IP],
  ['be able to change the type from ExternalName to NodePort', AS_NODE_PORT],
])('%s', async (_, spec) => {
  const web = await world.expose('changes', { type: 'ExternalName', externalName: 'example.com', ipFamilyPolicy: undefined, ipFamilies: undefined, ports: [] });
  await web.change({ spec });
  await web.scale(a1);
  await expectReached(inside, web.clusterIP(), a1);
  if (spec.type === 'NodePort') await expectReached(world.client, web.nodePort(world.nodeB), a1);
});

test.each([
  ['be able to change the type from ClusterIP to ExternalName', 'ClusterIP'],
  ['be able to change the type from NodePort to ExternalName', 'NodePort'],
])('%s', async (_, type) => {
  const web = await world.expose('changes', { type, ports: WEB }, a1);
  await expectReached(inside, web.clusterIP(), a1);
  const was = [...web.clusterIP(), ...(type === 'NodePort' ? web.nodePort(world.nodeA) : [])];
  await web.change({ spec: AS_EXTERNAL_NAME });
  await expectNobody(inside, was);
});

/** What holds for affinity, whichever the frontend. */
const FRONTENDS = [
  { frontend: 'ClusterIP', type: 'ClusterIP', targets: (web: Exposed) => web.clusterIP(), callers: () => inside },
  { frontend: 'NodePort', type: 'NodePort', targets: (web: Exposed) => web.nodePort([world.nodeA, world.nodeB]), callers: () => [...inside, world.client] },
];

test.each(FRONTENDS)('have session affinity work for $frontend', async ({ type, targets, callers }) => {
  const web = await world.expose('sticky', { type, ports: WEB, ...AFFINITY }, a1, a2, b1);
  await expectSticky(callers(), targets(web));
});

test.each(FRONTENDS)('be able to switch session affinity for $frontend', async ({ type, targets, callers }) => {
  const web = await world.expose('switch', { type, ports: WEB }, a1, b1);
  await expectReached(callers(), targets(web), [a1, b1]);
  await web.change({ spec: AFFINITY });
  await expectSticky(callers(), targets(web));
  await web.change({ spec: { sessionAffinity: 'None', sessionAffinityConfig: null } });
  await expectReached(callers(), targets(web), [a1, b1]);
});

test.each(FRONTENDS)('session affinity timeout work for $frontend', async ({ type, targets, callers }) => {
  const seconds = 1;
  const spec = { type, ports: WEB, sessionAffinity: 'ClientIP', sessionAffinityConfig: { clientIP: { timeoutSeconds: seconds } } };
  const web = await world.expose('timeout', spec, a1, a2, b1);
  const [target] = targets(web);
  if (target === undefined) throw new Error('no target');
  await Promise.all(
    callers().map(async (caller) => {
      await expectSticky(caller, [target]);
      // Every pause outlasts the affinity: the next choice is free again, so sooner or later another server is met.
      const met = new Set<string>();
      await soon(async () => {
        await sleep(seconds * 1000 + 100);
        for (const { server } of await caller.connect(target.address, target.port)) met.add(server);
        expect(met.size).toBeGreaterThan(1);
      });
    }),
  );
});

test('secure master service', async () => {
  for (const caller of inside) {
    const { stdout } = await caller.run(['sh', '-c', 'openssl s_client -connect 10.96.0.1:443 < /dev/null 2>/dev/null']);
    expect(stdout, caller.name).toMatch(/subject=CN ?= ?kube-apiserver/);
  }
});

test('pods hairpin back to themselves', async () => {
  const ports = [
    { name: 'http', port: 80, targetPort: HTTP },
    { name: 'dns', port: 53, targetPort: DNS, protocol: 'UDP' },
  ];
  const web = await world.expose('hairpin', { type: 'NodePort', ports }, a1);
  await expectReached(a1, [...web.clusterIP('http'), ...web.clusterIP('dns'), ...web.nodePort(world.nodeA, 'http')], a1);
});

test('preserve source pod IP for cluster IP traffic', async () => {
  const web = await world.expose('source', { ports: WEB }, a1, b1);
  const [caller] = inside as readonly [Host];
  for (const pod of [caller, b1, a2]) await expectSourceOf(pod, web.clusterIP(), pod.addresses);
});

test('up and down services', async () => {
  const first = await world.expose('first', { ports: WEB }, a1);
  const second = await world.expose('second', { ports: WEB }, b1);
  await expectReached(inside, first.clusterIP(), a1);
  await expectReached(inside, second.clusterIP(), b1);
  await first.delete();
  await expectNobody(inside, first.clusterIP());
  await expectReached(inside, second.clusterIP(), b1);
  const third = await world.expose('third', { ports: WEB }, a2);
  await expectReached(inside, third.clusterIP(), a2);
  await expectReached(inside, second.clusterIP(), b1);
});

test('work after the service has been recreated', async () => {
  const before = await world.expose('again', { ports: WEB }, a1);
  await expectReached(inside, before.clusterIP(), a1);
  const clusterIPs = before.object.spec.clusterIPs ?? [];
  await before.delete();
  await expectNobody(inside, before.clusterIP());
  const after = await world.expose('again', { ports: WEB, clusterIP: clusterIPs[0], clusterIPs }, a1);
  expect(after.object.spec.clusterIPs).toEqual(clusterIPs);
  await expectReached(inside, after.clusterIP(), a1);
});

test('updated after adding or deleting ports', async () => {
  const one = { name: 'one', port: 80, targetPort: HTTP };
  const two = { name: 'two', port: 81, targetPort: 9090 };
  const web = await world.expose('ports', { ports: [one] }, a1);
  const targets = { one: web.clusterIP('one'), two: web.clusterIP('one').map((target) => ({ ...target, port: 81 })) };
  await expectReached(inside, targets.one, a1);
  await expectNobody(inside, targets.two);
  await web.change({ spec: { ports: [one, two] } });
  await web.scale(a1);
  await expectReached(inside, [...targets.one, ...targets.two], a1);
  await web.change({ spec: { ports: [two] } });
  await web.scale(a1);
  await expectNobody(inside, targets.one);
  await expectReached(inside, targets.two, a1);
});

test('same port number different protocols on NodePort', async () => {
  const ports = [
    { name: 'tcp', port: 80, targetPort: HTTP },
    { name: 'udp', port: 80, targetPort: DNS, protocol: 'UDP' },
  ];
  const web = await world.expose('both', { ports }, a1, b1);
  await expectReached(inside, [...web.clusterIP('tcp'), ...web.clusterIP('udp')], [a1, b1]);
  await web.change({ spec: { type: 'NodePort', ports: ports.map((port) => ({ ...port, nodePort: 30_888 })) } });
  const everywhere = [world.nodeA, world.nodeB];
  await expectReached([world.client, ...inside], [...web.nodePort(everywhere, 'tcp'), ...web.nodePort(everywhere, 'udp')], [a1, b1]);
});

test('ExternalIP not assigned to a node', async () => {
  const web = await world.expose('external', { ports: WEB, externalIPs: ['203.0.113.99', '2001:db8:a::99'] }, a1, b1);
  await expectReached([world.client, ...inside], web.externalIP(), [a1, b1]);
  await web.change({ spec: { externalIPs: null } });
  await expectNobody(inside, [{ way: 'tcp', address: '203.0.113.99', port: 80 }]);
});

test('rejected when no endpoints exist', async () => {
  const ports = [...WEB.map((port) => ({ ...port, name: 'http' })), { name: 'dns', port: 53, targetPort: DNS, protocol: 'UDP' }];
  const web = await world.expose('empty', { type: 'LoadBalancer', ports, externalIPs: ['203.0.113.98'] });
  await web.balance(world.nodeA);
  const here = [world.nodeA, world.nodeB];
  await expectRefused([world.client, ...inside], [...web.nodePort(here, 'http'), ...web.externalIP('http'), ...web.loadBalancer(world.nodeA, 'http')]);
  await expectRefused(inside, [...web.clusterIP('http'), ...web.clusterIP('dns')]);
  await expectRefused(world.client, web.nodePort(here, 'dns'));
});

test('service-proxy-name label', async () => {
  const label = { labels: { 'service.kubernetes.io/service-proxy-name': 'another' } };
  const ours = await world.expose('ours', { ports: WEB }, a1);
  const theirs = await world.expose('theirs', { ports: WEB, metadata: label }, a1);
  await expectReached(inside, ours.clusterIP(), a1);
  await expectNobody(inside, theirs.clusterIP());
  await ours.change({ metadata: label });
  await expectNobody(inside, ours.clusterIP());
  await ours.change({ metadata: { labels: { 'service.kubernetes.io/service-proxy-name': null } } });
  await expectReached(inside, ours.clusterIP(), a1);
});

test('headless label', async () => {
  const ours = await world.expose('headed', { ports: WEB }, a1);
  const headless = await world.expose('headless', { ports: WEB, metadata: { labels: { 'service.kubernetes.io/headless': '' } } }, a1);
  await expectReached(inside, ours.clusterIP(), a1);
  // The label of a Service means nothing to a proxy; the one that its slices bear keeps them from travelling.
  await headless.label('service.kubernetes.io/headless', '');
  await expectNobody(inside, headless.clusterIP());
  await headless.label('service.kubernetes.io/headless', null);
  await expectReached(inside, headless.clusterIP(), a1);
});

test('the other services were not disturbed', () => world.expectOthersUndisturbed());

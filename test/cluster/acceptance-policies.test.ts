/** The acceptance list: traffic policies, the health check node port, endpoints that terminate. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import type { LabNode } from '../support/lab/node.ts';
import { expectNobody, expectReached, expectSourceOf } from './callers.ts';
import { soon } from './cluster.ts';
import type { EndpointOf, Exposed } from './world.ts';
import { DNS, HTTP, World } from './world.ts';

const WEB = [
  { name: 'http', port: 80, targetPort: HTTP },
  { name: 'dns', port: 53, targetPort: DNS, protocol: 'UDP' },
];

let world: World;
/** Backends: two on node-a, one on node-b. */
let a1: Host;
let a2: Host;
let b1: Host;
/** Pods that call, one on each node. */
let podA: Host;
let podB: Host;

beforeAll(async () => {
  world = await World.start();
  a1 = await world.pod('a1', world.nodeA, 11, { udp: [8080] });
  a2 = await world.pod('a2', world.nodeA, 12);
  b1 = await world.pod('b1', world.nodeB, 13, { udp: [8080] });
  podA = await world.pod('pod-a', world.nodeA, 100);
  podB = await world.pod('pod-b', world.nodeB, 100);
  for (const node of world.cluster.lab.nodes) await node.serve({ tcp: [HTTP], udp: [DNS] });
});

afterEach(() => world.tidy());
afterAll(async () => world?.[Symbol.asyncDispose]());

/** It ends, and serves still. */
const leaving = (host: Host): EndpointOf => ({ host, conditions: { ready: false, serving: true, terminating: true } });
/** It ends, and has stopped serving. */
const gone = (host: Host): EndpointOf => ({ host, conditions: { ready: false, serving: false, terminating: true } });

const everywhere = (): readonly LabNode[] => [world.nodeA, world.nodeB];
const clusterIPs = (web: Exposed) => [...web.clusterIP('http'), ...web.clusterIP('dns')];
const nodePorts = (web: Exposed, nodes: LabNode | readonly LabNode[] = everywhere()) => [...web.nodePort(nodes, 'http'), ...web.nodePort(nodes, 'dns')];

/** What the health check node port says on every address of a node: an HTTP status, or 0 where nobody listens. */
async function expectHealth(node: LabNode, port: number | undefined, status: number, localEndpoints?: number): Promise<void> {
  expect(port).toBeGreaterThan(0);
  for (const address of node.addresses) {
    const url = `http://${address.includes(':') ? `[${address}]` : address}:${port}/healthz`;
    await soon(async () => {
      const answer = await world.client.get(url).catch(() => ({ status: 0, body: '{}' }));
      expect(answer.status, `${node.name}, ${url}`).toBe(status);
      if (localEndpoints !== undefined) expect(JSON.parse(answer.body)).toMatchObject({ localEndpoints });
    });
  }
}

test.each([
  ['internalTrafficPolicy=Local: pod to pod', () => a1, () => [podA], () => [podB]],
  ['internalTrafficPolicy=Local: hostNetwork pod to pod', () => a1, () => [world.nodeA], () => [world.nodeB]],
  ['internalTrafficPolicy=Local: pod and node to hostNetwork pod', () => world.nodeA, () => [podA, world.nodeA], () => [podB, world.nodeB]],
])('%s', async (_, endpoint, beside, away) => {
  const web = await world.expose('inner', { ports: WEB, internalTrafficPolicy: 'Local' }, endpoint());
  await expectReached(beside(), clusterIPs(web), endpoint());
  await expectNobody(away(), clusterIPs(web));
  await web.change({ spec: { internalTrafficPolicy: 'Cluster' } });
  await expectReached([...beside(), ...away()], clusterIPs(web), endpoint());
});

test('externalTrafficPolicy=Local for NodePort', async () => {
  const web = await world.expose('outer', { type: 'NodePort', ports: WEB, externalTrafficPolicy: 'Local' }, a1);
  await expectReached(world.client, nodePorts(web, world.nodeA), a1);
  await expectSourceOf(world.client, nodePorts(web, world.nodeA), world.client.addresses);
  await expectNobody(world.client, nodePorts(web, world.nodeB));
  // Pods, and a node that calls itself, are not outside.
  await expectReached([podA, podB], nodePorts(web), a1);
  await expectReached(world.nodeB, nodePorts(web, world.nodeB), a1);
  await web.scale(a1, b1);
  await expectReached(world.client, nodePorts(web, world.nodeA), a1);
  await expectReached(world.client, nodePorts(web, world.nodeB), b1);
});

test('NodePort and HealthCheckNodePort when externalTrafficPolicy changes', async () => {
  const web = await world.expose('turns', { type: 'LoadBalancer', ports: WEB, externalTrafficPolicy: 'Local' }, a1, a2);
  const { healthCheckNodePort } = web.object.spec;
  await expectHealth(world.nodeA, healthCheckNodePort, 200, 2);
  await expectHealth(world.nodeB, healthCheckNodePort, 503, 0);
  await expectReached(world.client, nodePorts(web, world.nodeA), [a1, a2]);
  await expectNobody(world.client, nodePorts(web, world.nodeB));

  await web.change({ spec: { externalTrafficPolicy: 'Cluster' } });
  expect(web.object.spec.healthCheckNodePort).toBeUndefined();
  for (const node of everywhere()) await expectHealth(node, healthCheckNodePort, 0);
  await expectReached(world.client, nodePorts(web), [a1, a2]);
  // Sent on to another node, it comes from there.
  await expectSourceOf(world.client, nodePorts(web, world.nodeB), world.nodeB.addresses);

  await web.change({ spec: { externalTrafficPolicy: 'Local' } });
  await expectHealth(world.nodeA, web.object.spec.healthCheckNodePort, 200, 2);
  await expectHealth(world.nodeB, web.object.spec.healthCheckNodePort, 503, 0);
  await expectNobody(world.client, nodePorts(web, world.nodeB));
  await expectSourceOf(world.client, nodePorts(web, world.nodeA), world.client.addresses);
  await web.delete();
  for (const node of everywhere()) await expectHealth(node, web.object.spec.healthCheckNodePort, 0);
});

test('health check node port fails with only terminating endpoints', async () => {
  const web = await world.expose('ends', { type: 'LoadBalancer', ports: WEB, externalTrafficPolicy: 'Local' }, a1, b1);
  const { healthCheckNodePort } = web.object.spec;
  for (const node of everywhere()) await expectHealth(node, healthCheckNodePort, 200, 1);
  await web.scale(leaving(a1), b1);
  await expectHealth(world.nodeA, healthCheckNodePort, 503, 0);
  await expectHealth(world.nodeB, healthCheckNodePort, 200, 1);
  await expectReached(world.client, nodePorts(web, world.nodeA), a1);
});

test('fall back to terminating endpoints: internalTrafficPolicy=Cluster', async () => {
  const web = await world.expose('falls', { ports: WEB }, leaving(a1), b1);
  const callers = [podA, podB, ...everywhere()];
  await expectReached(callers, clusterIPs(web), b1);
  await web.scale(leaving(a1), leaving(b1));
  await expectReached(callers, clusterIPs(web), [a1, b1]);
  await web.scale(leaving(a1), gone(b1));
  await expectReached(callers, clusterIPs(web), a1);
  await web.scale(gone(a1), gone(b1));
  await expectNobody(callers, clusterIPs(web));
});

test('fall back to terminating endpoints: internalTrafficPolicy=Local', async () => {
  const web = await world.expose('falls', { ports: WEB, internalTrafficPolicy: 'Local' }, leaving(a1), a2, b1);
  await expectReached([podA, world.nodeA], clusterIPs(web), a2);
  await expectReached([podB, world.nodeB], clusterIPs(web), b1);
  await web.scale(leaving(a1), b1);
  await expectReached([podA, world.nodeA], clusterIPs(web), a1);
  await expectReached([podB, world.nodeB], clusterIPs(web), b1);
  await web.scale(gone(a1), b1);
  await expectNobody([podA, world.nodeA], clusterIPs(web));
  await expectReached([podB, world.nodeB], clusterIPs(web), b1);
});

test('fall back to terminating endpoints: externalTrafficPolicy=Cluster', async () => {
  const web = await world.expose('falls', { type: 'NodePort', ports: WEB, externalTrafficPolicy: 'Cluster' }, leaving(a1), b1);
  const callers = [world.client, podA, podB];
  await expectReached(callers, nodePorts(web), b1);
  await web.scale(leaving(a1), leaving(b1));
  await expectReached(callers, nodePorts(web), [a1, b1]);
  await web.scale(gone(a1), gone(b1));
  await expectNobody(callers, nodePorts(web));
});

test('fall back to terminating endpoints: externalTrafficPolicy=Local', async () => {
  const web = await world.expose('falls', { type: 'NodePort', ports: WEB, externalTrafficPolicy: 'Local' }, leaving(a1), a2, b1);
  await expectReached(world.client, nodePorts(web, world.nodeA), a2);
  await web.scale(leaving(a1), b1);
  await expectReached(world.client, nodePorts(web, world.nodeA), a1);
  await expectReached(world.client, nodePorts(web, world.nodeB), b1);
  await expectSourceOf(world.client, nodePorts(web, world.nodeA), world.client.addresses);
  await web.scale(gone(a1), b1);
  await expectNobody(world.client, nodePorts(web, world.nodeA));
  await expectReached(world.client, nodePorts(web, world.nodeB), b1);
});

test('same port different protocols on LoadBalancer, internal', async () => {
  const ports = [
    { name: 'tcp', port: 80, targetPort: HTTP },
    { name: 'udp', port: 80, targetPort: HTTP, protocol: 'UDP' },
  ];
  const web = await world.expose('both', { type: 'LoadBalancer', ports }, a1, b1);
  await web.balance(world.nodeA);
  const callers = [podA, podB, ...everywhere()];
  await expectReached(callers, [...web.clusterIP('tcp'), ...web.clusterIP('udp')], [a1, b1]);
  await expectReached(callers, [...web.loadBalancer(world.nodeA, 'tcp'), ...web.loadBalancer(world.nodeA, 'udp')], [a1, b1]);
});

test('the other services were not disturbed', () => world.expectOthersUndisturbed());

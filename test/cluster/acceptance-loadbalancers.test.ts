/** The acceptance list: load balancers, by the addresses that lead to one node or the other. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import type { LabNode } from '../support/lab/node.ts';
import type { Target } from './callers.ts';
import { expectDropped, expectNobody, expectReached, expectRefused, expectSourceOf, expectSticky } from './callers.ts';
import { soon } from './cluster.ts';
import type { EndpointOf, Exposed } from './world.ts';
import { DNS, HTTP, World } from './world.ts';

const TCP = [{ name: 'main', port: 80, targetPort: HTTP }];
const UDP = [{ name: 'main', port: 80, targetPort: DNS, protocol: 'UDP' }];
const AFFINITY = { sessionAffinity: 'ClientIP' };
const NO_AFFINITY = { sessionAffinity: 'None', sessionAffinityConfig: null };

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
  a1 = await world.pod('a1', world.nodeA, 11);
  a2 = await world.pod('a2', world.nodeA, 12);
  b1 = await world.pod('b1', world.nodeB, 13);
  podA = await world.pod('pod-a', world.nodeA, 100);
  podB = await world.pod('pod-b', world.nodeB, 100);
});

afterEach(() => world.tidy());
afterAll(async () => world?.[Symbol.asyncDispose]());

const nodes = (): readonly LabNode[] => [world.nodeA, world.nodeB];

/** A load balancer that sends to both nodes, at an address of its own for each. */
async function balanced(name: string, spec: object, ...endpoints: readonly Host[]): Promise<Exposed> {
  const web = await world.expose(name, { type: 'LoadBalancer', ports: TCP, ...spec }, ...endpoints);
  await web.balance(...nodes());
  return web;
}

test.each([
  ['type and port changes: TCP', TCP],
  ['type and port changes: UDP', UDP],
])('%s', async (_, ports) => {
  const inside = [podA, world.nodeB];
  const web = await world.expose('changes', { type: 'ClusterIP', ports }, a1, b1);
  await expectReached(inside, web.clusterIP(), [a1, b1]);
  await web.change({ spec: { type: 'NodePort' } });
  const firstNodePort = web.nodePort(nodes());
  await expectReached([world.client, ...inside], firstNodePort, [a1, b1]);

  await web.change({ spec: { type: 'LoadBalancer' } });
  await web.balance(...nodes());
  await expectReached([world.client, ...inside], [...web.loadBalancer(), ...firstNodePort], [a1, b1]);

  const [port] = ports;
  await web.change({ spec: { ports: [{ ...port, nodePort: 30_666 }] } });
  await expectReached(world.client, [...web.loadBalancer(), ...web.nodePort(nodes())], [a1, b1]);
  await expectNobody(world.client, firstNodePort);
  const firstPort = web.loadBalancer();
  await web.change({ spec: { ports: [{ ...port, port: 81, nodePort: 30_666 }] } });
  await expectReached([world.client, ...inside], [...web.loadBalancer(), ...web.nodePort(nodes())], [a1, b1]);
  await expectNobody(inside, firstPort);

  await web.scale();
  await expectRefused(world.client, [...web.loadBalancer(), ...web.nodePort(nodes())]);
  await expectRefused(inside, web.loadBalancer());
  await web.scale(a1);
  await expectReached([world.client, ...inside], [...web.loadBalancer(), ...web.nodePort(nodes())], a1);

  const was = [...web.loadBalancer(), ...web.nodePort(nodes())];
  await web.balance();
  await web.change({ spec: { type: 'ClusterIP', ports: [{ ...port, port: 81, nodePort: null }] } });
  await expectReached(inside, web.clusterIP(), a1);
  await expectNobody([world.client, ...inside], was);
});

test('without NodePort and back', async () => {
  const web = await balanced('portless', { allocateLoadBalancerNodePorts: false }, a1, b1);
  expect(web.object.spec.ports?.[0]?.nodePort).toBeUndefined();
  await expectReached([world.client, podA, world.nodeB], web.loadBalancer(), [a1, b1]);
  await web.change({ spec: { allocateLoadBalancerNodePorts: true } });
  expect(web.object.spec.ports?.[0]?.nodePort).toBeGreaterThan(0);
  await expectReached(world.client, [...web.nodePort(nodes()), ...web.loadBalancer()], [a1, b1]);
});

test('only source ranges allowed', async () => {
  const of = ({ addresses }: Host): string[] => addresses.map((address) => `${address}/${address.includes(':') ? 128 : 32}`);
  const web = await balanced('ranges', { loadBalancerSourceRanges: of(podA) }, a1, b1);
  await expectReached(podA, web.loadBalancer(), [a1, b1]);
  await expectDropped([podB, world.client, world.nodeB], web.loadBalancer());
  // They bind nothing but the load balancer.
  await expectReached([podB, world.nodeB], web.clusterIP(), [a1, b1]);
  await expectReached([podB, world.client], web.nodePort(nodes()), [a1, b1]);

  await web.change({ spec: { loadBalancerSourceRanges: of(world.client) } });
  await expectReached(world.client, web.loadBalancer(), [a1, b1]);
  await expectDropped([podA, podB], web.loadBalancer());
  await web.change({ spec: { loadBalancerSourceRanges: null } });
  await expectReached([podA, podB, world.client, ...nodes()], web.loadBalancer(), [a1, b1]);
});

test.each([
  ['affinity with externalTrafficPolicy=Cluster', 'Cluster'],
  ['affinity with externalTrafficPolicy=Local', 'Local'],
])('%s', async (_, externalTrafficPolicy) => {
  const web = await balanced('sticky', { externalTrafficPolicy, ...AFFINITY }, a1, a2, b1);
  await expectSticky([world.client, podA, podB], web.loadBalancer());
});

test.each([
  ['switching affinity with externalTrafficPolicy=Cluster', 'Cluster'],
  ['switching affinity with externalTrafficPolicy=Local', 'Local'],
])('%s', async (_, externalTrafficPolicy) => {
  const web = await balanced('switch', { externalTrafficPolicy }, a1, a2, b1);
  const toA = web.loadBalancer(world.nodeA);
  const all = externalTrafficPolicy === 'Local' ? [a1, a2] : [a1, a2, b1];
  await expectReached(world.client, toA, all);
  await web.change({ spec: AFFINITY });
  await expectSticky(world.client, toA);
  await web.change({ spec: NO_AFFINITY });
  await expectReached(world.client, toA, all);
});

test.each([
  ['UDP when the server pod cycles on the same node', () => world.nodeA],
  ['UDP when the server pod cycles on different nodes', () => world.nodeB],
])('%s', async (_, node) => {
  const first = await world.shortLived('first', world.nodeA);
  const web = await balanced('cycles', { ports: UDP }, first);
  await expectReached(world.client, web.loadBalancer(), first);
  const held = await Promise.all(web.loadBalancer().map(({ address, port }) => world.client.holdUdp(address, port)));
  const expectAnswered = (server: string): Promise<unknown> =>
    Promise.all(held.map((socket) => soon(async () => expect(await socket.ask(300)).toMatchObject({ server }))));
  await expectAnswered('first');
  const second = await world.shortLived('second', node());
  await web.scale(second);
  await world.end(first);
  await expectAnswered('second');
  for (const socket of held) await socket.release();
});

test.each([
  ['no disruption during a rolling update with externalTrafficPolicy=Cluster', 'Cluster', () => nodes()],
  // A load balancer sends to the nodes whose health check passes: of these, node-a.
  ['no disruption during a rolling update with externalTrafficPolicy=Local', 'Local', () => [world.nodeA]],
])('%s', async (_, externalTrafficPolicy, sentTo) => {
  const leaving = (host: Host): EndpointOf => ({ host, conditions: { ready: false, serving: true, terminating: true } });
  let [one, two] = [await world.shortLived('one-0', world.nodeA), await world.shortLived('two-0', world.nodeA)];
  const web = await balanced('rolls', { externalTrafficPolicy }, one, two);
  const targets: Target[] = sentTo().flatMap((node) => web.loadBalancer(node));
  await expectReached(world.client, targets, [one, two]);
  const traffic = await Promise.all(targets.map(({ address, port }) => world.client.traffic(address, port, 50)));
  for (const round of [1, 2]) {
    // One at a time, and at times there is none but those that end.
    const newOne = await world.shortLived(`one-${round}`, world.nodeA);
    await web.scale(leaving(one), leaving(two));
    await expectReached(world.client, targets, [one, two]);
    await web.scale(leaving(one), leaving(two), newOne);
    await expectReached(world.client, targets, newOne);
    await world.end(one);
    const newTwo = await world.shortLived(`two-${round}`, world.nodeA);
    await web.scale(newOne, newTwo);
    await expectReached(world.client, targets, [newOne, newTwo]);
    await world.end(two);
    [one, two] = [newOne, newTwo];
  }
  const ended = await Promise.all(traffic.map(({ stop }) => stop()));
  for (const { errors } of ended) expect(errors).toEqual({});
  // Between them: a pod that comes and goes may be met by one client and not by another.
  const met = new Set(ended.flatMap(({ servers }) => Object.keys(servers)));
  expect([...met].toSorted()).toEqual(['one-0', 'one-1', 'one-2', 'two-0', 'two-1', 'two-2']);
});

test('externalTrafficPolicy=Local: works', async () => {
  const web = await balanced('local', { externalTrafficPolicy: 'Local' }, a1, b1);
  await expectReached(world.client, web.loadBalancer(world.nodeA), a1);
  await expectReached(world.client, web.loadBalancer(world.nodeB), b1);
  await expectSourceOf(world.client, web.loadBalancer(), world.client.addresses);
  await web.change({ spec: { externalTrafficPolicy: 'Cluster' } });
  await expectReached(world.client, web.loadBalancer(), [a1, b1]);
});

test('externalTrafficPolicy=Local: only nodes with endpoints', async () => {
  const web = await balanced('local', { externalTrafficPolicy: 'Local' }, a1);
  await expectReached(world.client, web.loadBalancer(world.nodeA), a1);
  await expectDropped(world.client, web.loadBalancer(world.nodeB));
  await web.scale(b1);
  await expectReached(world.client, web.loadBalancer(world.nodeB), b1);
  await expectDropped(world.client, web.loadBalancer(world.nodeA));
});

test('externalTrafficPolicy=Local: all nodes with endpoints', async () => {
  const web = await balanced('local', { externalTrafficPolicy: 'Local' }, a1, a2, b1);
  await expectReached(world.client, web.loadBalancer(world.nodeA), [a1, a2]);
  await expectReached(world.client, web.loadBalancer(world.nodeB), b1);
});

test('externalTrafficPolicy=Local: from pods', async () => {
  const web = await balanced('local', { externalTrafficPolicy: 'Local' }, a1);
  await expectReached([podA, podB], web.loadBalancer(), a1);
  await expectSourceOf(podB, web.loadBalancer(), podB.addresses);
  await expectDropped(world.client, web.loadBalancer(world.nodeB));
});

test('the other services were not disturbed', () => world.expectOthersUndisturbed());

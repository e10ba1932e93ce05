/** The acceptance list: Services of pods in the API, whose slices the controllers write. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import { expectDropped, expectNobody, expectReached, expectRefused } from './callers.ts';
import { soon } from './cluster.ts';
import type { PodObjectInit } from './pod-object.ts';
import { PodObject } from './pod-object.ts';
import { DNS, HTTP, World } from './world.ts';

const WEB = [{ name: 'http', port: 80, targetPort: HTTP }];
const BY_NAME = [{ name: 'http', port: 80, targetPort: 'web' }];

let world: World;
/** Pods of the lab, whose objects each test makes and removes. */
let a1: Host;
let a2: Host;
let b1: Host;
let b2: Host;
/** Who calls: a pod, both nodes. */
let inside: readonly Host[];

beforeAll(async () => {
  world = await World.start();
  for (const node of world.cluster.lab.nodes)
    await world.api.patch(`/api/v1/nodes/${node.name}`, { metadata: { labels: { 'topology.kubernetes.io/zone': `zone-of-${node.name}` } } });
  a1 = await world.pod('a1', world.nodeA, 11, { tcp: [9090] });
  a2 = await world.pod('a2', world.nodeA, 12);
  b1 = await world.pod('b1', world.nodeB, 13, { tcp: [9090] });
  b2 = await world.pod('b2', world.nodeB, 14);
  inside = [await world.pod('caller', world.nodeA, 100), world.nodeA, world.nodeB];
});

afterEach(() => world.tidy());
afterAll(async () => world?.[Symbol.asyncDispose]());

async function pod(host: Host, app: string, init: Omit<PodObjectInit, 'labels'> = {}): Promise<PodObject> {
  const object = await PodObject.create(world.api, host, world.nodeOf(host).name, { labels: { app }, ...init });
  world.later(() => object.remove());
  return object;
}

test('create endpoints for unready pods', async () => {
  const web = await world.expose('early', { ports: WEB, selector: { app: 'early' }, publishNotReadyAddresses: true });
  const strict = await world.expose('strict', { ports: WEB, selector: { app: 'early' } });
  const object = await pod(a1, 'early', { ready: false });
  await expectReached(inside, web.clusterIP(), a1);
  await expectNobody(inside, strict.clusterIP());
  await object.ready(true);
  await expectReached(inside, strict.clusterIP(), a1);
  await object.ready(false);
  await object.terminate();
  await expectNobody(inside, strict.clusterIP());
  await expectReached(inside, web.clusterIP(), a1);
  await object.remove();
  await expectNobody(inside, web.clusterIP());
});

test('terminating and unready endpoints with publishNotReadyAddresses true', async () => {
  const spec = { type: 'NodePort', ports: WEB, selector: { app: 'ends' }, publishNotReadyAddresses: true };
  const web = await world.expose('ends', spec);
  const object = await pod(b1, 'ends', { ready: false });
  await object.terminate();
  await expectReached(inside, web.clusterIP(), b1);
  await expectReached(world.client, web.nodePort([world.nodeA, world.nodeB]), b1);
});

test('terminating and unready endpoints with publishNotReadyAddresses false', async () => {
  const web = await world.expose('ends', { type: 'NodePort', ports: WEB, selector: { app: 'ends' } });
  const object = await pod(b1, 'ends');
  await expectReached(inside, web.clusterIP(), b1);
  // Ready, it is served to its end; unready, it is not.
  await object.terminate();
  await expectReached(inside, web.clusterIP(), b1);
  await object.ready(false);
  await expectNobody(inside, web.clusterIP());
  await expectNobody(world.client, web.nodePort([world.nodeA, world.nodeB]));
});

test('rejected for evicted pods', async () => {
  const web = await world.expose('evicted', { ports: WEB, selector: { app: 'evicted' } });
  const object = await pod(a1, 'evicted');
  await expectReached(inside, web.clusterIP(), a1);
  await object.evict();
  await expectNobody(inside, web.clusterIP());
});

test('named targetPorts that resolve differently per endpoint', async () => {
  const web = await world.expose('named', { ports: BY_NAME, selector: { app: 'named' } });
  await a2.serve({ name: 'a2-other', tcp: [9191] });
  await pod(a2, 'named', { ports: [{ name: 'web', containerPort: 9191 }] });
  await pod(b2, 'named', { ports: [{ name: 'web', containerPort: HTTP }] });
  await expectReached(inside, web.clusterIP(), [{ ...a2, name: 'a2-other' } as Host, b2]);
});

test('ports, named ports of restartable init containers', async () => {
  const ports = [
    { name: 'named', port: 80, targetPort: 'sidecar' },
    { name: 'number', port: 81, targetPort: 9090 },
  ];
  const web = await world.expose('sidecar', { ports, selector: { app: 'sidecar' } });
  const sidecar = { name: 'sidecar', image: 'none', restartPolicy: 'Always', ports: [{ name: 'sidecar', containerPort: 9090 }] };
  await pod(a1, 'sidecar', { initContainers: [sidecar] });
  await expectReached(inside, [...web.clusterIP('named'), ...web.clusterIP('number')], a1);
});

test('several services with one selector', async () => {
  const web = await world.expose('one', { ports: WEB, selector: { app: 'shared' } });
  const other = await world.expose('other', { type: 'NodePort', ports: WEB, selector: { app: 'shared' } });
  for (const host of [a1, b1]) await pod(host, 'shared');
  const callers = [...inside, a1, b1];
  await expectReached(callers, [...web.clusterIP(), ...other.clusterIP(), ...other.nodePort(world.nodeA)], [a1, b1]);
  await web.delete();
  await expectNobody(callers, web.clusterIP());
  await expectReached(callers, [...other.clusterIP(), ...other.nodePort(world.nodeA)], [a1, b1]);
});

test('EndpointSlice: multiple ports and multiple IPs over several slices', async () => {
  const ports = [
    { name: 'http', port: 80, targetPort: HTTP },
    { name: 'admin', port: 81, targetPort: 9090 },
  ];
  const web = await world.expose('slices', { ports });
  await web.slice('-http', ports.slice(0, 1), [a1]);
  await web.slice('-http-more', ports.slice(0, 1), [a2, b2]);
  await web.slice('-both', ports, [b1]);
  await expectReached(inside, web.clusterIP('http'), [a1, a2, b1, b2]);
  await expectReached(inside, web.clusterIP('admin'), b1);
  await web.slice('-http-more', ports.slice(0, 1), [b2]);
  await expectReached(inside, web.clusterIP('http'), [a1, b1, b2]);
});

test('topology hints', async () => {
  const zone = (host: Host) => ({ host, hints: { forZones: [{ name: `zone-of-${world.nodeOf(host).name}` }] } });
  const web = await world.expose('hints', { ports: WEB }, zone(a1), zone(a2), zone(b1));
  const [caller, nodeA, nodeB] = inside as readonly [Host, Host, Host];
  await expectReached([caller, nodeA], web.clusterIP(), [a1, a2]);
  await expectReached(nodeB, web.clusterIP(), b1);
  // One endpoint without a hint, and none counts; so it is, too, where no hint names the own zone.
  await web.scale(zone(a1), zone(b1), b2);
  await expectReached(inside, web.clusterIP(), [a1, b1, b2]);
  await web.scale(zone(b1), zone(b2));
  await expectReached(inside, web.clusterIP(), [b1, b2]);
});

test.each([
  ['traffic distribution: PreferClose', 'PreferClose'],
  ['traffic distribution: PreferSameZone', 'PreferSameZone'],
])('%s', async (_, trafficDistribution) => {
  const web = await world.expose('near', { ports: WEB, selector: { app: 'near' }, trafficDistribution });
  for (const host of [a1, a2, b1]) await pod(host, 'near');
  const [caller, nodeA, nodeB] = inside as readonly [Host, Host, Host];
  await expectReached([caller, nodeA], web.clusterIP(), [a1, a2]);
  await expectReached(nodeB, web.clusterIP(), b1);
  await web.change({ spec: { trafficDistribution: null } });
  await expectReached(inside, web.clusterIP(), [a1, a2, b1]);
});

test('traffic distribution: PreferSameNode, with fallback', async () => {
  const web = await world.expose('nearest', { ports: WEB, selector: { app: 'nearest' }, trafficDistribution: 'PreferSameNode' });
  const near = await pod(a1, 'nearest');
  await pod(b1, 'nearest');
  const [caller, nodeA, nodeB] = inside as readonly [Host, Host, Host];
  await expectReached([caller, nodeA], web.clusterIP(), a1);
  await expectReached(nodeB, web.clusterIP(), b1);
  await near.ready(false);
  await expectReached(inside, web.clusterIP(), b1);
  await near.ready(true);
  await expectReached([caller, nodeA], web.clusterIP(), a1);
});

test('Pod lifecycle: blue-green deployment without downtime', async () => {
  const web = await world.expose('lives', { ports: WEB, selector: { app: 'blue' } });
  for (const host of [a1, b1]) await pod(host, 'blue');
  await expectReached(inside, web.clusterIP(), [a1, b1]);
  const traffic = await Promise.all(inside.flatMap((caller) => web.clusterIP().map(({ address, port }) => caller.traffic(address, port, 30))));
  const expectMet = async (...hosts: readonly Host[]): Promise<void> => {
    for (const { tally } of traffic)
      await soon(async () => expect(Object.keys((await tally()).servers)).toEqual(expect.arrayContaining(hosts.map(({ name }) => name))));
  };
  await expectMet(a1, b1);
  for (const host of [a2, b2]) await pod(host, 'green');
  await web.change({ spec: { selector: { app: 'green' } } });
  await expectReached(inside, web.clusterIP(), [a2, b2]);
  await expectMet(a2, b2);
  for (const { stop } of traffic) expect((await stop()).errors).toEqual({});
});

test('Service CIDRs: Services on a CIDR added live', async () => {
  const cidrs = ['10.97.0.0/24', 'fd00:97::/120'];
  const path = '/apis/networking.k8s.io/v1/servicecidrs';
  await world.api.create(path, { apiVersion: 'networking.k8s.io/v1', kind: 'ServiceCIDR', metadata: { name: 'live' }, spec: { cidrs } });
  world.later(() => world.api.delete(`${path}/live`));
  const clusterIPs = ['10.97.0.10', 'fd00:97::10'];
  const spec = { ports: WEB, clusterIP: clusterIPs[0], clusterIPs };
  const web = await world.expose('wide', spec, a1, b1);
  expect(web.object.spec.clusterIPs).toEqual(clusterIPs);
  await expectReached(inside, web.clusterIP(), [a1, b1]);
  // An address that nobody has, and a port that the Service has not.
  await expectDropped(
    inside,
    ['10.97.0.11', 'fd00:97::11'].map((address) => ({ way: 'tcp', address, port: 80 })),
  );
  await expectRefused(
    inside,
    web.clusterIP().map((target) => ({ ...target, port: 81 })),
  );
});

test('DNS over the cluster IP, UDP and TCP', async () => {
  const ports = [
    { name: 'dns', port: 53, targetPort: 'dns', protocol: 'UDP' },
    { name: 'dns-tcp', port: 53, targetPort: 'dns-tcp' },
  ];
  const web = await world.expose('kube-dns', { ports, selector: { app: 'dns' } });
  const containers = [
    { name: 'dns', containerPort: DNS, protocol: 'UDP' },
    { name: 'dns-tcp', containerPort: HTTP },
  ];
  for (const host of [a1, b1]) await pod(host, 'dns', { ports: containers });
  await expectReached(inside, [...web.clusterIP('dns'), ...web.clusterIP('dns-tcp')], [a1, b1]);
  // Resolvers connect their sockets.
  await expectReached(
    inside,
    web.clusterIP('dns').map((target) => ({ ...target, way: 'udp connected' })),
    [a1, b1],
  );
});

test('the other services were not disturbed', () => world.expectOthersUndisturbed());

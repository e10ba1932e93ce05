/** The acceptance list: the granular checks, in each family. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import type { Target } from './callers.ts';
import { expectNobody, expectReached, expectSticky } from './callers.ts';
import { soon } from './cluster.ts';
import type { Exposed } from './world.ts';
import { DNS, HTTP, World } from './world.ts';

const PORTS = [
  { name: 'http', port: 80, targetPort: HTTP },
  { name: 'udp', port: 80, targetPort: DNS, protocol: 'UDP' },
];
const AFFINITY = { sessionAffinity: 'ClientIP' };
/** More than one packet holds. */
const LARGE = 20_000;

let world: World;
let endpoints: readonly Host[];
let caller: Host;
/** A Service of all of them that the tests do not change. */
let steady: Exposed;

beforeAll(async () => {
  world = await World.start();
  endpoints = [await world.pod('a1', world.nodeA, 11), await world.pod('a2', world.nodeA, 12), await world.pod('b1', world.nodeB, 13)];
  caller = await world.pod('caller', world.nodeA, 100);
  for (const node of world.cluster.lab.nodes) await node.serve({ tcp: [HTTP], udp: [DNS] });
  steady = await world.exposeForAll('steady', { type: 'NodePort', ports: PORTS }, ...endpoints);
});

afterEach(() => world.tidy());
afterAll(async () => world?.[Symbol.asyncDispose]());

describe.each(['IPv4', 'IPv6'])('%s', (family) => {
  const own = (targets: readonly Target[]): Target[] => targets.filter(({ address }) => address.includes(':') === (family === 'IPv6'));
  const clusterIP = (web: Exposed, port: string): Target[] => own(web.clusterIP(port));
  const nodePort = (web: Exposed, port: string): Target[] => own(web.nodePort([world.nodeA, world.nodeB], port));
  const either = (web: Exposed, port: string): Target[] => [...clusterIP(web, port), ...nodePort(web, port)];

  describe.each(['http', 'udp'])('%s', (port) => {
    test(`pod-Service: ${port}, ${family}`, () => expectReached(caller, either(steady, port), endpoints));
    test(`node-Service: ${port}, ${family}`, () => expectReached([world.nodeA, world.nodeB], either(steady, port), endpoints));
    test(`endpoint-Service: ${port}, ${family}`, () => expectReached(endpoints, either(steady, port), endpoints));

    test(`client IP affinity: ${port}, ${family}`, async () => {
      const web = await world.expose('sticky', { type: 'NodePort', ports: PORTS, ...AFFINITY }, ...endpoints);
      await expectSticky([caller, world.nodeA, world.nodeB], clusterIP(web, port));
      await expectSticky(world.client, nodePort(web, port));
    });

    test(`update endpoints: ${port}, ${family}`, async () => {
      const [a1, a2, b1] = endpoints as readonly [Host, Host, Host];
      const web = await world.expose('endpoints', { type: 'NodePort', ports: PORTS }, a1, a2, b1);
      await expectReached([caller, world.client], nodePort(web, port), [a1, a2, b1]);
      await web.scale(a2, b1);
      await expectReached([caller, world.nodeB], either(web, port), [a2, b1]);
      await expectReached(world.client, nodePort(web, port), [a2, b1]);
    });

    test(`update nodePort: ${port}, ${family}`, async () => {
      const web = await world.expose('nodeport', { type: 'NodePort', ports: PORTS }, ...endpoints);
      const before = nodePort(web, port);
      await expectReached([caller, world.client], before, endpoints);
      await web.change({ spec: { type: 'ClusterIP', ports: PORTS } });
      await expectNobody([caller, world.client], before);
      await expectReached(caller, clusterIP(web, port), endpoints);
      await web.change({ spec: { type: 'NodePort', ports: PORTS.map((one) => ({ ...one, nodePort: 30_777 })) } });
      await expectReached([caller, world.client], nodePort(web, port), endpoints);
      await expectNobody([caller, world.client], before);
    });
  });

  test(`hostNetwork endpoints, ${family}`, async () => {
    const nodes = [world.nodeA, world.nodeB];
    const web = await world.expose('hosts', { type: 'NodePort', ports: PORTS }, ...nodes);
    for (const port of ['http', 'udp']) {
      await expectReached([caller, ...nodes], either(web, port), nodes);
      await expectReached(world.client, nodePort(web, port), nodes);
    }
  });

  test(`a Service of ${family} alone, then of both families, then alone again`, async () => {
    const both = ['IPv4', 'IPv6'];
    const web = await world.expose('families', { type: 'NodePort', ports: PORTS, ipFamilyPolicy: 'SingleStack', ipFamilies: [family] }, ...endpoints);
    const alone = web.clusterIP('http');
    expect(alone).toEqual(clusterIP(web, 'http'));
    expect(alone).toHaveLength(1);
    await expectReached([caller, world.nodeB], either(web, 'http'), endpoints);
    await expectReached(world.client, nodePort(web, 'http'), endpoints);
    const foreign = web.nodePort([world.nodeA, world.nodeB], 'http').filter((target) => own([target]).length === 0);
    await expectNobody([caller, world.client], foreign);

    await web.change({ spec: { ipFamilyPolicy: 'RequireDualStack', ipFamilies: [family, ...both.filter((other) => other !== family)] } });
    expect(web.clusterIP('http')).toHaveLength(2);
    await expectReached([caller, world.nodeB], [...web.clusterIP('http'), ...web.clusterIP('udp')], endpoints);
    await expectReached([caller, world.client], [...foreign, ...nodePort(web, 'http')], endpoints);

    const second = web.clusterIP('http').slice(1);
    await web.change({ spec: { ipFamilyPolicy: 'SingleStack', ipFamilies: [family], clusterIPs: alone.map(({ address }) => address) } });
    await expectNobody(caller, second);
    await expectNobody([caller, world.client], foreign);
    await expectReached([caller, world.nodeB], either(web, 'http'), endpoints);
  });

  test(`basic nodePort: udp, ${family}`, () => expectReached(world.client, nodePort(steady, 'udp'), endpoints));

  test(`large requests: http, ${family}`, async () => {
    const targets = [
      ...clusterIP(steady, 'http').map((target) => ({ ...target, from: caller })),
      ...nodePort(steady, 'http').map((target) => ({ ...target, from: world.client })),
    ];
    for (const { from, address, port } of targets) {
      const held = await from.hold(address, port);
      expect(await held.bulk(LARGE)).toBe('ok');
      await held.release();
    }
  });

  test(`large requests: udp, ${family}`, async () => {
    for (const { address, port } of clusterIP(steady, 'udp')) {
      for (const connected of [false, true]) {
        // Whoever answers, answers as much as it was sent.
        const answers = await caller.send(address, port, { count: 20, bytes: LARGE, connected });
        expect([...new Set(answers.map(({ server, error }) => error ?? server))].sort()).toEqual(['a1', 'a2', 'b1']);
      }
    }
  });
});

test('kube-proxy URLs', async () => {
  const pages = { 'http://127.0.0.1:10256/healthz': /"healthy": ?true/, 'http://127.0.0.1:10249/healthz': /^ok/, 'http://127.0.0.1:10249/proxyMode': /^ebpf$/ };
  for (const [url, says] of Object.entries(pages)) {
    for (const node of world.cluster.lab.nodes) await soon(async () => expect(await node.get(url)).toEqual({ status: 200, body: expect.stringMatching(says) }));
  }
});

test('the other services were not disturbed', () => world.expectOthersUndisturbed());

/** The acceptance list: flows that outlive their servers, and Services that outlive their proxies. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Held, Host, HeldUdp } from '../support/lab/host.ts';
import type { Target } from './callers.ts';
import { expectReached, expectRefused } from './callers.ts';
import { soon } from './cluster.ts';
import type { Exposed } from './world.ts';
import { DNS, HTTP, World } from './world.ts';

const WEB = [{ name: 'http', port: 80, targetPort: HTTP }];
const UDP = [{ name: 'udp', port: 80, targetPort: DNS, protocol: 'UDP' }];

let world: World;
/** Backends that stay. */
let a1: Host;
let b1: Host;
/** A pod that calls. */
let caller: Host;

beforeAll(async () => {
  world = await World.start();
  a1 = await world.pod('a1', world.nodeA, 11);
  b1 = await world.pod('b1', world.nodeB, 12);
  caller = await world.pod('caller', world.nodeA, 100);
});

afterEach(() => world.tidy());
afterAll(async () => world?.[Symbol.asyncDispose]());

interface Socket extends Target {
  readonly held: HeldUdp;
  readonly from: Host;
  readonly connected: boolean;
}

/** UDP sockets that ask from the same port all the time, connected and not: one of each for each target. */
async function sockets(callers: readonly Host[], targets: readonly Target[], ways = [true, false]): Promise<Socket[]> {
  const each = callers.flatMap((from) => targets.flatMap((target) => ways.map((connected) => ({ from, ...target, connected }))));
  expect(each.length).toBeGreaterThan(0);
  const opened = await Promise.all(each.map(async (one) => ({ ...one, held: await one.from.holdUdp(one.address, one.port, one.connected) })));
  world.later(async () => void (await Promise.all(opened.map(({ held }) => held.release()))));
  return opened;
}

/** Each socket is answered by `server`, be it after a while. */
async function expectAnswered(asking: readonly Socket[], server: string): Promise<void> {
  const answered = ({ held, from, connected, address, port }: Socket): Promise<void> =>
    soon(async () => {
      const answer = await held.ask(300);
      // A connected socket of a pod or a node is told when its server is gone: it has to connect again. One outside is told nothing.
      if (connected && from !== world.client && !['ETIMEDOUT', undefined].includes(answer.error)) await held.connect(address, port);
      expect(answer, `${from.name}, ${address} ${port}: ${answer.error}`).toMatchObject({ server });
    });
  await Promise.all(asking.map(answered));
}

const nodePorts = (web: Exposed): Target[] => web.nodePort([world.nodeA, world.nodeB]);

test.each([
  ['UDP traffic preserved when the server pod cycles: NodePort', { type: 'NodePort' }, nodePorts, () => [world.client, caller], () => world.nodeB],
  ['UDP traffic preserved when the server pod cycles: ClusterIP', {}, (web: Exposed) => web.clusterIP(), () => [caller], () => world.nodeB],
  [
    'UDP traffic preserved when the server pod cycles: ClusterIP from hostNetwork',
    {},
    (web: Exposed) => web.clusterIP(),
    () => [world.nodeA],
    () => world.nodeB,
  ],
  [
    'UDP traffic preserved when the server pod cycles: internalTrafficPolicy=Local',
    { internalTrafficPolicy: 'Local' },
    (web: Exposed) => web.clusterIP(),
    () => [caller, world.nodeA],
    () => world.nodeA,
  ],
])('%s', async (_, spec, targets, callers, node) => {
  const first = await world.shortLived('first', world.nodeA);
  const web = await world.expose('cycles', { ports: UDP, ...spec }, first);
  await expectReached(callers(), targets(web), first);
  const held = await sockets(callers(), targets(web));
  await expectAnswered(held, 'first');
  const second = await world.shortLived('second', node());
  await web.scale(second);
  await world.end(first);
  await expectAnswered(held, 'second');
});

test('UDP traffic preserved when initially unready endpoints get ready', async () => {
  const web = await world.expose('unready', { type: 'NodePort', ports: UDP }, { host: b1, conditions: { ready: false } });
  // Asked before there is anybody to answer, which must not stick. There, connect() is refused inside.
  const outside = await sockets([world.client], nodePorts(web));
  const held = [...outside, ...(await sockets([caller, world.nodeA], [...web.clusterIP(), ...web.nodePort(world.nodeA)], [false]))];
  for (const { held: socket } of held) expect((await socket.ask(200)).error).toMatch(/^E[A-Z]+$/);
  await web.scale(b1);
  await expectAnswered(held, 'b1');
});

test('UDP traffic preserved when the targetPort of a NodePort service changes', async () => {
  await b1.serve({ name: 'b1-other', udp: [5454] });
  const web = await world.expose('target', { type: 'NodePort', ports: UDP }, b1);
  await expectReached([world.client, caller], nodePorts(web), b1);
  const held = [...(await sockets([world.client, caller], nodePorts(web))), ...(await sockets([caller], web.clusterIP()))];
  await expectAnswered(held, 'b1');
  const ports = (web.object.spec.ports ?? []).map((port) => ({ ...port, targetPort: 5454 }));
  await web.change({ spec: { ports } });
  await web.slice('', ports, [b1]);
  await expectAnswered(held, 'b1-other');
});

test('not vulnerable to the invalid conntrack state bug', async () => {
  const web = await world.expose('window', { type: 'NodePort', ports: WEB }, b1);
  const targets = [
    ...web.nodePort(world.nodeA).map((target) => ({ ...target, from: world.client })),
    ...web.clusterIP().map((target) => ({ ...target, from: caller })),
  ];
  for (const { from, address, port } of targets) {
    const held = await from.hold(address, port);
    // One segment from the server is far out of the window: the right one follows when it is sent again.
    await nft(
      b1,
      `table inet far { counter far {}; chain output { type filter hook output priority 0; tcp sport ${HTTP} tcp flags & psh == psh limit rate 1/hour burst 1 packets tcp sequence set 0x7fffffff counter name far; }; }`,
    );
    await nft(
      from,
      'table inet resets { counter resets {}; chain output { type filter hook output priority 0; tcp flags & rst == rst counter name resets; }; }',
    );
    try {
      for (let i = 0; i < 3; i++) expect(await held.echo(), `${from.name}, ${address}`).toBe('ok');
      expect(await counted(b1, 'far')).toBe(1);
      expect(await counted(from, 'resets')).toBe(0);
    } finally {
      await nft(b1, 'delete table inet far');
      await nft(from, 'delete table inet resets');
    }
    await held.release();
  }
});

async function nft(host: Host, command: string): Promise<string> {
  const { status, stdout, stderr } = await host.run(['nft', command]);
  expect(status, stderr).toBe(0);
  return stdout;
}

async function counted(host: Host, name: string): Promise<number> {
  return Number(/packets (\d+)/.exec(await nft(host, `list counter inet ${name} ${name}`))?.[1]);
}

/** Whatever is up stays up: connections that are open, a Service, and one more that comes afterwards. */
async function expectToSurvive(restart: () => Promise<void>): Promise<void> {
  const web = await world.expose('before', { type: 'NodePort', ports: WEB }, a1, b1);
  const inside = [caller, world.nodeA, world.nodeB];
  await expectReached(inside, web.clusterIP(), [a1, b1]);
  await expectReached(world.client, nodePorts(web), [a1, b1]);
  const held: Held[] = [];
  for (const { address, port } of nodePorts(web)) held.push(await world.client.hold(address, port));
  for (const { address, port } of web.clusterIP()) held.push(await caller.hold(address, port));
  const traffic = await Promise.all(nodePorts(web).map(({ address, port }) => world.client.traffic(address, port, 50)));
  await restart();
  const late = await world.expose('after', { type: 'NodePort', ports: WEB });
  await expectRefused(inside, late.clusterIP());
  await late.scale(b1);
  await expectReached(inside, late.clusterIP(), b1);
  await expectReached(world.client, nodePorts(late), b1);
  for (const one of held) {
    expect(await one.echo()).toBe('ok');
    await one.release();
  }
  for (const { stop } of traffic) {
    const { answers, errors } = await stop();
    expect(errors).toEqual({});
    expect(answers).toBeGreaterThan(0);
  }
}

test('work after restarting kube-proxy', () =>
  expectToSurvive(async () => {
    await world.cluster.stopAgents();
    await world.cluster.startAgents();
  }));

test('work after restarting the apiserver', () =>
  expectToSurvive(async () => {
    await world.cluster.plane.stopApiServer();
    await world.cluster.plane.startApiServer();
  }));

test('the other services were not disturbed', () => world.expectOthersUndisturbed());

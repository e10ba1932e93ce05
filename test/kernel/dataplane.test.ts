import { existsSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { agentPid } from '../../agent/dataplane/lock.ts';
import { openView } from '../../agent/dataplane/view.ts';
import type { Address } from '../../agent/model/address.ts';
import type { Backend, DesiredService, Frontend } from '../../agent/model/desired.ts';
import native from '../../native/index.js';
import { Node } from './dataplane-lab.ts';

const backend = (address: string, options: Partial<Backend> = {}): Backend => ({
  address: address as Address,
  port: 8080,
  local: false,
  terminating: false,
  host: undefined,
  ...options,
});
const frontend = (address: string, options: Partial<Frontend> = {}): Frontend => ({
  address: address as Address,
  port: 80,
  kind: 'ClusterIP',
  hostOnly: false,
  ...options,
});
const web: DesiredService = {
  key: 'default/web:http/TCP/4',
  namespace: 'default',
  name: 'web',
  portName: 'http',
  protocol: 'TCP',
  family: 4,
  algorithm: 'maglev',
  affinitySeconds: 0,
  internalLocal: false,
  externalLocal: true,
  hasAny: true,
  frontends: [frontend('10.96.0.1'), frontend('127.0.0.1', { port: 30_080, kind: 'NodePort', hostOnly: true })],
  cluster: [backend('10.1.0.1', { local: true }), backend('10.1.0.2', { terminating: true })],
  local: [backend('10.1.0.1', { local: true })],
  spare: [],
  sourceRanges: undefined,
};
const dns: DesiredService = {
  key: 'kube-system/dns:/UDP/6',
  namespace: 'kube-system',
  name: 'dns',
  portName: '',
  protocol: 'UDP',
  family: 6,
  algorithm: 'random',
  affinitySeconds: 10_800,
  internalLocal: true,
  externalLocal: false,
  hasAny: false,
  frontends: [frontend('fd00:10:96::a', { port: 53 })],
  cluster: [backend('fd00:10:1::1', { port: 53 })],
  local: [],
  spare: [],
  sourceRanges: undefined,
};
/** What is held of a service port in its own record, without what the other maps hold. */
function recordOf(desired: DesiredService): Partial<DesiredService> {
  const { frontends: _, cluster: __, local: ___, spare: ____, sourceRanges: _____, ...record } = desired;
  return record;
}

const CGROUP_PINS = 9;

let node: Node;
beforeEach(() => {
  node = new Node();
});
afterEach(() => node.remove());

describe('the maps', () => {
  test('hold what was written, as the commands read it with no agent running', async () => {
    const agent = await node.start([web, dns]);
    await agent.kill();
    using view = openView(node.bpffs);
    const held = view.read();
    expect(held.capacity).toEqual({ services: 64, frontends: 64, backends: 128, ringSlots: 8192, sourceRanges: 64, serviceCidrs: 16, peers: 16_384 });
    const services = held.services.toSorted((a, b) => a.id - b.id);
    const { frontends, cluster, local } = web;
    expect(services[0]).toMatchObject({ ...recordOf(web), cluster: { count: 2, table: 251 }, local: { count: 1, table: 0 } });
    expect(services[1]).toMatchObject(recordOf(dns));
    expect(held.frontends).toHaveLength(3);
    for (const one of frontends) expect(held.frontends).toContainEqual({ ...one, protocol: 'TCP', sourceRanges: false, service: services[0]!.id });
    expect(held.frontends).toContainEqual({ ...dns.frontends[0], protocol: 'UDP', sourceRanges: false, service: services[1]!.id });
    const byId = new Map(held.backends.map((one) => [one.id, one]));
    expect([...held.members(services[0]!.cluster)].map((id) => byId.get(id))).toMatchObject(cluster.map((one) => ({ ...one, serving: true })));
    expect([...held.members(services[0]!.local)].map((id) => byId.get(id)?.address)).toEqual(local.map(({ address }) => address));
    expect([...held.members(services[1]!.cluster)].map((id) => byId.get(id)?.address)).toEqual(['fd00:10:1::1']);

    expect(view.agent()).toEqual({
      nodeName: 'node-1',
      version: '1.2.3',
      source: 'a test',
      pid: agent.pid,
      started: 1000,
      synced: 2000,
      abiVersion: 4,
      running: false,
    });
    expect(view.maps()).toContainEqual({ name: 'ring', entries: 2 + 251 + 1 + 1, maxEntries: 8192 });
    expect(view.maps()).toContainEqual({ name: 'flows', entries: 0, maxEntries: 2048 });
    expect(view.counters().map(({ reason }) => reason)).toContain('sock_translated');
  });

  test('that the kernel does not make say which, why, and by which option', async () => {
    const opened = node.agent().ask('open', node.options({ maxFlows: 1_000_000_000 }));
    await expect(opened).rejects.toThrow(/E2BIG .*: the kernel refuses the map flows: it is larger than .*: a smaller --max-flows would be right$/);
  });

  test('that are full say which, and keep what they have', async () => {
    const agent = await node.start([web]);
    const frontends = Array.from(
      { length: 64 },
      (_, i) => ({ op: 'frontend.put', frontend: { ...frontend(`10.97.0.${i}`), protocol: 'TCP', sourceRanges: false, service: 1 } }) as const,
    );
    await expect(agent.ask('execute', frontends)).rejects.toMatchObject({ code: 'E2BIG', subject: 'frontends' });
    using view = openView(node.bpffs);
    expect(view.read().frontends).toContainEqual({ ...web.frontends[0], protocol: 'TCP', sourceRanges: false, service: 1 });
  });

  test('keep the count of a backend whose flags change, and forget it with the slot', async () => {
    const agent = await node.start([web]);
    const memory = backendMemory(node);
    const words = new BigUint64Array(memory);
    const [first, second] = [1, 2].map((id) => 4 * id + 3) as [number, number];
    words[first] = 7n;
    words[second] = 9n;
    expect(await agent.ask('sync', [{ ...web, cluster: [web.cluster[0]!] }])).toEqual(['ring.write', 'service.put', 'backend.flags']);
    expect([words[first], words[second]]).toEqual([7n, 9n]);
    expect(await agent.ask('reclaim')).toEqual(['backend.clear']);
    expect([words[first], words[second]]).toEqual([7n, 0n]);
  });
});

describe('an agent that starts', () => {
  test('attaches nothing before its first plan is written', async () => {
    const agent = node.agent();
    await agent.ask('open', node.options());
    await agent.ask('sync', [web]);
    expect(node.pins('links')).toEqual([]);
    await agent.ask('attach', []);
    expect(node.pins('links')).toHaveLength(CGROUP_PINS);
  });

  test('takes over maps, ids and links; only the programs are new, and no dial fails meanwhile', async () => {
    node.ip('addr add 10.1.0.1/32 dev lo');
    node.ip('link add up0 type veth peer name up0p');
    const server: ChildProcess = await node.serve('10.1.0.1', 8080, 'pod-1');
    try {
      const served = { ...web, cluster: [web.cluster[0]!] };
      const first = await node.start([served], ['up0']);
      expect(node.dial('10.96.0.1', 80)).toBe('pod-1');
      const [links, maps] = [node.links(), node.maps()];
      expect(node.tcPrograms('up0')).toEqual(['ingress', 'egress']);

      await first.kill();
      expect(node.dial('10.96.0.1', 80)).toBe('pod-1');
      const second = node.agent();
      expect(await second.ask('open', node.options())).toEqual([]);
      expect(await second.ask('sync', [served])).toEqual([]);
      expect(node.links()).toEqual(links);
      await second.ask('attach', ['up0']);
      expect(node.dial('10.96.0.1', 80)).toBe('pod-1');

      const updated = node.links();
      expect([...updated.keys()]).toEqual([...links.keys()]);
      for (const [pin, { link, program }] of updated) {
        expect(link).toBe(links.get(pin)!.link);
        expect(program).not.toBe(links.get(pin)!.program);
      }
      expect(node.maps()).toEqual(maps);
      await second.ask('attach', ['up0']);
      expect(node.links()).toEqual(updated);
    } finally {
      server.kill();
    }
  });

  test('with other sizes moves everything into new maps, under the old ids, and flips the pins with the programs', async () => {
    await (await node.start([web, dns])).kill();
    const before = node.maps();
    const held = readHeld(node);
    const agent = node.agent();
    const logged = await agent.ask(
      'open',
      node.options({ capacity: { services: 128, frontends: 128, backends: 256, ringSlots: 16_384, sourceRanges: 64 }, maxFlows: 4096 }),
    );
    expect(logged).toEqual([expect.stringContaining('"copied":"backends,flows,frontends,open_sockets,ring,services,source_ranges","lost":""')]);
    expect(await agent.ask('sync', [web, dns])).toEqual([]);
    expect(node.maps()).toEqual(before);

    await agent.ask('attach', []);
    const after = node.maps();
    for (const name of ['services', 'frontends', 'backends', 'ring', 'flows']) expect(after.get(name)).not.toBe(before.get(name));
    expect(after.get('sock_peers')).toBe(before.get('sock_peers'));
    expect([...after.keys()]).toEqual([...before.keys()]);
    expect(readHeld(node)).toEqual(held);
    expect(node.pins('maps-next')).toEqual([]);
    expect(node.pins('maps-old')).toEqual([]);
  });

  test('with sizes too small for what is held starts over, and refuses what does not fit', async () => {
    await (await node.start([web, dns])).kill();
    const agent = node.agent();
    const logged = await agent.ask('open', node.options({ capacity: { services: 1, frontends: 64, backends: 128, ringSlots: 8192, sourceRanges: 64 } }));
    expect(logged).toEqual([expect.stringContaining('"lost":"backends,frontends,open_sockets,ring,services,source_ranges"')]);
    await agent.ask('sync', [web, dns]);
    await agent.ask('attach', []);
    expect(readHeld(node).services.map(({ name }) => name)).toEqual(['web']);
  });

  test('reads no map of another ABI', async () => {
    await (await node.start([web])).kill();
    const fd = native.openPin(`${node.bpffs}/maps/agent`)!;
    new Uint32Array(native.mapMmap(fd))[0] = 99;
    native.close(fd);
    expect(() => openView(node.bpffs)).toThrow(/have ABI 99, this maglane reads 4/);
    const agent = node.agent();
    expect(await agent.ask('open', node.options())).toEqual([expect.stringContaining('"copied":"","lost":"affinity,agent,backends,')]);
    expect(await agent.ask('sync', [web])).toContain('service.put');
    await agent.ask('attach', []);
    expect(readHeld(node).services).toHaveLength(1);
  });

  test('after one that died between building and flipping goes on from the maps in use', async () => {
    await (await node.start([web])).kill();
    const before = node.maps();
    const half = node.agent();
    await half.ask('open', node.options({ maxFlows: 4096 }));
    await half.kill();
    expect(node.pins('maps-next')).not.toEqual([]);
    const agent = await node.start([web]);
    expect(node.maps()).toEqual(before);
    expect(node.pins('maps-next')).toEqual([]);
    await agent.kill();
  });

  test('is refused where another one runs', async () => {
    const first = await node.start([web]);
    expect(agentPid(node.bpffs)).toBe(first.pid);
    await expect(node.agent().ask('open', node.options())).rejects.toThrow(
      `an agent (pid ${first.pid}) runs on ${node.bpffs}: stop it, or give this one a --bpffs of its own`,
    );
    using view = openView(node.bpffs);
    expect(view.agent()).toMatchObject({ running: true, pid: first.pid });
    await first.ask('close');
    expect(agentPid(node.bpffs)).toBeUndefined();
    await node.agent().ask('open', node.options());
  });

  test('with another cgroup moves there', async () => {
    await (await node.start([web])).kill();
    const before = node.links();
    const other = new Node();
    try {
      const agent = await node.start([web], [], { cgroup: other.cgroup });
      expect(node.links().size).toBe(CGROUP_PINS);
      for (const pin of node.links().keys()) expect(before.has(pin)).toBe(false);
      await agent.kill();
    } finally {
      await other.remove();
    }
  });
});

describe('cleanup', () => {
  test('leaves nothing, is not done under a running agent, and can be done twice', async () => {
    node.ip('link add up0 type veth peer name up0p');
    const agent = await node.start([web], ['up0']);
    // From where the devices are, as the command is run.
    const command = node.agent();
    await expect(command.ask('cleanup', node.bpffs)).rejects.toThrow(/^an agent \(pid \d+\) runs on .*: stop it first$/);
    await agent.kill();
    const removed = await command.ask('cleanup', node.bpffs);
    expect(removed).toContain('pin maps/services');
    expect(removed.filter((line) => line.startsWith('link cgroup_'))).toHaveLength(CGROUP_PINS);
    expect(node.tcPrograms('up0')).toEqual([]);
    expect(existsSync(node.bpffs)).toBe(false);
    expect(node.dial('10.96.0.1', 80)).toBe('ENETUNREACH');
    expect(await command.ask('cleanup', node.bpffs)).toEqual([]);
    expect(() => openView(node.bpffs)).toThrow(/nothing is pinned under .*: has an agent run with this --bpffs\?/);
  });
});

function readHeld(of: Node): { services: unknown[]; frontends: unknown[]; backends: unknown[] } & { services: { name: string }[] } {
  using view = openView(of.bpffs);
  const { services, frontends, backends } = view.read();
  const byText = (records: readonly object[]): object[] => records.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  return { services: byText(services) as { name: string }[], frontends: byText(frontends), backends: byText(backends) };
}

function backendMemory(of: Node): ArrayBuffer {
  const fd = native.openPin(`${of.bpffs}/maps/backends`)!;
  const memory = native.mapMmap(fd);
  native.close(fd);
  return memory;
}

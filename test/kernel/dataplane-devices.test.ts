import { execFileSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openView } from '../../agent/dataplane/view.ts';
import type { Address } from '../../agent/model/address.ts';
import { PATIENCE } from '../support/patience.ts';
import { Node } from './dataplane-lab.ts';

let node: Node;
beforeEach(() => {
  node = new Node();
  node.ip('link add up0 type veth peer name up0p');
  node.ip('addr add fe80::1/64 dev up0 nodad');
  node.ip('addr add 192.0.2.1/24 dev up0');
  node.ip('addr add 2001:db8::1/64 dev up0 nodad');
  node.ip('link set up0 up');
  node.ip('link set up0p up');
});
afterEach(() => node.remove());

const isXdp = (device: string): boolean => node.ip(`-details link show ${device}`).includes('prog/xdp');

test('auto runs veths and tunnels in tc, says why, and finds tunnels by itself', async () => {
  node.ip('link add vx0 type vxlan id 7 dstport 4789 local 192.0.2.1 dev up0');
  const agent = node.agent();
  await agent.ask('open', node.options());
  await agent.ask('sync', []);
  const attached = await agent.ask('attach', ['up0']);
  expect(attached).toMatchObject([
    { name: 'up0', mode: 'tc', why: 'veth', tunnel: false, addr4: '192.0.2.1', addr6: '2001:db8::1' },
    { name: 'vx0', mode: 'tc', why: 'tunnel', tunnel: true },
  ]);
  expect(isXdp('up0')).toBe(false);
  await agent.kill();
  using view = openView(node.bpffs);
  expect(view.devices()).toMatchObject(attached);
});

test.each(['native', 'generic'] as const)('%s is forced where the device takes it', async (xdpMode) => {
  const agent = await node.start([], ['up0'], { xdpMode });
  const mode = xdpMode === 'native' ? 'xdp' : 'xdp_generic';
  expect(await agent.ask('attach', ['up0'])).toMatchObject([{ name: 'up0', mode, why: 'asked' }]);
  expect(isXdp('up0')).toBe(true);
  const before = node.links();
  await agent.kill();

  await node.start([], ['up0'], { xdpMode });
  for (const [pin, { link }] of before) expect(node.links().get(pin)?.link).toBe(link);
});

test('another mode replaces XDP, off takes it away', async () => {
  await (await node.start([], ['up0'], { xdpMode: 'native' })).kill();
  const second = await node.start([], ['up0'], { xdpMode: 'generic' });
  expect(node.pins('links').filter((pin) => pin.includes('xdp'))).toEqual([expect.stringMatching(/_xdp_generic$/)]);
  await second.kill();
  const third = await node.start([], ['up0'], { xdpMode: 'off' });
  expect(await third.ask('attach', ['up0'])).toMatchObject([{ mode: 'tc', why: 'asked' }]);
  expect(isXdp('up0')).toBe(false);
});

test('a device that refuses XDP runs in tc', async () => {
  node.ip('link add br0 type bridge');
  const agent = await node.start([], ['br0'], { xdpMode: 'native' });
  expect(await agent.ask('attach', ['br0'])).toMatchObject([{ name: 'br0', mode: 'tc', why: 'refused' }]);
  await agent.kill();
  const auto = await node.start([], ['br0']);
  expect(await auto.ask('attach', ['br0'])).toMatchObject([{ name: 'br0', mode: 'tc', why: 'refused' }]);
});

test('devices come, go and come back, and change their addresses', async () => {
  const agent = await node.start([], ['up0']);
  const before = node.links();
  node.ip('addr add 198.51.100.1/24 dev up0');
  node.ip('addr del 192.0.2.1/24 dev up0');
  const [changed] = await agent.ask('attach', ['up0']);
  expect(changed).toMatchObject({ addr4: '198.51.100.1' });
  expect(node.links()).toEqual(before);

  node.ip('link del up0');
  expect(await agent.ask('attach', ['up0'])).toEqual([]);
  expect(node.pins('links').filter((pin) => pin.startsWith('dev_'))).toEqual([]);
  // The same index, another device: an old link must not be taken for a new one.
  node.ip(`link add up0 index ${changed!.index} type veth peer name up0p`);
  expect(await agent.ask('attach', ['up0'])).toMatchObject([{ name: 'up0', index: changed!.index }]);
  expect(node.links().size).toBe(before.size);
  expect(node.tcPrograms('up0')).toEqual(['ingress', 'egress']);
  await agent.kill();

  node.ip('link del up0');
  node.ip(`link add up0 index ${changed!.index} type veth peer name up0p`);
  await node.start([], ['up0']);
  expect(node.links().size).toBe(before.size);
  expect(node.tcPrograms('up0')).toEqual(['ingress', 'egress']);
});

test('a device that is no longer wanted is left alone, completely', async () => {
  const agent = await node.start([], ['up0'], { xdpMode: 'native' });
  expect(node.tcPrograms('up0')).toEqual(['ingress', 'egress']);
  expect(await agent.ask('attach', [])).toEqual([]);
  expect(node.tcPrograms('up0')).toEqual([]);
  expect(isXdp('up0')).toBe(false);
  expect(node.pins('links').filter((pin) => pin.startsWith('dev_'))).toEqual([]);
  using view = openView(node.bpffs);
  expect(view.devices()).toEqual([]);
});

describe('devices of pods', () => {
  const auto = { names: ['up0'], nodeIps: ['192.0.2.1', '2001:db8::1'] as Address[], podDevices: 'auto' };
  const programs = (): Map<string, number> => new Map([...node.links()].map(([pin, { program }]) => [pin, program]));
  let elsewhere: string;
  beforeEach(() => {
    elsewhere = `${node.netns}-pods`;
    execFileSync('ip', ['netns', 'add', elsewhere]);
    node.ip('link add cni0 type bridge');
    addPod('pod1', 'master cni0');
    addPod('pod2', '');
  });
  afterEach(() => execFileSync('ip', ['netns', 'del', elsewhere]));

  function addPod(name: string, more: string): void {
    node.ip(`link add ${name} type veth peer name ${name} netns ${elsewhere}`);
    node.ip(`link set ${name} up ${more}`.trim());
  }

  test('auto attaches to the veths that lead elsewhere, on a bridge or not, with the node as the source', async () => {
    const agent = await node.start([], ['up0']);
    const before = programs();
    const { devices, problems } = await agent.ask('attachPods', { ...auto, detect: { bridge: 'cni0' } });
    const pod = { mode: 'tc', why: 'pod', pod: true, tunnel: false, addr4: '192.0.2.1', addr6: '2001:db8::1' };
    expect(devices).toMatchObject([
      { name: 'up0', pod: false, detected: false },
      { ...pod, name: 'pod1', detected: true },
      { ...pod, name: 'pod2', detected: false },
    ]);
    expect(problems).toEqual([]);
    for (const name of ['pod1', 'pod2']) expect(node.tcPrograms(name)).toEqual(['ingress', 'egress']);
    for (const name of ['cni0', 'up0p']) expect(node.tcPrograms(name)).toEqual([]);
    // Programs of their own: none of an uplink's is theirs.
    const ofUplink = new Set(before.values());
    expect([...programs()].filter(([pin]) => !before.has(pin)).every(([, program]) => !ofUplink.has(program))).toBe(true);

    // The pattern decides anew; an uplink changes its part in place.
    const again = await agent.ask('attachPods', { ...auto, names: ['pod2'], podDevices: 'up*' });
    expect(new Map(again.devices.map(({ name, pod: isPod }) => [name, isPod]))).toEqual(
      new Map([
        ['up0', true],
        ['up0p', true],
        ['pod2', false],
      ]),
    );
    expect(node.tcPrograms('pod1')).toEqual([]);
  });

  test('an agent that starts again adopts them; one that goes takes its entry along', async () => {
    const first = await node.start([]);
    await first.ask('attachPods', auto);
    const before = node.links();
    await first.kill();
    const second = await node.start([]);
    expect((await second.ask('attachPods', auto)).devices).toHaveLength(3);
    // `start` attached to nothing, which took them all away: the third finds what the second left.
    const left = node.links();
    await second.kill();
    const third = node.agent();
    await third.ask('open', node.options());
    await third.ask('sync', []);
    const adopted = await third.ask('attachPods', auto);
    expect([...node.links()].map(([pin, { link }]) => [pin, link])).toEqual([...left].map(([pin, { link }]) => [pin, link]));
    expect([...left.keys()]).toEqual([...before.keys()]);

    const { index } = adopted.devices.find(({ name }) => name === 'pod1')!;
    node.ip('link del pod1');
    const { devices } = await third.ask('attachPods', { ...auto, recheck: false });
    expect(devices.map(({ name }) => name)).toEqual(['up0', 'pod2']);
    expect(node.pins('links').filter((pin) => pin.startsWith(`dev_${index}_`))).toEqual([]);
    using view = openView(node.bpffs);
    expect(view.devices().map(({ name }) => name)).toEqual(['up0', 'pod2']);
    addPod('pod1', '');
    await third.ask('attachPods', { ...auto, recheck: false });
    expect(node.tcPrograms('pod1')).toEqual(['ingress', 'egress']);
  });

  test('another device of the same name and index is seen without looking at all of them', async () => {
    const agent = await node.start([]);
    const { devices } = await agent.ask('attachPods', auto);
    const { index } = devices.find(({ name }) => name === 'pod1')!;
    node.ip('link del pod1');
    node.ip(`link add pod1 index ${index} type veth peer name again netns ${elsewhere}`);
    await agent.ask('attachPods', { ...auto, recheck: false });
    expect(node.tcPrograms('pod1')).toEqual(['ingress', 'egress']);
    const pins = [...node.links()].filter(([pin]) => pin.startsWith(`dev_${index}_`));
    expect(pins.map(([, link]) => link.ifindex)).toEqual(pins.map(() => index));
  });

  test('those for which there is no room are told, and the uplink always has its place', async () => {
    const agent = node.agent();
    await agent.ask('open', node.options({ maxDevices: 2 }));
    await agent.ask('sync', []);
    const { devices, problems } = await agent.ask('attachPods', auto);
    expect(devices.map(({ name }) => name)).toEqual(['up0', 'pod1']);
    expect(problems).toEqual([`--max-devices: "2" is too few for the devices of this node's pods: what some of them send passes unseen: 256 would do`]);
    node.ip('link del pod1');
    expect(await agent.ask('attachPods', { ...auto, recheck: false })).toMatchObject({ devices: [{ name: 'up0' }, { name: 'pod2' }], problems: [] });
  });

  test('cleanup leaves nothing on them', async () => {
    const agent = await node.start([]);
    await agent.ask('attachPods', auto);
    const links = new Set([...node.links().values()].map(({ link }) => link));
    await agent.kill();
    const removed = await node.agent().ask('cleanup', node.bpffs);
    expect(removed.filter((line) => /link dev_|tc filters of/.test(line)).length).toBeGreaterThanOrEqual(3);
    for (const name of ['up0', 'pod1', 'pod2']) expect(node.tcPrograms(name)).toEqual([]);
    const list = JSON.parse(execFileSync('bpftool', ['-j', 'link'], { encoding: 'utf8' })) as { id: number }[];
    expect(list.filter(({ id }) => links.has(id))).toEqual([]);
  });

  test('a hundred of them are attached to, and one more costs little', async () => {
    const lines = Array.from({ length: 100 }, (_, i) => `link add p${i} type veth peer name p${i} netns ${elsewhere}`);
    execFileSync('ip', ['-n', node.netns, '-batch', '-'], { input: lines.join('\n') });
    const agent = node.agent();
    await agent.ask('open', node.options({ maxDevices: 128 }));
    await agent.ask('sync', []);
    const all = await agent.ask('attachPods', auto);
    expect(all.devices).toHaveLength(103);
    const again = await agent.ask('attachPods', auto);
    addPod('pod3', '');
    const one = await agent.ask('attachPods', { ...auto, recheck: false });
    expect(one.devices).toHaveLength(104);
    console.info(`100 devices: ${all.ms.toFixed(0)} ms; again: ${again.ms.toFixed(0)} ms; one more: ${one.ms.toFixed(1)} ms`);
    expect(one.ms).toBeLessThan(all.ms);
    expect(all.ms).toBeLessThan(60_000 * PATIENCE);
  });
});

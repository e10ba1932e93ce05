import { afterEach, beforeEach, expect, test } from 'vitest';
import { openView } from '../../agent/dataplane/view.ts';
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
  const view = openView(node.bpffs);
  expect(view.devices()).toMatchObject(attached);
  view.close();
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
  const view = openView(node.bpffs);
  expect(view.devices()).toEqual([]);
  view.close();
});

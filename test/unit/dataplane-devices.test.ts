import { describe, expect, test } from 'vitest';
import { chooseDevices, sourceAddress, xdpFor } from '../../agent/dataplane/devices.ts';
import type { Address } from '../../agent/model/address.ts';
import type { Interface } from '../../native/index.d.ts';

const device = (name: string, options: Partial<Interface> = {}): Interface => ({
  name,
  index: 1,
  mtu: 1500,
  up: true,
  loopback: false,
  mac: '02:00:00:00:00:01',
  driver: 'virtio_net',
  addresses: [],
  ...options,
});
const lo = device('lo', { loopback: true, addresses: ['127.0.0.1/8', '192.0.2.1/32'] });
const eth0 = device('eth0', { addresses: ['192.0.2.1/24', '2001:db8::1/64'] });
const eth1 = device('eth1', { addresses: ['198.51.100.1/24'] });
const vxlan = device('flannel.1', { driver: 'vxlan' });
const nodeIps = ['192.0.2.1', '2001:db8::1'] as Address[];
const names = (devices: readonly Interface[]): string[] => devices.map(({ name }) => name);

describe('which devices', () => {
  test('by default the ones that hold the node IPs, and tunnels', () => {
    const { devices, missing } = chooseDevices([lo, eth0, eth1, vxlan], { names: [], nodeIps });
    expect(names(devices)).toEqual(['eth0', 'flannel.1']);
    expect(missing).toEqual([]);
  });

  test('the named ones instead, and tunnels; names without a device are told', () => {
    const { devices, missing } = chooseDevices([lo, eth0, eth1, vxlan], { names: ['eth1', 'eth9'], nodeIps });
    expect(names(devices)).toEqual(['eth1', 'flannel.1']);
    expect(missing).toEqual(['eth9']);
  });
});

test.each([
  ['auto', 'virtio_net', { attempt: 'native' }],
  ['auto', 'veth', { why: 'VETH' }],
  ['native', 'veth', { attempt: 'native' }],
  ['generic', 'virtio_net', { attempt: 'generic' }],
  ['native', 'vxlan', { why: 'TUNNEL' }],
  ['off', 'virtio_net', { why: 'ASKED' }],
] as const)('--xdp-mode %s on %s: %o', (asked, driver, outcome) => {
  expect(xdpFor(device('eth0', { driver }), asked)).toMatchObject(outcome);
});

test('the source of what is forwarded is the first address that others can answer to', () => {
  const many = device('eth0', { addresses: ['169.254.1.1/16', '192.0.2.7/24', '192.0.2.8/24', 'fe80::1/64', '2001:db8::7/64'] });
  expect(sourceAddress(many, 4)).toBe('192.0.2.7');
  expect(sourceAddress(many, 6)).toBe('2001:db8::7');
  expect(sourceAddress(device('eth0', { addresses: ['fe80::1/64'] }), 6)).toBeUndefined();
});

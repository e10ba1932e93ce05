import { describe, expect, test } from 'vitest';
import { chooseDevices, sourceAddress, xdpFor } from '../../agent/dataplane/devices.ts';
import type { DeviceChoice, WantedDevice } from '../../agent/dataplane/devices.ts';
import type { Address } from '../../agent/model/address.ts';
import type { Interface } from '../../native/index.d.ts';

const device = (name: string, options: Partial<Interface> = {}): Interface => ({
  name,
  index: 1,
  mtu: 1500,
  up: true,
  loopback: false,
  ethernet: true,
  mac: '02:00:00:00:00:01',
  driver: 'virtio_net',
  master: 0,
  peerElsewhere: false,
  addresses: [],
  ...options,
});
const lo = device('lo', { loopback: true, addresses: ['127.0.0.1/8', '192.0.2.1/32'] });
const eth0 = device('eth0', { addresses: ['192.0.2.1/24', '2001:db8::1/64'] });
const eth1 = device('eth1', { addresses: ['198.51.100.1/24'] });
const vxlan = device('flannel.1', { driver: 'vxlan' });
const cni0 = device('cni0', { index: 7, driver: 'bridge', addresses: ['10.244.0.1/24'] });
const bridged = device('veth1', { index: 8, driver: 'veth', peerElsewhere: true, master: 7 });
const routed = device('cali2', { index: 9, driver: 'veth', peerElsewhere: true, addresses: ['10.244.0.1/32'] });
const near = device('veth3', { index: 10, driver: 'veth' });
const nodeIps = ['192.0.2.1', '2001:db8::1'] as Address[];
const names = (wanted: readonly WantedDevice[]): string[] => wanted.map((one) => one.device.name);
const chosen = (interfaces: readonly Interface[], choice: Partial<DeviceChoice> = {}) =>
  chooseDevices(interfaces, { names: [], nodeIps, podDevices: 'none', ...choice });

describe('which devices', () => {
  test('by default the ones that hold the node IPs, and tunnels', () => {
    const { wanted, missing, unfit } = chosen([lo, eth0, eth1, vxlan]);
    expect(names(wanted)).toEqual(['eth0', 'flannel.1']);
    expect(missing).toEqual([]);
    expect(unfit).toEqual([]);
  });

  test('the named ones instead, and tunnels; names without a device are told', () => {
    const { wanted, missing } = chosen([lo, eth0, eth1, vxlan], { names: ['eth1', 'eth9'] });
    expect(names(wanted)).toEqual(['eth1', 'flannel.1']);
    expect(missing).toEqual(['eth9']);
  });

  test('every tunnel of Ethernet frames; never one without, and an uplink without is told', () => {
    const tunnels = ['vxlan', 'geneve', 'gretap', 'ip6gretap', 'erspan'].map((driver) => device(driver, { driver }));
    const bare = ['ipip', 'gre', 'sit', 'wireguard', 'tun', 'ppp'].map((driver) => device(driver, { driver, ethernet: false }));
    expect(names(chosen([eth0, ...tunnels, ...bare]).wanted)).toEqual(['eth0', 'vxlan', 'geneve', 'gretap', 'ip6gretap', 'erspan']);
    expect(chosen([eth0, ...bare]).unfit).toEqual([]);
    expect(chosen([eth0, ...bare], { names: ['eth0', 'wireguard'] })).toMatchObject({ wanted: [{ device: eth0 }], unfit: ['wireguard'] });
    const holder = device('wg0', { driver: 'wireguard', ethernet: false, addresses: ['192.0.2.1/24'] });
    expect(chosen([holder], { podDevices: 'auto' })).toEqual({ wanted: [], missing: [], unfit: ['wg0'] });
  });
});

describe('devices of pods', () => {
  const all = [lo, bridged, eth0, cni0, near, routed, vxlan];
  const pods = (podDevices: string, more: Partial<DeviceChoice> = {}): string[] => names(chosen(all, { podDevices, ...more }).wanted.filter(({ pod }) => pod));

  test('auto: veths whose other end is elsewhere, on a bridge and routed; behind uplinks and tunnels', () => {
    expect(pods('auto')).toEqual(['veth1', 'cali2']);
    expect(names(chosen(all, { podDevices: 'auto' }).wanted)).toEqual(['eth0', 'flannel.1', 'veth1', 'cali2']);
    expect(pods('none')).toEqual([]);
  });

  test('a pattern names them; uplinks, tunnels and loopback are never among them', () => {
    expect(pods('veth*')).toEqual(['veth1', 'veth3']);
    expect(pods('{cali,cni}?')).toEqual(['cni0', 'cali2']);
    expect(pods('*')).toEqual(['veth1', 'cni0', 'veth3', 'cali2']);
    expect(chosen([device('tun0', { driver: 'tun', ethernet: false })], { podDevices: 'tun*' }).unfit).toEqual(['tun0']);
  });

  test('a veth that is an uplink is none of theirs', () => {
    const uplink = device('eth0', { driver: 'veth', peerElsewhere: true, addresses: ['192.0.2.1/24'] });
    expect(chosen([uplink], { podDevices: 'auto' }).wanted).toMatchObject([{ pod: false }]);
    expect(chosen([routed], { podDevices: 'auto', names: ['cali2'] }).wanted).toMatchObject([{ pod: false }]);
  });

  test('detectLocalMode sees what IP sees: the bridge, not its port', () => {
    const detected = (detect: DeviceChoice['detect']): string[] =>
      names(chosen(all, { podDevices: '*', ...(detect === undefined ? {} : { detect }) }).wanted.filter((one) => one.detected));
    expect(detected(undefined)).toEqual([]);
    expect(detected({ bridge: 'cni0' })).toEqual(['veth1', 'cni0']);
    expect(detected({ prefix: 'cali' })).toEqual(['cali2']);
    expect(detected({ prefix: 'veth' })).toEqual(['veth3']);
    expect(detected({ prefix: 'cni' })).toEqual(['veth1', 'cni0']);
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
  const wanted = { device: device('eth0', { driver }), detected: false };
  expect(xdpFor({ ...wanted, pod: false }, asked)).toMatchObject(outcome);
  expect(xdpFor({ ...wanted, pod: true }, asked)).toEqual({ attempt: undefined, why: 'POD' });
});

test('the source of what is forwarded is the first address that others can answer to', () => {
  const many = device('eth0', { addresses: ['169.254.1.1/16', '192.0.2.7/24', '192.0.2.8/24', 'fe80::1/64', '2001:db8::7/64'] });
  expect(sourceAddress(many, 4)).toBe('192.0.2.7');
  expect(sourceAddress(many, 6)).toBe('2001:db8::7');
  expect(sourceAddress(device('eth0', { addresses: ['fe80::1/64'] }), 6)).toBeUndefined();
});

import { describe, expect, test } from 'vitest';
import type { Interface } from '../../native/index.js';
import { ThisNode } from '../../agent/agent/this-node.ts';
import type { OptionKey } from '../../agent/config/options.ts';
import { readOptions } from '../../agent/config/options.ts';
import { createLog } from '../../agent/observe/log.ts';
import { node } from './model-builders.ts';

function device(name: string, addresses: readonly string[], driver = 'virtio_net'): Interface {
  const rest = { index: 2, mtu: 1500, up: true, loopback: false, mac: '', ethernet: true, master: 0, peerElsewhere: false };
  return { ...rest, name, driver, addresses } as Interface;
}

const UPLINK = [device('eth0', ['192.0.2.7/24', 'fe80::1/64', '2001:db8::7/64'])];

function rig(flags: Partial<Record<OptionKey, string>> = {}) {
  const options = readOptions(new Map(Object.entries({ nodeName: 'node-a', ...flags }).map(([key, value]) => [key as OptionKey, { from: key, value }])));
  const log: string[] = [];
  const failures: string[] = [];
  const thisNode = new ThisNode({
    options,
    log: createLog('info', 'text', (line) => log.push(line)),
    interfaces: [],
    fail: (error) => failures.push(error.message),
    patience: { addresses: 50, podCidrs: 100 },
  });
  return { thisNode, log, failures };
}

const signal = new AbortController().signal;
const NODE = { ...node({}), addresses: ['10.0.0.1', 'fd00::1', '198.51.100.1'] };

describe('the addresses of the node', () => {
  test("are the Node's, which is waited for", async () => {
    const { thisNode } = rig();
    const known = thisNode.known(() => UPLINK, signal);
    thisNode.update(node({}));
    thisNode.update(NODE);
    await known;
    expect(thisNode.facts).toMatchObject({ nodeAddresses: ['10.0.0.1', 'fd00::1'], nodePortAddresses: ['10.0.0.1', 'fd00::1'] });
  });

  test('are those of an uplink when none come in time', async () => {
    const { thisNode, log } = rig();
    await thisNode.known(() => UPLINK, signal);
    expect(thisNode.facts.nodeAddresses).toEqual(['192.0.2.7', '2001:db8::7']);
    expect(log.join('')).toContain('there is no Node object of this name node=node-a');
  });

  test('may be unknown: it begins without nodePorts, and has them with the Node', async () => {
    const { thisNode, log } = rig();
    await thisNode.known(() => [], signal);
    expect(thisNode.facts.nodePortAddresses).toEqual([]);
    expect(log.join('')).toContain('no address of this node is known, so no nodePort is served');
    thisNode.update(NODE);
    expect(thisNode.refresh([])?.nodePortAddresses).toEqual(['10.0.0.1', 'fd00::1']);
  });

  test("given for one family, the Node's stand for the other", async () => {
    const { thisNode } = rig({ nodeIp: '192.0.2.9' });
    thisNode.update(NODE);
    await thisNode.known(() => UPLINK, signal);
    expect(thisNode.facts.nodeAddresses).toEqual(['192.0.2.9', 'fd00::1']);
  });

  test('are followed when they change, and kept when the Node is deleted', async () => {
    const { thisNode, log } = rig();
    thisNode.update(NODE);
    await thisNode.known(() => UPLINK, signal);
    expect(thisNode.refresh(UPLINK)).toBeUndefined();
    thisNode.update({ ...NODE, addresses: ['10.0.0.2', 'fd00::1'] });
    expect(thisNode.refresh(UPLINK)?.nodeAddresses).toEqual(['10.0.0.2', 'fd00::1']);
    thisNode.update(undefined);
    expect(thisNode.refresh(UPLINK)).toBeUndefined();
    expect(log.join('')).toContain('the Node object is deleted');
  });

  test('in given ranges serve nodePorts as the interfaces come and go', async () => {
    const { thisNode } = rig({ nodeportAddresses: '192.0.2.0/24,2001:db8:1::/48', nodeIp: '10.0.0.1' });
    await thisNode.known(() => UPLINK, signal);
    expect(thisNode.facts.nodePortAddresses).toEqual(['192.0.2.7']);
    expect(thisNode.refresh([...UPLINK, device('eth1', ['192.0.2.8/24'])])?.nodePortAddresses).toEqual(['192.0.2.7', '192.0.2.8']);
  });

  test('all serve nodePorts in a family that no range is of, but for loopback and link-local ones', async () => {
    const loopback = { ...device('lo', ['127.0.0.1/8', '192.0.2.200/32', '::1/128']), loopback: true };
    const interfaces = [...UPLINK, device('cni0', ['10.244.1.1/24', 'fd00:244::1/64'], 'bridge'), loopback];
    for (const [ranges, expected] of [
      ['10.244.0.0/16', ['2001:db8::7', '10.244.1.1', 'fd00:244::1']],
      ['fd00::/8', ['192.0.2.7', '10.244.1.1', 'fd00:244::1', '192.0.2.200']],
      ['0.0.0.0/0,::/0', ['192.0.2.7', '2001:db8::7', '10.244.1.1', 'fd00:244::1', '192.0.2.200']],
      ['127.0.0.0/8,::1/128', []],
    ] as const) {
      const { thisNode } = rig({ nodeportAddresses: ranges, nodeIp: '10.0.0.1' });
      await thisNode.known(() => interfaces, signal);
      expect(thisNode.facts.nodePortAddresses, ranges).toEqual(expected);
    }
  });
});

describe('whether load balancers may send here', () => {
  test('takes a Node that is seen, not being deleted, and without the taint of the cluster autoscaler', () => {
    const { thisNode } = rig();
    expect(thisNode.eligible).toBe(false);
    thisNode.update(NODE);
    expect(thisNode.eligible).toBe(true);
    thisNode.update({ ...NODE, taints: ['other', 'ToBeDeletedByClusterAutoscaler'] });
    expect(thisNode.eligible).toBe(false);
    thisNode.update({ ...NODE, deleting: true });
    expect(thisNode.eligible).toBe(false);
  });

  test('manifests need not have a Node', () => {
    const { thisNode } = rig({ source: 'manifests', manifests: '.' });
    expect(thisNode.eligible).toBe(true);
    thisNode.update({ ...NODE, deleting: true });
    expect(thisNode.eligible).toBe(false);
  });
});

describe('NodeCIDR', () => {
  const flags = { detectLocalMode: 'NodeCIDR', nodeIp: '10.0.0.1' };

  test('waits for podCIDRs, and ends when they change', async () => {
    const { thisNode, failures } = rig(flags);
    const known = thisNode.known(() => UPLINK, signal);
    thisNode.update({ ...NODE, podCIDRs: ['10.244.1.0/24'] });
    await known;
    expect(thisNode.facts.detectLocal).toEqual({ by: 'podCIDRs' });
    thisNode.update({ ...NODE, podCIDRs: ['10.244.1.0/24'], taints: ['x'] });
    expect(failures).toEqual([]);
    thisNode.update({ ...NODE, podCIDRs: ['10.244.2.0/24'] });
    expect(failures).toEqual([expect.stringContaining('podCIDRs changed from 10.244.1.0/24 to 10.244.2.0/24')]);
  });

  test('ends when there are none in time', async () => {
    const { thisNode } = rig(flags);
    thisNode.update(NODE);
    await expect(thisNode.known(() => UPLINK, signal)).rejects.toThrow('the Node node-a has no podCIDRs');
  });
});

test.each([
  [{ clusterCidr: '10.244.0.0/16' }, { by: 'ranges', ranges: [{ base: '10.244.0.0', prefix: 16 }] }],
  [{ detectLocalMode: 'BridgeInterface', podBridgeInterface: 'cni0' }, { by: 'device' }],
  [{ detectLocalMode: 'InterfaceNamePrefix', podInterfaceNamePrefix: 'cali' }, { by: 'device' }],
])('%o tells pods %o', (flags, detectLocal) => {
  expect(rig(flags).thisNode.facts.detectLocal).toEqual(detectLocal);
});

/** Addresses as wholes, source ranges and the node's record, in the kernel's maps and back. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openView } from '../../agent/dataplane/view.ts';
import { parseCidr, writeAddress } from '../../agent/model/address.ts';
import type { Address, Cidr } from '../../agent/model/address.ts';
import type { DesiredNode, DesiredService } from '../../agent/model/desired.ts';
import type { Held } from '../../agent/plan/held.ts';
import native from '../../native/index.js';
import { service } from '../unit/plan-maps.ts';
import type { Everything } from './dataplane-child.ts';
import { Node } from './dataplane-lab.ts';

const cidr = (text: string): Cidr => parseCidr(text)!;
const at = (text: string): Address => text as Address;

const WEB: DesiredService = service('web', {
  frontends: [
    { address: at('10.96.0.1'), port: 443, kind: 'ClusterIP', hostOnly: false },
    { address: at('203.0.113.1'), port: 443, kind: 'LoadBalancer', hostOnly: false },
  ],
  sourceRanges: ['0.0.0.0/0', '10.1.2.0/23', '192.0.2.1/32'].map(cidr),
});
const WEB6: DesiredService = {
  ...service('web', { family: 6, frontends: [{ address: at('2001:db8::1'), port: 443, kind: 'LoadBalancer', hostOnly: false }] }),
  key: 'default/web:http/TCP/6',
};
const NODE: DesiredNode = {
  pods4: cidr('10.244.0.0/17'),
  pods6: cidr('fd00:244::/47'),
  detectsByDevice: false,
  serviceCidrs: ['10.96.0.0/12', 'fd00:10:96::/112', '198.51.100.7/32'].map(cidr),
  ownsBeyond: true,
  masqueradesAll: true,
  address4: at('172.30.0.11'),
  address6: at('fd00:30::11'),
};
const ALL: Everything = {
  services: [WEB, { ...WEB6, sourceRanges: ['::/0', 'fd00::/9', '2001:db8::5/128'].map(cidr) }],
  addresses: [
    { address: at('10.96.0.1'), owned: true, ping: true },
    { address: at('2001:db8::1'), owned: true, ping: false },
    { address: at('203.0.113.1'), owned: false, ping: true },
  ],
  node: NODE,
};

let node: Node;
beforeEach(() => {
  node = new Node();
});
afterEach(() => node.remove());

function read(): Pick<Held, 'addresses' | 'sourceRanges' | 'node' | 'frontends' | 'services'> {
  using view = openView(node.bpffs);
  const held = view.read();
  const byText = <T extends object>(records: readonly T[]): T[] => records.toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  return {
    ...held,
    addresses: byText(held.addresses),
    sourceRanges: byText(held.sourceRanges),
    frontends: byText(held.frontends),
    services: byText(held.services),
  };
}

/** Whether the trie lets this source in: what a packet would find. */
function letsIn(service: string, source: string): boolean {
  const { services } = read();
  const id = services.find(({ key }) => key === service)!.id;
  const key = new Uint8Array(24);
  const words = new DataView(key.buffer);
  words.setUint32(0, 32 + 128, true);
  words.setUint32(4, id, true);
  writeAddress(at(source), key, 8);
  const fd = native.openPin(`${node.bpffs}/maps/source_ranges`)!;
  const found = native.mapLookup(fd, key, new Uint8Array(4));
  native.close(fd);
  return found;
}

describe('addresses, source ranges and the node', () => {
  test('come back as they were written, and a restarted agent finds nothing to do', async () => {
    const agent = node.agent();
    await agent.ask('open', node.options());
    const ops = await agent.ask('syncAll', ALL);
    expect(ops.indexOf('range.put')).toBeLessThan(ops.indexOf('frontend.put'));
    await agent.ask('attach', []);
    await agent.kill();
    const held = read();
    expect(held.addresses).toEqual(ALL.addresses);
    expect(held.node).toEqual(NODE);
    expect(held.sourceRanges.map(({ range: { base, prefix } }) => `${base}/${prefix}`).sort()).toEqual(
      ALL.services.flatMap(({ sourceRanges }) => (sourceRanges ?? []).map(({ base, prefix }) => `${base}/${prefix}`)).sort(),
    );
    expect(held.frontends.map(({ address, sourceRanges }) => [address, sourceRanges])).toEqual([
      ['10.96.0.1', false],
      ['2001:db8::1', true],
      ['203.0.113.1', true],
    ]);
    const next = node.agent();
    await next.ask('open', node.options());
    expect(await next.ask('syncAll', ALL)).toEqual([]);
  });

  test('nodes to send packets on to as they are: written, taken back, and forgotten where nothing is sent so', async () => {
    const [one, two] = [at('172.30.0.12'), at('fd00:30::12')];
    const hosted = (host4: Address | undefined, host6: Address | undefined): DesiredService[] => [
      { ...WEB, cluster: [{ address: at('10.1.0.1'), port: 8080, local: false, terminating: false, host: host4 }] },
      { ...WEB6, sourceRanges: undefined, cluster: [{ address: at('fd00:244::1'), port: 8080, local: false, terminating: false, host: host6 }] },
    ];
    const hosts = (): (string | undefined)[] => {
      using view = openView(node.bpffs);
      const { backends, peers } = view.read();
      return [...backends.toSorted((a, b) => a.port - b.port || (a.address < b.address ? -1 : 1)).map(({ host }) => host), '|', ...peers.toSorted()];
    };
    const agent = node.agent();
    await agent.ask('open', node.options({ hosts: true, dsrPort: 6091 }));
    await agent.ask('syncAll', { ...ALL, services: hosted(one, two), peers: [one, two] });
    expect(hosts()).toEqual([one, two, '|', one, two]);
    await agent.ask('syncAll', { ...ALL, services: hosted(at('172.30.0.13'), undefined), peers: [at('172.30.0.13')] });
    expect(hosts()).toEqual(['172.30.0.13', undefined, '|', '172.30.0.13']);
    await agent.ask('attach', []);
    await agent.kill();
    const next = node.agent();
    await next.ask('open', node.options());
    await next.ask('syncAll', { ...ALL, services: hosted(undefined, undefined) });
    await next.ask('attach', []);
    expect(hosts()).toEqual([undefined, undefined, '|']);
  });

  test('bind by the longest prefix as a packet looks it up, each family for itself', async () => {
    const agent = node.agent();
    await agent.ask('open', node.options());
    await agent.ask('syncAll', {
      ...ALL,
      services: [
        { ...WEB, sourceRanges: [cidr('10.1.2.0/23')] },
        { ...WEB6, sourceRanges: [cidr('fd00::/9')] },
      ],
    });
    await agent.ask('attach', []);
    expect(['10.1.2.0', '10.1.3.255', '10.1.1.255', '10.1.4.0', '::a01:200'].map((source) => letsIn(WEB.key, source))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
    expect(['fd00::1', 'fd7f::1', 'fd80::1', '10.1.2.0'].map((source) => letsIn(WEB6.key, source))).toEqual([true, true, false, false]);
    await agent.ask('syncAll', { ...ALL, services: [{ ...WEB, sourceRanges: [cidr('0.0.0.0/0')] }, WEB6] });
    expect(letsIn(WEB.key, '8.8.8.8')).toBe(true);
    expect(letsIn(WEB.key, '2001:db8::5')).toBe(false);
    expect(read().sourceRanges).toHaveLength(1);
  });

  test('go with what they belong to', async () => {
    const agent = node.agent();
    await agent.ask('open', node.options());
    await agent.ask('syncAll', ALL);
    await agent.ask('attach', []);
    await agent.ask('syncAll', {
      services: [],
      addresses: [],
      node: { ...NODE, pods4: undefined, serviceCidrs: [], ownsBeyond: false, masqueradesAll: false },
    });
    expect(read()).toMatchObject({
      addresses: [],
      sourceRanges: [],
      frontends: [],
      node: { pods4: undefined, pods6: NODE.pods6, serviceCidrs: [], ownsBeyond: false, masqueradesAll: false },
    });
  });

  test('move into maps of another size', async () => {
    const agent = node.agent();
    await agent.ask('open', node.options());
    await agent.ask('syncAll', ALL);
    await agent.ask('attach', []);
    await agent.kill();
    const before = read();
    const next = node.agent();
    await next.ask('open', node.options({ capacity: { services: 64, frontends: 64, backends: 128, ringSlots: 8192, sourceRanges: 128 } }));
    expect(await next.ask('syncAll', ALL)).toEqual([]);
    await next.ask('attach', []);
    expect(read()).toEqual({ ...before, capacity: { ...(before as Held).capacity, sourceRanges: 128 }, members: expect.any(Function) });
  });
});

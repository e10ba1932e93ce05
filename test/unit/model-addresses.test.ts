/** Addresses of Services as wholes, source ranges, the node's record and health checks. */
import { describe, expect, test } from 'vitest';
import { formatCidr, parseCidr } from '../../agent/model/address.ts';
import type { Address, Cidr } from '../../agent/model/address.ts';
import type { DesiredNode } from '../../agent/model/desired.ts';
import type { NodeFacts } from '../../agent/model/facts.ts';
import { Model } from '../../agent/model/model.ts';
import { READY, SERVING, TERMINATING } from '../../agent/model/objects.ts';
import type { Change, Node, Service } from '../../agent/model/objects.ts';
import { after, BARE_NODE, FACTS, frontendsOf, node, only, problemsOf, put, remove, service, servicePort, settled, slice, take } from './model-builders.ts';

const READY_ROW = slice([{ address: '10.0.0.1' }]);
const cidr = (text: string): Cidr => parseCidr(text)!;
const serviceCidr = (name: string, ...cidrs: string[]): Change => ({ kind: 'ServiceCIDR', key: name, object: { name, cidrs } });
const balanced = (fields: Partial<Service> = {}): Service =>
  service({ type: 'LoadBalancer', loadBalancerIngress: [{ ip: '203.0.113.1', ipMode: 'VIP' }], ...fields });

describe('addresses as wholes', () => {
  const all = { ...balanced({ externalIPs: ['198.51.100.1'] }) };
  const told = (facts: Partial<NodeFacts> = {}, ...objects: Parameters<typeof put>[0][]): string[] =>
    [...take(objects, facts).addresses.values()].map((one) => `${one!.address}${one!.owned ? ' owned' : ''}${one!.ping ? ' ping' : ''}`);

  test('every VIP has one: the cluster IP owned, pinged where there are endpoints; no node address has', () => {
    expect(told({}, all, READY_ROW)).toEqual(['10.96.0.10 owned ping', '203.0.113.1 ping', '198.51.100.1 ping']);
    expect(told({}, all)).toEqual(['10.96.0.10 owned', '203.0.113.1', '198.51.100.1']);
    expect(told({}, service({ type: 'NodePort', ports: [servicePort({ nodePort: 30080 })] }))).toEqual(['10.96.0.10 owned']);
  });

  test('--own-lb-ips owns the others too; --vip-ping=false answers none', () => {
    expect(told({ ownLbIps: true, vipPing: false }, all, READY_ROW)).toEqual(['10.96.0.10 owned', '203.0.113.1 owned', '198.51.100.1 owned']);
  });

  test('a terminating endpoint that serves answers, an unready one does not', () => {
    expect(told({}, service(), slice([{ address: '10.0.0.1', state: SERVING | TERMINATING }]))).toEqual(['10.96.0.10 owned ping']);
    expect(told({}, service(), slice([{ address: '10.0.0.1', state: SERVING }]))).toEqual(['10.96.0.10 owned']);
  });

  test("families are apart, and a Service that is nobody's or has no port has none", () => {
    const dual = service({ clusterIPs: ['10.96.0.10', 'fd00:96::10'] });
    expect(told({}, dual, READY_ROW)).toEqual(['10.96.0.10 owned ping', 'fd00:96::10 owned']);
    expect(told({}, service({ proxyName: 'x' }))).toEqual([]);
    expect(told({}, service({ ports: [] }))).toEqual([]);
  });

  test('one that Services share goes with the last of them, and answers while any has endpoints', () => {
    const shared = (name: string, ip: string): Service =>
      service({ name, clusterIPs: [ip], externalIPs: ['198.51.100.1'], ports: [servicePort({ port: ip.length })] });
    const [a, b] = [shared('a', '10.96.0.1'), shared('b', '10.96.0.22')];
    const at = '198.51.100.1' as Address;
    const model = settled(a, b, slice([{ address: '10.0.0.1' }], { service: 'b' }));
    expect(model.takeAll().addresses.get(at)).toEqual({ address: at, owned: false, ping: true });
    expect(after(model, remove(a)).addresses).toEqual(new Map([['10.96.0.1', undefined]]));
    expect(after(model, put(a), remove(slice([], { service: 'b' }))).addresses.get(at)).toEqual({ address: at, owned: false, ping: false });
    expect(after(model, remove(a), remove(b)).addresses).toEqual(new Map([at, '10.96.0.1', '10.96.0.22'].map((one) => [one, undefined])));
  });

  test('what is as it was is not told again', () => {
    const model = settled(all, READY_ROW);
    expect(after(model, put(slice([{ address: '10.0.0.2' }]))).addresses).toEqual(new Map());
    expect(model.takeAll().addresses.size).toBe(3);
  });
});

describe('loadBalancerSourceRanges', () => {
  const dual = balanced({
    clusterIPs: ['10.96.0.10', 'fd00:96::10'],
    loadBalancerIngress: ['203.0.113.1', '2001:db8::1'].map((ip) => ({ ip, ipMode: 'VIP' })),
  });
  /** By family; "open" without any. */
  const rangesOf = (ranges: string[], facts: Partial<NodeFacts> = {}, fields: Partial<Service> = {}): string[] =>
    take([{ ...dual, loadBalancerSourceRanges: ranges, ...fields }], facts).services.map(
      ({ desired }) => desired!.sourceRanges?.map(formatCidr).join(' ') ?? 'open',
    );

  test.each([
    ['none given: open', [], ['open', 'open']],
    ['both families', ['10.0.0.0/8', 'fd00::/8', '192.0.2.0/24'], ['10.0.0.0/8 192.0.2.0/24', 'fd00::/8']],
    ['a v4-only list leaves v6 open', ['10.0.0.0/8'], ['10.0.0.0/8', 'open']],
    ['a /0 opens its family', ['0.0.0.0/0', 'fd00::/8'], ['0.0.0.0/0', 'fd00::/8']],
    [
      'trimmed; host bits cleared; v4-mapped is v4; leading zeros are decimal',
      [' 10.1.2.3/8 ', '::ffff:192.0.2.9/120', '010.011.0.0/16'],
      ['10.0.0.0/8 10.11.0.0/16 192.0.2.0/24', 'open'],
    ],
    ['the same twice is once', ['10.0.0.0/8', '10.9.0.0/8'], ['10.0.0.0/8', 'open']],
  ])('%s', (_, ranges, expected) => {
    expect(rangesOf(ranges)).toEqual(expected);
  });

  test('invalid ones are dropped with a problem; a list with no valid one lets nobody in', () => {
    expect(rangesOf(['10.0.0.0/8', '10.0.0.0', 'any'])).toEqual(['10.0.0.0/8', 'open']);
    expect(problemsOf(take([{ ...dual, loadBalancerSourceRanges: ['10.0.0.0/8', '10.0.0.0', 'any'] }]))).toEqual([
      'Service default/web: spec.loadBalancerSourceRanges[1] 10.0.0.0 invalid_address',
      'Service default/web: spec.loadBalancerSourceRanges[2] any invalid_address',
    ]);
    expect(rangesOf(['10.0.0.0/33', ''])).toEqual(['', '']);
  });

  test('if a range holds the node IP, the LB IPs count as allowed sources too', () => {
    const nodeAddresses = ['172.30.0.11', 'fd00:30::11'] as Address[];
    expect(rangesOf(['172.30.0.0/16', '2001:db8::/32'], { nodeAddresses })).toEqual(['172.30.0.0/16 203.0.113.1/32', '2001:db8::/32']);
    expect(rangesOf(['10.0.0.0/8', 'fd00::/8'], { nodeAddresses })).toEqual(['10.0.0.0/8', '2001:db8::1/128 fd00::/8']);
  });

  test('LB VIPs only: without one there is nothing to bind', () => {
    expect(rangesOf(['10.0.0.0/8'], {}, { loadBalancerIngress: [] })).toEqual(['open', 'open']);
    expect(rangesOf(['10.0.0.0/8'], {}, { loadBalancerIngress: [{ ip: '203.0.113.1', ipMode: 'Proxy' }] })).toEqual(['open', 'open']);
  });

  test('an external IP of the same IP and port is the load balancer frontend, ranges and all', () => {
    const both = only([balanced({ externalIPs: ['203.0.113.1'], loadBalancerSourceRanges: ['10.0.0.0/8'] })]);
    expect(frontendsOf(both)).toEqual(['ClusterIP 10.96.0.10 80', 'LoadBalancer 203.0.113.1 80']);
    expect(both.sourceRanges).toEqual([cidr('10.0.0.0/8')]);
  });
});

describe("the node's record", () => {
  const taken = (facts: Partial<NodeFacts>, ...changes: Change[]): DesiredNode | undefined => {
    const model = new Model({ ...FACTS, ...facts });
    model.apply(changes);
    return model.takeChanged().node;
  };
  const withPods = (...podCIDRs: string[]): Node => ({ ...node({}), podCIDRs });

  test('ClusterCIDR and NodeCIDR: the first CIDR of each family; a family without one has no detector', () => {
    const ranges = ['10.244.0.0/16', '10.245.0.0/16', 'fd00:244::/48'].map(cidr);
    expect(taken({ detectLocal: { by: 'ranges', ranges } })).toEqual({ ...BARE_NODE, pods4: ranges[0], pods6: ranges[2] });
    expect(taken({ detectLocal: { by: 'ranges', ranges: [] } })).toEqual(BARE_NODE);
    expect(taken({ masqueradeAll: true, detectLocal: { by: 'ranges', ranges: [] } })).toEqual({ ...BARE_NODE, masqueradesAll: true });
    expect(taken({ detectLocal: { by: 'podCIDRs' } }, put(withPods('10.244.1.0/24', '10.244.9.0/24')))).toEqual({ ...BARE_NODE, pods4: cidr('10.244.1.0/24') });
    expect(taken({ detectLocal: { by: 'podCIDRs' } }, put({ ...withPods('10.244.1.0/24'), name: 'node-b' }))).toEqual(BARE_NODE);
    expect(taken({ detectLocal: { by: 'ranges', ranges: [] } }, put(withPods('10.244.1.0/24')))).toEqual(BARE_NODE);
  });

  test('BridgeInterface and InterfaceNamePrefix: the device tells', () => {
    expect(taken({ detectLocal: { by: 'device' } }, put(withPods('10.244.1.0/24')))).toEqual({ ...BARE_NODE, detectsByDevice: true });
  });

  test('ServiceCIDRs of all objects, each once; what is owned outside of them is told', () => {
    const model = new Model(FACTS);
    model.apply([put(service()), serviceCidr('kubernetes', '10.96.0.0/16', 'fd00:96::/108'), serviceCidr('more', '10.97.0.0/16', '10.96.1.1/16', 'bad')]);
    const delta = model.takeChanged();
    expect(delta.node).toEqual({ ...BARE_NODE, serviceCidrs: ['10.96.0.0/16', '10.97.0.0/16', 'fd00:96::/108'].map(cidr) });
    expect(problemsOf(delta)).toEqual(['ServiceCIDR more: spec.cidrs[2] bad invalid_address']);
    expect(after(model, put(service({ name: 'out', clusterIPs: ['10.98.0.1'] }))).node?.ownsBeyond).toBe(true);
    expect(after(model, serviceCidr('more', '10.98.0.0/16'))).toMatchObject({ node: { ownsBeyond: false }, problems: new Map([['ServiceCIDR more', []]]) });
    expect(after(model, { kind: 'ServiceCIDR', key: 'kubernetes', object: undefined }).node).toEqual({
      ...BARE_NODE,
      serviceCidrs: [cidr('10.98.0.0/16')],
      ownsBeyond: true,
    });
    expect(after(model, remove(service())).node?.ownsBeyond).toBe(false);
    expect(after(model, put(service({ name: 'out', clusterIPs: ['10.98.0.2'] }))).node).toBeUndefined();
  });

  test('load balancer and external IPs lie beyond only where they are owned', () => {
    const model = settled(balanced());
    expect(after(model, serviceCidr('kubernetes', '10.96.0.0/16')).node?.ownsBeyond).toBe(false);
    model.setFacts({ ...FACTS, ownLbIps: true });
    expect(model.takeChanged().node?.ownsBeyond).toBe(true);
  });
});

describe('health check node ports', () => {
  const HERE = { node: 'node-a' };
  const checked = (fields: Partial<Service> = {}): Service => balanced({ externalTrafficPolicy: 'Local', healthCheckNodePort: 32000, ...fields });
  const checks = (...objects: Parameters<typeof put>[0][]): unknown => take(objects).healthChecks.get('default/web');

  test('count = distinct local ready endpoint IPs of that family over all ports', () => {
    const ports = [
      { name: 'http', protocol: 'TCP', port: 8080 },
      { name: 'admin', protocol: 'TCP', port: 8081 },
    ];
    const first = slice([{ address: '10.0.0.1', ...HERE }, { address: '10.0.0.2' }, { address: '10.0.0.3', ...HERE, state: SERVING }], { ports });
    const second = slice(
      [
        { address: '10.0.0.1', ...HERE },
        { address: '10.0.0.4', ...HERE },
      ],
      { name: 'web-2', ports: [{ ...ports[1]!, port: 9 }] },
    );
    const sixth = slice([{ address: 'fd00::1', ...HERE }], { name: 'web-6', addressType: 'IPv6' });
    const known = { namespace: 'default', name: 'web', port: 32000 };
    expect(checks(checked(), first, second, sixth)).toEqual({ ...known, endpoints4: 2, endpoints6: undefined });
    expect(checks(checked({ clusterIPs: ['10.96.0.10', 'fd00:96::10'] }), first, second, sixth)).toEqual({ ...known, endpoints4: 2, endpoints6: 1 });
    expect(checks(checked())).toEqual({ ...known, endpoints4: 0, endpoints6: undefined });
  });

  test('terminating does not count; ready and terminating does', () => {
    expect(checks(checked(), slice([{ address: '10.0.0.1', ...HERE, state: SERVING | TERMINATING }]))).toMatchObject({ endpoints4: 0 });
    expect(checks(checked(), slice([{ address: '10.0.0.1', ...HERE, state: READY | SERVING | TERMINATING }]))).toMatchObject({ endpoints4: 1 });
  });

  test('type LoadBalancer and eTP=Local only, with a port that is one', () => {
    expect(checks(checked({ externalTrafficPolicy: 'Cluster' }))).toBeUndefined();
    expect(checks(checked({ type: 'NodePort' }))).toBeUndefined();
    expect(checks(checked({ healthCheckNodePort: 0 }))).toBeUndefined();
    expect(checks(checked({ healthCheckNodePort: 70000 }))).toBeUndefined();
    expect(problemsOf(take([checked({ healthCheckNodePort: 70000 })]))).toEqual(['Service default/web: spec.healthCheckNodePort 70000 invalid_port']);
  });

  test('told when they change, and when they go', () => {
    const model = settled(checked(), slice([{ address: '10.0.0.1', ...HERE }]));
    expect(after(model, put(slice([{ address: '10.0.0.2', ...HERE }]))).healthChecks).toEqual(new Map());
    expect(model.takeAll().healthChecks).toEqual(new Map());
    expect(after(model, remove(checked())).healthChecks).toEqual(new Map([['default/web', undefined]]));
  });
});

describe('spare endpoints', () => {
  const udp = (fields: Partial<Service> = {}): Service => service({ ports: [servicePort({ protocol: 'UDP' })], ...fields });
  const rows = [
    { address: '10.0.0.1' },
    { address: '10.0.0.2', state: SERVING | TERMINATING },
    { address: '10.0.0.3', state: SERVING },
    { address: '10.0.0.4', state: 0 },
  ];
  const ports = [{ name: 'http', protocol: 'UDP', port: 53 }];

  test('of a UDP port: what serves, and is in neither set', () => {
    expect(only([udp(), slice(rows, { ports })]).spare.map(({ address }) => address)).toEqual(['10.0.0.2', '10.0.0.3']);
    expect(only([udp({ internalTrafficPolicy: 'Local' }), slice(rows, { ports })]).spare.map(({ address }) => address)).toEqual([
      '10.0.0.1',
      '10.0.0.2',
      '10.0.0.3',
    ]);
    expect(only([service(), slice(rows)]).spare).toEqual([]);
  });
});

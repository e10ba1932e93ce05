import { describe, expect, test } from 'vitest';
import { READY, SERVING, TERMINATING } from '../../agent/model/objects.ts';
import type { EndpointSlice, Service } from '../../agent/model/objects.ts';
import { addressesOf, node, only, problemsOf, service, servicePort, slice, take } from './model-builders.ts';
import type { Row } from './model-builders.ts';

const LEAVING = SERVING | TERMINATING;
const ZONE = node({ 'topology.kubernetes.io/zone': 'z1' });

/** Rows by number of their address: 1 is 10.0.0.1. */
const at = (n: number, row: Omit<Row, 'address'> = {}): Row => ({ address: `10.0.0.${n}`, ...row });

describe('which endpoints (CategorizeEndpoints)', () => {
  const internal: Partial<Service> = { internalTrafficPolicy: 'Local' };
  const external: Partial<Service> = { type: 'NodePort', externalTrafficPolicy: 'Local', ports: [servicePort({ nodePort: 30080 })] };
  const here = { node: 'node-a' };
  const cases: [rule: string, fields: Partial<Service>, rows: Row[], cluster: number[], local: number[], hasAny: boolean][] = [
    ['1: no endpoints', {}, [], [], [], false],
    ['3: ready ones', {}, [at(1), at(2, { state: SERVING }), at(3, { state: 0 })], [1], [], true],
    ['3: ready ones, even when others are serving and terminating', {}, [at(1), at(2, { state: LEAVING })], [1], [], true],
    ['3: none ready: those serving and terminating', {}, [at(1, { state: LEAVING }), at(2, { state: TERMINATING }), at(3, { state: SERVING })], [1], [], true],
    ['5: neither ready nor serving and terminating is nothing', {}, [at(1, { state: SERVING }), at(2, { state: TERMINATING })], [], [], false],
    ['ready and terminating (publishNotReadyAddresses) is ready', {}, [at(1, { state: READY | LEAVING })], [1], [], true],
    ['4: the Local set is not asked for', {}, [at(1, here), at(2)], [1, 2], [], true],
    ['4: internal Local alone: no Cluster set', internal, [at(1, here), at(2)], [], [1], true],
    [
      '4: internal Local and reachable from outside: both',
      { ...internal, type: 'NodePort', ports: [servicePort({ nodePort: 30080 })] },
      [at(1, here), at(2)],
      [1, 2],
      [1],
      true,
    ],
    ['4: external Local: both', external, [at(1, here), at(2)], [1, 2], [1], true],
    ['4: external Local without any external frontend', { type: 'NodePort', externalTrafficPolicy: 'Local' }, [at(1, here), at(2)], [1, 2], [], true],
    ['4: no ready one here: those here that serve and terminate', external, [at(1, { ...here, state: LEAVING }), at(2)], [2], [1], true],
    ['4: a ready one here, so no terminating one', external, [at(1, { ...here, state: LEAVING }), at(2, here)], [2], [2], true],
    ['5: nothing here, but elsewhere: drop, not reject', internal, [at(2)], [], [], true],
    ['5: nothing here, but elsewhere terminating', internal, [at(2, { state: LEAVING })], [], [], true],
  ];
  test.each(cases)('%s', (_, fields, rows, cluster, local, hasAny) => {
    const desired = only([service(fields), slice(rows)]);
    expect(addressesOf(desired.cluster)).toEqual(cluster.map((n) => `10.0.0.${n}`));
    expect(addressesOf(desired.local)).toEqual(local.map((n) => `10.0.0.${n}`));
    expect(desired.hasAny).toBe(hasAny);
  });

  const dual = { clusterIPs: ['10.96.0.10', 'fd00:96::10'], ipFamilies: ['IPv4', 'IPv6'] };
  const rows6 = slice([{ address: 'fd00::1', node: 'node-a' }, { address: 'fd00::2' }], { name: 'web-6', addressType: 'IPv6' });
  /** How many endpoints the Cluster and the Local set have, by family. */
  const sizes = (fields: Partial<Service>): number[][] =>
    take([service({ ...dual, ...fields }), slice([at(1, here), at(2)]), rows6]).services.map(({ desired }) => [
      desired?.cluster.length ?? -1,
      desired?.local.length ?? -1,
    ]);

  test.each<[rule: string, fields: Partial<Service>, v4: number[], v6: number[]]>([
    ['an externalIP opens its own family', { ...internal, externalIPs: ['2001:db8::1'] }, [0, 1], [2, 1]],
    ['a LB VIP opens its own family', { ...internal, type: 'LoadBalancer', loadBalancerIngress: [{ ip: '203.0.113.1', ipMode: 'VIP' }] }, [2, 1], [0, 1]],
    ['a nodePort opens both', { ...internal, type: 'NodePort', ports: [servicePort({ nodePort: 30080 })] }, [2, 1], [2, 1]],
    ['ipMode Proxy opens none', { ...internal, type: 'LoadBalancer', loadBalancerIngress: [{ ip: '203.0.113.1', ipMode: 'Proxy' }] }, [0, 1], [0, 1]],
    ['external Local asks for the Local set in the family that is open', { externalTrafficPolicy: 'Local', externalIPs: ['2001:db8::1'] }, [2, 0], [2, 1]],
  ])('externallyAccessible is per family: %s', (_, fields, v4, v6) => {
    expect(sizes(fields)).toEqual([v4, v6]);
  });

  test('an endpoint without a nodeName is nowhere, even for a node without a name', () => {
    expect(only([service(internal), slice([at(1, { node: '' })])], { name: '' }).local).toEqual([]);
  });

  test('what a backend says of itself', () => {
    const [backend] = only([service(), slice([at(1, { node: 'node-a', state: LEAVING })])]).cluster;
    expect(backend).toEqual({ address: '10.0.0.1', port: 8080, local: true, terminating: true });
  });
});

describe('topology hints', () => {
  const zoned = (n: number, ...zones: string[]): Row => at(n, { zones });
  const noded = (n: number, nodes: string[], zones: string[] = []): Row => at(n, { nodes, zones });
  const cases: [rule: string, rows: Row[], cluster: number[]][] = [
    ['all have zone hints, one names this zone: that zone', [zoned(1, 'z1'), zoned(2, 'z2'), zoned(3, 'z1', 'z2')], [1, 3]],
    ['one has no hint: all', [zoned(1, 'z1'), zoned(2, 'z2'), at(3)], [1, 2, 3]],
    ['none names this zone: all', [zoned(1, 'z3'), zoned(2, 'z2')], [1, 2]],
    ['one that is not ready has no say', [zoned(1, 'z1'), zoned(2, 'z2'), at(3, { state: SERVING })], [1]],
    ['node hints go before zone hints', [noded(1, ['node-a'], ['z2']), noded(2, ['node-b'], ['z1'])], [1]],
    ['no node hint names this node: zone hints', [noded(1, ['node-c'], ['z2']), noded(2, ['node-b'], ['z1'])], [2]],
    ['one that is not ready has no say in node hints', [noded(1, ['node-a']), noded(2, ['node-b']), at(3, { state: LEAVING })], [1]],
    ['of both kinds none that every one has: all', [noded(1, ['node-a']), noded(2, [], ['z1'])], [1, 2]],
    ['one lacks a node hint: zone hints', [noded(1, ['node-a'], ['z2']), noded(2, [], ['z1'])], [2]],
    ['the fallback to terminating ones ignores hints', [at(1, { zones: ['z2'], state: LEAVING }), at(2, { zones: ['z1'], state: LEAVING })], [1, 2]],
  ];
  test.each(cases)('%s', (_, rows, cluster) => {
    expect(addressesOf(only([ZONE, service(), slice(rows)]).cluster)).toEqual(cluster.map((n) => `10.0.0.${n}`));
  });

  test('a family without hints does not undo those of the other', () => {
    const dual = service({ clusterIPs: ['10.96.0.10', 'fd00:96::10'], ipFamilies: ['IPv4', 'IPv6'] });
    const rows6 = slice([{ address: 'fd00::1' }, { address: 'fd00::2' }], { name: 'web-6', addressType: 'IPv6' });
    const { services } = take([ZONE, dual, slice([zoned(1, 'z1'), zoned(2, 'z2')]), rows6]);
    expect(services.map(({ desired }) => addressesOf(desired?.cluster ?? []))).toEqual([['10.0.0.1'], ['fd00::1', 'fd00::2']]);
  });

  test('hints never narrow the fallback of the Local set', () => {
    const rows = [at(1, { node: 'node-a', zones: ['z2'], state: LEAVING }), at(2, { zones: ['z1'] })];
    expect(addressesOf(only([ZONE, service({ internalTrafficPolicy: 'Local' }), slice(rows)]).local)).toEqual(['10.0.0.1']);
  });

  test('hints never narrow the Local set', () => {
    const rows = [at(1, { node: 'node-a', zones: ['z2'] }), at(2, { node: 'node-a', zones: ['z1'] })];
    const desired = only([ZONE, service({ externalTrafficPolicy: 'Local', externalIPs: ['198.51.100.1'] }), slice(rows)]);
    expect(addressesOf(desired.cluster)).toEqual(['10.0.0.2']);
    expect(addressesOf(desired.local)).toEqual(['10.0.0.1', '10.0.0.2']);
  });

  test("the zone is the Node's; before it is seen, that of the facts; the empty hint matches a Node without the label", () => {
    const rows = [zoned(1, 'z1'), zoned(2, 'z2'), zoned(3, '')];
    expect(addressesOf(only([service(), slice(rows)], { zone: 'z2' }).cluster)).toEqual(['10.0.0.2']);
    expect(addressesOf(only([ZONE, service(), slice(rows)], { zone: 'z2' }).cluster)).toEqual(['10.0.0.1']);
    expect(addressesOf(only([node({}), service(), slice(rows)], { zone: 'z2' }).cluster)).toEqual(['10.0.0.3']);
    expect(addressesOf(only([node({ 'topology.kubernetes.io/zone': 'z1' }, 'node-b'), service(), slice(rows)], { zone: 'z2' }).cluster)).toEqual(['10.0.0.2']);
  });
});

describe('port matching', () => {
  const ports = (...list: EndpointSlice['ports']): Partial<EndpointSlice> => ({ ports: list });
  const http = { name: 'http', protocol: 'TCP', port: 8080 };

  test('by name and protocol, never by number; the number may differ by slice', () => {
    const desired = only([
      service(),
      slice([at(1)], { ...ports({ ...http, name: 'other', port: 80 }, http, { ...http, protocol: 'UDP', port: 1 }) }),
      slice([at(2)], { name: 'web-2', ...ports({ ...http, port: 9090 }) }),
    ]);
    expect(desired.cluster.map((b) => `${b.address}:${b.port}`)).toEqual(['10.0.0.1:8080', '10.0.0.2:9090']);
  });

  test('the unnamed port is "", a nil name is none; a port of nil is none', () => {
    const unnamed = service({ ports: [servicePort({ name: '' })] });
    const rows = [at(1)];
    expect(only([unnamed, slice(rows, ports({ ...http, name: '' }))]).cluster).toHaveLength(1);
    expect(only([unnamed, slice(rows, ports({ ...http, name: undefined }))]).cluster).toEqual([]);
    const none = take([unnamed, slice(rows, ports({ ...http, name: '', port: 0 }))]);
    expect(none.services[0]?.desired?.cluster).toEqual([]);
    expect(problemsOf(none)).toEqual([]);
  });

  test('one address with two ports is two endpoints', () => {
    expect(only([service(), slice([at(1)], ports(http, { ...http, port: 8081 }))]).cluster).toHaveLength(2);
  });

  test('slices of other Services, namespaces and families are not ours', () => {
    const others = [
      slice([at(1)], { service: 'other' }),
      slice([at(2)], { namespace: 'other' }),
      slice([at(4)], { name: 'web-3', service: '' }),
      slice([{ address: 'fd00::1' }], { name: 'web-6', addressType: 'IPv6' }),
    ];
    expect(only([service(), ...others]).cluster).toEqual([]);
  });

  test('endpoints are made canonical', () => {
    const v6 = service({ clusterIPs: ['fd00:96::10'] });
    expect(addressesOf(only([v6, slice([{ address: 'FD00:0:0::01' }], { addressType: 'IPv6' })]).cluster)).toEqual(['fd00::1']);
    expect(addressesOf(only([service(), slice([{ address: '010.0.0.01' }])]).cluster)).toEqual(['10.0.0.1']);
  });

  test('a port that matches nothing has no endpoint, beside one that does', () => {
    const { services } = take([service({ ports: [servicePort(), servicePort({ name: 'admin', port: 8080 })] }), slice([at(1)])]);
    expect(services.map(({ desired }) => [desired?.portName, desired?.cluster.length, desired?.hasAny])).toEqual([
      ['http', 1, true],
      ['admin', 0, false],
    ]);
  });

  test('of the protocol as much as of the name: one name may stand for TCP and UDP', () => {
    const ports = [servicePort({ name: 'dns', port: 53 }), servicePort({ name: 'dns', protocol: 'UDP', port: 53 })];
    const both = slice([at(1)], {
      ports: [
        { name: 'dns', protocol: 'TCP', port: 5353 },
        { name: 'dns', protocol: 'UDP', port: 5300 },
      ],
    });
    expect(take([service({ ports }), both]).services.map(({ desired }) => desired?.cluster.map(({ port }) => port))).toEqual([[5353], [5300]]);
  });

  test('FQDN slices say nothing', () => {
    const delta = take([service(), slice([{ address: 'example.org' }], { addressType: 'FQDN' })]);
    expect(delta.services[0]?.desired?.hasAny).toBe(false);
    expect(problemsOf(delta)).toEqual([]);
  });
});

describe('one endpoint in several slices (kubernetes#135593)', () => {
  const second = (row: Row): EndpointSlice => slice([row], { name: 'web-2' });
  const cases: [string, number, number, boolean[]][] = [
    ['the last that is not terminating wins', READY | SERVING, SERVING, []],
    ['and so when it comes to life', SERVING, READY | SERVING, [false]],
    ['a terminating one replaces nothing', READY | SERVING, LEAVING, [false]],
    ['a terminating one is replaced', LEAVING, READY | SERVING, [false]],
    ['only terminating ones: the first', LEAVING, TERMINATING, [true]],
  ];
  test.each(cases)('%s', (_, first, then, terminating) => {
    const desired = only([service(), slice([at(1, { state: first })]), second(at(1, { state: then }))]);
    expect(desired.cluster.map((b) => b.terminating)).toEqual(terminating);
  });
});

test('one endpoint twice in one slice is one, by the same rule', () => {
  const rows = (first: number, then: number): number[] => {
    const { cluster } = only([service(), slice([at(1, { state: first }), at(1, { state: then })])]);
    return cluster.map((backend) => (backend.terminating ? 2 : 1));
  };
  expect(rows(READY | SERVING, READY | SERVING)).toEqual([1]);
  expect(rows(READY | SERVING, LEAVING)).toEqual([1]);
  expect(rows(LEAVING, READY | SERVING)).toEqual([1]);
  expect(rows(LEAVING, TERMINATING)).toEqual([2]);
});

test('it is one by address and port: on another port, or said of another node, the last word is of that', () => {
  const moved = only([service({ internalTrafficPolicy: 'Local' }), slice([at(1)]), slice([at(1, { node: 'node-a' })], { name: 'web-2' })]);
  expect(addressesOf(moved.local)).toEqual(['10.0.0.1']);
  const other = slice([at(1, { state: SERVING })], { name: 'web-2', ports: [{ name: 'http', protocol: 'TCP', port: 9090 }] });
  expect(only([service(), slice([at(1)]), other]).cluster.map(({ port }) => port)).toEqual([8080]);
});

describe('refused, item by item', () => {
  test('endpoints', () => {
    const rows = [at(1), { address: '127.0.0.1' }, { address: '' }, { address: 'fd00::1' }, { address: '10.0.0.256' }, { address: '169.254.1.1' }];
    const delta = take([service(), slice(rows)]);
    expect(addressesOf(delta.services[0]?.desired?.cluster ?? [])).toEqual(['10.0.0.1']);
    expect(problemsOf(delta)).toEqual([
      'EndpointSlice default/web-1: endpoints[1].addresses[0] 127.0.0.1 unsafe_address',
      'EndpointSlice default/web-1: endpoints[3].addresses[0] fd00::1 invalid_address',
      'EndpointSlice default/web-1: endpoints[4].addresses[0] 10.0.0.256 invalid_address',
      'EndpointSlice default/web-1: endpoints[5].addresses[0] 169.254.1.1 unsafe_address',
    ]);
  });

  test('one port of one slice', () => {
    const ports = [servicePort(), servicePort({ name: 'admin', port: 81 })];
    const bad = slice([at(1)], {
      ports: [
        { name: 'http', protocol: 'TCP', port: 70000 },
        { name: 'admin', protocol: 'TCP', port: 8081 },
        { name: 'x', protocol: 'QUIC', port: 1 },
      ],
    });
    const delta = take([service({ ports }), bad, slice([at(2)], { name: 'web-2' })]);
    expect(delta.services.map(({ desired }) => addressesOf(desired?.cluster ?? []))).toEqual([['10.0.0.2'], ['10.0.0.1']]);
    expect(problemsOf(delta)).toEqual([
      'EndpointSlice default/web-1: ports[0].port 70000 invalid_port',
      'EndpointSlice default/web-1: ports[2].protocol QUIC invalid_protocol',
    ]);
  });

  test('an address type that nobody knows', () => {
    expect(problemsOf(take([service(), slice([at(1)], { addressType: 'ipv4' })]))).toEqual(['EndpointSlice default/web-1: addressType ipv4 invalid_value']);
  });

  test('what belongs to no Service of ours is not judged', () => {
    expect(problemsOf(take([service({ clusterIPs: ['None'] }), slice([{ address: '127.0.0.1' }])]))).toEqual([]);
  });
});

test('sets are sorted by the string "address:port"', () => {
  const desired = only([service(), slice([at(9), at(10), at(1), at(100)])]);
  expect(addressesOf(desired.cluster)).toEqual(['10.0.0.100', '10.0.0.10', '10.0.0.1', '10.0.0.9']);
});

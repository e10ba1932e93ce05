import { describe, expect, test } from 'vitest';
import type { Address } from '../../agent/model/address.ts';
import type { Delta } from '../../agent/model/delta.ts';
import { Model } from '../../agent/model/model.ts';
import { SERVING } from '../../agent/model/objects.ts';
import type { EndpointSlice } from '../../agent/model/objects.ts';
import {
  FACTS,
  addressesOf,
  after,
  desiredOf,
  frontendsOf,
  node,
  problemsOf,
  put,
  remove,
  service,
  servicePort,
  settled,
  slice,
  take,
} from './model-builders.ts';

const keysOf = (delta: ReturnType<Model['takeChanged']>): string[] => delta.services.map(({ key, desired }) => `${desired ? '' : '-'}${key}`);

describe('changes', () => {
  test('nothing changed, nothing told', () => {
    const model = settled(service());
    expect(model.takeChanged()).toEqual({
      services: [],
      addresses: new Map(),
      node: undefined,
      peers: new Map(),
      healthChecks: new Map(),
      problems: new Map(),
    });
  });

  test('slices may come before their Service, and go after it', () => {
    const model = settled(slice([{ address: '10.0.0.1' }]));
    expect(after(model, put(service())).services[0]?.desired?.cluster).toHaveLength(1);
    expect(keysOf(after(model, remove(service())))).toEqual(['-default/web:http/TCP/4']);
    expect(keysOf(after(model, remove(slice([]))))).toEqual([]);
    expect(after(model, put(service())).services[0]?.desired?.cluster).toEqual([]);
  });

  test("a port that goes is told, and so is a Service that becomes another proxy's", () => {
    const model = settled(service({ ports: [servicePort(), servicePort({ name: 'admin', port: 81 })] }));
    expect(keysOf(after(model, put(service())))).toEqual(['-default/web:admin/TCP/4', 'default/web:http/TCP/4']);
    expect(keysOf(after(model, put(service({ proxyName: 'other' }))))).toEqual(['-default/web:http/TCP/4']);
    expect(keysOf(after(model, put(service())))).toEqual(['default/web:http/TCP/4']);
  });

  test('slices count in the order of their names, whichever came first', () => {
    const alive = slice([{ address: '10.0.0.1' }], { name: 'web-1' });
    const unready = slice([{ address: '10.0.0.1', state: SERVING }], { name: 'web-2' });
    for (const order of [
      [alive, unready],
      [unready, alive],
    ])
      expect(after(settled(service()), ...order.map(put)).services[0]?.desired?.cluster).toEqual([]);
  });

  test('a slice that moves from one Service to another changes both', () => {
    const other = service({ name: 'other', clusterIPs: ['10.96.0.11'] });
    const model = settled(service(), other, slice([{ address: '10.0.0.1' }]));
    const { services } = after(model, put(slice([{ address: '10.0.0.1' }], { service: 'other' })));
    expect(services.map(({ key, desired }) => [key, desired?.cluster.length])).toEqual([
      ['default/web:http/TCP/4', 0],
      ['default/other:http/TCP/4', 1],
    ]);
  });

  test("this node's zone concerns Services with zone hints only; other Nodes concern none", () => {
    const hinted = slice([
      { address: '10.0.0.1', zones: ['z1'] },
      { address: '10.0.0.2', zones: ['z2'] },
    ]);
    const model = settled(service(), hinted, service({ name: 'plain', clusterIPs: ['10.96.0.11'] }));
    const zone = (name: string): Record<string, string> => ({ 'topology.kubernetes.io/zone': name });
    expect(keysOf(after(model, put(node(zone('z1'), 'node-b'))))).toEqual([]);
    const moved = after(model, put(node(zone('z1'))));
    expect(moved.services.map(({ desired }) => addressesOf(desired?.cluster ?? []))).toEqual([['10.0.0.1']]);
    expect(keysOf(after(model, put(node({ ...zone('z1'), other: 'label' }))))).toEqual([]);
    expect(after(model, put(node({}))).services[0]?.desired?.cluster).toHaveLength(2);
  });

  test('a Node that is deleted still says what it said: its zone, its podCIDRs', () => {
    const here = { ...node({ 'topology.kubernetes.io/zone': 'z1' }), podCIDRs: ['10.244.1.0/24'] };
    const rows = [
      { address: '10.0.0.1', zones: ['z1'] },
      { address: '10.0.0.2', zones: ['z2'] },
    ];
    const model = new Model({ ...FACTS, detectLocal: { by: 'podCIDRs' } });
    after(model, put(here), put(service()), put(slice(rows)));
    expect(after(model, remove(here))).toMatchObject({ services: [], node: undefined });
    const all = model.takeAll();
    expect(addressesOf(all.services[0]?.desired?.cluster ?? [])).toEqual(['10.0.0.1']);
    expect(all.node?.pods4).toEqual({ base: '10.244.1.0', prefix: 24 });
  });

  test('very much at once: Services come early, in parts, and all else with the last', () => {
    const rows = Array.from({ length: 50 }, (_, i) => ({ address: `10.0.0.${i + 1}` }));
    const services = Array.from({ length: 8 }, (_, n) => service({ name: `s${n}`, clusterIPs: [`10.96.1.${n}`] }));
    const model = new Model(FACTS);
    model.apply(services.flatMap((one) => [put(one), put(slice(rows, { name: one.name, service: one.name }))]));
    model.apply([put(service({ name: 'wrong', clusterIPs: ['nonsense'] }))]);
    const parts: Delta[] = [];
    const last = model.takeAll((part) => void parts.push(part));
    expect(parts.length).toBeGreaterThan(1);
    expect([...parts, last].flatMap(keysOf).toSorted()).toEqual(services.map(({ name }) => `default/${name}:http/TCP/4`));
    for (const part of parts) expect(part).toMatchObject({ addresses: new Map(), node: undefined, problems: new Map() });
    expect(last.addresses.size).toBe(services.length);
    expect([...last.problems.keys()]).toEqual(['Service default/wrong']);
  });

  test('what throws half way loses nothing', () => {
    const model = new Model(FACTS);
    model.apply([
      put(service({ name: 'wrong', clusterIPs: ['nonsense'] })),
      put(service()),
      put(slice(Array.from({ length: 200 }, (_, i) => ({ address: `10.0.0.${i + 1}` })))),
    ]);
    const fail = (): never => {
      throw new Error('no');
    };
    expect(() => model.takeAll(fail)).toThrow('no');
    const again = model.takeAll();
    expect(keysOf(again)).toEqual(['default/web:http/TCP/4']);
    expect([...again.problems.keys()]).toEqual(['Service default/wrong']);
  });

  test('new facts: everything anew', () => {
    const nodePort = service({ type: 'NodePort', ports: [servicePort({ nodePort: 30080 })] });
    const model = settled(nodePort);
    model.setFacts({ ...FACTS, nodePortAddresses: ['172.30.0.99' as Address], localhostNodePorts: false });
    const [first] = model.takeChanged().services;
    expect(first?.desired && frontendsOf(first.desired)).toEqual(['ClusterIP 10.96.0.10 80', 'NodePort 172.30.0.99 30080']);
    // The claims are of the new address now: the former one is free, and so is this one when it is given up.
    const next = service({ name: 'next', clusterIPs: ['10.96.0.11'], externalIPs: ['172.30.0.11', '172.30.0.99'], ports: [servicePort({ port: 30080 })] });
    expect(problemsOf(after(model, put({ ...next, created: 1 })))).toEqual(['Service default/next: spec.externalIPs[1] 172.30.0.99:30080/TCP conflict']);
    expect(after(model, remove(nodePort)).problems).toEqual(new Map([['Service default/next', []]]));
  });

  test("what was taken is the caller's: the list of all is worked out for itself", () => {
    const model = settled(service(), slice([{ address: '10.0.0.1' }]));
    expect(desiredOf(model).map((desired) => desired.key)).toEqual(['default/web:http/TCP/4']);
    expect(model.counts).toEqual({ services: 1, slices: 1, endpoints: 1 });
    after(model, put(slice([{ address: '10.0.0.1' }, { address: '10.0.0.2' }])), put(service({ proxyName: 'x' })));
    expect(model.counts).toEqual({ services: 1, slices: 1, endpoints: 2 });
    after(model, remove(slice([])), remove(service()), remove(service({ name: 'never was' })));
    expect(model.counts).toEqual({ services: 0, slices: 0, endpoints: 0 });
    expect(desiredOf(model)).toEqual([]);
  });
});

describe('problems', () => {
  const broken = slice([{ address: '127.0.0.1' }]);

  test('told when they come, not again while they stand, and cleared when they go', () => {
    const model = settled(service());
    expect(problemsOf(after(model, put(broken)))).toHaveLength(1);
    expect(model.problems.size).toBe(1);
    expect(after(model, put(service({ affinitySeconds: 5 }))).problems.size).toBe(0);
    expect(after(model, remove(broken)).problems).toEqual(new Map([['EndpointSlice default/web-1', []]]));
    expect(model.problems.size).toBe(0);
  });

  test('cleared with the Service that made them matter', () => {
    const model = settled(service({ externalIPs: ['::1'] }), broken);
    const { problems } = after(model, remove(service()));
    expect([...problems]).toEqual([
      ['EndpointSlice default/web-1', []],
      ['Service default/web', []],
    ]);
  });

  test('a slice that moves between Services, in either order, keeps its own', () => {
    for (const [from, to] of [
      ['a', 'b'],
      ['b', 'a'],
    ] as const) {
      const model = settled(service({ name: 'a' }), service({ name: 'b', clusterIPs: ['10.96.0.11'] }), slice([{ address: '127.0.0.1' }], { service: from }));
      after(model, put(slice([{ address: '127.0.0.1' }], { service: to })));
      expect([...model.problems.keys()]).toEqual(['EndpointSlice default/web-1']);
    }
  });
});

describe('two Services, one address and port', () => {
  const old = service({ name: 'old', created: 1, clusterIPs: ['10.96.0.1'], externalIPs: ['198.51.100.1'] });
  const young = service({ name: 'a-young', created: 2, clusterIPs: ['10.96.0.2'], externalIPs: ['198.51.100.1'] });
  const frontends = (model: Model): Record<string, string[]> => Object.fromEntries(desiredOf(model).map((d) => [d.name, frontendsOf(d)]));

  test.each([[[old, young]], [[young, old]]])('the older keeps it, whichever came first', (order) => {
    const model = new Model(FACTS);
    model.apply(order.map(put));
    const { problems } = model.takeChanged();
    expect(frontends(model)).toEqual({ old: ['ClusterIP 10.96.0.1 80', 'ExternalIP 198.51.100.1 80'], 'a-young': ['ClusterIP 10.96.0.2 80'] });
    expect([...problems.values()].flat()).toEqual([
      {
        object: 'Service default/a-young',
        field: 'spec.externalIPs[0]',
        value: '198.51.100.1:80/TCP',
        message: 'belongs to Service default/old, which is older or first by name: an address and port of its own would be right',
        reason: 'conflict',
      },
    ]);
  });

  test('the older takes it over when it comes second, and the other gets it back when it goes', () => {
    const model = settled(young);
    expect(keysOf(after(model, put(old)))).toEqual(['default/old:http/TCP/4', 'default/a-young:http/TCP/4']);
    const delta = after(model, remove(old));
    expect(keysOf(delta)).toEqual(['-default/old:http/TCP/4', 'default/a-young:http/TCP/4']);
    expect(frontends(model)).toEqual({ 'a-young': ['ClusterIP 10.96.0.2 80', 'ExternalIP 198.51.100.1 80'] });
    expect(delta.problems).toEqual(new Map([['Service default/a-young', []]]));
  });

  test('it is given up with the port, the policy or the proxy that wanted it', () => {
    for (const changed of [{ externalIPs: [] }, { ports: [servicePort({ port: 81 })] }, { proxyName: 'x' }, { clusterIPs: ['None'] }]) {
      const model = settled(old, young);
      after(model, put({ ...old, ...changed }));
      expect(frontends(model)['a-young']).toEqual(['ClusterIP 10.96.0.2 80', 'ExternalIP 198.51.100.1 80']);
    }
  });

  test('of one age: by namespace and name', () => {
    const model = settled({ ...old, created: 0 }, { ...young, created: 0 });
    expect(frontends(model)['a-young']).toHaveLength(2);
  });

  test('other protocols and ports are no conflict', () => {
    expect(problemsOf(take([old, { ...young, ports: [servicePort({ port: 443 }), servicePort({ name: 'u', protocol: 'UDP' })] }]))).toEqual([]);
  });

  test('a node port is told once, not for each address', () => {
    const ports = [servicePort({ nodePort: 30080 })];
    const [a, b] = [
      service({ name: 'a', type: 'NodePort', ports, clusterIPs: ['10.96.0.1'] }),
      service({ name: 'b', type: 'NodePort', ports, clusterIPs: ['10.96.0.2'] }),
    ];
    expect(problemsOf(take([a, b]))).toEqual(['Service default/b: spec.ports[0].nodePort 30080/TCP conflict']);
  });

  test("an external IP that is a node's address meets node ports", () => {
    const nodePort = service({ name: 'a', type: 'NodePort', ports: [servicePort({ nodePort: 30080 })], clusterIPs: ['10.96.0.1'] });
    const external = service({ name: 'b', externalIPs: ['172.30.0.11'], ports: [servicePort({ port: 30080 })], clusterIPs: ['10.96.0.2'] });
    expect(problemsOf(take([nodePort, external]))).toEqual(['Service default/b: spec.externalIPs[0] 172.30.0.11:30080/TCP conflict']);
  });
});

test('10,000 Services: a change of one slice reads and tells that Service alone', () => {
  let reads = 0;
  const counted = (one: EndpointSlice): EndpointSlice => {
    const { addresses, ...rest } = one;
    return Object.defineProperty(rest, 'addresses', { enumerable: true, get: () => (reads++, addresses) }) as EndpointSlice;
  };
  const model = new Model(FACTS);
  for (let i = 0; i < 10_000; i++) {
    const name = `s${i}`;
    model.apply([put(service({ name, clusterIPs: [`10.96.${i >> 8}.${i & 255}`] })), put(counted(slice([{ address: '10.0.0.1' }], { name, service: name })))]);
  }
  expect(model.takeChanged().services).toHaveLength(10_000);
  reads = 0;
  const delta = after(model, put(counted(slice([{ address: '10.0.0.2' }], { name: 's7', service: 's7' }))));
  expect(keysOf(delta)).toEqual(['default/s7:http/TCP/4']);
  expect(reads).toBeLessThanOrEqual(3); // the count of endpoints, before and after, and the choice
});

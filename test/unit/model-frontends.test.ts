/**
 * kube-proxy's table of frontends, line by line: what a connection meets, by frontend, source, policy and endpoints. From the objects
 * through the model and the planner to what the maps say; that the kernel does so is shown by the tests of packets and sockets.
 */
import { describe, expect, test } from 'vitest';
import type { Caller } from '../../agent/explain/explain.ts';
import { Explainer } from '../../agent/explain/explain.ts';
import type { Address } from '../../agent/model/address.ts';
import { parseCidr } from '../../agent/model/address.ts';
import type { Protocol } from '../../agent/model/desired.ts';
import type { NodeFacts } from '../../agent/model/facts.ts';
import { Model } from '../../agent/model/model.ts';
import { READY, SERVING, TERMINATING } from '../../agent/model/objects.ts';
import type { Service } from '../../agent/model/objects.ts';
import { Planner } from '../../agent/plan/planner.ts';
import { FACTS, put, service, servicePort, slice } from './model-builders.ts';
import type { Row } from './model-builders.ts';
import { Maps } from './plan-maps.ts';

const NODE_IP = '172.30.0.11';
const LB_IP = '203.0.113.1';
const EXTERNAL_IP = '198.51.100.1';
const CLUSTER_IP = '10.96.0.10';
/** "address port" of each kind. */
const AT = { ClusterIP: `${CLUSTER_IP} 80`, ExternalIP: `${EXTERNAL_IP} 80`, LoadBalancer: `${LB_IP} 80`, NodePort: `${NODE_IP} 30080` } as const;
const EXTERNAL = ['ExternalIP', 'LoadBalancer', 'NodePort'] as const;

const packet = (place: Caller['place'], source: string): Caller => ({ place, way: 'packet', source: source as Address });
const SOURCES = {
  outside: packet('outside', '192.0.2.9'),
  'pod elsewhere': packet('outside', '10.244.2.9'),
  'pod here': packet('pod', '10.244.1.9'),
  node: packet('node', NODE_IP),
} as const;
const SOCKETS = {
  'pod here': { place: 'pod', way: 'socket', source: '10.244.1.9' as Address },
  node: { place: 'node', way: 'socket', source: NODE_IP as Address },
} as const satisfies Record<string, Caller>;

const HERE: Row = { address: '10.244.1.1', node: 'node-a' };
const THERE: Row = { address: '10.244.2.2', node: 'node-b' };
const LEAVING = { state: SERVING | TERMINATING };
const RANGES = { by: 'ranges', ranges: [parseCidr('10.244.0.0/16')!] } as const;

/** Reachable every way there is. */
const every = (fields: Partial<Service> = {}): Service =>
  service({
    type: 'LoadBalancer',
    externalIPs: [EXTERNAL_IP],
    loadBalancerIngress: [{ ip: LB_IP, ipMode: 'VIP' }],
    ports: [servicePort({ nodePort: 30080 })],
    ...fields,
  });

/** Asks maps that hold a Service: "here", "there*" (* under an address of this node), "drop". */
function asker(one: Service, rows: readonly Row[], facts: Partial<NodeFacts> = {}): (to: string, from: Caller, protocol?: Protocol) => string {
  const model = new Model({ ...FACTS, nodeAddresses: [NODE_IP as Address], detectLocal: RANGES, ...facts });
  model.apply([put(one), put(slice(rows)), { kind: 'ServiceCIDR', key: 'kubernetes', object: { name: 'kubernetes', cidrs: ['10.96.0.0/16'] } }]);
  const maps = new Maps();
  for (const write of new Planner(maps.snapshot()).planAll(model.takeAll()).writes) maps.execute(write);
  maps.check();
  const explainer = new Explainer(maps.snapshot(), (address) => address === NODE_IP);
  const names: Record<string, string> = { [HERE.address]: 'here', [THERE.address]: 'there' };
  return (to, from, protocol = 'TCP') => {
    const [address = '', port = ''] = to.split(' ');
    const { verdict, targets } = explainer.explain({ address: address as Address, port: Number(port), protocol }, from);
    if (verdict !== 'backend') return verdict;
    return targets.map(({ backend, masquerade }) => `${names[backend.address] ?? backend.address}${masquerade ? '*' : ''}`).join(' ');
  };
}

type Policy = 'Cluster' | 'Local';
/** By source, in the order of SOURCES. */
type Line = [endpoints: string, rows: Row[], policy: Policy, outside: string, podElsewhere: string, podHere: string, node: string];

describe('clusterIP:port, per internalTrafficPolicy; nobody is let off', () => {
  const lines: Line[] = [
    ['no endpoint: REJECT', [], 'Cluster', 'reject', 'reject', 'reject', 'reject'],
    ['no endpoint: REJECT', [], 'Local', 'reject', 'reject', 'reject', 'reject'],
    ['one not ready: REJECT', [{ ...HERE, state: SERVING }], 'Local', 'reject', 'reject', 'reject', 'reject'],
    ['elsewhere', [THERE], 'Cluster', 'there*', 'there*', 'there', 'there*'],
    ['elsewhere: DROP', [THERE], 'Local', 'drop', 'drop', 'drop', 'drop'],
    ['here', [HERE], 'Local', 'here', 'here', 'here', 'here*'],
    ['both', [HERE, THERE], 'Cluster', 'here there*', 'here there*', 'here there', 'here* there*'],
    ['both', [HERE, THERE], 'Local', 'here', 'here', 'here', 'here*'],
    ['ready elsewhere, here one that terminates and serves', [{ ...HERE, ...LEAVING }, THERE], 'Local', 'here', 'here', 'here', 'here*'],
    ['ready elsewhere, here one that terminates and serves', [{ ...HERE, ...LEAVING }, THERE], 'Cluster', 'there*', 'there*', 'there', 'there*'],
    ['only one that terminates and serves, elsewhere: DROP', [{ ...THERE, ...LEAVING }], 'Local', 'drop', 'drop', 'drop', 'drop'],
    ['ready and terminating counts as ready', [{ ...HERE, state: READY | SERVING | TERMINATING }], 'Local', 'here', 'here', 'here', 'here*'],
  ];
  test.each(lines)('%s (%s)', (_, rows, internalTrafficPolicy, ...expected) => {
    // The other policy has no say.
    const ask = asker(every({ internalTrafficPolicy, externalTrafficPolicy: internalTrafficPolicy === 'Local' ? 'Cluster' : 'Local' }), rows);
    expect(Object.values(SOURCES).map((source) => ask(AT.ClusterIP, source))).toEqual(expected);
  });
});

describe.each(EXTERNAL)('%s, per externalTrafficPolicy with the short circuit for pods and the node', (kind) => {
  const lines: Line[] = [
    ['no endpoint: REJECT', [], 'Cluster', 'reject', 'reject', 'reject', 'reject'],
    ['no endpoint: REJECT', [], 'Local', 'reject', 'reject', 'reject', 'reject'],
    ['elsewhere', [THERE], 'Cluster', 'there*', 'there*', 'there', 'there*'],
    ['elsewhere: DROP after the short circuit', [THERE], 'Local', 'drop', 'there*', 'there', 'there*'],
    ['here', [HERE], 'Local', 'here', 'here', 'here', 'here*'],
    ['both', [HERE, THERE], 'Cluster', 'here there*', 'here there*', 'here there', 'here* there*'],
    ['both: the client keeps its source', [HERE, THERE], 'Local', 'here', 'here there*', 'here there', 'here* there*'],
    ['ready elsewhere, here one that terminates and serves', [{ ...HERE, ...LEAVING }, THERE], 'Local', 'here', 'there*', 'there', 'there*'],
    ['only one that terminates and serves, elsewhere', [{ ...THERE, ...LEAVING }], 'Local', 'drop', 'there*', 'there', 'there*'],
  ];
  test.each(lines)('%s (%s)', (_, rows, externalTrafficPolicy, ...expected) => {
    const ask = asker(every({ externalTrafficPolicy, internalTrafficPolicy: externalTrafficPolicy === 'Local' ? 'Cluster' : 'Local' }), rows);
    expect(Object.values(SOURCES).map((source) => ask(AT[kind], source))).toEqual(expected);
  });

  test('sockets: the same set, and their own source', () => {
    const ask = asker(every({ externalTrafficPolicy: 'Local' }), [HERE, THERE]);
    expect(Object.values(SOCKETS).map((socket) => ask(AT[kind], socket))).toEqual(['here there', 'here there']);
  });

  test('without a detector for the family no pod is let off, the node is', () => {
    const ask = asker(every({ externalTrafficPolicy: 'Local' }), [THERE], { detectLocal: { by: 'ranges', ranges: [parseCidr('fd00:244::/48')!] } });
    expect(Object.values(SOURCES).map((source) => ask(AT[kind], source))).toEqual(['drop', 'drop', 'drop', 'there*']);
    expect(ask(AT[kind], SOCKETS['pod here'])).toBe('drop');
  });

  test('detected by device: pods of this node are let off', () => {
    const ask = asker(every({ externalTrafficPolicy: 'Local' }), [THERE], { detectLocal: { by: 'device' } });
    expect(Object.values(SOURCES).map((source) => ask(AT[kind], source))).toEqual(['drop', 'drop', 'there', 'there*']);
  });
});

test('hairpin: a pod that meets itself is masqueraded, at every kind of frontend; beside it nobody is', () => {
  const ask = asker(every(), [HERE, THERE]);
  for (const to of Object.values(AT)) {
    expect(ask(to, packet('pod', HERE.address))).toBe('here* there');
    expect(ask(to, packet('pod', '10.244.1.77'))).toBe('here there');
  }
});

describe('load balancer IPs', () => {
  test.each([
    ['ipMode Proxy', { ip: LB_IP, ipMode: 'Proxy' }],
    ['a hostname only', { ip: '', ipMode: 'VIP' }],
  ])('%s: not programmed, for pods and the node neither', (_, ingress) => {
    const ask = asker(every({ loadBalancerIngress: [ingress] }), [HERE]);
    for (const source of [...Object.values(SOURCES), ...Object.values(SOCKETS)]) expect(ask(AT.LoadBalancer, source)).toBe('pass');
    expect(ask(AT.NodePort, SOURCES.outside)).toBe('here');
  });

  test('source ranges bind them alone, pods and the node too', () => {
    const ask = asker(every({ loadBalancerSourceRanges: ['192.0.2.0/24'] }), [HERE]);
    expect(Object.values(SOURCES).map((source) => ask(AT.LoadBalancer, source))).toEqual(['here', 'drop', 'drop', 'drop']);
    expect(Object.values(SOCKETS).map((source) => ask(AT.LoadBalancer, source))).toEqual(['drop', 'drop']);
    for (const to of [AT.ClusterIP, AT.ExternalIP, AT.NodePort]) expect(ask(to, packet('outside', '198.18.0.1'))).toBe('here');
  });

  test('source ranges come before endpoints: DROP, not REJECT', () => {
    const ask = asker(every({ loadBalancerSourceRanges: ['192.0.2.0/24'] }), []);
    expect(ask(AT.LoadBalancer, SOURCES.outside)).toBe('reject');
    expect(ask(AT.LoadBalancer, SOURCES['pod here'])).toBe('drop');
  });

  test('an external IP of the same IP and port is bound with them', () => {
    const ask = asker(every({ externalIPs: [LB_IP], loadBalancerSourceRanges: ['192.0.2.0/24'] }), [HERE]);
    expect(ask(AT.LoadBalancer, packet('outside', '198.18.0.1'))).toBe('drop');
  });

  test('a range that holds the node lets it in, and what has the load balancer IP as its own', () => {
    const ask = asker(every({ loadBalancerSourceRanges: ['172.30.0.0/16'] }), [HERE]);
    expect(ask(AT.LoadBalancer, SOURCES.node)).toBe('here*');
    expect(ask(AT.LoadBalancer, packet('outside', LB_IP))).toBe('here');
    expect(ask(AT.LoadBalancer, SOURCES.outside)).toBe('drop');
  });

  test('a list of the other family leaves this one open; a /0 opens its family', () => {
    for (const ranges of [['2001:db8::/32'], ['0.0.0.0/0', '2001:db8::/32']])
      expect(asker(every({ loadBalancerSourceRanges: ranges }), [HERE])(AT.LoadBalancer, SOURCES.outside)).toBe('here');
  });
});

describe('node ports', () => {
  const two = { nodePortAddresses: [NODE_IP, '172.31.0.11'] as Address[] };

  test('on each of the addresses that serve them, with the same REJECT and DROP, and on no other', () => {
    const local = { externalTrafficPolicy: 'Local' };
    for (const [rows, expected] of [
      [[HERE], 'here'],
      [[THERE], 'drop'],
      [[], 'reject'],
    ] as const) {
      const ask = asker(every(local), rows, two);
      expect([ask(AT.NodePort, SOURCES.outside), ask('172.31.0.11 30080', SOURCES.outside)]).toEqual([expected, expected]);
      expect(ask('172.32.0.11 30080', SOURCES.outside)).toBe('pass');
    }
  });

  test("on loopback for the node's own sockets alone", () => {
    const ask = asker(every(), [HERE]);
    expect(ask('127.0.0.1 30080', SOCKETS.node)).toBe('here');
    expect(ask('127.0.0.1 30080', SOCKETS['pod here'])).toBe('pass');
    for (const source of Object.values(SOURCES)) expect(ask('127.0.0.1 30080', source)).toBe('pass');
    expect(ask('127.0.0.2 30080', SOCKETS.node)).toBe('pass');
    expect(asker(every(), [HERE], { localhostNodePorts: false })('127.0.0.1 30080', SOCKETS.node)).toBe('pass');
  });

  test('on loopback, too, the short circuit and REJECT', () => {
    expect(asker(every({ externalTrafficPolicy: 'Local' }), [THERE])('127.0.0.1 30080', SOCKETS.node)).toBe('there');
    expect(asker(every(), [])('127.0.0.1 30080', SOCKETS.node)).toBe('reject');
  });
});

describe('what is no frontend', () => {
  const ask = asker(every(), [HERE]);
  const all = [...Object.values(SOURCES), ...Object.values(SOCKETS)];

  test('an unknown port or protocol on an active clusterIP: REJECT from anywhere, with endpoints and without', () => {
    for (const source of all) {
      expect(ask(`${CLUSTER_IP} 81`, source)).toBe('reject');
      expect(ask(AT.ClusterIP, source, 'UDP')).toBe('reject');
      expect(asker(service(), [])(`${CLUSTER_IP} 81`, source)).toBe('reject');
    }
  });

  test('so it is on a clusterIP outside of every ServiceCIDR', () => {
    expect(asker(service({ clusterIPs: ['10.200.0.1'] }), [HERE])('10.200.0.1 81', SOURCES.outside)).toBe('reject');
  });

  test('another address of a ServiceCIDR: DROP; of a Service that is left to others as well', () => {
    for (const source of all) expect(ask('10.96.0.11 80', source)).toBe('drop');
    expect(asker(service({ proxyName: 'other' }), [HERE])(AT.ClusterIP, SOURCES.outside)).toBe('drop');
  });

  test('unknown ports of LB IPs and externalIPs are left alone, unless they are owned', () => {
    const owning = asker(every(), [HERE], { ownLbIps: true });
    for (const source of all)
      for (const ip of [LB_IP, EXTERNAL_IP]) {
        expect(ask(`${ip} 81`, source)).toBe('pass');
        expect(owning(`${ip} 81`, source)).toBe('reject');
      }
  });

  test('other ports of the node are nobody’s business', () => {
    for (const source of all) expect(ask(`${NODE_IP} 22`, source)).toBe('pass');
    // Not even where a Service has the node's address as its own.
    expect(asker(every({ externalIPs: [NODE_IP] }), [HERE], { ownLbIps: true })(`${NODE_IP} 22`, SOURCES.outside)).toBe('pass');
  });
});

describe('AllowServiceExternalIPs is false', () => {
  const off = { allowExternalIPs: false };

  test('none is programmed or owned', () => {
    const ask = asker(every(), [HERE], { ...off, ownLbIps: true });
    for (const to of [AT.ExternalIP, `${EXTERNAL_IP} 81`]) expect(ask(to, SOURCES.outside)).toBe('pass');
    expect(ask(AT.LoadBalancer, SOURCES.outside)).toBe('here');
  });

  test('yet the Service is reachable from outside, as far as its policies go', () => {
    const model = new Model({ ...FACTS, ...off });
    model.apply([put(service({ externalIPs: [EXTERNAL_IP], internalTrafficPolicy: 'Local' })), put(slice([HERE, THERE]))]);
    const [first] = model.takeChanged().services;
    expect([first?.desired?.cluster.length, first?.desired?.local.length]).toEqual([2, 1]);
  });

  test('and another Service may have the address', () => {
    const model = new Model({ ...FACTS, ...off });
    const port = [servicePort()];
    const balanced = service({ name: 'b', created: 2, clusterIPs: ['10.96.0.2'], type: 'LoadBalancer', loadBalancerIngress: [{ ip: LB_IP, ipMode: 'VIP' }] });
    model.apply([put(service({ created: 1, externalIPs: [LB_IP], ports: port })), put(balanced)]);
    expect(model.takeChanged().problems.size).toBe(0);
  });
});

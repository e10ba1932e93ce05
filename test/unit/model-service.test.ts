import { describe, expect, test } from 'vitest';
import { ALGORITHMS } from '../../agent/model/desired.ts';
import type { Service } from '../../agent/model/objects.ts';
import { formatProblem } from '../../agent/model/problem.ts';
import { frontendsOf, only, problemsOf, service, servicePort, take } from './model-builders.ts';

const NODE_PORT = [servicePort({ nodePort: 30080 })];
const dual = { clusterIPs: ['10.96.0.10', 'fd00:96::10'], ipFamilies: ['IPv4', 'IPv6'] };

describe('which Services are served', () => {
  const skipped: [string, Partial<Service>][] = [
    ['ExternalName', { type: 'ExternalName', clusterIPs: [] }],
    ['headless', { clusterIPs: ['None'] }],
    ['no cluster IP yet', { clusterIPs: [''] }],
    ['no cluster IP yet, although it has a nodePort', { type: 'NodePort', clusterIPs: [], ports: NODE_PORT }],
    ['labelled for another proxy', { proxyName: 'other' }],
  ];
  test.each(skipped)('%s: left alone without a word', (_, fields) => {
    expect(take([service(fields)])).toMatchObject({ services: [], problems: new Map() });
  });

  test('one record for each port and family, with the names that last', () => {
    const ports = [servicePort(), servicePort({ name: 'dns', protocol: 'UDP', port: 53 })];
    const keys = take([service({ ...dual, ports })]).services.map((change) => change.key);
    expect(keys).toEqual(['default/web:http/TCP/4', 'default/web:http/TCP/6', 'default/web:dns/UDP/4', 'default/web:dns/UDP/6']);
  });

  test('ipFamilies says which cluster IP is whose; an old Service without it is what its address is', () => {
    expect(take([service({ clusterIPs: ['fd00:96::10'] })]).services[0]?.key).toBe('default/web:http/TCP/6');
    const swapped = take([service({ clusterIPs: ['10.96.0.10'], ipFamilies: ['IPv6'] })]);
    expect(swapped.services).toEqual([]);
    expect(problemsOf(swapped)).toEqual(['Service default/web: spec.clusterIPs[0] 10.96.0.10 invalid_address']);
  });

  test('ipFamilies in the other order, and more families than addresses', () => {
    const swapped = take([service({ clusterIPs: ['fd00:96::10', '10.96.0.10'], ipFamilies: ['IPv6', 'IPv4'] })]);
    expect(swapped.services.map(({ desired }) => desired && frontendsOf(desired))).toEqual([['ClusterIP fd00:96::10 80'], ['ClusterIP 10.96.0.10 80']]);
    expect(take([service({ ipFamilies: ['IPv4', 'IPv6'] })]).services.map((change) => change.key)).toEqual(['default/web:http/TCP/4']);
  });

  test('SCTP is a protocol like the others', () => {
    expect(only([service({ ports: [servicePort({ protocol: 'SCTP' })] })]).key).toBe('default/web:http/SCTP/4');
  });

  test('without endpoints: empty sets and nothing anywhere, so that clients are rejected', () => {
    expect(only([service()])).toMatchObject({ cluster: [], local: [], hasAny: false });
  });
});

describe('frontends', () => {
  const cases: [string, Partial<Service>, string[]][] = [
    ['ClusterIP', {}, ['ClusterIP 10.96.0.10 80']],
    [
      'NodePort: each node port address, and the node itself by loopback',
      { type: 'NodePort', ports: NODE_PORT },
      ['ClusterIP 10.96.0.10 80', 'NodePort 127.0.0.1 30080!', 'NodePort 172.30.0.11 30080'],
    ],
    [
      'external IPs',
      { externalIPs: ['198.51.100.1', '198.51.100.2'] },
      ['ClusterIP 10.96.0.10 80', 'ExternalIP 198.51.100.1 80', 'ExternalIP 198.51.100.2 80'],
    ],
    [
      'LoadBalancer: VIPs alone, neither proxies nor host names',
      {
        type: 'LoadBalancer',
        loadBalancerIngress: [
          { ip: '203.0.113.1', ipMode: 'VIP' },
          { ip: '203.0.113.2', ipMode: 'Proxy' },
          { ip: '', ipMode: 'VIP' },
        ],
      },
      ['ClusterIP 10.96.0.10 80', 'LoadBalancer 203.0.113.1 80'],
    ],
    [
      'one address twice in a Service is one frontend, the load balancer first',
      { externalIPs: ['203.0.113.1'], loadBalancerIngress: [{ ip: '203.0.113.1', ipMode: 'VIP' }] },
      ['ClusterIP 10.96.0.10 80', 'LoadBalancer 203.0.113.1 80'],
    ],
  ];
  test.each(cases)('%s', (_, fields, expected) => {
    const delta = take([service(fields)]);
    expect(delta.services.map(({ desired }) => desired && frontendsOf(desired))).toEqual([expected]);
    expect(problemsOf(delta)).toEqual([]);
  });

  test('each family has its own', () => {
    const { services } = take([service({ ...dual, type: 'NodePort', ports: NODE_PORT, externalIPs: ['2001:db8::1'] })]);
    expect(services.map(({ desired }) => desired && frontendsOf(desired))).toEqual([
      ['ClusterIP 10.96.0.10 80', 'NodePort 127.0.0.1 30080!', 'NodePort 172.30.0.11 30080'],
      ['ExternalIP 2001:db8::1 80', 'NodePort ::1 30080!', 'NodePort fd00:30::11 30080', 'ClusterIP fd00:96::10 80'],
    ]);
  });

  test('no loopback when the node does not want it', () => {
    const desired = only([service({ type: 'NodePort', ports: NODE_PORT })], { localhostNodePorts: false });
    expect(frontendsOf(desired)).toEqual(['ClusterIP 10.96.0.10 80', 'NodePort 172.30.0.11 30080']);
  });

  test('addresses are canonical', () => {
    expect(frontendsOf(only([service({ clusterIPs: ['FD00:0096::0010'] })]))).toEqual(['ClusterIP fd00:96::10 80']);
  });
});

describe('settings', () => {
  test('externalTrafficPolicy is read of what can be reached from outside only', () => {
    const local = { externalTrafficPolicy: 'Local' };
    expect(only([service(local)]).externalLocal).toBe(false);
    expect(only([service({ ...local, externalIPs: ['198.51.100.1'] })]).externalLocal).toBe(true);
    expect(only([service({ ...local, type: 'NodePort' })]).externalLocal).toBe(true);
  });

  test('affinity is of each service port of each family: one record each, shared by all of its frontends', () => {
    const ports = [servicePort({ nodePort: 30080 }), servicePort({ name: 'admin', port: 81 })];
    const { services } = take([service({ ...dual, type: 'NodePort', ports, externalIPs: ['198.51.100.1'], affinitySeconds: 60 })]);
    expect(services.map(({ desired }) => [desired?.key, desired?.affinitySeconds, desired?.frontends.length])).toEqual([
      ['default/web:http/TCP/4', 60, 4],
      ['default/web:http/TCP/6', 60, 3],
      ['default/web:admin/TCP/4', 60, 2],
      ['default/web:admin/TCP/6', 60, 1],
    ]);
    expect(only([service({ affinitySeconds: 86_400 })]).affinitySeconds).toBe(86_400);
  });

  test('internalTrafficPolicy, affinity, algorithm', () => {
    expect(only([service({ internalTrafficPolicy: 'Local', affinitySeconds: 300 })])).toMatchObject({
      internalLocal: true,
      affinitySeconds: 300,
      algorithm: 'random',
    });
    expect(only([service({ annotations: { 'maglane.io/algorithm': 'maglev' } })]).algorithm).toBe('maglev');
    expect(only([service()], { defaultAlgorithm: 'maglev' }).algorithm).toBe('maglev');
    for (const algorithm of ALGORITHMS) expect(only([service({ annotations: { 'maglane.io/algorithm': algorithm } })]).algorithm).toBe(algorithm);
    expect(only([service({ annotations: { 'maglane.io/algorithm': 'random' } })], { defaultAlgorithm: 'maglev' }).algorithm).toBe('random');
  });
});

describe('refused, item by item', () => {
  const addresses: [string, string, string][] = [
    ['nonsense', 'example.org', 'invalid_address'],
    ['a zone', 'fe80::1%eth0', 'invalid_address'],
    ['loopback', '127.0.0.53', 'unsafe_address'],
    ['loopback, mapped', '::ffff:127.0.0.1', 'unsafe_address'],
    ['link-local', '169.254.169.254', 'unsafe_address'],
    ['unspecified', '0.0.0.0', 'unsafe_address'],
    ['multicast', '239.1.2.3', 'unsafe_address'],
    ['IPv6 loopback', '::1', 'unsafe_address'],
    ['IPv6 link-local', 'fe80::1', 'unsafe_address'],
    ['IPv6 link-local, at the far end of fe80::/10', 'febf:ffff::1', 'unsafe_address'],
    ['IPv6 unspecified', '::', 'unsafe_address'],
    ['IPv6 multicast', 'ff02::1', 'unsafe_address'],
    ['a family the Service does not have', '2001:db8::1', 'invalid_address'],
  ];
  test.each(addresses)('external IP and load balancer IP: %s', (_, ip, reason) => {
    const delta = take([service({ externalIPs: [ip, '198.51.100.1'], loadBalancerIngress: [{ ip, ipMode: 'VIP' }] })]);
    expect(delta.services.map(({ desired }) => desired && frontendsOf(desired))).toEqual([['ClusterIP 10.96.0.10 80', 'ExternalIP 198.51.100.1 80']]);
    const fields = [...delta.problems.values()].flat().map((p) => `${p.field} ${p.reason}`);
    expect(fields.sort()).toEqual([`spec.externalIPs[0] ${reason}`, `status.loadBalancer.ingress[0].ip ${reason}`]);
  });

  test.each(['224.0.0.1', '239.255.255.255', '127.255.0.1'])('cluster IP %s', (ip) => {
    expect(problemsOf(take([service({ clusterIPs: [ip] })]))).toEqual([`Service default/web: spec.clusterIPs[0] ${ip} unsafe_address`]);
  });

  test.each(['223.255.255.255', '240.0.0.1', '169.253.0.1', '128.0.0.1', 'fec0::1', 'fe00::1'])("external IP %s is nobody's business", (ip) => {
    expect(problemsOf(take([service({ ...dual, externalIPs: [ip] })]))).toEqual([]);
  });

  test('a bad cluster IP of one family leaves the other', () => {
    const delta = take([service({ ...dual, clusterIPs: ['10.96.0.999', 'fd00:96::10'] })]);
    expect(delta.services.map((change) => change.key)).toEqual(['default/web:http/TCP/6']);
    expect(problemsOf(delta)).toEqual(['Service default/web: spec.clusterIPs[0] 10.96.0.999 invalid_address']);
  });

  test('without any cluster IP left there is one problem, not one for each other address', () => {
    expect(problemsOf(take([service({ clusterIPs: ['bad'], externalIPs: ['198.51.100.1'] })]))).toEqual([
      'Service default/web: spec.clusterIPs[0] bad invalid_address',
    ]);
  });

  test.each([0, 70000, -1, 80.5, Number.NaN])('port %d: that port alone', (port) => {
    const delta = take([service({ ports: [servicePort({ name: 'bad', port }), servicePort()] })]);
    expect(delta.services.map((change) => change.key)).toEqual(['default/web:http/TCP/4']);
    expect(problemsOf(delta)).toEqual([`Service default/web: spec.ports[0].port ${port} invalid_port`]);
  });

  test('a bad nodePort costs the node port', () => {
    const delta = take([service({ type: 'NodePort', ports: [servicePort({ nodePort: 70000 })] })]);
    expect(delta.services.map(({ desired }) => desired && frontendsOf(desired))).toEqual([['ClusterIP 10.96.0.10 80']]);
    expect(problemsOf(delta)).toEqual(['Service default/web: spec.ports[0].nodePort 70000 invalid_port']);
  });

  const single: [string, Partial<Service>, string][] = [
    ['nodePort without the type for it', { ports: NODE_PORT }, 'spec.ports[0].nodePort 30080 invalid_value'],
    ['type', { type: 'nodeport' }, 'spec.type nodeport invalid_value'],
    ['external policy', { externalTrafficPolicy: 'local' }, 'spec.externalTrafficPolicy local invalid_value'],
    ['internal policy', { internalTrafficPolicy: 'Near' }, 'spec.internalTrafficPolicy Near invalid_value'],
    ['algorithm', { annotations: { 'maglane.io/algorithm': 'rr' } }, 'metadata.annotations["maglane.io/algorithm"] rr invalid_value'],
    ['a repeated port name', { ports: [servicePort(), servicePort({ port: 81 })] }, 'spec.ports[1].name http invalid_value'],
    ['a repeated port number', { ports: [servicePort(), servicePort({ name: 'again' })] }, 'spec.clusterIPs[0] 10.96.0.10:80/TCP conflict'],
    ['ipMode', { loadBalancerIngress: [{ ip: '203.0.113.1', ipMode: 'vip' }] }, 'status.loadBalancer.ingress[0].ipMode vip invalid_value'],
    ['family', { clusterIPs: ['10.96.0.10', 'fd00:96::10'], ipFamilies: ['IPv4', 'ipv6'] }, 'spec.ipFamilies[1] ipv6 invalid_value'],
  ];
  test.each(single)('%s: told once, and the default stands', (_, fields, problem) => {
    const delta = take([service(fields)]);
    expect(problemsOf(delta)).toEqual([`Service default/web: ${problem}`]);
    const [first] = delta.services;
    expect(first?.desired).toMatchObject({ internalLocal: false, externalLocal: false, algorithm: 'random' });
    expect(first?.desired && frontendsOf(first.desired)).toEqual(['ClusterIP 10.96.0.10 80']);
  });

  test.each([-1, 86401, 1.5])('affinity of %d seconds becomes the default', (affinitySeconds) => {
    const delta = take([service({ affinitySeconds })]);
    expect(delta.services[0]?.desired?.affinitySeconds).toBe(10800);
    expect(problemsOf(delta)).toEqual([`Service default/web: spec.sessionAffinityConfig.clientIP.timeoutSeconds ${affinitySeconds} invalid_value`]);
  });

  test('an unknown protocol, as one line for people', () => {
    const delta = take([service({ ports: [servicePort({ protocol: 'tcp' })] })]);
    expect(delta.services).toEqual([]);
    expect([...delta.problems.values()].flat().map(formatProblem)).toEqual([
      'Service default/web: spec.ports[0].protocol "tcp" is not a protocol: TCP, UDP or SCTP would be',
    ]);
  });
});

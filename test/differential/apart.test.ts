/** What histories keep out, since kube-proxy's answer is random or late, or it stops answering: held against what docs/differences.md says that we do. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { Address } from '../../agent/model/address.ts';
import { PATIENCE } from '../support/patience.ts';
import type { KubernetesObject } from '../support/controlplane/objects.ts';
import type { Answer } from './answer.ts';
import { formatAnswer } from './answer.ts';
import type { Change } from './history.ts';
import type { Maglane } from './maglane.ts';
import { Rig } from './rig.ts';
import { SETUPS } from './setups.ts';

let rig: Rig;
/** What the test in hand has written. */
let written: Change[] = [];

beforeAll(async () => {
  rig = await Rig.start(SETUPS[0]!);
});

afterEach(async () => {
  await rig.write(
    written.map(({ kind, name }) => ({ kind, name, object: undefined })),
    1,
  );
  written = [];
  // Whatever stood in its way is gone.
  await rig.inStep();
});

afterAll(async () => rig?.[Symbol.asyncDispose]());

async function write(...objects: KubernetesObject[]): Promise<Maglane> {
  const changes = objects.map((object) => ({ kind: object.kind as Change['kind'], name: object.metadata.name, object }));
  written.push(...changes);
  for (const refused of await rig.write(changes, 1)) throw new Error(refused);
  return rig.maglaneInStep();
}

const service = (name: string, ip: string, spec: object = {}, status?: object): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name },
  spec: { clusterIP: ip, clusterIPs: [ip], ports: [{ name: 'http', protocol: 'TCP', port: 80 }], ...spec },
  ...(status === undefined ? {} : { status }),
});

const slice = (name: string, service: string, endpoints: readonly object[], port = 8080): KubernetesObject => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name, labels: { 'kubernetes.io/service-name': service } },
  addressType: 'IPv4',
  ports: [{ name: 'http', protocol: 'TCP', port }],
  endpoints,
});

const ask = (maglane: Maglane, address: string): Answer =>
  maglane.ask({ address: address as Address, port: 80, protocol: 'TCP', source: { name: 'outside', address: '198.18.0.9' as Address } });

const [ONE, TWO] = ['10.244.1.10', '10.244.1.11'].map((address) => ({ addresses: [address], nodeName: 'here' })) as [object, object];

test('An endpoint port out of range is refused alone', async () => {
  const maglane = await write(service('bad', '10.96.1.1'), slice('bad-0', 'bad', [ONE], 70_000), slice('bad-1', 'bad', [TWO]));
  expect(formatAnswer(ask(maglane, '10.96.1.1'))).toBe('dnat 10.244.1.11:8080');
  expect(rig.log.join('\n')).toMatch(/EndpointSlice region-1\/bad-0: ports\[0\]\.port "70000" is not a port/);
  const later = await write(service('later', '10.96.1.2'), slice('later-0', 'later', [ONE]));
  expect(formatAnswer(ask(later, '10.96.1.2'))).toBe('dnat 10.244.1.10:8080');
});

test('A long name does no harm', async () => {
  const ports = [{ name: `p${'x'.repeat(62)}`, protocol: 'TCP', port: 80 }];
  const maglane = await write(service(`s${'x'.repeat(62)}`, '10.96.1.1', { ports }));
  expect(formatAnswer(ask(maglane, '10.96.1.1'))).toBe('reject');
});

test('Of two Services with one address and port the older one has it', async () => {
  const shared = { externalIPs: ['198.51.100.1'] };
  await write(service('z-older', '10.96.1.1', shared), slice('older-0', 'z-older', [ONE]));
  // Ages are told by the second.
  await new Promise((resolve) => setTimeout(resolve, 1_100));
  const maglane = await write(service('a-younger', '10.96.1.2', shared), slice('younger-0', 'a-younger', [TWO]));
  expect(formatAnswer(ask(maglane, '198.51.100.1'))).toBe('dnat 10.244.1.10:8080');
  expect(formatAnswer(ask(maglane, '10.96.1.2'))).toBe('dnat 10.244.1.11:8080');
  await rig.write([{ kind: 'Service', name: 'z-older', object: undefined }], 1);
  expect(formatAnswer(ask(await rig.maglaneInStep(), '198.51.100.1'))).toBe('dnat 10.244.1.11:8080');
});

test('Slices that disagree about an endpoint are read in the order of their names', async () => {
  const both = [
    { ...ONE, conditions: { ready: false } },
    { ...ONE, conditions: { ready: true } },
  ];
  const maglane = await write(service('torn', '10.96.1.1'), slice('torn-1', 'torn', [both[1]!]), slice('torn-0', 'torn', [both[0]!]));
  expect(formatAnswer(ask(maglane, '10.96.1.1'))).toBe('dnat 10.244.1.10:8080');
  const other = await write(slice('torn-1', 'torn', [both[0]!]), slice('torn-0', 'torn', [both[1]!]));
  expect(formatAnswer(ask(other, '10.96.1.1'))).toBe('reject');
});

test('A multicast endpoint is refused alone, as a load balancer IP that is loopback is', async () => {
  const balancer = service('unsafe', '10.96.1.1', { type: 'LoadBalancer' }, { loadBalancer: { ingress: [{ ip: '127.0.0.5' }, { ip: '203.0.113.1' }] } });
  const maglane = await write(balancer, slice('unsafe-0', 'unsafe', [{ addresses: ['224.0.1.1'] }, ONE]));
  for (const ip of ['10.96.1.1', '203.0.113.1']) expect(formatAnswer(ask(maglane, ip))).toBe('dnat 10.244.1.10:8080');
  expect(formatAnswer(ask(maglane, '127.0.0.5'))).toBe('nothing');
  expect(rig.log.join('\n')).toMatch(/Service region-1\/unsafe: status.loadBalancer.ingress\[0\].ip "127.0.0.5" is loopback/);
});

test('ServiceCIDRs count at once', async () => {
  const cidr = '/apis/networking.k8s.io/v1/servicecidrs';
  await rig.api.create(cidr, { metadata: { name: 'later' }, spec: { cidrs: ['10.97.0.0/24'] } });
  try {
    await expect.poll(async () => formatAnswer(ask(await rig.maglaneInStep(), '10.97.0.9')), { timeout: 5_000 * PATIENCE }).toBe('drop');
  } finally {
    await rig.api.delete(`${cidr}/later`);
  }
});

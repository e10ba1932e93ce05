/** Traffic policy Local for processes of the node and of its pods: kube-proxy's short circuit, which needs to know what a pod is. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import type { Answer } from '../support/lab/protocol.ts';
import { addressesOf, Cluster } from './e2e-cluster.ts';
import type { ServiceInit } from './e2e-cluster.ts';

const NODE_PORT = 30_090;
/** Pods can be told by their IPv4 addresses; nobody said what their IPv6 addresses are. */
const FAMILIES = [
  { name: 'IPv4, where pods are known', family: 0, knownPods: true },
  { name: 'IPv6, where they are not', family: 1, knownPods: false },
] as const;
const INIT = {
  ips: ['10.96.0.30', 'fd00:96::30'],
  tcp: 80,
  udp: 53,
  nodePort: NODE_PORT,
  ingress: ['203.0.113.30', 'fd20::30'],
} as const;

let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start({ args: ['--cluster-cidr', '10.244.0.0/16'] });
});
afterAll(() => cluster?.destroy());

async function given(pods: readonly string[], spec: ServiceInit['spec'] = {}): Promise<void> {
  await cluster.apply('web', { ...INIT, endpoints: addressesOf(...pods.map((name) => cluster.pod(name))), spec });
  onTestFinished(() => cluster.remove('web'));
}

/** Who answers, over TCP and UDP, connected or not; or the errnos that come instead. */
async function ask(client: Host, host: string, tcp: number, udp: number): Promise<string[]> {
  const answers: Answer[] = [
    ...(await client.connect(host, tcp, { count: 30 })),
    ...(await client.send(host, udp, { count: 30 })),
    ...(await client.send(host, udp, { count: 30, connected: true })),
  ];
  return [...new Set(answers.map(({ server, error }) => error ?? server))].sort();
}

describe.each(FAMILIES)('$name', ({ family, knownPods }) => {
  const dialled = (): (readonly [string, number, number])[] => [
    [cluster.nodeA.addresses[family]!, NODE_PORT, NODE_PORT],
    [INIT.ingress[family], 80, 53],
  ];

  test('externalTrafficPolicy Local binds neither the node nor a known pod', async () => {
    await given(['a2', 'b1'], { externalTrafficPolicy: 'Local' });
    for (const [host, tcp, udp] of dialled()) {
      expect(await ask(cluster.nodeA, host, tcp, udp), host).toEqual(['a2', 'b1']);
      expect(await ask(cluster.pod('a1'), host, tcp, udp), host).toEqual(knownPods ? ['a2', 'b1'] : ['a2']);
    }
    expect(await ask(cluster.pod('a1'), INIT.ips[family], 80, 53)).toEqual(['a2', 'b1']);
  });

  test('without an endpoint here, who is bound by it is refused', async () => {
    await given(['b1'], { externalTrafficPolicy: 'Local' });
    for (const [host, tcp, udp] of dialled()) {
      expect(await ask(cluster.nodeA, host, tcp, udp), host).toEqual(['b1']);
      expect(await ask(cluster.pod('a1'), host, tcp, udp), host).toEqual(knownPods ? ['b1'] : ['ECONNREFUSED']);
    }
  });

  test('internalTrafficPolicy Local binds all, on the cluster IP alone', async () => {
    await given(['a2', 'b1'], { internalTrafficPolicy: 'Local' });
    for (const client of [cluster.nodeA, cluster.pod('a1')]) {
      expect(await ask(client, INIT.ips[family], 80, 53), client.name).toEqual(['a2']);
      for (const [host, tcp, udp] of dialled()) expect(await ask(client, host, tcp, udp), client.name).toEqual(['a2', 'b1']);
    }
    await cluster.apply('web', { ...INIT, endpoints: addressesOf(cluster.pod('b1')), spec: { internalTrafficPolicy: 'Local' } });
    for (const client of [cluster.nodeA, cluster.pod('a1')]) expect(await ask(client, INIT.ips[family], 80, 53), client.name).toEqual(['ECONNREFUSED']);
  });
});

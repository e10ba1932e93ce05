/** What an agent tells the world about itself and about Services: health pages, health check node ports, metrics, events. */
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { node as nodeObject, service } from '../support/controlplane/objects.ts';
import type { LabNode } from '../support/lab/node.ts';
import { podCidrs } from '../support/lab/topology.ts';
import { Cluster, soon } from './cluster.ts';

const PORTS = [{ name: 'http', containerPort: 8080 }];
const LABELS = { app: 'web' };

let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start();
  await cluster.addPod({ name: 'web-1', node: 'node-a', number: 11, labels: LABELS, ports: PORTS });
});
afterAll(async () => cluster?.[Symbol.asyncDispose]());

interface SeenEvent {
  readonly regarding: { readonly kind: string; readonly name: string };
  readonly reason: string;
  readonly type: string;
  readonly note: string;
  readonly reportingController: string;
  readonly reportingInstance: string;
}

/** Those of ours: the API server's own controllers tell events of Services, too. */
async function events(kind: string, name: string): Promise<SeenEvent[]> {
  const { items } = JSON.parse(await cluster.plane.kubectl(['get', 'events.events.k8s.io', '-A', '-o', 'json'])) as { items: SeenEvent[] };
  return items.filter(({ regarding, reportingController }) => reportingController === 'maglane' && regarding.kind === kind && regarding.name === name);
}

async function read(node: LabNode, path: string): Promise<{ status: number; json: Record<string, unknown> }> {
  const { status, body } = await node.get(`http://127.0.0.1:10256${path}`);
  return { status, json: JSON.parse(body) as Record<string, unknown> };
}

describe('the health of a node', () => {
  test('ends for load balancers when the cluster autoscaler will delete it, and comes back', async () => {
    const { nodeA, nodeB } = cluster;
    expect(await read(nodeA, '/healthz')).toMatchObject({ status: 200, json: { nodeEligible: true, healthy: true, status: { IPv4: { healthy: true } } } });
    await cluster.plane.kubectl(['taint', 'node', 'node-a', 'ToBeDeletedByClusterAutoscaler=1:NoSchedule']);
    await soon(async () => expect(await read(nodeA, '/healthz')).toMatchObject({ status: 503, json: { nodeEligible: false, healthy: true } }));
    expect(await read(nodeA, '/livez')).toMatchObject({ status: 200, json: { healthy: true } });
    expect((await read(nodeB, '/healthz')).status).toBe(200);
    await cluster.plane.kubectl(['taint', 'node', 'node-a', 'ToBeDeletedByClusterAutoscaler-']);
    await soon(async () => expect((await read(nodeA, '/healthz')).status).toBe(200));
  });

  test('is by the Node as last seen, when that is deleted', async () => {
    const { nodeB } = cluster;
    onTestFinished(() => cluster.plane.apply(nodeObject(nodeB.name, nodeB.addresses, podCidrs(2))));
    await cluster.plane.kubectl(['delete', 'node', 'node-b']);
    await soon(async () => expect(cluster.agents[1]?.log.join('\n')).toContain('the Node object is deleted'));
    expect((await read(nodeB, '/healthz')).status).toBe(200);
  });
});

describe('a healthCheckNodePort', () => {
  const DUAL = { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv4', 'IPv6'] };
  const balanced = (name: string, port: number, more: object = {}) =>
    service(name, {
      type: 'LoadBalancer',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: port,
      selector: { app: 'balanced' },
      ports: [{ name: 'http', port: 80, targetPort: 'http' }],
      ...more,
    });

  /** What a load balancer outside is told, by each address of a node: status, local endpoints. */
  async function told(node: LabNode, port: number): Promise<(number | string)[][]> {
    return Promise.all(
      node.addresses.map(async (address) => {
        const host = address.includes(':') ? `[${address}]` : address;
        const answer = await cluster.lab.client.get(`http://${host}:${port}/`).catch((error: unknown) => String(error));
        return typeof answer === 'string' ? ['no answer'] : [answer.status, (JSON.parse(answer.body) as { localEndpoints: number }).localEndpoints];
      }),
    );
  }
  const tells = (node: LabNode, port: number, expected: (number | string)[][]) => soon(async () => expect(await told(node, port), node.name).toEqual(expected));

  test('tells load balancers which nodes have endpoints, of both families, as these come and go', async () => {
    const { nodeA, nodeB } = cluster;
    await cluster.addPod({ name: 'b-1', node: 'node-a', number: 21, labels: { app: 'balanced' }, ports: PORTS });
    await cluster.plane.apply(balanced('balanced', 32_100, DUAL));
    const [one, none] = [
      [200, 1],
      [503, 0],
    ];
    await tells(nodeA, 32_100, [one, one]);
    await tells(nodeB, 32_100, [none, none]);
    await cluster.addPod({ name: 'b-2', node: 'node-b', number: 22, labels: { app: 'balanced' }, ports: PORTS });
    await tells(nodeB, 32_100, [one, one]);
    await cluster.removePod('b-2');
    await tells(nodeB, 32_100, [none, none]);
    await cluster.plane.apply(balanced('balanced', 0, { ...DUAL, externalTrafficPolicy: 'Cluster', healthCheckNodePort: undefined }));
    await tells(nodeA, 32_100, [['no answer'], ['no answer']]);
    await cluster.plane.delete('service/balanced');
  });

  test('of an IPv4 Service answers on the IPv6 address of a node, too', async () => {
    await cluster.plane.apply(balanced('single', 32_101));
    onTestFinished(() => cluster.plane.delete('service/single'));
    await tells(cluster.nodeA, 32_101, [
      [200, 1],
      [200, 1],
    ]);
  });

  test('that is taken is an event on the Service', async () => {
    const { nodeA } = cluster;
    await nodeA.serve({ tcp: [32_102], address: '172.30.0.11' });
    await cluster.plane.apply(balanced('taken', 32_102));
    onTestFinished(() => cluster.plane.delete('service/taken'));
    await soon(async () => {
      const failed = { reason: 'FailedToStartServiceHealthcheck', type: 'Warning', note: expect.stringContaining('node node-a: Service default/taken') };
      expect(await events('Service', 'taken')).toMatchObject([failed]);
    });
    await tells(cluster.nodeB, 32_102, [
      [503, 0],
      [503, 0],
    ]);
  });
});

describe('events', () => {
  test('a node that starts is one on the Node, as `kubectl describe node` shows', async () => {
    await soon(async () => {
      const found = await events('Node', 'node-a');
      expect(found).toMatchObject([{ reason: 'Starting', type: 'Normal', reportingController: 'maglane', reportingInstance: 'node-a' }]);
    });
    expect(await cluster.plane.kubectl(['describe', 'node', 'node-a'])).toMatch(/Normal +Starting .* maglane/);
  });

  test('what is refused is one on its Service, told by whichever node was first', async () => {
    const ports = [{ name: 'http', port: 80, targetPort: 'http' }];
    const externalIPs = ['198.51.100.20'];
    await cluster.plane.apply(service('first', { selector: LABELS, externalIPs, ports }));
    await cluster.plane.apply(service('second', { selector: LABELS, externalIPs, ports }));
    const refused = { reason: 'FrontendConflict', type: 'Warning', note: expect.stringContaining('belongs to Service default/first') };
    await soon(async () => expect(await events('Service', 'second')).toMatchObject([refused]));
    // Both nodes have refused it, and both have asked for its event.
    for (const node of cluster.lab.nodes) {
      await soon(async () => {
        const { body } = await node.get('http://127.0.0.1:10249/metrics');
        expect(body).toMatch(/maglane_problems\{reason="conflict"\} 1\n/);
      });
    }
    await soon(async () => {
      const bodies = await Promise.all(cluster.lab.nodes.map(async (node) => (await node.get('http://127.0.0.1:10249/metrics')).body));
      // "Starting" of each, and the conflict: sent by one, known to the other.
      expect(bodies.map((body) => /maglane_events_total\{result="known"\} (\d+)/.exec(body)?.[1] ?? '0').sort()).toEqual(['0', '1']);
    });
    expect(await events('Service', 'second')).toHaveLength(1);
    expect(await events('Service', 'first')).toEqual([]);
    expect(await cluster.plane.kubectl(['describe', 'service', 'second'])).toMatch(/Warning +FrontendConflict/);
  });
});

test('programming latency is told of slices that the endpointslice controller has stamped', async () => {
  await cluster.plane.apply(service('stamped', { selector: LABELS, ports: [{ name: 'http', port: 80, targetPort: 'http' }] }));
  await cluster.addPod({ name: 'web-2', node: 'node-b', number: 12, labels: LABELS, ports: PORTS });
  for (const node of cluster.lab.nodes) {
    await soon(async () => {
      const { body } = await node.get('http://127.0.0.1:10249/metrics');
      const count = (le: string): number =>
        Number(new RegExp(`kubeproxy_network_programming_duration_seconds_bucket\\{ip_family="IPv4",le="${RegExp.escape(le)}"\\} (\\d+)`).exec(body)?.[1] ?? 0);
      expect(count('+Inf')).toBeGreaterThan(0);
      // The stamp is in whole seconds.
      expect(count('10')).toBe(count('+Inf'));
    });
  }
});

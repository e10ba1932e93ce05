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

async function events(kind: string, name: string): Promise<SeenEvent[]> {
  const { items } = JSON.parse(await cluster.plane.kubectl(['get', 'events.events.k8s.io', '-A', '-o', 'json'])) as { items: SeenEvent[] };
  return items.filter(({ regarding }) => regarding.kind === kind && regarding.name === name);
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

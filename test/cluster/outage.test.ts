/** The API server goes away and comes back having forgotten its history: nothing that works stops working. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { service } from '../support/controlplane/objects.ts';
import { PATIENCE } from '../support/patience.ts';
import { Cluster, soon, whoAnswers } from './cluster.ts';

const VIP = '10.96.3.1';
const PORTS = [{ name: 'http', containerPort: 8080 }];
const LABELS = { app: 'web' };

let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start();
  await cluster.addPod({ name: 'web-1', node: 'node-a', number: 11, labels: LABELS, ports: PORTS });
  await cluster.addPod({ name: 'web-2', node: 'node-b', number: 12, labels: LABELS, ports: PORTS });
  await cluster.plane.apply(service('web', { selector: LABELS, clusterIP: VIP, ports: [{ port: 80, targetPort: 'http' }] }));
  for (const node of cluster.lab.nodes) await soon(async () => expect(await whoAnswers(node, 'tcp', VIP, 80)).toEqual(['web-1', 'web-2']));
});

afterAll(async () => cluster?.[Symbol.asyncDispose]());

/** What an agent has programmed, without what traffic changes. */
async function programmed(): Promise<string[]> {
  return Promise.all(cluster.lab.nodes.map(async (node) => (await node.maglane(['services', '-o', 'json'])).stdout.replaceAll(/"connections": *\d+/g, '')));
}

test('an outage with compaction in between: no connection fails, nothing is removed, the next change is seen at once', async () => {
  const before = await programmed();
  const traffic = await Promise.all(cluster.lab.nodes.map((node) => node.traffic(VIP, 80, 50)));

  await cluster.plane.stopApiServer();
  // Both must have noticed, or they would not have to do anything about it.
  for (const agent of cluster.agents) await soon(async () => expect(agent.log.join('\n')).toMatch(/connection to the API server/));
  await cluster.plane.compact();
  expect(await programmed()).toEqual(before);

  await cluster.plane.startApiServer();
  const returned = Date.now();
  expect(await programmed()).toEqual(before);
  // Its slice is written by hand: how soon the controllers come back is not the agent's affair.
  await cluster.plane.apply(service('late', { clusterIP: '10.96.3.2', ports: [{ port: 80, targetPort: 8080 }] }), {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'late-1', namespace: 'default', labels: { 'kubernetes.io/service-name': 'late' } },
    addressType: 'IPv4',
    ports: [{ port: 8080 }],
    endpoints: [{ addresses: ['10.244.2.12'] }],
  });
  for (const node of cluster.lab.nodes) await soon(async () => expect(await whoAnswers(node, 'tcp', '10.96.3.2', 80, 1)).toEqual(['web-2']));
  expect(Date.now() - returned, 'ms from the return of the API server to the new Service').toBeLessThan(2_000 * PATIENCE);
  // 410 Gone: they had to list again.
  for (const agent of cluster.agents) expect(agent.log.join('\n')).toMatch(/Services listed anew/);

  for (const { stop } of traffic) {
    const { errors, servers } = await stop();
    expect(errors).toEqual({});
    expect(Object.keys(servers).sort()).toEqual(['web-1', 'web-2']);
  }
});

test('what changed meanwhile is made up for', async () => {
  await cluster.plane.stopApiServer();
  await cluster.plane.compact();
  await cluster.plane.startApiServer();
  await cluster.removePod('web-1');
  for (const node of cluster.lab.nodes) await soon(async () => expect(await whoAnswers(node, 'tcp', VIP, 80)).toEqual(['web-2']));
});

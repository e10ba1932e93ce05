/** The API server goes away and comes back, having forgotten its history or not: nothing that works stops working, and what is new is seen at once. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Api } from '../support/controlplane/api.ts';
import type { KubernetesObject } from '../support/controlplane/objects.ts';
import { service } from '../support/controlplane/objects.ts';
import { PATIENCE } from '../support/patience.ts';
import { Cluster, soon, whoAnswers } from './cluster.ts';

const VIP = '10.96.3.1';
const PORTS = [{ name: 'http', containerPort: 8080 }];
const LABELS = { app: 'web' };
/** Long enough that every delay that grows has grown: kube-proxy takes another 40 s after it. */
const OUTAGE_MS = 20_000;
/** From the return of the API server until the change is in force on every node. */
const PROMISED_MS = 2_000 * PATIENCE;

let cluster: Cluster;
let api: Api;

beforeAll(async () => {
  cluster = await Cluster.start();
  api = await Api.start(cluster.plane, cluster.lab.control);
  await cluster.addPod({ name: 'web-1', node: 'node-a', number: 11, labels: LABELS, ports: PORTS });
  await cluster.addPod({ name: 'web-2', node: 'node-b', number: 12, labels: LABELS, ports: PORTS });
  await cluster.plane.apply(service('web', { selector: LABELS, clusterIP: VIP, ports: [{ port: 80, targetPort: 'http' }] }));
  for (const node of cluster.lab.nodes) await soon(async () => expect(await whoAnswers(node, 'tcp', VIP, 80)).toEqual(['web-1', 'web-2']));
});

afterAll(async () => {
  await api?.stop();
  await cluster?.[Symbol.asyncDispose]();
});

/** What an agent has programmed, without what traffic changes. */
async function programmed(): Promise<string[]> {
  return Promise.all(cluster.lab.nodes.map(async (node) => (await node.maglane(['services', '-o', 'json'])).stdout.replaceAll(/"connections": *\d+/g, '')));
}

/** A Service of web-2, its slice written by hand: how soon the controllers come back is not the agent's affair. */
async function create(name: string, clusterIP: string): Promise<void> {
  const slice: KubernetesObject = {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: `${name}-1`, labels: { 'kubernetes.io/service-name': name } },
    addressType: 'IPv4',
    ports: [{ port: 8080 }],
    endpoints: [{ addresses: ['10.244.2.12'] }],
  };
  await api.create('/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', slice);
  await api.create('/api/v1/namespaces/default/services', service(name, { clusterIP, ports: [{ port: 80, targetPort: 8080 }] }));
}

async function remove(name: string): Promise<void> {
  await api.delete(`/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/${name}-1`);
  await api.delete(`/api/v1/namespaces/default/services/${name}`);
}

/** Both nodes reach web-2 by `vip`, and did so before the promised time since `returned` had passed. */
async function expectSoonAfter(returned: number, vip: string): Promise<void> {
  const taken = await Promise.all(
    cluster.lab.nodes.map(async (node) => {
      // A SYN to an address that is nobody's yet is dropped: who waits for it measures TCP's patience.
      await soon(async () => expect(await node.connect(vip, 80, { timeoutMs: 100 * PATIENCE })).toMatchObject([{ server: 'web-2' }]));
      return performance.now() - returned;
    }),
  );
  for (const ms of taken) expect(ms, 'ms from the return of the API server to the new Service').toBeLessThan(PROMISED_MS);
}

/** Lines that the agents have logged by now, so that later ones can be told apart. */
const logged = (): number[] => cluster.agents.map(({ log }) => log.length);

/** Every agent has said something that matches since. */
async function expectLogged(since: readonly number[], line: RegExp): Promise<void> {
  for (const [n, agent] of cluster.agents.entries()) await soon(async () => expect(agent.log.slice(since[n]).join('\n')).toMatch(line));
}

test('20 s without an API server, and compaction meanwhile: no connection fails, nothing is removed, the next change is seen within 2 s of its return', async () => {
  const before = await programmed();
  const since = logged();
  const traffic = await Promise.all(cluster.lab.nodes.map((node) => node.traffic(VIP, 80, 50)));

  await cluster.plane.stopApiServer();
  await expectLogged(since, /connection to the API server/);
  await cluster.plane.compact();
  await sleep(OUTAGE_MS);
  expect(await programmed()).toEqual(before);

  await cluster.plane.startApiServer();
  const returned = performance.now();
  await create('late', '10.96.3.2');
  await expectSoonAfter(returned, '10.96.3.2');
  // 410 Gone: they had to list again.
  await expectLogged(since, /Services listed anew/);

  for (const { stop } of traffic) {
    const { errors, servers } = await stop();
    expect(errors).toEqual({});
    expect(Object.keys(servers).sort()).toEqual(['web-1', 'web-2']);
  }
});

test('20 s in which packets to the API server vanish: what changed meanwhile is seen within 2 s of their return, for all that compaction forgot', async () => {
  await create('early', '10.96.3.3');
  await expectSoonAfter(performance.now(), '10.96.3.3');
  const before = await programmed();
  const since = logged();
  const drop = 'table inet outage { chain input { type filter hook input priority 0; iifname "eth0" tcp dport 6443 drop; }; }';
  expect(await cluster.lab.control.run(['nft', drop])).toMatchObject({ status: 0 });
  await sleep(OUTAGE_MS);
  await create('meanwhile', '10.96.3.4');
  await remove('early');
  await cluster.plane.compact();
  // Nobody resets a connection: pings had to find out.
  await expectLogged(since, /connection to the API server lost/);
  expect(await programmed()).toEqual(before);

  expect(await cluster.lab.control.run(['nft', 'delete table inet outage'])).toMatchObject({ status: 0 });
  await expectSoonAfter(performance.now(), '10.96.3.4');
  await soon(async () => expect((await programmed()).join()).not.toContain('10.96.3.3'));
});

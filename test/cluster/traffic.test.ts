/** What `kubectl apply` asks for is what connections meet, on both nodes and from outside. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { service } from '../support/controlplane/objects.ts';
import type { Host } from '../support/lab/host.ts';
import type { Way } from './cluster.ts';
import { Cluster, soon, whoAnswers } from './cluster.ts';

const WAYS: readonly Way[] = ['tcp', 'udp', 'udp connected'];
const DUAL = { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv4', 'IPv6'] };

let cluster: Cluster;
/** Who calls: a node with a backend, a node without, and a pod. */
let callers: readonly Host[];

beforeAll(async () => {
  cluster = await Cluster.start();
  const caller = await cluster.lab.addPod('caller', cluster.nodeA, 100);
  callers = [cluster.nodeA, cluster.nodeB, caller];
});

afterAll(async () => cluster?.[Symbol.asyncDispose]());

/** A pod with a named TCP port, a numbered one, and a named UDP port. */
function addPod(name: string, app: string, node: string, number: number): Promise<Host> {
  const ports = [
    { name: 'http', containerPort: 8080 },
    { name: 'admin', containerPort: 9090 },
    { name: 'dns', containerPort: 5353, protocol: 'UDP' },
  ];
  return cluster.addPod({ name, node, number, labels: { app }, ports });
}

/** Every caller meets exactly these on `port` of each address. */
async function all(way: Way, addresses: readonly string[], port: number, expected: readonly string[]): Promise<void> {
  await soon(async () => {
    for (const caller of callers) {
      for (const address of addresses) expect(await whoAnswers(caller, way, address, port), `${caller.name}, ${way} ${address} ${port}`).toEqual(expected);
    }
  });
}

/** The client outside meets exactly these. */
async function outside(way: Way, address: string, port: number, expected: readonly string[]): Promise<void> {
  await soon(async () => expect(await whoAnswers(cluster.lab.client, way, address, port), `${way} ${address} ${port}`).toEqual(expected));
}

/** Nobody answers any more: refused or silent, but no pod. */
async function gone(caller: Host, address: string, port: number): Promise<void> {
  await soon(async () => expect((await whoAnswers(caller, 'tcp', address, port, 4)).join()).toMatch(/^E[A-Z]+(,E[A-Z]+)*$/));
}

describe('a cluster IP, dual stack, with several ports', () => {
  const VIPS = ['10.96.1.1', 'fd00:96::101'];
  const web = (ports: readonly object[]) => service('web', { ...DUAL, selector: { app: 'web' }, clusterIP: VIPS[0], clusterIPs: VIPS, ports });
  const ports = [
    { name: 'http', port: 80, targetPort: 'http' },
    { name: 'admin', port: 81, targetPort: 9090 },
    { name: 'dns', port: 53, protocol: 'UDP', targetPort: 'dns' },
  ];

  test('refuses while there is no pod', async () => {
    await cluster.plane.apply(web(ports));
    await all('tcp', VIPS, 80, ['ECONNREFUSED']);
  });

  test('reaches the pods of both nodes by named and numbered ports, over TCP and UDP', async () => {
    await addPod('web-1', 'web', 'node-a', 11);
    await addPod('web-2', 'web', 'node-b', 12);
    await all('tcp', VIPS, 80, ['web-1', 'web-2']);
    await all('tcp', VIPS, 81, ['web-1', 'web-2']);
    for (const way of WAYS.slice(1)) await all(way, VIPS, 53, ['web-1', 'web-2']);
  });

  test('follows scaling up and down', async () => {
    await addPod('web-3', 'web', 'node-b', 13);
    await all('tcp', VIPS, 80, ['web-1', 'web-2', 'web-3']);
    await cluster.removePod('web-1');
    await all('tcp', VIPS, 80, ['web-2', 'web-3']);
    await all('udp', VIPS, 53, ['web-2', 'web-3']);
  });

  test('leaves out a pod that is not ready', async () => {
    const status = (ready: string): string => JSON.stringify({ status: { conditions: [{ type: 'Ready', status: ready }] } });
    await cluster.plane.kubectl(['patch', 'pod', 'web-2', '--subresource=status', `--patch=${status('False')}`]);
    await all('tcp', VIPS, 80, ['web-3']);
    await cluster.plane.kubectl(['patch', 'pod', 'web-2', '--subresource=status', `--patch=${status('True')}`]);
    await all('tcp', VIPS, 80, ['web-2', 'web-3']);
  });

  test('follows a changed port', async () => {
    await cluster.plane.apply(web([{ name: 'http', port: 8000, targetPort: 'admin' }, ...ports.slice(1)]));
    await all('tcp', VIPS, 8000, ['web-2', 'web-3']);
    for (const caller of callers) await gone(caller, '10.96.1.1', 80);
    await all('tcp', VIPS, 81, ['web-2', 'web-3']);
  });

  test('is gone when deleted', async () => {
    await cluster.plane.delete('service/web');
    for (const caller of callers) for (const vip of VIPS) await gone(caller, vip, 8000);
    await soon(async () => expect((await cluster.nodeA.maglane(['services', '-o', 'json'])).stdout).not.toContain('"web"'));
  });
});

describe('from outside', () => {
  const one = (spec: object) => service('one', { ...DUAL, selector: { app: 'one' }, ...spec });
  const http = { name: 'http', port: 80, targetPort: 'http' };
  const dns = { name: 'dns', port: 53, protocol: 'UDP', targetPort: 'dns' };

  beforeAll(async () => {
    // On node-b alone: whoever knocks at node-a is sent on.
    await addPod('one-1', 'one', 'node-b', 21);
    for (const range of ['203.0.113.0/24', '2001:db8::/32', '198.51.100.0/24']) await cluster.lab.routeThrough(range, cluster.nodeA);
  });

  test('a node port answers on both nodes, TCP and UDP, IPv4 and IPv6', async () => {
    await cluster.plane.apply(
      one({
        type: 'NodePort',
        ports: [
          { ...http, nodePort: 30080 },
          { ...dns, nodePort: 30053 },
        ],
      }),
    );
    for (const node of cluster.lab.nodes) {
      for (const address of node.addresses) {
        await outside('tcp', address, 30080, ['one-1']);
        await outside('udp', address, 30053, ['one-1']);
      }
    }
    await all('tcp', cluster.nodeA.addresses, 30080, ['one-1']);
  });

  test('a load balancer answers once its status says where', async () => {
    const ips = ['203.0.113.10', '2001:db8::10'];
    const spec = {
      type: 'LoadBalancer',
      ports: [
        { ...http, nodePort: 30080 },
        { ...dns, nodePort: 30053 },
      ],
    };
    await cluster.plane.apply({ ...one(spec), status: { loadBalancer: { ingress: ips.map((ip) => ({ ip })) } } });
    for (const ip of ips) {
      await outside('tcp', ip, 80, ['one-1']);
      await outside('udp', ip, 53, ['one-1']);
    }
    await all('tcp', ips, 80, ['one-1']);
    await outside('tcp', '172.30.0.11', 30080, ['one-1']);
  });

  test('back to a cluster IP, node port and load balancer are gone', async () => {
    await cluster.plane.apply({ ...one({ type: 'ClusterIP', ports: [http, dns] }), status: { loadBalancer: { ingress: [] } } });
    await gone(cluster.lab.client, '172.30.0.11', 30080);
    await gone(cluster.lab.client, '203.0.113.10', 80);
    const [vip = ''] = JSON.parse(await cluster.plane.kubectl(['get', 'service', 'one', '-o', 'jsonpath={.spec.clusterIPs}'])) as string[];
    await all('tcp', [vip], 80, ['one-1']);
  });

  test('an external IP answers', async () => {
    await cluster.plane.apply(one({ type: 'ClusterIP', ports: [http, dns], externalIPs: ['198.51.100.7'] }));
    await outside('tcp', '198.51.100.7', 80, ['one-1']);
    await outside('udp', '198.51.100.7', 53, ['one-1']);
    await all('tcp', ['198.51.100.7'], 80, ['one-1']);
  });
});

test.each([
  { family: 'IPv4', vip: '10.96.2.1' },
  { family: 'IPv6', vip: 'fd00:96::201' },
])('a Service of $family alone', async ({ family, vip }) => {
  const name = `only-${family.toLowerCase()}`;
  const spec = { ipFamilyPolicy: 'SingleStack', ipFamilies: [family], clusterIP: vip, selector: { app: 'one' }, ports: [{ port: 80, targetPort: 8080 }] };
  await cluster.plane.apply(service(name, spec));
  await all('tcp', [vip], 80, ['one-1']);
});

test('the API server itself is reached through its own Service', async () => {
  const answer = await cluster.nodeB.run(['sh', '-c', 'openssl s_client -connect 10.96.0.1:443 < /dev/null']);
  expect(answer.stdout).toMatch(/subject=CN ?= ?kube-apiserver/);
});

/** DSR as a user switches it on: agents with --dsr-port, an annotation by kubectl, a label on a Node; the server says whom it sees. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { service } from '../support/controlplane/objects.ts';
import { Cluster, soon } from './cluster.ts';

const NODE_PORT = 30_180;
let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start(['--dsr-port', '6091']);
  await cluster.addPod({ name: 'far', node: 'node-b', number: 20, labels: { app: 'web' }, ports: [{ name: 'http', containerPort: 8080 }] });
});
afterAll(async () => cluster?.[Symbol.asyncDispose]());

/** What the server on node-b says of a client who dials node-a's nodePort, in each family. */
async function seenAre(expected: readonly string[]): Promise<void> {
  await soon(async () => {
    for (const [family, address] of cluster.nodeA.addresses.entries()) {
      const [answer] = await cluster.lab.client.connect(address, NODE_PORT);
      expect(answer, address).toMatchObject({ server: 'far', from: expect.stringContaining(expected[family] ?? '') });
    }
  });
}

const WEB = service('web', {
  type: 'NodePort',
  ipFamilyPolicy: 'RequireDualStack',
  ipFamilies: ['IPv4', 'IPv6'],
  selector: { app: 'web' },
  ports: [{ name: 'http', port: 80, targetPort: 'http', nodePort: NODE_PORT }],
});

test('an annotation lets the backend see the client, and a label on its node takes that back', async () => {
  const [{ client }, { nodeA }] = [cluster.lab, cluster];
  await cluster.plane.apply(WEB);
  await seenAre(nodeA.addresses);
  await cluster.plane.kubectl(['annotate', 'service', 'web', 'maglane.io/forwarding=dsr']);
  await seenAre(client.addresses);
  const held = await client.hold(nodeA.addresses[0] ?? '', NODE_PORT);
  await cluster.plane.kubectl(['label', 'node', 'node-b', 'maglane.io/forwarding=snat']);
  await seenAre(nodeA.addresses);
  // A connection stays with the way that it began with.
  expect(await held.echo()).toBe('ok');
  await held.release();
  await cluster.plane.kubectl(['label', 'node', 'node-b', 'maglane.io/forwarding-']);
  await seenAre(client.addresses);
});

/** What the real kube-proxy leaves behind, in both of its modes, goes without a trace; and nothing else does. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Api } from '../support/controlplane/api.ts';
import { ControlPlane } from '../support/controlplane/control-plane.ts';
import { KubeProxy } from '../support/controlplane/kube-proxy.ts';
import { node, service } from '../support/controlplane/objects.ts';
import { FOREIGN_IPTABLES, FOREIGN_NFT } from '../support/kube-proxy-rules.ts';
import { Lab } from '../support/lab/lab.ts';
import type { LabNode } from '../support/lab/node.ts';
import { run } from '../support/lab/shell.ts';
import { podCidrs } from '../support/lab/topology.ts';
import { soon } from './cluster.ts';

const SERVICES = '/api/v1/namespaces/default/services';
const stack = new AsyncDisposableStack();
let lab: Lab;
let plane: ControlPlane;
let api: Api;

beforeAll(async () => {
  lab = stack.use(await Lab.create());
  plane = stack.use(await ControlPlane.start({ host: lab.control, parent: lab.folder }));
  api = stack.use(await Api.start(plane, lab.control));
  await plane.apply(...lab.nodes.map(({ name, addresses }, n) => node(name, addresses, podCidrs(n + 1))));
  // One with every kind of chain that there is: cluster, local, external, firewall, affinity; and one without endpoints.
  const spec = { type: 'LoadBalancer', externalTrafficPolicy: 'Local', sessionAffinity: 'ClientIP', loadBalancerSourceRanges: ['192.0.2.0/24'] };
  await api.create(SERVICES, service('all', { ...spec, externalIPs: ['203.0.113.9'], clusterIP: '10.96.7.1', ports: [{ port: 80 }] }));
  await api.patch(`${SERVICES}/all/status`, { status: { loadBalancer: { ingress: [{ ip: '203.0.113.10' }] } } });
  await api.create(SERVICES, service('none', { clusterIP: '10.96.7.2', ports: [{ port: 80 }] }));
  await api.create('/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', {
    metadata: { name: 'all-1', labels: { 'kubernetes.io/service-name': 'all' } },
    addressType: 'IPv4',
    ports: [{ port: 8080 }],
    endpoints: [
      { addresses: ['10.244.1.11'], nodeName: 'node-a' },
      { addresses: ['10.244.2.11'], nodeName: 'node-b' },
    ],
  });
});
afterAll(() => stack.disposeAsync());

/**
 * Without what kube-proxy itself would not leave alone: a chain that only looks like one of its services' (it tries to
 * delete it, and writes nothing at all), and a rule of older kubelets (it removes that).
 */
const OTHERS = FOREIGN_IPTABLES.replaceAll(/^.*(KUBE-SVC-MINE|--mark 0x8000).*\n/gm, '');

/** kubelet's: kube-proxy writes the same, and leaves it when it cleans up after itself. */
const KUBELET = `*filter
-A OUTPUT -j KUBE-FIREWALL
COMMIT
`;
const KUBELET_V4 = `*filter
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
COMMIT
`;

const inside = (host: LabNode, command: readonly string[], input = ''): Promise<string> =>
  run(['nsenter', `--net=/run/netns/${host.netns}`, ...command], { input });

/** Every rule, without what it has counted. */
async function rules(host: LabNode): Promise<string> {
  const texts = await Promise.all([inside(host, ['nft', 'list', 'ruleset']), inside(host, ['iptables-save']), inside(host, ['ip6tables-save'])]);
  return texts.join('').replaceAll(/^#.*$|\[\d+:\d+\]|packets \d+ bytes \d+/gm, '');
}

test.each([
  { mode: 'nftables', on: 'node-a', written: ['firewall-', 'external-', 'local-', 'affinity-'], removed: /^removed nftables table ip6 kube-proxy$/m },
  {
    mode: 'iptables',
    on: 'node-b',
    written: ['KUBE-FW-', 'KUBE-EXT-', 'KUBE-SVL-', 'KUBE-SEP-'],
    removed: /^removed chain KUBE-FW-\w{16} of iptables \(nft\) nat$/m,
  },
] as const)('$mode', async ({ mode, on, written, removed }) => {
  const host = lab.node(on);
  await inside(host, ['nft', '-f', '-'], FOREIGN_NFT);
  for (const restore of ['iptables-restore', 'ip6tables-restore']) await inside(host, [restore, '--noflush'], OTHERS + KUBELET);
  await inside(host, ['iptables-restore', '--noflush'], KUBELET_V4);
  const before = await rules(host);

  const proxy = await KubeProxy.start({ plane, host, nodeName: on, mode, clusterCidrs: ['10.244.0.0/16'] });
  try {
    await soon(async () => {
      const now = await rules(host);
      for (const part of written) expect(now).toContain(part);
    });
    expect((await host.maglane(['cleanup', '--kube-proxy'])).stderr).toContain(`kube-proxy runs here, pid ${proxy.pid}`);
  } finally {
    await proxy.stop();
  }

  const done = await host.maglane(['cleanup', '--kube-proxy']);
  expect(done.stderr).toBe('');
  expect(done).toMatchObject({ status: 0, stdout: expect.stringMatching(removed) as unknown });
  expect(await rules(host)).toBe(before);
  expect(await host.maglane(['cleanup', '--kube-proxy'])).toMatchObject({ status: 0, stdout: 'nothing of kube-proxy is here\n' });
});

/** Which addresses of a node serve node ports, beside the real kube-proxy: each on a node of its own, with the same nodePortAddresses. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ControlPlane } from '../support/controlplane/control-plane.ts';
import { KubeProxy } from '../support/controlplane/kube-proxy.ts';
import { node, service } from '../support/controlplane/objects.ts';
import { Lab } from '../support/lab/lab.ts';
import type { LabNode } from '../support/lab/node.ts';
import { podCidrs } from '../support/lab/topology.ts';
import { soon } from './cluster.ts';

const stack = new AsyncDisposableStack();
let plane: ControlPlane;
let ours: LabNode;
let theirs: LabNode;

beforeAll(async () => {
  const lab = stack.use(await Lab.create());
  plane = stack.use(await ControlPlane.start({ host: lab.control, parent: lab.folder }));
  [ours, theirs] = [lab.node('node-a'), lab.node('node-b')];
  await plane.apply(...lab.nodes.map(({ name, addresses }, n) => node(name, addresses, podCidrs(n + 1))));
  const dual = { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv4', 'IPv6'] };
  await plane.apply(service('ported', { type: 'NodePort', ports: [{ port: 80, nodePort: 30_080 }], ...dual }));
});
afterAll(() => stack.disposeAsync());

/** All that interfaces of a node hold, but for loopback and link-local ones. */
async function allAddresses(host: LabNode): Promise<string[]> {
  const { stdout } = await host.run(['ip', '-json', 'address']);
  const devices = JSON.parse(stdout) as { addr_info: { local: string; scope: string }[] }[];
  return devices.flatMap(({ addr_info: held }) => held.filter(({ scope }) => scope === 'global').map(({ local }) => local));
}

interface NftSet {
  readonly set?: { readonly name: string; readonly elem?: readonly (string | { readonly elem: { readonly val: string } })[] };
}

/** kube-proxy's: without the set it asks the kernel whether an address is local. */
async function theirAddresses(proxy: KubeProxy): Promise<string[]> {
  const families = await Promise.all(
    (['ip', 'ip6'] as const).map(async (family) => {
      const { nftables } = (await proxy.ruleset(family)) as { nftables: NftSet[] };
      const found = nftables.find(({ set }) => set?.name === 'nodeport-ips')?.set;
      if (found === undefined) return (await allAddresses(theirs)).filter((address) => address.includes(':') === (family === 'ip6'));
      return (found.elem ?? []).map((one) => (typeof one === 'string' ? one : one.elem.val));
    }),
  );
  return families.flat();
}

async function ourAddresses(): Promise<string[]> {
  const rows = await ours.inspect<{ frontends: { kind: string; address: string; hostOnly: boolean }[] }[]>('services', 'ported');
  return rows.flatMap(({ frontends }) => frontends.filter(({ kind, hostOnly }) => kind === 'NodePort' && !hostOnly).map(({ address }) => address));
}

/** Named for either node alike: the addresses of node-b end in 12 or have 2 where those of node-a end in 11 or have 1. */
const alike = (addresses: readonly string[]): string[] =>
  addresses.map((address) => address.replace(/\b1([12])$/, '1N').replace(/^(10\.244\.|fd00:244:)[12]\b/, '$1N')).sort();

test.each([
  ['none given: the addresses of the Node', [], ['172.30.0.1N', 'fd00:30::1N']],
  ['a range of IPv4 alone: all of IPv6', ['172.30.0.0/16'], ['172.30.0.1N', 'fd00:244:N::1', 'fd00:30::1N']],
  ['a range that no interface has', ['192.0.2.0/24', '2001:db8::/32'], []],
  ['loopback is left out', ['127.0.0.0/8', '::1/128'], []],
])('%s', async (_, nodePortAddresses, expected) => {
  const kubeProxy = await KubeProxy.start({ plane, host: theirs, nodeName: theirs.name, clusterCidrs: ['10.244.0.0/16'], settings: { nodePortAddresses } });
  const flag = nodePortAddresses.length === 0 ? [] : ['--nodeport-addresses', nodePortAddresses.join(',')];
  const agent = await ours.startAgent({ args: ['--source', 'kubernetes', '--kubeconfig', await plane.agentKubeconfig(), ...flag] });
  try {
    await soon(async () => expect([alike(await ourAddresses()), alike(await theirAddresses(kubeProxy))]).toEqual([expected, expected]));
  } finally {
    await agent.stop();
    await kubeProxy.stop();
    for (const family of ['ip', 'ip6']) await theirs.run(['nft', 'delete', 'table', family, 'kube-proxy']);
  }
});

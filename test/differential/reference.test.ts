/** The oracle against the thing itself: what we read from kube-proxy's ruleset is what connections through kube-proxy meet. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Address } from '../../agent/model/address.ts';
import { parseAddress } from '../../agent/model/address.ts';
import { Api } from '../support/controlplane/api.ts';
import { ControlPlane } from '../support/controlplane/control-plane.ts';
import { KubeProxy } from '../support/controlplane/kube-proxy.ts';
import { node } from '../support/controlplane/objects.ts';
import type { Host } from '../support/lab/host.ts';
import { Lab } from '../support/lab/lab.ts';
import { run } from '../support/lab/shell.ts';
import { podCidrs } from '../support/lab/topology.ts';
import { PATIENCE } from '../support/patience.ts';
import type { Source } from './answer.ts';
import { formatAnswer, NOTHING, sortTargets } from './answer.ts';
import { Reference } from './reference.ts';

const stack = new AsyncDisposableStack();
let lab: Lab;
let api: Api;
let kubeProxy: KubeProxy;

beforeAll(async () => {
  // Routed: on a bridge, a pod that meets itself would need hairpin mode.
  lab = stack.use(await Lab.create({ podAttach: 'ptp' }));
  const plane = stack.use(await ControlPlane.start({ host: lab.control, parent: lab.folder }));
  api = stack.use(await Api.start(plane, lab.control));
  const here = lab.node('node-a');
  await plane.apply(node(here.name, here.addresses, podCidrs(1)));
  await run(here.command(['sh', '-c', 'cd /proc/sys/net && echo 0 > ipv4/icmp_ratelimit && echo 0 > ipv6/icmp/ratelimit']));
  const clusterCidrs = ['10.244.0.0/16', 'fd00:244::/32'];
  kubeProxy = stack.use(await KubeProxy.start({ plane, host: here, nodeName: here.name, clusterCidrs }));
  for (const [name, on, number] of [
    ['here', 'node-a', 11],
    ['there', 'node-b', 11],
    ['caller', 'node-a', 12],
  ] as const) {
    const pod = await lab.addPod(name, lab.node(on), number);
    await pod.serve({ tcp: [8080] });
  }
  for (const cidr of ['10.96.0.0/16', '203.0.113.0/24', 'fd00:96::/112']) await lab.routeThrough(cidr, here);
});

afterAll(() => stack.disposeAsync());

const LOCAL = { externalTrafficPolicy: 'Local' };

/** Each a Service on 10.96.0.<10 + i> and fd00:96::<10 + i>, nodePort 30000 + i, with a load balancer's IP. */
const CASES: readonly { name: string; spec?: object; endpoints: readonly ('here' | 'there')[] }[] = [
  { name: 'cluster', endpoints: ['here', 'there'] },
  { name: 'empty', endpoints: [] },
  { name: 'local', spec: { ...LOCAL, internalTrafficPolicy: 'Local' }, endpoints: ['here', 'there'] },
  { name: 'nobody-here', spec: { ...LOCAL, internalTrafficPolicy: 'Local' }, endpoints: ['there'] },
  { name: 'ranges', spec: { loadBalancerSourceRanges: ['10.244.0.0/16'] }, endpoints: ['here', 'there'] },
  { name: 'sticky', spec: { sessionAffinity: 'ClientIP' }, endpoints: ['here'] },
];

async function write(): Promise<void> {
  for (const [i, { name, spec, endpoints }] of CASES.entries()) {
    const clusterIPs = [`10.96.0.${10 + i}`, `fd00:96::${10 + i}`];
    await api.create('/api/v1/namespaces/default/services', {
      metadata: { name },
      spec: {
        type: 'LoadBalancer',
        ipFamilyPolicy: 'RequireDualStack',
        clusterIP: clusterIPs[0],
        clusterIPs,
        ports: [{ port: 80, nodePort: 30_000 + i }],
        ...spec,
      },
    });
    await api.patch(`/api/v1/namespaces/default/services/${name}/status`, { status: { loadBalancer: { ingress: [{ ip: `203.0.113.${10 + i}` }] } } });
    for (const family of [0, 1]) {
      await api.create('/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', {
        metadata: { name: `${name}-${family}`, labels: { 'kubernetes.io/service-name': name } },
        addressType: ['IPv4', 'IPv6'][family],
        ports: [{ port: 8080 }],
        endpoints: endpoints.map((pod) => ({ addresses: [lab.pod(pod).addresses[family]], nodeName: pod === 'here' ? 'node-a' : 'node-b' })),
      });
    }
  }
}

/** kube-proxy's answer for a caller, in words, as its ruleset says. */
async function told(caller: Host, source: Source['name'], address: Address, port: number): Promise<string> {
  const v6 = address.includes(':');
  const here = new Set(lab.node('node-a').addresses);
  const reference = new Reference(await kubeProxy.ruleset(v6 ? 'ip6' : 'ip'), (own) => here.has(own));
  const from = caller.addresses[v6 ? 1 : 0] as Address;
  const answer = reference.ask({ address, port, protocol: 'TCP', source: { name: source, address: from } });
  return formatAnswer({ ...answer, affinity: 0 });
}

/** What connections meet, in the same words. What kube-proxy leaves alone is not tried. */
async function met(caller: Host, address: Address, port: number): Promise<string> {
  // A rejection over IPv6 may reach a socket only when it tries again, after a second.
  const timeoutMs = 2_500 * PATIENCE;
  // One alone first: the kernel sends only so many rejections a second.
  const answers = await caller.connect(address, port, { timeoutMs });
  if (answers[0]?.error === undefined) answers.push(...(await caller.connect(address, port, { count: 15, timeoutMs })));
  const error = answers.find((answer) => answer.error !== undefined)?.error;
  if (error !== undefined) return { ECONNREFUSED: 'reject', ETIMEDOUT: 'drop' }[error] ?? error;
  const own = new Set(caller.addresses);
  const family = address.includes(':') ? 1 : 0;
  const targets = answers.map(({ server, from }) => ({
    address: lab.pod(server).addresses[family] as Address,
    port: 8080,
    masquerade: !own.has(parseAddress(from.replace(/^\[?(.*?)\]?:\d+$/, '$1')) ?? ''),
  }));
  return formatAnswer({ ...NOTHING, verdict: 'dnat', targets: sortTargets(targets) });
}

test('what the ruleset says is what connections meet', { timeout: 120_000 * PATIENCE }, async () => {
  await write();
  await expect.poll(() => told(lab.client, 'outside', `10.96.0.${9 + CASES.length}` as Address, 80), { timeout: 10_000 * PATIENCE }).toMatch(/^dnat/);
  const callers = [
    [lab.client, 'outside'],
    [lab.pod('caller'), 'pod here'],
    // A pod that may meet itself.
    [lab.pod('here'), 'pod here'],
  ] as const;
  for (const [i, { name }] of CASES.entries()) {
    const frontends = [
      [`10.96.0.${10 + i}`, 80],
      [`fd00:96::${10 + i}`, 80],
      [`203.0.113.${10 + i}`, 80],
      ...lab.node('node-a').addresses.map((address) => [address, 30_000 + i] as const),
      [`10.96.0.${10 + i}`, 81],
      [`10.96.0.${100 + i}`, 80],
    ] as const;
    await Promise.all(
      frontends.flatMap(([address, port]) =>
        callers.map(async ([caller, source]) =>
          expect(await met(caller, address as Address, port), `${name}, ${address} ${port} from ${caller.name}`).toBe(
            await told(caller, source, address as Address, port),
          ),
        ),
      ),
    );
  }
});

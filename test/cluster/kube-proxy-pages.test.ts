/** The pages, metrics and events of the agent beside those of the real kube-proxy, on the same cluster: what docs/kube-proxy.md calls the same, is. */
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Api } from '../support/controlplane/api.ts';
import { ControlPlane } from '../support/controlplane/control-plane.ts';
import { KubeProxy } from '../support/controlplane/kube-proxy.ts';
import { node, service } from '../support/controlplane/objects.ts';
import { Lab } from '../support/lab/lab.ts';
import type { LabNode } from '../support/lab/node.ts';
import { podCidrs } from '../support/lab/topology.ts';
import { soon } from './cluster.ts';

const HEALTH_PORT = 32_200;
const stack = new AsyncDisposableStack();
let api: Api;
let ours: LabNode;
let theirs: LabNode;

beforeAll(async () => {
  const lab = stack.use(await Lab.create());
  const plane = stack.use(await ControlPlane.start({ host: lab.control, parent: lab.folder }));
  api = stack.use(await Api.start(plane, lab.control));
  [ours, theirs] = [lab.node('node-a'), lab.node('node-b')];
  await plane.apply(...lab.nodes.map(({ name, addresses }, n) => node(name, addresses, podCidrs(n + 1))));
  const spec = { type: 'LoadBalancer', externalTrafficPolicy: 'Local', healthCheckNodePort: HEALTH_PORT, ports: [{ port: 80 }] };
  await api.create('/api/v1/namespaces/default/services', service('balanced', spec));
  // One ready endpoint on each node, and on each one that is not.
  await api.create('/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', {
    metadata: { name: 'balanced-1', labels: { 'kubernetes.io/service-name': 'balanced' } },
    addressType: 'IPv4',
    ports: [{ port: 8080 }],
    endpoints: lab.nodes.flatMap(({ name }, n) => [
      { addresses: [`10.244.${n + 1}.11`], nodeName: name },
      { addresses: [`10.244.${n + 1}.12`], nodeName: name, conditions: { ready: false } },
    ]),
  });
  const settings = { enableProfiling: true };
  stack.use(await KubeProxy.start({ plane, host: theirs, nodeName: theirs.name, clusterCidrs: ['10.244.0.0/16'], settings }));
  const args = ['--source', 'kubernetes', '--kubeconfig', await plane.agentKubeconfig(), '--cluster-cidr', '10.244.0.0/16', '--profiling', 'true'];
  await ours.startAgent({ args });
});
afterAll(() => stack.disposeAsync());

interface Page {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** A page as a program on the node reads it. */
async function page(host: LabNode, url: string, init: RequestInit = {}): Promise<Page> {
  const script = `const r = await fetch(${JSON.stringify(url)}, ${JSON.stringify(init)});
    console.log(JSON.stringify({ status: r.status, headers: Object.fromEntries(r.headers), body: await r.text() }));`;
  const { stdout, stderr } = await host.run([process.execPath, '--input-type=module', '-e', script]);
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as Page;
}

/** The shape of a value: every text is "text", a time "time". */
function shape(value: unknown): unknown {
  if (typeof value === 'string') return Number.isNaN(Date.parse(value)) ? 'text' : 'time';
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shape(inner)]));
}

const headers = ({ headers: all }: Page): unknown => [all['content-type'], all['x-content-type-options'], all['x-load-balancing-endpoint-weight']];

test.each(['/healthz', '/livez'])('%s: status, headers, and every field', async (path) => {
  await soon(async () => {
    const [mine, other] = await Promise.all([ours, theirs].map((host) => page(host, `http://127.0.0.1:10256${path}`)));
    expect(mine?.status).toBe(200);
    expect([mine?.status, headers(mine!)]).toEqual([other?.status, headers(other!)]);
    expect(shape(JSON.parse(mine!.body))).toEqual(shape(JSON.parse(other!.body)));
  });
});

test('a health check node port: status, headers, and the body to the byte', async () => {
  await soon(async () => {
    const [mine, other] = await Promise.all([ours, theirs].map((host) => page(host, `http://${host.addresses[0]}:${HEALTH_PORT}/any/path?at=all`)));
    expect([mine?.status, headers(mine!), mine?.body]).toEqual([other?.status, headers(other!), other?.body]);
    expect(mine?.status).toBe(200);
  });
});

test('/configz: every field that it has is one of theirs, of the same type', async () => {
  const [mine, other] = await Promise.all(
    [ours, theirs].map(
      async (host) => (JSON.parse((await page(host, 'http://127.0.0.1:10249/configz')).body) as Record<string, object>)['kubeproxy.config.k8s.io'],
    ),
  );
  const types = (value: object, prefix = ''): [string, string][] =>
    Object.entries(value).flatMap(([key, inner]: [string, unknown]) => {
      const isSection = typeof inner === 'object' && inner !== null && !Array.isArray(inner) && key !== 'featureGates';
      return isSection ? types(inner, `${prefix}${key}.`) : [[`${prefix}${key}`, typeof inner] as [string, string]];
    });
  // Left out by them where no gate is set.
  const known = new Map([['featureGates', 'object'], ...types(other!)]);
  for (const [path, type] of types(mine!)) expect([path, known.get(path)]).toEqual([path, type]);
});

test.each(['/healthz', '/proxyMode', '/flagz', '/statusz'])(':10249%s: status and type', async (path) => {
  const [mine, other] = await Promise.all([ours, theirs].map((host) => page(host, `http://127.0.0.1:10249${path}`)));
  expect([mine?.status, mine?.headers['content-type']]).toEqual([other?.status, other?.headers['content-type']]);
  if (path === '/healthz') expect(mine?.body).toBe(other?.body);
});

test('/metrics/slis: the same series, after the same questions', async () => {
  const slis = async (host: LabNode): Promise<unknown> => {
    const [before, , after] = [await series(host), await page(host, 'http://127.0.0.1:10249/healthz'), await series(host)];
    const grown = [...after].filter(([name, value]) => value !== before.get(name)).map(([name]) => name);
    return { names: [...after.keys()].sort(), grown, ping: after.get('kubernetes_healthcheck{name="ping",type="healthz"}') };
  };
  /** Values by names with sorted labels. */
  const series = async (host: LabNode): Promise<Map<string, string>> => {
    const { body } = await page(host, 'http://127.0.0.1:10249/metrics/slis');
    const lines = [...body.matchAll(/^(\w+)(?:\{(.*)\})? (\S+)$/gm)];
    return new Map(lines.map(([, name, labels, value = '']) => [labels === undefined ? `${name}` : `${name}{${labels.split(',').sort().join(',')}}`, value]));
  };
  for (const host of [ours, theirs]) await page(host, 'http://127.0.0.1:10249/healthz');
  expect(await slis(ours)).toEqual(await slis(theirs));
  expect(await slis(ours)).toMatchObject({ ping: '1', grown: ['kubernetes_healthchecks_total{name="ping",status="success",type="healthz"}'] });
});

test.each([
  ['a number', { method: 'PUT', body: '4' }],
  ['no number', { method: 'PUT', body: 'much' }],
  ['a negative number', { method: 'PUT', body: '-1' }],
  ['nothing', { method: 'PUT', body: '' }],
  ['a question', {}],
] as const)('/debug/flags/v, %s: status', async (_, init) => {
  const [mine, other] = await Promise.all([ours, theirs].map((host) => page(host, 'http://127.0.0.1:10249/debug/flags/v', init)));
  expect(mine?.status).toBe(other?.status);
});

test('/debug/pprof/profile: both answer with a profile after the seconds that are asked for', async () => {
  const begun = performance.now();
  const [mine, other] = await Promise.all([ours, theirs].map((host) => page(host, 'http://127.0.0.1:10249/debug/pprof/profile?seconds=1')));
  expect([mine?.status, other?.status]).toEqual([200, 200]);
  expect(performance.now() - begun).toBeGreaterThan(1_000);
  expect(Object.keys(JSON.parse(mine!.body) as object)).toEqual(expect.arrayContaining(['nodes', 'startTime', 'endTime', 'samples']));
});

describe('/metrics', () => {
  interface Family {
    readonly type: string;
    readonly labels: readonly string[];
    readonly bounds: readonly string[];
  }

  /** By name: type, names of labels, bounds of buckets. */
  async function families(host: LabNode): Promise<Map<string, Family>> {
    const { body } = await page(host, 'http://127.0.0.1:10249/metrics');
    return new Map(
      [...body.matchAll(/^# TYPE (kubeproxy_\S+) (\S+)$/gm)].map(([, name = '', type = '']) => {
        const series = [...body.matchAll(new RegExp(`^${name}(?:_bucket|_sum|_count)?(?:\\{(.*)\\})? `, 'gm'))].map(([, labels = '']) => labels);
        const labels = new Set(series.flatMap((text) => [...text.matchAll(/(\w+)="/g)].map(([, label = '']) => label)));
        const bounds = new Set(series.flatMap((text) => [...text.matchAll(/le="([^"]+)"/g)].map(([, bound = '']) => bound)));
        return [name, { type, labels: [...labels].sort(), bounds: [...bounds] }];
      }),
    );
  }
  const listed = (): Map<string, string> => {
    const text = readFileSync(new URL('../../docs/kube-proxy.md', import.meta.url), 'utf8');
    return new Map([...text.matchAll(/^\| `(kubeproxy_\w+)` \| (same|not there)/gm)].map(([, name = '', what = '']) => [name, what]));
  };

  test('every one of theirs is in the table', async () => {
    const names = [...(await families(theirs)).keys()];
    expect(names.length).toBeGreaterThan(10);
    expect(names.filter((name) => !listed().has(name))).toEqual([]);
  });

  test('what is the same has the same type, labels and buckets', async () => {
    // Each has something to count: a page that is asked for, a change after the start of what the slice controller has stamped.
    await api.create('/apis/discovery.k8s.io/v1/namespaces/default/endpointslices', {
      metadata: {
        name: 'balanced-2',
        labels: { 'kubernetes.io/service-name': 'balanced' },
        annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': new Date().toISOString() },
      },
      addressType: 'IPv4',
      ports: [{ port: 8080 }],
      endpoints: [{ addresses: ['10.244.1.13'], nodeName: ours.name }],
    });
    for (const path of ['healthz', 'livez']) for (const host of [ours, theirs]) await page(host, `http://127.0.0.1:10256/${path}`);
    await soon(async () => {
      const [mine, other] = await Promise.all([families(ours), families(theirs)]);
      for (const [name, what] of listed()) {
        if (what === 'not there') expect(mine?.has(name), name).toBe(false);
        else expect([name, mine?.get(name)]).toEqual([name, other?.get(name)]);
      }
    });
  });
});

test('the event of the start', async () => {
  interface SeenEvent {
    readonly reason: string;
    readonly action: string;
    readonly type: string;
    readonly regarding: { readonly name: string };
    readonly metadata: { readonly namespace: string };
  }
  await soon(async () => {
    const { items } = await api.get<{ items: SeenEvent[] }>('/apis/events.k8s.io/v1/events');
    const of = (host: LabNode): object[] =>
      items
        .filter(({ reason, regarding }) => reason === 'Starting' && regarding.name === host.name)
        .map(({ reason, action, type, regarding, metadata: { namespace } }) => ({
          reason,
          action,
          type,
          namespace,
          // By our uid `kubectl describe node` finds it; theirs has none.
          regarding: { ...regarding, name: 'NODE', uid: undefined },
        }));
    expect(of(ours)).toHaveLength(1);
    expect(of(ours)).toEqual(of(theirs));
  });
});

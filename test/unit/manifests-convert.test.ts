import { describe, expect, test } from 'vitest';
import { READY, SERVING, TERMINATING } from '../../agent/model/objects.ts';
import type { EndpointSlice, Service } from '../../agent/model/objects.ts';
import { Catalog } from '../../agent/source/manifests/catalog.ts';
import { readManifests } from '../../agent/source/manifests/file.ts';
import type { FileContent } from '../../agent/source/manifests/file.ts';

async function content(...objects: object[]): Promise<FileContent> {
  const read = await readManifests('a.json', JSON.stringify({ kind: 'List', items: objects }), () => undefined);
  if (!('manifests' in read)) throw new Error(read.message);
  return read;
}

/** What the model would be given of these, without a word of complaint. */
async function objects(...given: object[]): Promise<unknown[]> {
  const read = await content(...given);
  expect(read.problems).toEqual([]);
  return read.manifests.flatMap((manifest) => manifest.objects.map(({ object }) => object));
}

const metadata = { name: 'web', namespace: 'shop' };
const service = { apiVersion: 'v1', kind: 'Service', metadata };
const slice = {
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { ...metadata, name: 'web-1', labels: { 'kubernetes.io/service-name': 'web' } },
  addressType: 'IPv4',
};
const endpoints = { apiVersion: 'v1', kind: 'Endpoints', metadata };

describe('a Service', () => {
  test("the least one, with the API's defaults", async () => {
    expect(await objects({ apiVersion: 'v1', kind: 'Service', metadata: { name: 'web' }, spec: { clusterIP: '10.96.0.1', ports: [{ port: 80 }] } })).toEqual([
      {
        namespace: 'default',
        name: 'web',
        uid: '',
        created: 0,
        type: 'ClusterIP',
        clusterIPs: ['10.96.0.1'],
        ipFamilies: [],
        externalIPs: [],
        loadBalancerIngress: [],
        loadBalancerSourceRanges: [],
        ports: [{ name: '', protocol: 'TCP', port: 80, nodePort: 0 }],
        affinitySeconds: 0,
        internalTrafficPolicy: 'Cluster',
        externalTrafficPolicy: 'Cluster',
        healthCheckNodePort: 0,
        proxyName: '',
        annotations: {},
      },
    ]);
  });

  test('a full one', async () => {
    const full = {
      ...service,
      metadata: {
        ...metadata,
        uid: 'u-1',
        creationTimestamp: '2026-01-02T03:04:05Z',
        labels: { 'service.kubernetes.io/service-proxy-name': 'other', app: 'web' },
        annotations: { 'maglane.io/algorithm': 'maglev', 'example.org/x': 'y' },
      },
      spec: {
        type: 'LoadBalancer',
        clusterIP: '10.96.0.1',
        clusterIPs: ['10.96.0.1', 'fd00::1'],
        ipFamilies: ['IPv4', 'IPv6'],
        externalIPs: ['198.51.100.1'],
        loadBalancerSourceRanges: ['10.0.0.0/8'],
        ports: [{ name: 'dns', protocol: 'UDP', port: 53, targetPort: 'dns', nodePort: 30053, appProtocol: 'x' }],
        sessionAffinity: 'ClientIP',
        sessionAffinityConfig: { clientIP: { timeoutSeconds: 60 } },
        internalTrafficPolicy: 'Local',
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: 30999,
        selector: { app: 'web' },
      },
      status: { loadBalancer: { ingress: [{ ip: '203.0.113.1' }, { hostname: 'x.example.org' }, { ip: '203.0.113.2', ipMode: 'Proxy' }] } },
    };
    expect(await objects(full)).toEqual([
      {
        namespace: 'shop',
        name: 'web',
        uid: 'u-1',
        created: Date.UTC(2026, 0, 2, 3, 4, 5),
        type: 'LoadBalancer',
        clusterIPs: ['10.96.0.1', 'fd00::1'],
        ipFamilies: ['IPv4', 'IPv6'],
        externalIPs: ['198.51.100.1'],
        loadBalancerIngress: [
          { ip: '203.0.113.1', ipMode: 'VIP' },
          { ip: '', ipMode: 'VIP' },
          { ip: '203.0.113.2', ipMode: 'Proxy' },
        ],
        loadBalancerSourceRanges: ['10.0.0.0/8'],
        ports: [{ name: 'dns', protocol: 'UDP', port: 53, nodePort: 30053 }],
        affinitySeconds: 60,
        internalTrafficPolicy: 'Local',
        externalTrafficPolicy: 'Local',
        healthCheckNodePort: 30999,
        proxyName: 'other',
        annotations: { 'maglane.io/algorithm': 'maglev' },
      },
    ]);
  });

  test('affinity without a timeout: three hours', async () => {
    expect(await objects({ ...service, spec: { sessionAffinity: 'ClientIP' } })).toMatchObject([{ affinitySeconds: 10_800 }]);
  });

  test('null is absent', async () => {
    const [read] = (await objects({ ...service, spec: { clusterIP: 'None', clusterIPs: null, ports: null, type: null }, status: null })) as Service[];
    expect(read).toMatchObject({ clusterIPs: ['None'], ports: [], type: 'ClusterIP' });
  });
});

describe('an EndpointSlice', () => {
  test('conditions: nil is ready, serving and not terminating', async () => {
    const conditions = [undefined, {}, { ready: false }, { ready: false, serving: true, terminating: true }, { ready: null, serving: false }];
    const [read] = (await objects({ ...slice, endpoints: conditions.map((c) => ({ addresses: ['10.0.0.1'], conditions: c })) })) as EndpointSlice[];
    expect([...(read?.states ?? [])]).toEqual([READY | SERVING, READY | SERVING, SERVING, SERVING | TERMINATING, READY]);
  });

  test('columns, hints and ports', async () => {
    const read = await objects({
      ...slice,
      metadata: { ...slice.metadata, annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': '2026-01-01T00:00:00Z' } },
      ports: [{ port: 80 }, { name: 'x', protocol: 'UDP' }],
      endpoints: [{ addresses: ['10.0.0.1', '10.0.0.9'], nodeName: 'node-a', hints: { forZones: [{ name: 'z1' }, { name: 'z2' }] } }, { addresses: [] }],
    });
    expect(read).toEqual([
      {
        namespace: 'shop',
        name: 'web-1',
        service: 'web',
        addressType: 'IPv4',
        ports: [
          { name: '', protocol: 'TCP', port: 80 },
          { name: 'x', protocol: 'UDP', port: 0 },
        ],
        addresses: ['10.0.0.1', ''],
        states: Uint8Array.of(3, 3),
        nodeNames: ['node-a', ''],
        zoneHints: [['z1', 'z2'], []],
        nodeHints: undefined,
        triggered: Date.UTC(2026, 0, 1),
      },
    ]);
  });

  test('those of headless Services are left alone', async () => {
    expect(await objects({ ...slice, metadata: { ...slice.metadata, labels: { ...slice.metadata.labels, 'service.kubernetes.io/headless': '' } } })).toEqual(
      [],
    );
  });
});

describe('Endpoints', () => {
  const subsets = [
    { ports: [{ name: 'http', port: 8080 }], addresses: [{ ip: '10.0.0.1', nodeName: 'node-a' }, { ip: 'fd00::1' }], notReadyAddresses: [{ ip: '10.0.0.2' }] },
    { ports: [{ name: 'http', port: 9090 }], addresses: [{ ip: '10.0.0.3' }] },
  ];

  test('a slice for each subset and family, as the mirroring controller makes them', async () => {
    const read = (await objects({ ...endpoints, subsets })) as EndpointSlice[];
    expect(read.map((one) => [one.name, one.service, one.addressType, one.ports[0]?.port, one.addresses, [...one.states], one.nodeNames])).toEqual([
      ['web-endpoints-0-ipv4', 'web', 'IPv4', 8080, ['10.0.0.1', '10.0.0.2'], [READY | SERVING, SERVING], ['node-a', '']],
      ['web-endpoints-0-ipv6', 'web', 'IPv6', 8080, ['fd00::1'], [READY | SERVING], ['']],
      ['web-endpoints-1-ipv4', 'web', 'IPv4', 9090, ['10.0.0.3'], [READY | SERVING], ['']],
    ]);
  });

  test('give way to slices of their Service, and come back without them', async () => {
    const catalog = new Catalog();
    const kinds = (): string[] => catalog.take().changes.map(({ kind, key, object }) => `${object ? '' : '-'}${kind} ${key}`);
    catalog.put('a.yaml', await content(service, { ...endpoints, subsets: subsets.slice(1) }));
    expect(kinds()).toEqual(['Service shop/web', 'EndpointSlice shop/web-endpoints-0-ipv4']);
    catalog.put('b.yaml', await content(slice));
    expect(kinds()).toEqual(['-EndpointSlice shop/web-endpoints-0-ipv4', 'EndpointSlice shop/web-1']);
    catalog.delete('b.yaml');
    expect(kinds()).toEqual(['-EndpointSlice shop/web-1', 'EndpointSlice shop/web-endpoints-0-ipv4']);
  });
});

test('a Node', async () => {
  const node = {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'node-a', labels: { 'topology.kubernetes.io/zone': 'z1' }, deletionTimestamp: '2026-01-01T00:00:00Z' },
    spec: { podCIDR: '10.244.1.0/24', taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] },
    status: {
      addresses: [
        { type: 'Hostname', address: 'node-a' },
        { type: 'ExternalIP', address: '198.51.100.1' },
        { type: 'InternalIP', address: '172.30.0.11' },
      ],
    },
  };
  expect(await objects(node)).toEqual([
    {
      name: 'node-a',
      labels: { 'topology.kubernetes.io/zone': 'z1' },
      addresses: ['172.30.0.11', '198.51.100.1'],
      podCIDRs: ['10.244.1.0/24'],
      deleting: true,
      taints: ['ToBeDeletedByClusterAutoscaler'],
    },
  ]);
});

test('a ServiceCIDR', async () => {
  const range = {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name: 'kubernetes' },
    spec: { cidrs: ['10.96.0.0/16', 'fd00:96::/108'] },
  };
  const [manifest] = (await content(range)).manifests;
  expect(manifest).toEqual({
    id: 'ServiceCIDR kubernetes',
    objects: [{ kind: 'ServiceCIDR', key: 'kubernetes', object: { name: 'kubernetes', cidrs: ['10.96.0.0/16', 'fd00:96::/108'] } }],
  });
});

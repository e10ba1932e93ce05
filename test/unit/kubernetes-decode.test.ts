import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { READY, SERVING, TERMINATING } from '../../agent/model/objects.ts';
import { readEndpointSlice } from '../../agent/source/kubernetes/protobuf/endpointslice.ts';
import { openEnvelope, readList, readStatus, readWatchEvent } from '../../agent/source/kubernetes/protobuf/envelope.ts';
import { FrameError, FrameReader } from '../../agent/source/kubernetes/protobuf/frames.ts';
import { readMeta } from '../../agent/source/kubernetes/protobuf/meta.ts';
import { readNode } from '../../agent/source/kubernetes/protobuf/node.ts';
import { readService } from '../../agent/source/kubernetes/protobuf/service.ts';
import { readServiceCidr } from '../../agent/source/kubernetes/protobuf/servicecidr.ts';
import type { Fields } from '../support/fake-apiserver/encode.ts';
import { encode, enveloped, frame, status } from '../support/fake-apiserver/encode.ts';

const SERVICE: Fields = {
  metadata: {
    name: 'web',
    namespace: 'shop',
    uid: 'u-1',
    resourceVersion: '42',
    generation: -1,
    creationTimestamp: { seconds: 1_700_000_000 },
    labels: { app: 'web', 'service.kubernetes.io/service-proxy-name': 'other' },
    annotations: { 'kubectl.kubernetes.io/last-applied-configuration': '{"a":1}', 'maglane.io/algorithm': 'random' },
    finalizers: ['a/b'],
    managedFields: [{ manager: 'kubectl', time: { seconds: 1 } }],
  },
  spec: {
    type: 'LoadBalancer',
    selector: { app: 'web' },
    clusterIP: '10.96.0.10',
    clusterIPs: ['10.96.0.10', 'fd00::10'],
    ipFamilies: ['IPv4', 'IPv6'],
    externalIPs: ['192.0.2.7'],
    loadBalancerSourceRanges: ['198.51.100.0/24'],
    ports: [
      { name: 'http', protocol: 'TCP', port: 80, nodePort: 30_080, targetPort: { type: 1, strVal: 'http' }, appProtocol: 'http' },
      { name: 'bad', protocol: 'XYZ', port: -1 },
    ],
    sessionAffinity: 'ClientIP',
    sessionAffinityConfig: { clientIP: { timeoutSeconds: 600 } },
    externalTrafficPolicy: 'Local',
    internalTrafficPolicy: 'Local',
    healthCheckNodePort: 31_000,
    allocateLoadBalancerNodePorts: true,
    trafficDistribution: 'PreferClose',
  },
  status: { loadBalancer: { ingress: [{ ip: '203.0.113.1', ipMode: 'Proxy', ports: [{ port: 80 }] }, { hostname: 'lb.example' }] } },
};

const SLICE: Fields = {
  metadata: {
    name: 'web-x1',
    namespace: 'shop',
    labels: { 'kubernetes.io/service-name': 'web' },
    annotations: { 'endpoints.kubernetes.io/last-change-trigger-time': '2026-01-02T03:04:05Z' },
  },
  addressType: 'IPv4',
  endpoints: [
    {
      addresses: ['10.0.0.1', '10.0.0.9'],
      nodeName: 'a',
      zone: 'z1',
      hints: { forZones: [{ name: 'z1' }, { name: 'z2' }], forNodes: [{ name: 'a' }] },
      targetRef: { kind: 'Pod', name: 'p' },
    },
    { addresses: ['10.0.0.2'], conditions: { ready: false, serving: true, terminating: true }, hostname: 'h' },
    { addresses: [], conditions: { ready: false, serving: false } },
    { addresses: ['10.0.0.4'], conditions: { ready: true }, nodeName: 'a' },
  ],
  ports: [
    { name: 'http', protocol: 'TCP', port: 8080 },
    { name: '', protocol: '' },
    { port: 70_000, appProtocol: 'x' },
  ],
};

const NODE: Fields = {
  metadata: { name: 'a', labels: { 'topology.kubernetes.io/zone': 'z1' }, deletionTimestamp: { seconds: 1 } },
  spec: {
    podCIDR: '10.1.0.0/24',
    podCIDRs: ['10.1.0.0/24', 'fd01::/64'],
    providerID: 'x',
    taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }],
  },
  status: {
    addresses: [
      { type: 'Hostname', address: 'a' },
      { type: 'ExternalIP', address: '203.0.113.9' },
      { type: 'InternalIP', address: '192.0.2.1' },
      { type: 'InternalIP', address: '2001:db8::1' },
    ],
  },
};

const SERVICE_CIDR: Fields = {
  metadata: { name: 'kubernetes', resourceVersion: '9' },
  spec: { cidrs: ['10.96.0.0/16', 'fd00:96::/112'] },
  status: { conditions: [{ type: 'Ready', status: 'True' }] },
};

describe('objects', () => {
  test('a Service with everything', () => {
    const raw = encode('Service', SERVICE);
    expect(readService(readMeta(raw), raw)).toEqual({
      namespace: 'shop',
      name: 'web',
      uid: 'u-1',
      created: 1_700_000_000_000,
      type: 'LoadBalancer',
      clusterIPs: ['10.96.0.10', 'fd00::10'],
      ipFamilies: ['IPv4', 'IPv6'],
      externalIPs: ['192.0.2.7'],
      loadBalancerIngress: [
        { ip: '203.0.113.1', ipMode: 'Proxy' },
        { ip: '', ipMode: 'VIP' },
      ],
      loadBalancerSourceRanges: ['198.51.100.0/24'],
      ports: [
        { name: 'http', protocol: 'TCP', port: 80, nodePort: 30_080 },
        { name: 'bad', protocol: 'XYZ', port: -1, nodePort: 0 },
      ],
      affinitySeconds: 600,
      internalTrafficPolicy: 'Local',
      externalTrafficPolicy: 'Local',
      healthCheckNodePort: 31_000,
      proxyName: 'other',
      annotations: { 'maglane.io/algorithm': 'random' },
    });
  });

  test('a Service with next to nothing takes the defaults of the API', () => {
    const raw = encode('Service', { metadata: { name: 'w' }, spec: { clusterIP: '10.96.0.1', sessionAffinity: 'ClientIP', ports: [{ port: 1 }] } });
    expect(readService(readMeta(raw), raw)).toMatchObject({
      type: 'ClusterIP',
      created: 0,
      clusterIPs: ['10.96.0.1'],
      affinitySeconds: 10_800,
      internalTrafficPolicy: 'Cluster',
      externalTrafficPolicy: 'Cluster',
      ports: [{ name: '', protocol: 'TCP', port: 1, nodePort: 0 }],
    });
  });

  test('an EndpointSlice becomes columns', () => {
    const raw = encode('EndpointSlice', SLICE);
    expect(readEndpointSlice(readMeta(raw), raw)).toEqual({
      namespace: 'shop',
      name: 'web-x1',
      service: 'web',
      addressType: 'IPv4',
      ports: [
        { name: 'http', protocol: 'TCP', port: 8080 },
        { name: '', protocol: 'TCP', port: 0 },
        { name: undefined, protocol: 'TCP', port: 70_000 },
      ],
      addresses: ['10.0.0.1', '10.0.0.2', '', '10.0.0.4'],
      states: Uint8Array.of(READY | SERVING, SERVING | TERMINATING, 0, READY | SERVING),
      nodeNames: ['a', '', '', 'a'],
      zoneHints: [['z1', 'z2'], [], [], []],
      nodeHints: [['a'], [], [], []],
      triggered: Date.UTC(2026, 0, 2, 3, 4, 5),
    });
  });

  test('an EndpointSlice without hints has none', () => {
    const raw = encode('EndpointSlice', { metadata: { name: 's' }, endpoints: [{ addresses: ['10.0.0.1'] }] });
    expect(readEndpointSlice(readMeta(raw), raw)).toMatchObject({ zoneHints: undefined, nodeHints: undefined, triggered: 0, service: '' });
  });

  test('a Node: internal addresses before external ones', () => {
    const raw = encode('Node', NODE);
    expect(readNode(readMeta(raw), raw)).toEqual({
      name: 'a',
      labels: { 'topology.kubernetes.io/zone': 'z1' },
      addresses: ['192.0.2.1', '2001:db8::1', '203.0.113.9'],
      podCIDRs: ['10.1.0.0/24', 'fd01::/64'],
      deleting: true,
      taints: ['ToBeDeletedByClusterAutoscaler'],
    });
  });

  test('a ServiceCIDR', () => {
    const raw = encode('ServiceCIDR', SERVICE_CIDR);
    expect(readServiceCidr(readMeta(raw), raw)).toEqual({ name: 'kubernetes', cidrs: ['10.96.0.0/16', 'fd00:96::/112'] });
    const empty = encode('ServiceCIDR', { metadata: { name: 'empty' } });
    expect(readServiceCidr(readMeta(empty), empty)).toEqual({ name: 'empty', cidrs: [] });
  });
});

describe('envelopes', () => {
  test('a body, a watch event, a list and a status', () => {
    const body = enveloped('v1', 'Service', Buffer.from('x'));
    expect(openEnvelope(body)).toMatchObject({ apiVersion: 'v1', kind: 'Service', raw: Buffer.from('x') });
    expect(readWatchEvent(frame('ADDED', body).subarray(4))).toEqual({ type: 'ADDED', object: body });
    const list = encode('List', { metadata: { resourceVersion: '7', continue: 'c' }, items: [Buffer.from('a'), Buffer.from('b')] });
    expect(readList(list)).toEqual({ resourceVersion: '7', continue: 'c', items: [Buffer.from('a'), Buffer.from('b')] });
    expect(readStatus(openEnvelope(status(429, 'TooManyRequests', 'slow', 3)).raw)).toEqual({
      code: 429,
      reason: 'TooManyRequests',
      message: 'slow',
      retryAfter: 3,
    });
  });

  test('a body without the magic, and one that is encoded, are refused', () => {
    expect(() => openEnvelope(Buffer.from('{"kind":"Status"}'))).toThrow('no protobuf envelope');
    const gzipped = Buffer.concat([Buffer.from('k8s\0'), encode('Unknown', { raw: Buffer.from('x'), contentEncoding: 'gzip' })]);
    expect(() => openEnvelope(gzipped)).toThrow('encoded');
  });
});

describe('hostile bytes', () => {
  const READERS = {
    Service: (raw: Buffer) => readService(readMeta(raw), raw),
    EndpointSlice: (raw: Buffer) => readEndpointSlice(readMeta(raw), raw),
    Node: (raw: Buffer) => readNode(readMeta(raw), raw),
    ServiceCIDR: (raw: Buffer) => readServiceCidr(readMeta(raw), raw),
  };
  const samples = Object.entries({ Service: SERVICE, EndpointSlice: SLICE, Node: NODE, ServiceCIDR: SERVICE_CIDR }) as [keyof typeof READERS, Fields][];

  test.each(samples)('a %s cut at any byte is read or refused, never more than that', (kind, fields) => {
    const raw = encode(kind, fields);
    let refused = 0;
    for (let length = 0; length < raw.length; length++) {
      try {
        READERS[kind](raw.subarray(0, length));
      } catch (error) {
        expect(error).toBeInstanceOf(Error);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(raw.length / 2);
  });

  test('random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        for (const read of [...Object.values(READERS), openEnvelope, readWatchEvent, readList, readStatus]) {
          try {
            read(Buffer.from(bytes));
          } catch (error) {
            if (!(error instanceof Error)) throw error;
          }
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('a nested message cannot read beyond the one that holds it', () => {
    // metadata (1) of 2 bytes that claims a name (1) of 5, with 5 bytes to follow outside of it
    const raw = Buffer.from([0x0a, 2, 0x0a, 5, 0x61, 0x61, 0x61, 0x61, 0x61]);
    expect(() => readMeta(raw)).toThrow(RangeError);
    expect(() => readMeta(Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]))).toThrow('a message of');
  });

  test('groups, field number 0 and unknown wire types are refused', () => {
    expect(() => readMeta(Buffer.from([0x1b, 0x1c]))).toThrow('group');
    expect(() => readMeta(Buffer.from([0x00, 0x00]))).toThrow('field number 0');
    expect(() => readMeta(Buffer.from([0x1f, 0x00]))).toThrow('wire type');
  });

  test('a known field of another wire type is skipped', () => {
    // metadata (1) as a varint, then as what it is
    const raw = Buffer.concat([Buffer.from([0x08, 7]), encode('Service', { metadata: { name: 'w' } })]);
    expect(readMeta(raw).name).toBe('w');
  });
});

describe('frames', () => {
  const bodies = ['', 'a', 'b'.repeat(300), 'c'.repeat(70_000)].map((text) => Buffer.from(text));
  const stream = Buffer.concat(bodies.flatMap((body) => [lengthOf(body), body]));

  test('split anywhere, they come out whole', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(stream.length), { maxLength: 40 }), (cuts) => {
        const reader = new FrameReader(1 << 20);
        const at = [0, ...cuts.sort((a, b) => a - b), stream.length];
        const frames = at.slice(1).flatMap((end, i) => reader.push(stream.subarray(at[i], end)));
        expect(frames.map(String)).toEqual(bodies.map(String));
        expect(reader.pending).toBe(false);
      }),
      { numRuns: 200 },
    );
  });

  test('byte by byte', () => {
    const reader = new FrameReader(1 << 20);
    const frames = [...stream.subarray(0, 400)].flatMap((byte) => reader.push(Buffer.of(byte)));
    expect(frames).toEqual(bodies.slice(0, 3));
    expect(reader.pending).toBe(true);
  });

  test('one above the limit is refused by its header alone', () => {
    const reader = new FrameReader(1000);
    expect(() => reader.push(Buffer.of(0, 0, 3, 0xe9))).toThrow(FrameError);
    expect(new FrameReader(1000).push(Buffer.of(0, 0, 3, 0xe8))).toEqual([]);
  });
});

function lengthOf(body: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return length;
}

/** The parts of the differential test that need no kernel: the table of differences, histories, the evaluator of nftables. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Address } from '../../agent/model/address.ts';
import { formatAnswer } from '../differential/answer.ts';
import { census } from '../differential/census.ts';
import { differencesOf } from '../differential/compare.ts';
import { DIFFERENCES } from '../differential/differences.ts';
import { generate } from '../differential/generate.ts';
import type { History } from '../differential/history.ts';
import { isSettled, place } from '../differential/history.ts';
import { Reference } from '../differential/reference.ts';
import { SETUPS } from '../differential/setups.ts';
import { shrink } from '../differential/shrink.ts';

test('docs/differences.md has every difference, and no other', () => {
  const page = readFileSync(`${import.meta.dirname}/../../docs/differences.md`, 'utf8');
  expect(page.match(/^### .*$/gm)).toEqual(DIFFERENCES.map(({ name }) => `### ${name}`));
});

describe('histories', () => {
  test('a seed gives the same history again, and one that is settled', () => {
    for (const seed of [1, 2, 3]) {
      expect(generate(seed)).toEqual(generate(seed));
      expect(isSettled(generate(seed))).toBe(true);
    }
    expect(generate(1)).not.toEqual(generate(2));
  });

  test('a hundred have everything that both sides are to be compared in', () => {
    const counts = census(Array.from({ length: 100 }, (_, i) => generate(i + 1)));
    expect([...counts].filter(([, count]) => count < 3)).toEqual([]);
  });

  const slice = (name: string, endpoints: object[]) => ({
    kind: 'EndpointSlice' as const,
    name,
    object: {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name, labels: { 'kubernetes.io/service-name': 'a' } },
      ports: [{ port: 80 }],
      endpoints,
    },
  });
  const row = (terminating: boolean) => ({ addresses: ['10.244.1.10'], conditions: { terminating } });

  test.each([
    ['one endpoint alive in two slices', [row(false)], [row(false)], false],
    ['one endpoint alive in one slice, terminating in the other', [row(false)], [row(true)], true],
    ['one endpoint twice in one slice', [row(false), row(false)], [], true],
  ])('%s', (_, first, second, settled) => {
    expect(isSettled([{ zone: '', restart: false, changes: [slice('a-0', first), slice('a-1', second)] }])).toBe(settled);
  });

  test('two Services with one frontend are not settled', () => {
    const service = (name: string) => ({
      kind: 'Service' as const,
      name,
      object: {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name },
        spec: { type: 'ClusterIP', externalIPs: ['198.51.$.1'], ports: [{ protocol: 'TCP', port: 80 }] },
      },
    });
    expect(isSettled([{ zone: '', restart: false, changes: [service('a')] }])).toBe(true);
    expect(isSettled([{ zone: '', restart: false, changes: [service('a'), service('b')] }])).toBe(false);
  });

  test('an object is placed in a region', () => {
    const ports = [{ protocol: 'TCP', port: 80, nodePort: 3 }];
    const placed = place(
      { apiVersion: 'v1', kind: 'Service', metadata: { name: 'a' }, spec: { type: 'NodePort', clusterIPs: ['10.96.$.10', 'fd00:96::$10'], ports } },
      7,
    );
    expect(placed.metadata.namespace).toBe('region-7');
    expect(placed.spec).toMatchObject({ clusterIPs: ['10.96.7.10', 'fd00:96::710'], ports: [{ port: 80, nodePort: 30_703 }] });
  });

  test('what fails is shrunk to what makes it fail', async () => {
    const history = generate(5);
    const isBad = (candidate: History): boolean => JSON.stringify(candidate).includes('"nodeName":"here"');
    expect(isBad(history)).toBe(true);
    const failure = { step: history.length - 1, text: '' };
    const playAll = (some: readonly History[]) => Promise.resolve(some.map((one) => (isBad(one) ? failure : undefined)));
    const least = await shrink(history, failure, { playAll, width: 20, until: Date.now() + 10_000 });
    expect(isBad(least.history)).toBe(true);
    const changes = least.history.flatMap((step) => step.changes);
    expect(changes).toHaveLength(1);
    expect(changes[0]?.object?.['endpoints']).toHaveLength(1);
  });

  test('what a history has in two places is left out in one of them', async () => {
    const endpoint = { ...row(false), hints: { forZones: [{ name: 'east' }] } };
    const history = [{ zone: '', restart: false, changes: [slice('a-0', [endpoint, endpoint, { ...endpoint }])] }];
    const isBad = (candidate: History): boolean => JSON.stringify(candidate).split('10.244.1.10').length > 2;
    const failure = { step: 0, text: '' };
    const playAll = (some: readonly History[]) => Promise.resolve(some.map((one) => (isBad(one) ? failure : undefined)));
    const least = await shrink(history, failure, { playAll, width: 20, until: Date.now() + 10_000 });
    const row0 = { addresses: ['10.244.1.10'] };
    expect(least.history[0]?.changes[0]?.object?.['endpoints']).toEqual([row0, row0]);
  });
});

describe('the evaluator of nftables', () => {
  const rule = (chain: string, ...expr: object[]) => ({ rule: { chain, expr } });
  const daddr = { payload: { protocol: 'ip', field: 'daddr' } };
  const saddr = { payload: { protocol: 'ip', field: 'saddr' } };
  const key = { concat: [daddr, { meta: { key: 'l4proto' } }, { payload: { protocol: 'th', field: 'dport' } }] };
  const mark = { mangle: { key: { meta: { key: 'mark' } }, value: { '|': [{ meta: { key: 'mark' } }, 16_384] } } };
  const isMarked = { match: { op: '!=', left: { '&': [{ meta: { key: 'mark' } }, 16_384] }, right: 0 } };
  const chosen = [
    [0, { concat: ['10.244.1.10', 8080] }],
    [1, { concat: ['10.244.2.10', 8080] }],
  ];
  /** A balancer with a chain that falls through, and what comes behind it. */
  const listing = {
    nftables: [
      { metainfo: { json_schema_version: 1 } },
      { chain: { name: 'nat', hook: 'prerouting', prio: -100 } },
      { chain: { name: 'early', hook: 'prerouting', prio: -110 } },
      { chain: { name: 'late', hook: 'forward', prio: 0 } },
      { chain: { name: 'post', hook: 'postrouting', prio: 100 } },
      { chain: { name: 'from-pods' } },
      { chain: { name: 'balance' } },
      { chain: { name: 'refuse' } },
      { map: { name: 'vips', elem: [[{ concat: ['10.96.0.1', 'tcp', 80] }, { goto: { target: 'from-pods' } }]] } },
      { map: { name: 'empty', elem: [[{ elem: { val: { concat: ['10.96.0.1', 'tcp', 80] }, comment: 'a/b:c' } }, { drop: null }]] } },
      rule('early', { match: { op: '==', left: saddr, right: { range: ['198.18.0.1', '198.18.0.5'] } } }, { drop: null }),
      rule('nat', { match: { op: '!=', left: saddr, right: { prefix: { addr: '10.244.0.0', len: 16 } } } }, mark),
      rule('nat', { vmap: { key, data: '@vips' } }),
      rule(
        'from-pods',
        { match: { op: '!=', left: saddr, right: { set: ['192.0.2.7', { prefix: { addr: '203.0.113.0', len: 24 } }] } } },
        { goto: { target: 'balance' } },
      ),
      rule('balance', { dnat: { addr: { map: { key: { numgen: { mode: 'random', mod: 2 } }, data: { set: chosen } } } } }),
      rule('late', { vmap: { key, data: '@empty' } }),
      rule('late', { jump: { target: 'refuse' } }),
      rule('refuse', { match: { op: '==', left: daddr, right: '10.96.0.1' } }, { reject: { type: 'icmp' } }),
      rule('post', isMarked, { masquerade: null }),
    ],
  };
  const ask = (source: string, port = 80, address = '10.96.0.1') =>
    formatAnswer(
      new Reference(listing, () => false).ask({ address: address as Address, port, protocol: 'TCP', source: { name: 'outside', address: source as Address } }),
    );

  test.each([
    ['lots are followed, each of them', '10.244.1.9', 80, 'dnat 10.244.1.10:8080 10.244.2.10:8080'],
    ['a mark is carried to the end', '198.18.0.9', 80, 'dnat 10.244.1.10:8080 (masquerade) 10.244.2.10:8080 (masquerade)'],
    ['an earlier chain drops first', '198.18.0.3', 80, 'drop'],
    ['a chain that ends falls through to later hooks', '203.0.113.4', 80, 'drop'],
    ['a jump that ends in a verdict', '10.244.1.9', 81, 'reject'],
  ])('%s', (_, source, port, expected) => {
    expect(ask(source, port)).toBe(expected);
  });

  test('what no rule knows is left alone', () => expect(ask('10.244.1.9', 80, '10.97.0.1')).toBe('nothing'));

  test('what it does not know, it does not guess', () => {
    const strange = { nftables: [{ chain: { name: 'a', hook: 'prerouting', prio: 0 } }, rule('a', { tproxy: { port: 1 } })] };
    const question = {
      address: '10.96.0.1' as Address,
      port: 80,
      protocol: 'TCP' as const,
      source: { name: 'outside' as const, address: '198.18.0.9' as Address },
    };
    expect(() => new Reference(strange, () => false).ask(question)).toThrow('unknown statement {"tproxy":{"port":1}}');
  });
});

describe('differences', () => {
  const question = {
    address: '10.96.0.1' as Address,
    port: 80,
    protocol: 'TCP' as const,
    source: { name: 'outside' as const, address: '198.18.0.9' as Address },
  };
  const target = (address: string, masquerade: boolean) => ({ address: address as Address, port: 80, masquerade });
  const dnat = (...targets: ReturnType<typeof target>[]) => ({ verdict: 'dnat' as const, targets, affinity: 0 });
  const [one, two] = [target('10.244.1.10', false), target('10.244.2.10', true)];

  test.each([
    ['none', dnat(one, two), dnat(one, two), []],
    ['the verdict', dnat(one), { verdict: 'drop' as const, targets: [], affinity: 0 }, ['verdict']],
    ['a target too few', dnat(one, two), dnat(one), ['targets']],
    ['a target too many', dnat(one), dnat(one, two), ['targets']],
    ['a masquerade', dnat(one), dnat({ ...one, masquerade: true }), ['masquerade']],
    ['affinity', dnat(one), { ...dnat(one), affinity: 60 }, ['affinity']],
  ])('%s', (_, theirs, ours, expected) => {
    expect(differencesOf({ setup: SETUPS[0]!, question, way: 'packet' }, theirs, ours).map((difference) => difference.in)).toEqual(expected);
  });
});

import { describe, expect, test } from 'vitest';
import type { NodeFacts } from '../../agent/model/facts.ts';
import { Model } from '../../agent/model/model.ts';
import type { Delta } from '../../agent/model/delta.ts';
import { formatProblem } from '../../agent/model/problem.ts';
import type { Change, Node } from '../../agent/model/objects.ts';
import { FACTS, node, put, remove, service, servicePort, slice } from './model-builders.ts';

const DSR: Partial<NodeFacts> = { dsr: true, defaultForwarding: 'dsr' };
const nodeAt = (name: string, ...addresses: string[]): Node => ({ ...node({}), name, addresses });

const WEB = service({ ports: [servicePort({ name: 'http', port: 80 })] });
const ROWS = slice([
  { address: '10.1.0.1', node: 'node-a' },
  { address: '10.1.0.2', node: 'node-b' },
  { address: '10.1.0.3', node: 'node-c' },
  { address: '10.1.0.4', node: '' },
]);

function told(facts: Partial<NodeFacts>, ...changes: Change[]): { model: Model; delta: Delta; hosts: (string | undefined)[] } {
  const model = new Model({ ...FACTS, ...facts });
  model.apply(changes);
  const delta = model.takeChanged();
  return { model, delta, hosts: hostsOf(delta) };
}

const hostsOf = ({ services }: Delta): (string | undefined)[] => services[0]?.desired?.cluster.map(({ host }) => host) ?? [];
const NODE_B = nodeAt('node-b', '172.30.0.12', '172.30.9.12', 'fd00:30::12');

describe('the other nodes', () => {
  test("are hosts of their endpoints, by the first address of the endpoint's family; this node and no node are not", () => {
    const { hosts, delta } = told(DSR, put(WEB), put(ROWS), put(nodeAt('node-a', '172.30.0.11')), put(NODE_B));
    expect(hosts).toEqual([undefined, '172.30.0.12', undefined, undefined]);
    expect([...delta.peers]).toEqual([
      ['172.30.0.12', true],
      ['fd00:30::12', true],
    ]);
    expect(delta.node?.address4).toBe('172.30.0.11');
    expect(delta.node?.address6).toBeUndefined();
  });

  test('that come, change and go take their endpoints along, and nothing else', () => {
    const { model } = told(DSR, put(WEB), put(ROWS), put(NODE_B));
    const after = (change: Change): Delta => (model.apply([change]), model.takeChanged());
    const heartbeat = after(put({ ...NODE_B, labels: { beat: '2' } }));
    expect([heartbeat.services, [...heartbeat.peers]]).toEqual([[], []]);
    const moved = after(put(nodeAt('node-b', '172.30.0.22')));
    expect(hostsOf(moved)).toEqual([undefined, '172.30.0.22', undefined, undefined]);
    expect([...moved.peers]).toEqual([
      ['172.30.0.12', false],
      ['fd00:30::12', false],
      ['172.30.0.22', true],
    ]);
    const gone = after(remove(NODE_B));
    expect(hostsOf(gone)).toEqual([undefined, undefined, undefined, undefined]);
    expect([...gone.peers]).toEqual([['172.30.0.22', false]]);
    expect(after(put(nodeAt('node-x', '172.30.0.99'))).services).toEqual([]);
    expect([...model.takeAll().peers]).toEqual([['172.30.0.99', true]]);
  });

  test('stay out with the label maglane.io/forwarding=snat', () => {
    const labelled = { ...NODE_B, labels: { 'maglane.io/forwarding': 'snat' } };
    const { hosts, delta } = told(DSR, put(WEB), put(ROWS), put(labelled));
    expect([hosts[1], [...delta.peers]]).toEqual([undefined, []]);
  });

  test('mean nothing without --dsr-port', () => {
    const { hosts, delta } = told({}, put(WEB), put(ROWS), put(NODE_B));
    expect([hosts[1], [...delta.peers], delta.node?.address4]).toEqual([undefined, [], undefined]);
  });
});

describe('the annotation maglane.io/forwarding', () => {
  const annotated = (forwarding: string): Change => put(service({ annotations: { 'maglane.io/forwarding': forwarding } }));
  const hostOf = (facts: Partial<NodeFacts>, change: Change): string | undefined => told(facts, change, put(ROWS), put(NODE_B)).hosts[1];

  test('says it for one Service, and the option for the others', () => {
    expect(hostOf(DSR, annotated('snat'))).toBeUndefined();
    expect(hostOf({ dsr: true }, annotated('dsr'))).toBe('172.30.0.12');
    expect(hostOf({ dsr: true }, put(WEB))).toBeUndefined();
  });

  test('is told off where it says nothing that can be', () => {
    const problems = (facts: Partial<NodeFacts>, change: Change): string[] => [...told(facts, change).delta.problems.values()].flat().map(formatProblem);
    expect(problems(DSR, annotated('fast'))).toEqual([expect.stringContaining('"fast" is unknown, so dsr stands: one of snat, dsr would be right')]);
    expect(problems({}, annotated('dsr'))).toEqual([expect.stringContaining('"dsr" needs agents with --dsr-port, on every node, so snat stands')]);
    expect(problems({}, remove(WEB))).toEqual([]);
  });

  test('leaves SCTP masqueraded', () => {
    const sctp = service({ ports: [servicePort({ protocol: 'SCTP' })], annotations: { 'maglane.io/forwarding': 'dsr' } });
    const rows = slice([{ address: '10.1.0.2', node: 'node-b' }], { ports: [{ name: 'http', protocol: 'SCTP', port: 8080 }] });
    expect(told(DSR, put(sctp), put(rows), put(NODE_B)).hosts).toEqual([undefined]);
  });
});

/** What `maglane explain` says of maps that a planner wrote: which set binds whom, and what an empty one means. */
import { describe, expect, test } from 'vitest';
import type { Caller } from '../../agent/explain/explain.ts';
import { Explainer } from '../../agent/explain/explain.ts';
import type { Cidr } from '../../agent/model/address.ts';
import { parseCidr } from '../../agent/model/address.ts';
import type { DesiredAddress, DesiredNode, DesiredService, Protocol } from '../../agent/model/desired.ts';
import { Planner } from '../../agent/plan/planner.ts';
import { BARE_NODE } from './model-builders.ts';
import { at, backend, changes, frontend, Maps, service } from './plan-maps.ts';

const VIP = '10.96.0.1';
/** An address of a Service that an interface of this node holds. */
const HELD = '10.96.0.77';
const range = (text: string): Cidr => parseCidr(text)!;
const NODE: Caller = { place: 'node', way: 'socket', source: undefined };
const POD: Caller = { place: 'pod', way: 'socket', source: undefined };
const OUTSIDE: Caller = { place: 'outside', way: 'packet', source: undefined };
const [HERE, THERE] = [{ ...backend('10.1.0.1'), local: true }, backend('10.2.0.2')];

/** Pods by 10.0.0.0/14, ServiceCIDR 10.96.0.0/16. */
const KNOWN: DesiredNode = { ...BARE_NODE, pods4: range('10.0.0.0/14'), serviceCidrs: [range('10.96.0.0/16')] };

/** Maps that hold a service, and what else there is. */
function written(init: Partial<DesiredService>, besides: { readonly addresses?: readonly DesiredAddress[]; readonly node?: DesiredNode } = {}): Maps {
  const maps = new Maps({ services: 16, frontends: 16, backends: 64, ringSlots: 4096 });
  const desired = service('web', { frontends: [frontend(VIP)], cluster: [HERE, THERE], local: [HERE], hasAny: true, ...init });
  const addresses = new Map((besides.addresses ?? []).map((one) => [one.address, one]));
  const all = changes([desired], { addresses, node: besides.node ?? BARE_NODE });
  for (const write of new Planner(maps.snapshot()).planAll(all).writes) maps.execute(write);
  return maps;
}

/** In words: "backend 10.1.0.1 10.2.0.2*" (* masqueraded), "drop". */
function say(maps: Maps, caller: Caller, to: { readonly address?: string; readonly port?: number; readonly protocol?: Protocol } = {}): string {
  const { address = VIP, port = 80, protocol = 'TCP' } = to;
  const explainer = new Explainer(maps.snapshot(), (own) => own === HELD);
  const { verdict, targets } = explainer.explain({ address: at(address), port, protocol }, caller);
  return [verdict, ...targets.map((target) => `${target.backend.address}${target.masquerade ? '*' : ''}`)].join(' ');
}

const ask = (init: Partial<DesiredService>, caller: Caller, protocol: Protocol = 'TCP'): string => say(written(init, { node: KNOWN }), caller, { protocol });

const nodePort = { frontends: [{ ...frontend(VIP), kind: 'NodePort' }] } as const;

describe('explain', () => {
  test.each([
    ['policy Cluster', {}, NODE, 'backend 10.1.0.1 10.2.0.2'],
    ['policy Cluster', {}, POD, 'backend 10.1.0.1 10.2.0.2'],
    ['policy Cluster, a packet is sent on under an address of this node', {}, OUTSIDE, 'backend 10.1.0.1 10.2.0.2*'],
    ['internal policy Local', { internalLocal: true }, NODE, 'backend 10.1.0.1'],
    ['internal policy Local', { internalLocal: true }, POD, 'backend 10.1.0.1'],
    ['internal policy Local', { internalLocal: true }, OUTSIDE, 'backend 10.1.0.1'],
    ['external policy Local says nothing of a cluster IP', { externalLocal: true }, OUTSIDE, 'backend 10.1.0.1 10.2.0.2*'],
    ['external policy Local', { ...nodePort, externalLocal: true }, OUTSIDE, 'backend 10.1.0.1'],
    ['external policy Local does not bind the node', { ...nodePort, externalLocal: true }, NODE, 'backend 10.1.0.1 10.2.0.2'],
    ['external policy Local does not bind its pods', { ...nodePort, externalLocal: true }, POD, 'backend 10.1.0.1 10.2.0.2'],
    ['internal policy says nothing of a node port', { ...nodePort, internalLocal: true }, OUTSIDE, 'backend 10.1.0.1 10.2.0.2*'],
    ['no endpoint anywhere', { cluster: [], local: [], hasAny: false }, OUTSIDE, 'reject'],
    ['no endpoint here', { internalLocal: true, local: [] }, OUTSIDE, 'drop'],
    ['a Maglev table', { algorithm: 'maglev' }, OUTSIDE, 'backend 10.1.0.1 10.2.0.2*'],
    ['loopback is for the node', { frontends: [{ ...frontend(VIP), kind: 'NodePort', hostOnly: true }] }, NODE, 'backend 10.1.0.1 10.2.0.2'],
    ['loopback is not for pods', { frontends: [{ ...frontend(VIP), kind: 'NodePort', hostOnly: true }] }, POD, 'pass'],
    ['loopback is not for packets', { frontends: [{ ...frontend(VIP), kind: 'NodePort', hostOnly: true }] }, OUTSIDE, 'pass'],
  ] as [string, Partial<DesiredService>, Caller, string][])('%s', (_, init, caller, expected) => {
    expect(ask(init, caller)).toBe(expected);
  });

  test('what is no frontend is left alone', () => {
    for (const caller of [NODE, POD, OUTSIDE]) expect(say(written({}), caller, { protocol: 'UDP' })).toBe('pass');
  });

  const packet = (place: Caller['place'], source: string): Caller => ({ place, way: 'packet', source: at(source) });
  const local = { ...nodePort, externalLocal: true };

  test.each([
    ['a pod elsewhere is a pod by its range', packet('outside', '10.2.0.9'), KNOWN, 'backend 10.1.0.1 10.2.0.2*'],
    ['without a range for the family nobody outside is', packet('outside', '10.2.0.9'), BARE_NODE, 'backend 10.1.0.1'],
    ['nor are pods of this node', packet('pod', '10.1.0.9'), BARE_NODE, 'backend 10.1.0.1'],
    ['unless devices tell', packet('pod', '10.1.0.9'), { ...BARE_NODE, detectsByDevice: true }, 'backend 10.1.0.1 10.2.0.2'],
    ['sockets of pods alike', POD, BARE_NODE, 'backend 10.1.0.1'],
    ['the node itself is never bound', packet('node', '192.0.2.1'), BARE_NODE, 'backend 10.1.0.1* 10.2.0.2*'],
    ['a pod that meets itself', packet('pod', '10.1.0.1'), KNOWN, 'backend 10.1.0.1* 10.2.0.2'],
  ] as const)('external policy Local: %s', (_, caller, node, expected) => {
    expect(say(written(local, { node }), caller)).toBe(expected);
  });

  test.each([
    ['outside', packet('outside', '198.18.0.1'), {}, 'backend 10.1.0.1* 10.2.0.2*'],
    ['pods of this node', packet('pod', '10.1.0.9'), {}, 'backend 10.1.0.1* 10.2.0.2*'],
    ['not those who come by a socket', POD, {}, 'backend 10.1.0.1 10.2.0.2'],
    ['not through a node port', packet('pod', '10.1.0.9'), nodePort, 'backend 10.1.0.1 10.2.0.2'],
    ['not where the backend is this node', packet('pod', '10.1.0.9'), { cluster: [{ ...HERE, address: at(HELD) }, THERE] }, `backend ${HELD} 10.2.0.2*`],
  ] as const)('masqueradeAll hides from backends who is at %s', (_, caller, init, expected) => {
    expect(say(written(init, { node: { ...KNOWN, masqueradesAll: true } }), caller)).toBe(expected);
  });

  test.each([
    ['from outside', OUTSIDE, {}, '10.1.0.1 10.2.0.2 at 172.30.0.12'],
    ['not from pods of other nodes', packet('outside', '10.2.0.9'), {}, '10.1.0.1 10.2.0.2*'],
    ['not from pods of this one', packet('pod', '10.1.0.9'), {}, '10.1.0.1 10.2.0.2'],
    ['not to cluster IPs', OUTSIDE, { frontends: [frontend(VIP)] }, '10.1.0.1 10.2.0.2*'],
  ] as const)('a backend whose node takes packets as they are sees the client %s', (_, caller, init, expected) => {
    const hosted = { cluster: [HERE, { ...THERE, host: at('172.30.0.12') }] };
    const { targets } = new Explainer(written({ ...nodePort, ...hosted, ...init }, { node: KNOWN }).snapshot(), () => false).explain(
      { address: at(VIP), port: 80, protocol: 'TCP' },
      caller,
    );
    const words = targets.map(({ backend: { address }, masquerade, host }) => `${address}${masquerade ? '*' : ''}${host === undefined ? '' : ` at ${host}`}`);
    expect(words.join(' ')).toBe(expected);
  });

  test('source ranges let in whom they hold, before all else, and sockets leave them to packets', () => {
    const init = { frontends: [{ ...frontend(VIP), kind: 'LoadBalancer' as const }], sourceRanges: [range('198.18.0.0/15'), range('10.1.0.0/16')] };
    const maps = written(init);
    expect(say(maps, packet('outside', '198.19.0.1'))).toBe('backend 10.1.0.1 10.2.0.2*');
    expect(say(maps, packet('outside', '198.20.0.1'))).toBe('drop');
    expect(say(maps, { ...POD, source: at('10.1.0.9') })).toBe('backend 10.1.0.1 10.2.0.2');
    expect(say(maps, { ...POD, source: at('10.2.0.9') })).toBe('drop');
    expect(say(maps, { ...NODE, source: at('192.0.2.1') })).toBe('drop');
    expect(say(written({ ...init, cluster: [], hasAny: false }), packet('outside', '198.20.0.1'))).toBe('drop');
    expect(say(written({ ...init, cluster: [], hasAny: false }), packet('outside', '198.19.0.1'))).toBe('reject');
  });

  test('how one is chosen: packets by Maglev where sockets count', () => {
    const why = (caller: Caller, algorithm: DesiredService['algorithm']): string | undefined =>
      new Explainer(written({ algorithm }).snapshot(), () => false).explain({ address: at(VIP), port: 80, protocol: 'TCP' }, caller).why.at(-1);
    expect(why(POD, 'least-connections')).toContain('chosen by least-connections');
    expect(why(OUTSIDE, 'least-connections')).toContain('chosen by maglev (least-connections is for sockets)');
    expect(why(OUTSIDE, 'source-hash')).toContain('chosen by source-hash');
  });

  test('what is no frontend, at addresses of Services', () => {
    const owned = { owned: true, ping: false };
    const addresses = [VIP, HELD, '203.0.113.1'].map((address) => ({ address: at(address), ...owned }));
    const maps = written({}, { node: KNOWN, addresses });
    for (const caller of [NODE, POD, OUTSIDE]) {
      expect(say(maps, caller, { port: 81 })).toBe('reject');
      expect(say(maps, caller, { address: '10.96.0.9' })).toBe('drop');
      expect(say(maps, caller, { address: HELD })).toBe('pass');
      expect(say(maps, caller, { address: '203.0.113.1' })).toBe('pass');
      expect(say(maps, caller, { address: '192.0.2.1' })).toBe('pass');
    }
    expect(say(written({}, { node: { ...KNOWN, ownsBeyond: true }, addresses }), OUTSIDE, { address: '203.0.113.1' })).toBe('reject');
  });

  test('maps that contradict themselves are told', () => {
    const maps = written({});
    maps.backends.clear();
    const { verdict, why } = new Explainer(maps.snapshot(), () => false).explain({ address: at(VIP), port: 80, protocol: 'TCP' }, NODE);
    expect(verdict).toBe('broken');
    expect(why.at(-1)).toMatch(/the set holds backend 1, which is not one of this service/);
  });
});

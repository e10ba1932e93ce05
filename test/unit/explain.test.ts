/** What `maglane explain` says of maps that a planner wrote: which set binds whom, and what an empty one means. */
import { describe, expect, test } from 'vitest';
import type { Caller } from '../../agent/explain/explain.ts';
import { Explainer } from '../../agent/explain/explain.ts';
import type { Address } from '../../agent/model/address.ts';
import type { DesiredService, Protocol } from '../../agent/model/desired.ts';
import { Planner } from '../../agent/plan/planner.ts';
import { backend, changes, frontend, Maps, service } from './plan-maps.ts';

const VIP = '10.96.0.1';
const NODE: Caller = { place: 'node', way: 'socket' };
const POD: Caller = { place: 'pod', way: 'socket' };
const OUTSIDE: Caller = { place: 'outside', way: 'packet' };
const [HERE, THERE] = [{ ...backend('10.1.0.1'), local: true }, backend('10.2.0.2')];

/** In words: "backend 10.1.0.1 10.2.0.2*" (* masqueraded), "drop". */
function ask(init: Partial<DesiredService>, caller: Caller, protocol: Protocol = 'TCP'): string {
  const maps = new Maps({ services: 16, frontends: 16, backends: 64, ringSlots: 4096 });
  const desired = service('web', { frontends: [frontend(VIP)], cluster: [HERE, THERE], local: [HERE], hasAny: true, ...init });
  for (const write of new Planner(maps.snapshot()).planAll(changes([desired])).writes) maps.execute(write);
  const { verdict, targets } = new Explainer(maps.snapshot()).explain({ address: VIP as Address, port: 80, protocol }, caller);
  return [verdict, ...targets.map((target) => `${target.backend.address}${target.masquerade ? '*' : ''}`)].join(' ');
}

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
    expect(ask({}, OUTSIDE, 'UDP')).toBe('pass');
    expect(ask({}, NODE, 'UDP')).toBe('pass');
  });

  test('maps that contradict themselves are told', () => {
    const maps = new Maps({ services: 16, frontends: 16, backends: 64, ringSlots: 4096 });
    for (const write of new Planner(maps.snapshot()).planAll(changes([service('web', { frontends: [frontend(VIP)], cluster: [HERE] })])).writes)
      maps.execute(write);
    maps.backends.clear();
    const { verdict, why } = new Explainer(maps.snapshot()).explain({ address: VIP as Address, port: 80, protocol: 'TCP' }, NODE);
    expect(verdict).toBe('broken');
    expect(why.at(-1)).toMatch(/the set holds backend 1, which is not one of this service/);
  });
});

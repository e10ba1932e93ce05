import { expect, test } from 'vitest';
import { loosens } from '../../agent/dataplane/cut.ts';
import type { DesiredService, Protocol } from '../../agent/model/desired.ts';
import { Planner } from '../../agent/plan/planner.ts';
import { backend, changes, frontend, Maps, service } from './plan-maps.ts';

/** Whether sockets are looked at when the first state becomes the second: as real plans would have it. */
function looksAfter(from: readonly DesiredService[], to: readonly DesiredService[]): boolean {
  const maps = new Maps();
  const planner = new Planner(maps.snapshot());
  for (const write of planner.planAll(changes(from)).writes) maps.execute(write);
  const isUdp = (id: number): boolean => maps.services.get(id)?.protocol === 'UDP';
  const writes = planner.planAll(changes(to)).writes;
  for (const write of writes) maps.execute(write);
  return writes.some((write) => loosens(write, isUdp));
}

const of = (protocol: Protocol, name = 'dns'): DesiredService =>
  service(name, { protocol, key: `e2e/${name}:/${protocol}/4`, frontends: [frontend('10.96.0.1')], cluster: [backend('10.1.0.1'), backend('10.1.0.2')] });

test.each(['TCP', 'SCTP', 'UDP'] as const)('%s: sockets are looked at for UDP alone, and when something may have been taken from one', (protocol) => {
  const [isUdp, web] = [protocol === 'UDP', of(protocol)];
  const [first] = web.cluster;
  expect(looksAfter([web], [web])).toBe(false);
  expect(looksAfter([web], [{ ...web, cluster: [...web.cluster, backend('10.1.0.3')] }])).toBe(false);
  expect(looksAfter([web], [{ ...web, affinitySeconds: 10 }])).toBe(false);
  expect(looksAfter([web], [{ ...web, cluster: [first!] }])).toBe(isUdp);
  expect(looksAfter([web], [{ ...web, cluster: [] }])).toBe(isUdp);
  expect(looksAfter([web], [{ ...web, frontends: [] }])).toBe(isUdp);
  expect(looksAfter([web], [])).toBe(isUdp);
  const heir = of(protocol, 'heir');
  expect(looksAfter([web, { ...heir, frontends: [] }], [{ ...web, frontends: [] }, heir])).toBe(isUdp);
});

import { describe, expect, test } from 'vitest';
import type { Address } from '../../agent/model/address.ts';
import type { DesiredService } from '../../agent/model/desired.ts';
import { formatProblem } from '../../agent/model/problem.ts';
import type { Capacity } from '../../agent/plan/held.ts';
import type { Plan } from '../../agent/plan/planner.ts';
import { Planner } from '../../agent/plan/planner.ts';
import { verifyMaps } from '../../agent/plan/verify.ts';
import { backend, changes, frontend, gone, Maps, service } from './plan-maps.ts';

function start(capacity: Partial<Capacity> = {}): {
  maps: Maps;
  planner: Planner;
  run: (plan: Plan) => string[];
  want: (...desired: DesiredService[]) => Plan;
} {
  const maps = new Maps(capacity);
  const planner = new Planner(maps.snapshot());
  planner.planAll(changes([]));
  const run = (plan: Plan): string[] => {
    for (const write of plan.writes) maps.execute(write);
    return plan.writes.map(({ op }) => op);
  };
  const want = (...desired: DesiredService[]): Plan => planner.plan(changes(desired));
  return { maps, planner, run, want };
}

const web = service('web', { frontends: [frontend('10.96.0.1')], cluster: [backend('10.1.0.1'), backend('10.1.0.2')] });
const maglev = (i: number): DesiredService =>
  service(`maglev-${i}`, { algorithm: 'maglev', frontends: [frontend(`10.96.1.${i}`)], cluster: [backend(`10.2.${i}.1`), backend(`10.2.${i}.2`)] });
const lines = (plan: Plan): (string | undefined)[] => [...plan.problems.values()].map((problem) => problem && formatProblem(problem));

describe('a plan', () => {
  test('builds a service from the inside out', () => {
    const { run, want } = start();
    expect(run(want(web))).toEqual(['backend.put', 'backend.put', 'ring.write', 'service.put', 'frontend.put']);
  });

  test('has nothing to do for what stands', () => {
    const { run, want } = start();
    run(want(web));
    expect(want(web)).toEqual({ writes: [], retired: undefined, problems: new Map() });
  });

  test('replaces a set aside, and clears the slot that left only when reclaimed', () => {
    const { maps, planner, run, want } = start();
    run(want(web));
    const [held] = maps.services.values();
    const plan = want({ ...web, cluster: [web.cluster[0]!] });
    expect(run(plan)).toEqual(['ring.write', 'service.put', 'backend.flags']);
    expect([...maps.services.values()][0]!.cluster.base).not.toBe(held!.cluster.base);
    expect([...maps.backends.values()].map(({ address, serving }) => ({ address, serving }))).toEqual([
      { address: '10.1.0.1', serving: true },
      { address: '10.1.0.2', serving: false },
    ]);
    expect(run(planner.reclaim(plan.retired!))).toEqual(['backend.clear']);
    expect(maps.backends.size).toBe(1);
  });

  test('gives a backend that comes back within its grace its slot again', () => {
    const { maps, planner, run, want } = start();
    run(want(web));
    const ids = [...maps.backends.keys()];
    const left = want({ ...web, cluster: [web.cluster[0]!] });
    run(left);
    expect(run(want(web))).toEqual(['backend.flags', 'ring.write', 'service.put']);
    run(planner.reclaim(left.retired!));
    expect([...maps.backends.keys()]).toEqual(ids);
  });

  test('keeps a slot that sockets have open, and gives it to its endpoint again however late that comes back', () => {
    const { maps, planner, run, want } = start();
    run(want(web));
    const ids = [...maps.backends.keys()];
    const busy = ids[1]!;
    const left = want({ ...web, cluster: [web.cluster[0]!] });
    run(left);
    const isOpen = (id: number): boolean => id === busy;
    const kept = planner.reclaim(left.retired!, isOpen);
    expect(kept).toMatchObject({ writes: [], retired: { backends: [busy], regions: [], services: [] } });
    const again = planner.reclaim(kept.retired!, isOpen);
    expect(run(want(web))).toEqual(['backend.flags', 'ring.write', 'service.put']);
    expect(run(planner.reclaim(again.retired!))).toEqual([]);
    expect([...maps.backends.keys()]).toEqual(ids);
  });

  test('clears a kept slot once its sockets are closed, also when its service is gone', () => {
    const { maps, planner, run, want } = start();
    run(want(web));
    const busy = [...maps.backends.keys()][1]!;
    const ended = planner.plan(gone(web));
    run(ended);
    const kept = planner.reclaim(ended.retired!, (id) => id === busy);
    expect(run(kept)).toEqual(['backend.clear']);
    expect(planner.usage.backends).toBe(1);
    expect(run(planner.reclaim(kept.retired!))).toEqual(['backend.clear']);
    expect(maps.backends.size).toBe(0);
    expect(planner.usage.backends).toBe(0);
  });

  test('moves a frontend from one service to another in one write', () => {
    const { run, want } = start();
    run(want(web));
    const writes = want(service('next', { frontends: web.frontends, cluster: [backend('10.1.0.9')] }), { ...web, frontends: [] }).writes;
    expect(writes.filter(({ op }) => op.startsWith('frontend'))).toEqual([expect.objectContaining({ op: 'frontend.put' })]);
    run({ writes, retired: undefined, problems: new Map() });
  });

  test('leaves a frontend to whom it was given, whatever becomes of the one who had it', () => {
    const { maps, planner, run, want } = start();
    run(want(web));
    const next = service('next', { frontends: web.frontends, cluster: [backend('10.1.0.9')] });
    run(want(next));
    run(planner.plan(gone(web)));
    expect(maps.asDesired()).toEqual([next]);
  });

  test('changes flags without touching the set', () => {
    const { run, want } = start();
    run(want(web));
    expect(run(want({ ...web, cluster: web.cluster.map((one) => ({ ...one, terminating: true })) }))).toEqual(['backend.flags', 'backend.flags']);
  });

  test('deletes from the outside in', () => {
    const { planner, run, want } = start();
    run(want(web));
    expect(run(planner.plan(gone(web)))).toEqual(['frontend.delete', 'service.delete', 'backend.flags', 'backend.flags']);
  });

  test('has a Maglev table behind the members only where it was asked for and there is a choice', () => {
    const { maps, run, want } = start();
    run(want({ ...web, algorithm: 'maglev', local: [web.cluster[0]!] }, service('plain', { cluster: web.cluster })));
    const [maglev, plain] = maps.services.values();
    expect(maglev).toMatchObject({ cluster: { count: 2, table: 251 }, local: { count: 1, table: 0 } });
    expect(plain).toMatchObject({ cluster: { count: 2, table: 0 } });
  });

  test('makes the same table whatever ids the backends have', () => {
    const tableOf = (maps: Maps): (string | undefined)[] => {
      const { base, count, table } = [...maps.services.values()].find(({ name }) => name === 'web')!.cluster;
      return [...maps.ring.subarray(base + count, base + count + table)].map((id) => maps.backends.get(id)?.address);
    };
    const one = start();
    one.run(one.want({ ...web, algorithm: 'maglev' }));
    const other = start();
    other.run(
      other.want(service('first', { cluster: [backend('10.1.0.7'), backend('10.1.0.8')] }), { ...web, algorithm: 'maglev', cluster: [web.cluster[1]!] }),
    );
    other.run(other.want({ ...web, algorithm: 'maglev' }));
    expect([...other.maps.backends.keys()]).not.toEqual([...one.maps.backends.keys()]);
    expect(tableOf(other.maps)).toEqual(tableOf(one.maps));
    expect(new Set(tableOf(one.maps))).toEqual(new Set(['10.1.0.1', '10.1.0.2']));
  });

  test('keeps the ids of what an earlier agent wrote, and deletes the rest of it', () => {
    const { maps, run, want } = start();
    run(want(web, service('old', { frontends: [frontend('10.96.0.2')], cluster: [backend('10.1.0.3')] })));
    const restarted = new Planner(maps.snapshot());
    const plan = restarted.planAll(changes([web]));
    expect(plan.writes.map(({ op }) => op)).toEqual(['frontend.delete', 'service.delete', 'backend.flags']);
    expect(plan.retired).toMatchObject({ backends: [3], services: [2] });
  });
});

describe('the whole desired state in parts', () => {
  const old = service('old', { frontends: [frontend('10.96.0.2')], cluster: [backend('10.1.0.3')] });

  test('deletes what no part has named, and only with the last', () => {
    const { maps, run, want } = start();
    run(want(web, old));
    const restarted = new Planner(maps.snapshot());
    expect(run(restarted.plan(changes([web])))).toEqual([]);
    expect(run(restarted.planAll(changes([]), new Set([web.key])))).toEqual(['frontend.delete', 'service.delete', 'backend.flags']);
  });

  test('gives a frontend to its new owner at once', () => {
    const { maps, run, want } = start();
    run(want(web, old));
    const restarted = new Planner(maps.snapshot());
    const heir = service('heir', { frontends: old.frontends, cluster: [backend('10.1.0.4')] });
    expect(run(restarted.plan(changes([heir])))).toEqual(['backend.put', 'ring.write', 'service.put', 'frontend.put']);
    expect(run(restarted.planAll(changes([web]), new Set([heir.key])))).toEqual(['service.delete', 'backend.flags']);
  });
});

describe('a map that is full', () => {
  const other = service('other', { frontends: [frontend('10.96.0.2')], cluster: [backend('10.1.0.3')] });
  const third = service('third', { frontends: [frontend('10.96.0.3')], cluster: [backend('10.1.0.4')] });

  test.each<[Partial<Capacity>, string]>([
    [{ services: 1 }, 'does not fit into the map services, which has 1 entries: a larger --max-services would be right'],
    [{ frontends: 1 }, 'does not fit into the map frontends, which has 1 entries: a larger --max-frontends would be right'],
    [{ backends: 3 }, 'does not fit into the map backends, which has 3 entries: a larger --max-backends would be right'],
    [{ ringSlots: 2 }, 'does not fit into the map ring, which has 2 slots: a larger --ring-slots would be right'],
  ])('%o refuses what does not fit by name, once, and serves it when there is room', (capacity, message) => {
    const { maps, planner, run, want } = start(capacity);
    run(want(web));
    const refused = want(other);
    run(refused);
    expect(lines(refused)).toEqual([`Service default/other: spec.ports "http/TCP/IPv4" ${message}`]);
    expect(maps.asDesired()).toEqual([web]);
    expect(lines(want(other))).toEqual([]);

    const ended = planner.plan(gone(web));
    run(ended);
    const room = planner.reclaim(ended.retired!);
    run(room);
    expect(maps.asDesired()).toEqual([other]);
    expect([...ended.problems, ...room.problems]).toEqual([[other.key, undefined]]);
  });

  test('does not keep the rest from being served', () => {
    const { maps, run, want } = start({ backends: 4 });
    const large = service('large', { cluster: [1, 2, 3, 4, 5].map((i) => backend(`10.1.1.${i}`)) });
    run(want(large, other, third));
    expect(maps.asDesired()).toEqual([other, third]);
  });

  test('keeps a service that has grown beyond it with what is left of its backends', () => {
    const { maps, run, want } = start({ backends: 4 });
    run(want(web));
    const grown = want({ ...web, cluster: [2, 3, 4, 5].map((i) => backend(`10.1.0.${i}`)) });
    run(grown);
    expect(lines(grown)[0]).toContain('has grown beyond the map backends');
    expect(maps.asDesired()[0]!.cluster).toEqual([backend('10.1.0.2')]);
  });

  test('has a table for packets under every algorithm but random, whatever sockets do', () => {
    for (const algorithm of ['round-robin', 'least-connections', 'source-hash'] as const) {
      const { maps, run, want } = start();
      run(want({ ...web, algorithm }));
      expect([...maps.services.values()][0]).toMatchObject({ algorithm, cluster: { count: 2, table: 251 } });
    }
  });

  test('serves at random what finds no room for its Maglev table, says so once for all, and builds the table when there is room', () => {
    // Half of the ring is for members: one table of 251 slots fits into the other.
    const { maps, planner, run, want } = start({ ringSlots: 520 });
    const [first, second] = [0, 1].map((i) => maglev(i)) as [DesiredService, DesiredService];
    const tables = (): number[] => [...maps.services.values()].map(({ cluster }) => cluster.table);
    run(want(first));
    const short = want(second);
    run(short);
    expect(lines(short)).toEqual([expect.stringMatching(/^map ring: has no room for all Maglev tables in its 520 slots: a larger --ring-slots/)]);
    expect(tables()).toEqual([251, 0]);
    expect(want(first, second)).toEqual({ writes: [], retired: undefined, problems: new Map() });

    const left = planner.plan(gone(first));
    run(left);
    expect(tables()).toEqual([0]);
    const reclaimed = planner.reclaim(left.retired!);
    run(reclaimed);
    expect(tables()).toEqual([251]);
    expect(reclaimed.problems).toEqual(new Map([['tables', undefined]]));
    expect(verifyMaps(maps.snapshot())).toEqual([]);
  });

  test('serves every service before any has a Maglev table', () => {
    const { maps, run, want } = start({ ringSlots: 520, services: 100, frontends: 100, backends: 400 });
    run(want(...Array.from({ length: 80 }, (_, i) => maglev(i))));
    expect(maps.services.size).toBe(80);
    expect([...maps.services.values()].every(({ cluster }) => cluster.count === 2)).toBe(true);
  });
});

describe('peers', () => {
  const [one, two, three] = ['172.30.0.12', '172.30.0.13', '172.30.0.14'].map((address) => address as Address) as [Address, Address, Address];

  test('come and go, and those beyond the room are told, and wait for it', () => {
    const { maps, planner, run } = start({ peers: 2 });
    const peers = (...changed: [Address, boolean][]): Plan => planner.plan(changes([], { peers: new Map(changed) }));
    expect(run(peers([one, true], [two, true]))).toEqual(['peer.put', 'peer.put']);
    const short = peers([three, true]);
    expect([run(short), lines(short)]).toEqual([[], [expect.stringContaining('map peers: has no room for all nodes in its 2 entries')]]);
    const room = peers([one, false]);
    expect([run(room), lines(room)]).toEqual([['peer.delete', 'peer.put'], [undefined]]);
    expect([...maps.peers]).toEqual([two, three]);
    expect(planner.usage.peers).toBe(2);
  });

  test('that a whole state does not name are removed', () => {
    const { maps, planner, run } = start();
    run(planner.plan(changes([], { peers: new Map([one, two].map((address) => [address, true])) })));
    const next = new Planner(maps.snapshot());
    expect(run(next.planAll(changes([], { peers: new Map([[two, true]]) })))).toEqual(['peer.delete']);
  });
});

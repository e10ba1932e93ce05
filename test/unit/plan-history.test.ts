/** Whatever happens, in whatever order: after every single write a packet meets complete data. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Backend } from '../../agent/model/desired.ts';
import type { Capacity, HeldBackend } from '../../agent/plan/held.ts';
import type { Plan, Retired } from '../../agent/plan/planner.ts';
import { Planner } from '../../agent/plan/planner.ts';
import { changes, Maps, ROOMY } from './plan-maps.ts';
import { nodeOf, step, wish, withoutSpare, World } from './plan-wishes.ts';
import type { Step } from './plan-wishes.ts';

/** Each short of one thing, and one of all. */
const TIGHT: readonly Capacity[] = [
  { ...ROOMY, services: 2 },
  { ...ROOMY, frontends: 4 },
  { ...ROOMY, backends: 10 },
  { ...ROOMY, ringSlots: 12 },
  { ...ROOMY, ringSlots: 600 },
  { ...ROOMY, sourceRanges: 3 },
  { ...ROOMY, services: 3, frontends: 5, backends: 10, ringSlots: 600, sourceRanges: 2 },
];
/** Whom each frontend of a service lets in: one client of each range, and one of none. One that goes to another service is another frontend. */
function access(maps: Maps): Map<string, boolean> {
  const found = new Map<string, boolean>();
  for (const { address, service: id, sourceRanges } of maps.frontends.values())
    for (const client of [0, 1, 2, 3, 4]) found.set(`${address} of ${id} from 10.${client}`, !sourceRanges || maps.ranges.has(`${id} 10.${client}.0.0/16`));
  return found;
}

/** Runs a history, checking after every write. */
class Run {
  readonly maps: Maps;
  readonly world = new World();
  planner: Planner;
  waiting: Retired[] = [];
  readonly #born = new Map<Retired, number>();
  problems = new Map<string, string>();

  constructor(capacity: Capacity) {
    this.maps = new Maps(capacity);
    this.planner = new Planner(this.maps.snapshot());
    this.execute(this.planner.planAll(this.world.all()));
  }

  /** @param ended the token that the plan reclaims. */
  execute(plan: Plan, ended?: Retired): void {
    const later = this.waiting.filter((one) => ended !== undefined && this.#born.get(one)! > this.#born.get(ended)!);
    const underGrace = new Set(this.waiting.flatMap(({ services }) => services));
    const remembered = this.waiting.flatMap(({ regions }) => regions);
    const views = [access(this.maps)];
    for (const write of plan.writes) {
      if (write.op === 'ring.write' && remembered.some(({ base, length }) => write.base < base + length && base < write.base + write.slots.length)) {
        throw new Error('a region was written to within its grace');
      }
      if (write.op === 'backend.clear' && later.some(({ backends }) => backends.includes(write.id)))
        throw new Error('a slot that left again was cleared too early');
      if (write.op === 'service.put' && underGrace.has(write.service.id)) throw new Error('a service id came back within its grace');
      this.maps.execute(write);
      this.maps.check();
      views.push(access(this.maps));
    }
    expectNoHole(views);
    if (plan.retired !== undefined) {
      this.#born.set(plan.retired, this.#born.size);
      this.waiting.push(plan.retired);
    }
    for (const [key, problem] of plan.problems) {
      if (problem === undefined) expect(this.problems.delete(key)).toBe(true);
      else this.problems.set(key, problem.message);
    }
  }

  step(one: Step): void {
    if ('wishes' in one) {
      this.execute(this.planner.plan(this.world.apply(one.wishes)));
    } else if ('cidrs' in one) {
      this.world.node = nodeOf(one.cidrs);
      this.execute(this.planner.plan(changes([], { node: this.world.node })));
    } else if ('reclaim' in one) {
      const [retired] = this.waiting.splice(one.reclaim % Math.max(1, this.waiting.length), 1);
      if (retired !== undefined) this.execute(this.planner.reclaim(retired), retired);
    } else {
      this.waiting = [];
      this.problems.clear();
      this.planner = new Planner(this.maps.snapshot());
      this.#restart();
    }
    for (const held of this.maps.backends.values())
      if (this.maps.services.has(held.service)) expect([held.inCluster, held.inLocal]).toEqual(this.#membershipOf(held));
  }

  /** In parts, as there may be thousands. */
  #restart(): void {
    const { services, ...rest } = this.world.all();
    const planned = services.slice(1);
    for (const one of planned) this.execute(this.planner.plan(changes([], { services: [one] })));
    this.execute(this.planner.planAll({ ...rest, services: services.slice(0, 1) }, new Set(planned.map(({ key }) => key))));
  }

  #membershipOf({ id, service: of }: HeldBackend): boolean[] {
    const owner = this.maps.services.get(of);
    return [owner?.cluster, owner?.local].map((set) => set !== undefined && this.maps.ring.subarray(set.base, set.base + set.count).includes(id));
  }

  /** Lets every grace period pass. */
  settle(): void {
    for (let next = this.waiting.shift(); next !== undefined; next = this.waiting.shift()) this.execute(this.planner.reclaim(next), next);
  }

  /** Services, addresses and the node; a slot that is kept for a spare endpoint is one that may be. */
  expectAsDesired(): void {
    expect(this.maps.asDesired().map(withoutSpare)).toEqual(this.world.sorted());
    for (const { key, spare } of this.maps.asDesired()) expect(this.world.desired.get(key)!.spare).toEqual(expect.arrayContaining(spare as Backend[]));
    expect(this.maps.addresses).toEqual(this.world.addresses());
    const { serviceCidrs, ownsBeyond, ...node } = this.world.node;
    const room = this.maps.capacity.serviceCidrs;
    expect(this.maps.node).toEqual({ ...node, serviceCidrs: serviceCidrs.slice(0, room), ownsBeyond: ownsBeyond || serviceCidrs.length > room });
    expect([...this.problems.keys()]).toEqual(serviceCidrs.length > room ? ['node'] : []);
  }

  /** Each backend slot and ring slot in use is one that a service needs. */
  expectNoLeak(): void {
    const needed = [...this.maps.services.values()].flatMap((held) => [held.cluster, held.local]);
    const members = new Set(needed.flatMap(({ base, count }) => [...this.maps.ring.subarray(base, base + count)]));
    for (const { id, serving } of this.maps.backends.values()) if (serving) members.add(id);
    const owners = new Set(this.maps.services.keys());
    for (const { service: owner } of this.maps.ranges.values()) expect(owners).toContain(owner);
    expect([...this.maps.backends.keys()].sort()).toEqual([...members].sort());
    expect(this.planner.usage).toMatchObject({
      services: this.maps.services.size,
      frontends: this.maps.frontends.size + this.maps.addresses.size,
      sourceRanges: this.maps.ranges.size,
      backends: members.size,
      ringSlots: needed.reduce((sum, { count, table }) => sum + count + table, 0),
    });
  }
}

/** Who was let in before and is after, was so throughout; and who was not and is not, at no time. */
function expectNoHole(views: readonly Map<string, boolean>[]): void {
  const [first, last] = [views[0]!, views.at(-1)!];
  for (const [way, open] of first) {
    if (last.get(way) === open) for (const view of views) if (view.get(way) !== open) throw new Error(`${way} is ${open ? 'shut out' : 'let in'} for a while`);
  }
}

describe('any history', () => {
  test('with room: ends as desired, leaks nothing, and a restart finds nothing to do', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const run = new Run(ROOMY);
        for (const one of steps) run.step(one);
        run.expectAsDesired();
        run.settle();
        run.expectAsDesired();
        run.expectNoLeak();

        const restarted = new Planner(run.maps.snapshot()).planAll(run.world.all());
        expect(restarted.writes).toEqual([]);
        expect(restarted.retired).toBeUndefined();
      }),
      { numRuns: 150 },
    );
  });

  test('restarted before its retired slots were reclaimed: they are reclaimed by the next agent', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
        const run = new Run(ROOMY);
        for (const one of steps) run.step(one);
        run.step({ restart: true });
        run.settle();
        run.expectAsDesired();
        run.expectNoLeak();
      }),
      { numRuns: 100 },
    );
  });

  test('executed only in part: a planner of what is really there ends as desired', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 15 }), fc.array(wish, { minLength: 1, maxLength: 5 }), fc.nat(), (steps, wishes, cut) => {
        const run = new Run(ROOMY);
        for (const one of steps) run.step(one);
        const plan = run.planner.plan(run.world.apply(wishes));
        run.execute({ ...plan, writes: plan.writes.slice(0, cut % (plan.writes.length + 1)), retired: undefined });
        run.step({ restart: true });
        run.settle();
        run.expectAsDesired();
        run.expectNoLeak();
      }),
      { numRuns: 150 },
    );
  });

  test('with too little room: what is refused has a problem, the rest is as desired, and with room again all is', () => {
    fc.assert(
      fc.property(fc.constantFrom(...TIGHT), fc.array(step, { maxLength: 30 }), (capacity, steps) => {
        const run = new Run(capacity);
        for (const one of steps) run.step(one);
        run.settle();
        const actual = new Map(run.maps.asDesired().map((held) => [held.key, withoutSpare(held)]));
        for (const wanted of run.world.sorted()) if (!run.problems.has(wanted.key)) expect(actual.get(wanted.key)).toEqual(wanted);
        for (const held of actual.keys()) expect(run.world.desired.has(held)).toBe(true);
        expect(run.planner.usage.refused).toBe([...run.problems.keys()].filter((key) => run.world.desired.has(key)).length);
        run.expectNoLeak();

        // No endpoint that is gone is ever kept, however full the maps are.
        for (const [key, held] of actual) {
          const wanted = new Set(run.world.desired.get(key)!.cluster.map(({ address }) => address));
          if (!(run.problems.get(key)?.includes('ring') ?? false)) expect(held.cluster.every(({ address }) => wanted.has(address))).toBe(true);
        }

        // One service that surely fits, alone.
        const [last, ...others] = run.world.sorted();
        if (last === undefined) return;
        const small = { ...last, cluster: last.cluster.slice(0, 1), local: [], frontends: last.frontends.slice(0, 1), sourceRanges: undefined };
        const former = [...run.world.addresses().keys()];
        run.world.desired.clear();
        run.world.desired.set(small.key, small);
        const now = run.world.addresses();
        const rest = [...former, ...now.keys()].map((address) => [address, now.get(address)] as const);
        const services = [{ key: small.key, desired: small }, ...others.map(({ key }) => ({ key, desired: undefined }))];
        run.world.node = nodeOf([]);
        run.execute(run.planner.plan({ services, addresses: new Map(rest), node: run.world.node, peers: new Map() }));
        run.settle();
        run.expectAsDesired();
      }),
      { numRuns: 150 },
    );
  });
});

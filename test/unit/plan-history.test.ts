/** Whatever happens, in whatever order: after every single write a packet meets complete data. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Backend, DesiredService, Frontend } from '../../agent/model/desired.ts';
import type { Capacity } from '../../agent/plan/held.ts';
import type { Plan, Retired } from '../../agent/plan/planner.ts';
import { Planner } from '../../agent/plan/planner.ts';
import { backend, frontend, Maps, service } from './plan-maps.ts';

const ROOMY: Capacity = { services: 50, frontends: 100, backends: 200, ringSlots: 20_000 };
/** Each short of one thing, and one of all. */
const TIGHT: readonly Capacity[] = [
  { ...ROOMY, services: 2 },
  { ...ROOMY, frontends: 4 },
  { ...ROOMY, backends: 10 },
  { ...ROOMY, ringSlots: 12 },
  { ...ROOMY, ringSlots: 600 },
  { services: 3, frontends: 5, backends: 10, ringSlots: 600 },
];
const NAMES = ['a', 'b', 'c', 'd', 'e'];

/** What one step asks of one service; frontends are drawn from a common pool, so that they move. */
interface Wish {
  readonly name: string;
  readonly present: boolean;
  readonly frontends: readonly number[];
  readonly cluster: readonly number[];
  readonly local: readonly number[];
  readonly terminating: boolean;
  readonly maglev: boolean;
  readonly affinity: number;
}

type Step = { readonly wishes: readonly Wish[] } | { readonly reclaim: number } | { readonly restart: true };

const some = (max: number, maxLength: number): fc.Arbitrary<number[]> => fc.uniqueArray(fc.integer({ min: 1, max }), { maxLength });
const wish: fc.Arbitrary<Wish> = fc.record({
  name: fc.constantFrom(...NAMES),
  present: fc.boolean(),
  frontends: some(8, 4),
  cluster: some(9, 6),
  local: some(9, 3),
  terminating: fc.boolean(),
  maglev: fc.boolean(),
  affinity: fc.constantFrom(0, 60),
});
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.array(wish, { minLength: 1, maxLength: 4 }).map((wishes) => ({ wishes })) },
  { weight: 3, arbitrary: fc.nat().map((index) => ({ reclaim: index })) },
  { weight: 1, arbitrary: fc.constant({ restart: true } as const) },
);

/** A desired state as the model would keep it: no frontend belongs to two services. */
class World {
  readonly desired = new Map<string, DesiredService>();

  apply(wishes: readonly Wish[]): Map<string, DesiredService | undefined> {
    const changes = new Map<string, DesiredService | undefined>();
    for (const one of wishes) {
      const { key } = service(one.name);
      this.desired.delete(key);
      if (one.present) {
        const made = build(one);
        for (const other of this.desired.values()) {
          const left = other.frontends.filter(({ address }) => !made.frontends.some((taken) => taken.address === address));
          if (left.length === other.frontends.length) continue;
          this.desired.set(other.key, { ...other, frontends: left });
          changes.set(other.key, this.desired.get(other.key));
        }
        this.desired.set(key, made);
      }
      changes.set(key, this.desired.get(key));
    }
    return changes;
  }

  sorted(): DesiredService[] {
    return [...this.desired.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  }
}

function build(one: Wish): DesiredService {
  const backends = (numbers: readonly number[]): Backend[] =>
    numbers.toSorted((a, b) => a - b).map((i) => backend(`10.1.0.${i}`, { terminating: one.terminating && i % 2 === 0, local: i < 4 }));
  const frontends: Frontend[] = one.frontends
    .toSorted((a, b) => a - b)
    .map((i) => frontend(`10.96.0.${i}`, { kind: i % 2 === 0 ? 'ClusterIP' : 'ExternalIP' }));
  return service(one.name, {
    frontends,
    cluster: backends(one.cluster),
    local: backends(one.local),
    algorithm: one.maglev ? 'maglev' : 'random',
    affinitySeconds: one.affinity,
  });
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
    this.execute(this.planner.planAll([]));
  }

  /** @param ended the token that the plan reclaims. */
  execute(plan: Plan, ended?: Retired): void {
    const later = this.waiting.filter((one) => ended !== undefined && this.#born.get(one)! > this.#born.get(ended)!);
    const underGrace = new Set(this.waiting.flatMap(({ services }) => services));
    const remembered = this.waiting.flatMap(({ regions }) => regions);
    for (const write of plan.writes) {
      if (write.op === 'ring.write' && remembered.some(({ base, length }) => write.base < base + length && base < write.base + write.slots.length)) {
        throw new Error('a region was written to within its grace');
      }
      if (write.op === 'backend.clear' && later.some(({ backends }) => backends.includes(write.id)))
        throw new Error('a slot that left again was cleared too early');
      if (write.op === 'service.put' && underGrace.has(write.service.id)) throw new Error('a service id came back within its grace');
      this.maps.execute(write);
      this.maps.check();
    }
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
      const changes = this.world.apply(one.wishes);
      this.execute(this.planner.plan([...changes].map(([key, desired]) => ({ key, desired }))));
    } else if ('reclaim' in one) {
      const [retired] = this.waiting.splice(one.reclaim % Math.max(1, this.waiting.length), 1);
      if (retired !== undefined) this.execute(this.planner.reclaim(retired), retired);
    } else {
      this.waiting = [];
      this.problems.clear();
      this.planner = new Planner(this.maps.snapshot());
      this.execute(this.planner.planAll(this.world.desired.values()));
    }
  }

  /** Lets every grace period pass. */
  settle(): void {
    for (let next = this.waiting.shift(); next !== undefined; next = this.waiting.shift()) this.execute(this.planner.reclaim(next), next);
  }

  /** Each backend slot and ring slot in use is one that a service needs. */
  expectNoLeak(): void {
    const needed = [...this.maps.services.values()].flatMap((held) => [held.cluster, held.local]);
    const members = new Set(needed.flatMap(({ base, count }) => [...this.maps.ring.subarray(base, base + count)]));
    expect([...this.maps.backends.keys()].sort()).toEqual([...members].sort());
    expect(this.planner.usage).toMatchObject({
      services: this.maps.services.size,
      frontends: this.maps.frontends.size,
      backends: members.size,
      ringSlots: needed.reduce((sum, { count, table }) => sum + count + table, 0),
    });
  }
}

describe('any history', () => {
  test('with room: ends as desired, leaks nothing, and a restart finds nothing to do', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const run = new Run(ROOMY);
        for (const one of steps) run.step(one);
        expect(run.maps.asDesired()).toEqual(run.world.sorted());
        expect(run.problems.size).toBe(0);
        run.settle();
        expect(run.maps.asDesired()).toEqual(run.world.sorted());
        run.expectNoLeak();

        const restarted = new Planner(run.maps.snapshot()).planAll(run.world.desired.values());
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
        expect(run.maps.asDesired()).toEqual(run.world.sorted());
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
        const changes = run.world.apply(wishes);
        const plan = run.planner.plan([...changes].map(([key, desired]) => ({ key, desired })));
        run.execute({ ...plan, writes: plan.writes.slice(0, cut % (plan.writes.length + 1)), retired: undefined });
        run.step({ restart: true });
        run.settle();
        expect(run.maps.asDesired()).toEqual(run.world.sorted());
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
        const actual = new Map(run.maps.asDesired().map((held) => [held.key, held]));
        for (const wanted of run.world.sorted()) if (!run.problems.has(wanted.key)) expect(actual.get(wanted.key)).toEqual(wanted);
        for (const held of actual.keys()) expect(run.world.desired.has(held)).toBe(true);
        expect(run.planner.usage.refused).toBe(run.problems.size);
        run.expectNoLeak();

        // No endpoint that is gone is ever kept, however full the maps are.
        for (const [key, held] of actual) {
          const wanted = new Set(run.world.desired.get(key)!.cluster.map(({ address }) => address));
          if (!(run.problems.get(key)?.includes('ring') ?? false)) expect(held.cluster.every(({ address }) => wanted.has(address))).toBe(true);
        }

        // One service that surely fits, alone.
        const [last, ...others] = run.world.sorted();
        if (last === undefined) return;
        const small = { ...last, cluster: last.cluster.slice(0, 1), local: [], frontends: last.frontends.slice(0, 1) };
        run.world.desired.clear();
        run.world.desired.set(small.key, small);
        run.execute(run.planner.plan([{ key: small.key, desired: small }, ...others.map(({ key }) => ({ key, desired: undefined }))]));
        run.settle();
        expect(run.maps.asDesired()).toEqual([small]);
        expect(run.problems.size).toBe(0);
      }),
      { numRuns: 150 },
    );
  });
});

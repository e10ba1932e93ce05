/** Steps of a history drawn at random, and the desired state that they lead to. */
import fc from 'fast-check';
import type { Address, Cidr } from '../../agent/model/address.ts';
import type { Backend, DesiredAddress, DesiredNode, DesiredService, Frontend } from '../../agent/model/desired.ts';
import type { Changes } from '../../agent/plan/planner.ts';
import { BARE_NODE } from './model-builders.ts';
import { at, backend, changes, frontend, service } from './plan-maps.ts';

const NAMES = ['a', 'b', 'c', 'd', 'e'];

/** What one step asks of one service; frontends are drawn from a common pool, so that they move. */
interface Wish {
  readonly name: string;
  readonly present: boolean;
  readonly frontends: readonly number[];
  readonly cluster: readonly number[];
  readonly local: readonly number[];
  readonly spare: readonly number[];
  readonly ranges: readonly number[] | undefined;
  readonly terminating: boolean;
  readonly maglev: boolean;
  readonly affinity: number;
}

export type Step = { readonly wishes: readonly Wish[] } | { readonly cidrs: readonly number[] } | { readonly reclaim: number } | { readonly restart: true };

const some = (max: number, maxLength: number): fc.Arbitrary<number[]> => fc.uniqueArray(fc.integer({ min: 1, max }), { maxLength });
export const wish: fc.Arbitrary<Wish> = fc.record({
  name: fc.constantFrom(...NAMES),
  present: fc.boolean(),
  frontends: some(8, 4),
  cluster: some(9, 6),
  local: some(9, 3),
  spare: some(9, 3),
  ranges: fc.option(some(4, 3), { nil: undefined }),
  terminating: fc.boolean(),
  maglev: fc.boolean(),
  affinity: fc.constantFrom(0, 60),
});
export const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.array(wish, { minLength: 1, maxLength: 4 }).map((wishes) => ({ wishes })) },
  { weight: 1, arbitrary: some(6, 6).map((cidrs) => ({ cidrs })) },
  { weight: 3, arbitrary: fc.nat().map((index) => ({ reclaim: index })) },
  { weight: 1, arbitrary: fc.constant({ restart: true } as const) },
);

/** A desired state as the model would keep it: no frontend belongs to two services, and every address of one is known. */
export class World {
  readonly desired = new Map<string, DesiredService>();
  node: DesiredNode = nodeOf([]);

  apply(wishes: readonly Wish[]): Changes {
    const changed = new Map<string, DesiredService | undefined>();
    const before = this.addresses();
    for (const one of wishes) {
      const { key } = service(one.name);
      this.desired.delete(key);
      if (one.present) {
        const made = build(one);
        for (const other of this.desired.values()) {
          const left = other.frontends.filter(({ address }) => !made.frontends.some((taken) => taken.address === address));
          if (left.length === other.frontends.length) continue;
          this.desired.set(other.key, { ...other, frontends: left, sourceRanges: hasBalancer(left) ? other.sourceRanges : undefined });
          changed.set(other.key, this.desired.get(other.key));
        }
        this.desired.set(key, made);
      }
      changed.set(key, this.desired.get(key));
    }
    const gone = [...before.keys()].map((address) => [address, undefined] as const);
    return {
      services: [...changed].map(([key, desired]) => ({ key, desired })),
      addresses: new Map([...gone, ...this.addresses()]),
      node: undefined,
      peers: new Map(),
    };
  }

  addresses(): Map<Address, DesiredAddress> {
    const frontends = [...this.desired.values()].flatMap((desired) => desired.frontends.map((one) => ({ ...one, ping: desired.hasAny })));
    return new Map(frontends.map(({ address, kind, ping }) => [address, { address, owned: kind === 'ClusterIP', ping }]));
  }

  all(): Changes {
    return changes(this.desired.values(), { addresses: this.addresses(), node: this.node });
  }

  sorted(): DesiredService[] {
    return [...this.desired.values()].sort((a, b) => (a.key < b.key ? -1 : 1)).map(withoutSpare);
  }
}

const KINDS = ['ClusterIP', 'ExternalIP', 'LoadBalancer'] as const;
const cidr = (i: number): Cidr => ({ base: at(`10.${i}.0.0`), prefix: 16 });
export const nodeOf = (cidrs: readonly number[]): DesiredNode => ({
  ...BARE_NODE,
  pods4: cidrs.length > 2 ? cidr(99) : undefined,
  serviceCidrs: cidrs.map(cidr),
  ownsBeyond: cidrs.length === 0,
  masqueradesAll: cidrs.length === 1,
});

const hasBalancer = (frontends: readonly Frontend[]): boolean => frontends.some(({ kind }) => kind === 'LoadBalancer');

/** Which endpoints that serve but are in no set still have a slot hangs on history. */
export const withoutSpare = (desired: DesiredService): DesiredService => ({ ...desired, spare: [] });

function build(one: Wish): DesiredService {
  const backends = (numbers: readonly number[]): Backend[] =>
    numbers
      .toSorted((a, b) => a - b)
      .map((i) => backend(`10.1.0.${i}`, { terminating: one.terminating && i % 2 === 0, local: i < 4, host: i === 5 ? at('172.30.0.12') : undefined }));
  const frontends: Frontend[] = one.frontends.toSorted((a, b) => a - b).map((i) => frontend(`10.96.0.${i}`, { kind: KINDS[i % 3]! }));
  return service(one.name, {
    frontends,
    cluster: backends(one.cluster),
    local: backends(one.local),
    spare: backends(one.spare.filter((i) => !one.cluster.includes(i) && !one.local.includes(i))),
    sourceRanges: hasBalancer(frontends) ? one.ranges?.toSorted((a, b) => a - b).map(cidr) : undefined,
    hasAny: one.affinity === 0,
    algorithm: one.maglev ? 'maglev' : 'random',
    affinitySeconds: one.affinity,
  });
}

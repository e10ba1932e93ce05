import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Model } from '../../agent/model/model.ts';
import { READY, SERVING, TERMINATING } from '../../agent/model/objects.ts';
import type { Change, EndpointSlice, Service } from '../../agent/model/objects.ts';
import { FACTS, desiredOf, node, put, remove, service, servicePort, slice } from './model-builders.ts';

describe('history does not matter', () => {
  const few = <T>(...values: T[]): fc.Arbitrary<T> => fc.constantFrom(...values);
  const anyService: fc.Arbitrary<Service> = fc
    .record({
      name: few('a', 'b', 'c'),
      created: few(0, 1, 2),
      type: few('ClusterIP', 'NodePort', 'ExternalName', 'LoadBalancer'),
      clusterIPs: few(['10.96.0.1'], ['10.96.0.2', 'fd00:96::2'], ['None'], ['bad']),
      externalIPs: few([], ['198.51.100.1'], ['198.51.100.1', '127.0.0.1'], ['172.30.0.11']),
      ports: few([servicePort()], [servicePort({ nodePort: 30080 })], [servicePort(), servicePort({ name: 'alt', port: 30080 })], [servicePort({ port: 0 })]),
      internalTrafficPolicy: few('Cluster', 'Local'),
      externalTrafficPolicy: few('Cluster', 'Local'),
      proxyName: few('', '', '', 'x'),
    })
    .map(service);
  const anySlice: fc.Arbitrary<EndpointSlice> = fc
    .tuple(
      fc.array(
        fc.record({
          address: few('10.0.0.1', '10.0.0.2', '10.0.0.3', '::1'),
          state: few(READY | SERVING, SERVING, SERVING | TERMINATING),
          node: few('node-a', 'node-b'),
          zones: few([], ['z1'], ['z2']),
        }),
        { maxLength: 4 },
      ),
      fc.record({ name: few('x', 'y', 'z'), service: few('a', 'b', 'c', ''), addressType: few('IPv4', 'IPv4', 'IPv6') }),
    )
    .map(([rows, fields]) => slice(rows, fields));
  const anyNode = few('z1', 'z2').map((zone) => node({ 'topology.kubernetes.io/zone': zone }));
  const anyChange: fc.Arbitrary<Change> = fc
    .tuple(fc.oneof(anyService, anySlice, anyNode), fc.boolean())
    // What a Node has said outlives it.
    .map(([object, there]) => (there || 'podCIDRs' in object ? put(object) : remove(object)));

  interface Kept {
    readonly desired: Map<string, unknown>;
    readonly problems: Map<string, unknown>;
  }

  /** What a consumer knows that follows the deltas: the dataplane's view. */
  function follow(model: Model, steps: readonly (readonly Change[])[]): Kept {
    const kept: Kept = { desired: new Map(), problems: new Map() };
    for (const step of steps) {
      model.apply(step);
      const delta = model.takeChanged();
      for (const { key, desired } of delta.services) {
        if (desired === undefined) kept.desired.delete(key);
        else kept.desired.set(key, desired);
      }
      for (const [object, list] of delta.problems) {
        if (list.length === 0) kept.problems.delete(object);
        else kept.problems.set(object, list);
      }
    }
    return kept;
  }

  /** The last word on each object, for a model that starts anew. */
  function standing(changes: readonly Change[]): Change[] {
    return [...new Map(changes.map((change) => [`${change.kind} ${change.key}`, change])).values()].filter((change) => change.object !== undefined);
  }

  test('following the deltas gives what a fresh model makes of the same objects, in any order', () => {
    fc.assert(
      fc.property(fc.array(fc.array(anyChange, { maxLength: 3 }), { maxLength: 12 }), fc.nat(), (steps, seed) => {
        const model = new Model(FACTS);
        const followed = follow(model, steps);
        const objects = standing(steps.flat());
        const turned = objects.map((_, i) => objects[(i * 7 + seed) % objects.length] as Change);
        const order = new Set(turned).size === objects.length ? turned : objects.toReversed();
        const fresh = follow(new Model(FACTS), [order]);
        expect(followed).toEqual(fresh);
        expect(new Map(desiredOf(model).map((desired) => [desired.key, desired]))).toEqual(fresh.desired);
        expect(model.problems).toEqual(fresh.problems);
      }),
      { numRuns: 400 },
    );
  });

  test('no frontend is ever given to two', () => {
    fc.assert(
      fc.property(fc.array(anyService, { maxLength: 3 }), (services) => {
        const model = new Model(FACTS);
        model.apply(services.map(put));
        const claims = desiredOf(model).flatMap((d) => d.frontends.map((f) => `${f.address} ${f.port} ${d.protocol}`));
        expect(new Set(claims).size).toBe(claims.length);
      }),
    );
  });
});

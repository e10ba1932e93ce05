/** Maglane's answer, from the maps in the kernel. */
import type { View } from '../../agent/dataplane/view.ts';
import type { Caller, Explanation } from '../../agent/explain/explain.ts';
import { Explainer } from '../../agent/explain/explain.ts';
import type { Held, SetRegion } from '../../agent/plan/held.ts';
import { verifyMaps } from '../../agent/plan/verify.ts';
import type { Answer, Question, Source } from './answer.ts';
import { NOTHING, sortTargets } from './answer.ts';
import { isNodes } from './world.ts';

export type Way = Caller['way'];

const PLACES: Readonly<Record<Source['name'], Caller['place']>> = { node: 'node', 'pod here': 'pod', 'pod elsewhere': 'outside', outside: 'outside' };

/** How a source may come: by a socket that a hook translates, or, where none does (another kernel, a raw socket), as a packet. */
export const waysOf = ({ name }: Source): readonly Way[] => (name === 'node' || name === 'pod here' ? ['socket', 'packet'] : ['packet']);

export class Maglane {
  readonly #held: Held;
  readonly #explainer: Explainer;

  constructor(view: View) {
    this.#held = view.read();
    this.#explainer = new Explainer(this.#held, isNodes);
  }

  /** What the maps contradict themselves in, beyond what an answer shows: among it, whom affinity would choose again. */
  contradictions(): string[] {
    const { services, backends } = this.#held;
    const members = new Map(services.map((service) => [service.id, { cluster: this.#members(service.cluster), local: this.#members(service.local) }]));
    const marks = backends.flatMap((backend) => {
      const sets = members.get(backend.service);
      const isRight = backend.inCluster === (sets?.cluster.has(backend.id) ?? false) && backend.inLocal === (sets?.local.has(backend.id) ?? false);
      return isRight ? [] : [`backend ${backend.address} ${backend.port} is marked as in sets that it is not in, or the other way round`];
    });
    return [...verifyMaps(this.#held), ...marks];
  }

  #members(set: SetRegion): ReadonlySet<number> {
    return new Set(this.#held.members(set));
  }

  /** What a connection meets. */
  ask(question: Question, way: Way = 'packet'): Answer {
    const { verdict, service, targets } = this.explain(question, way);
    if (verdict === 'pass') return NOTHING;
    if (verdict !== 'backend') return { ...NOTHING, verdict };
    return {
      verdict: 'dnat',
      targets: sortTargets(targets.map(({ backend, masquerade }) => ({ address: backend.address, port: backend.port, masquerade }))),
      affinity: service?.affinitySeconds ?? 0,
    };
  }

  explain(question: Question, way: Way): Explanation {
    return this.#explainer.explain(question, { place: PLACES[question.source.name], way, source: question.source.address });
  }
}

/** Maglane's answer, from the maps in the kernel. */
import type { View } from '../../agent/dataplane/view.ts';
import type { Caller, Explanation } from '../../agent/explain/explain.ts';
import { Explainer } from '../../agent/explain/explain.ts';
import type { Answer, Question, Source } from './answer.ts';
import { NOTHING, sortTargets } from './answer.ts';

const CALLERS: Readonly<Record<Source['name'], Caller['place']>> = { node: 'node', 'pod here': 'pod', 'pod elsewhere': 'outside', outside: 'outside' };

export class Maglane {
  readonly #explainer: Explainer;

  constructor(view: View) {
    this.#explainer = new Explainer(view.read());
  }

  /** What a connection meets: sockets on this node, packets from elsewhere. */
  ask(question: Question): Answer {
    const explained = this.explain(question);
    const { verdict, service, targets } = explained;
    if (verdict === 'broken') throw new Error(explained.why.join('; '));
    if (verdict === 'pass') return NOTHING;
    if (verdict !== 'backend') return { ...NOTHING, verdict };
    return {
      verdict: 'dnat',
      targets: sortTargets(targets.map(({ backend, masquerade }) => ({ address: backend.address, port: backend.port, masquerade }))),
      affinity: service?.affinitySeconds ?? 0,
    };
  }

  explain(question: Question): Explanation {
    const place = CALLERS[question.source.name];
    return this.#explainer.explain(question, { place, way: place === 'outside' ? 'packet' : 'socket' });
  }
}

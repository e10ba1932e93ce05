/** What becomes of a new connection: the one form in which both sides answer. */
import type { Address } from '../../agent/model/address.ts';
import { formatEndpoint } from '../../agent/model/address.ts';
import type { Protocol } from '../../agent/model/desired.ts';

/** One question: a first packet. */
export interface Question {
  readonly address: Address;
  readonly port: number;
  readonly protocol: Protocol;
  readonly source: Source;
}

/** Who asks. */
export interface Source {
  /** "a pod of this node": for people, and for the table of differences. */
  readonly name: 'outside' | 'pod here' | 'pod elsewhere' | 'node';
  readonly address: Address;
}

/** One of the endpoints that may be chosen. */
export interface Target {
  readonly address: Address;
  readonly port: number;
  /** The endpoint sees an address of this node instead of the source. */
  readonly masquerade: boolean;
}

export interface Answer {
  /** "nothing": the proxy leaves it to the node's routes. "broken": its state contradicts itself. */
  readonly verdict: 'dnat' | 'reject' | 'drop' | 'nothing' | 'broken';
  /** Sorted by "address:port"; empty unless the verdict is "dnat". Each is as likely as any other. */
  readonly targets: readonly Target[];
  /** Seconds for which a source keeps its endpoint; 0: not at all. */
  readonly affinity: number;
}

export const NOTHING: Answer = { verdict: 'nothing', targets: [], affinity: 0 };

/** Makes targets comparable: sorted, each once. */
export function sortTargets(targets: readonly Target[]): Target[] {
  const byText = new Map(targets.map((target) => [formatTarget(target), target]));
  return [...byText].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, target]) => target);
}

/** "dnat 10.0.0.1:80 10.0.0.2:80 (masquerade), affinity 60 s". */
export function formatAnswer({ verdict, targets, affinity }: Answer): string {
  return `${[verdict, ...targets.map(formatTarget)].join(' ')}${affinity === 0 ? '' : `, affinity ${affinity} s`}`;
}

/** "10.96.0.1:80/TCP from 10.244.1.10 (pod here)". */
export function formatQuestion({ address, port, protocol, source }: Question): string {
  return `${formatEndpoint(address, port)}/${protocol} from ${source.address} (${source.name})`;
}

const formatTarget = ({ address, port, masquerade }: Target): string => `${formatEndpoint(address, port)}${masquerade ? ' (masquerade)' : ''}`;

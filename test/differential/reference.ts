/** kube-proxy's answer, from its ruleset (kube-proxy-behaviour: "Verdict of a new connection"). */
import type { Address } from '../../agent/model/address.ts';
import type { Answer, Question } from './answer.ts';
import { NOTHING, sortTargets } from './answer.ts';
import type { Hook, Outcome, Packet } from './nftables.ts';
import { Ruleset } from './nftables.ts';

export class Reference {
  readonly #ruleset: Ruleset;
  readonly #isLocal: (address: Address) => boolean;

  readonly #podDevice: string;

  /**
   * @param listing its table of one family, as `nft --json list table` prints it.
   * @param isLocal whether an address is one of the node's own.
   * @param podDevice by which packets of this node's pods come in.
   */
  constructor(listing: unknown, isLocal: (address: Address) => boolean, podDevice = 'veth0') {
    this.#podDevice = podDevice;
    this.#ruleset = new Ruleset(listing, isLocal);
    this.#isLocal = isLocal;
  }

  /** What becomes of the first packet of a connection, on the netfilter hooks in the order in which it meets them. */
  ask({ address, port, protocol, source }: Question): Answer {
    const fromHere = source.name === 'node';
    const packet: Packet = {
      source: source.address,
      device: fromHere ? '' : source.name === 'pod here' ? this.#podDevice : 'eth0',
      destination: address,
      protocol: protocol.toLowerCase(),
      port,
      mark: 0,
      dnat: false,
      masquerade: false,
      remembered: 0,
    };
    let outcomes: Outcome[] = [{ verdict: 'accept', packet }];
    const through = (hook: (packet: Packet) => Hook | undefined): void => {
      outcomes = outcomes.flatMap((outcome) => {
        const next = outcome.verdict === 'accept' ? hook(outcome.packet) : undefined;
        return next === undefined ? [outcome] : this.#ruleset.run(next, outcome.packet);
      });
    };
    through(() => (fromHere ? 'output' : 'prerouting'));
    if (!fromHere) through((at) => (this.#isLocal(at.destination) ? undefined : 'forward'));
    through((at) => (fromHere || !this.#isLocal(at.destination) ? 'postrouting' : undefined));
    // What this node sends to itself comes back through lo; it meets prerouting with its verdict made.
    through((at) => (this.#isLocal(at.destination) ? 'input' : undefined));
    return summary(outcomes);
  }
}

/** @throws Error when lots decide on more than the endpoint: nothing of kube-proxy's does that. */
function summary(outcomes: readonly Outcome[]): Answer {
  const verdicts = new Set(outcomes.map(({ verdict, packet }) => (verdict === 'accept' ? (packet.dnat ? 'dnat' : 'nothing') : verdict)));
  const [verdict, ...others] = verdicts;
  if (verdict === undefined || others.length > 0) throw new Error(`one connection, several verdicts: ${[...verdicts].join(', ')}`);
  if (verdict !== 'dnat') return { ...NOTHING, verdict };
  const targets = outcomes.map(({ packet }) => ({ address: packet.destination, port: packet.port, masquerade: packet.masquerade }));
  return { verdict, targets: sortTargets(targets), affinity: Math.max(...outcomes.map(({ packet }) => packet.remembered)) };
}

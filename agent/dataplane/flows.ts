/** Connection tracking of the packet path, as people read it: one record a flow, made of its two halves. */
import native from '../../native/index.js';
import type { Address } from '../model/address.ts';
import { flowCodec, FlowFlag, tupleCodec } from './generated/abi.ts';
import type { Flow, Tuple } from './generated/abi.ts';
import type { Maps } from './maps.ts';

/** An end of a flow. */
export interface Endpoint {
  readonly address: Address;
  readonly port: number;
}

export interface FlowReading {
  /** IPPROTO_*. */
  readonly proto: number;
  readonly client: Endpoint;
  /** What the client dialled. */
  readonly frontend: Endpoint;
  readonly backend: Endpoint;
  /** Where the backend's answers go: the client, or this node's own address and port when it forwards. */
  readonly source: Endpoint;
  /** Ids of the maps `services` and `backends`. */
  readonly service: number;
  readonly backendId: number;
  /** "new": no answer yet; "one-way": its answers do not pass here; "closing": some end has closed or reset. */
  readonly state: 'new' | 'established' | 'one-way' | 'closing';
  /** Whole seconds since its last packet. */
  readonly idleSeconds: number;
  /** Only one half is left: the next packet brings the other back. */
  readonly half: boolean;
  /** The backend's node, which gets the packets as they are (DSR): its answers do not pass here. */
  readonly host: Address | undefined;
}

/** Reads the whole map: some 10 ms for 10,000 flows. @param now seconds of CLOCK_MONOTONIC. */
export function readFlows(maps: Maps, now: number = Number(process.hrtime.bigint() / 1_000_000_000n)): FlowReading[] {
  const { keys, values, count } = native.mapEntries(maps.fd('flows'));
  const replies = new Map<string, Flow>();
  const requests: { readonly key: Tuple; readonly flow: Flow }[] = [];
  for (let i = 0; i < count; i++) {
    const key = tupleCodec.read(keys, i * tupleCodec.size);
    const flow = flowCodec.read(values, i * flowCodec.size);
    if ((flow.flags & FlowFlag.REPLY) !== 0) replies.set(textOf(key), flow);
    else requests.push({ key, flow });
  }
  const readings = requests.map(({ key, flow }) => {
    const answer = textOf(reversed(flow.to));
    const reply = replies.get(answer);
    replies.delete(answer);
    return reading(key, flow.to, flow, reply, now);
  });
  // What is left has lost its forward half: the reply says as much the other way round.
  const orphans = [...replies].map(([text, flow]) => reading(reversed(flow.to), reversed(JSON.parse(text) as Tuple), flow, undefined, now));
  return [...readings, ...orphans];
}

function reading(key: Tuple, to: Tuple, flow: Flow, other: Flow | undefined, now: number): FlowReading {
  const flags = flow.flags | (other?.flags ?? 0);
  const isDsr = (flags & FlowFlag.DSR) !== 0;
  return {
    proto: key.proto,
    client: { address: key.saddr, port: key.sport },
    frontend: { address: key.daddr, port: key.dport },
    backend: { address: to.daddr, port: to.dport },
    source: { address: isDsr ? key.saddr : to.saddr, port: to.sport },
    service: flow.service,
    backendId: flow.backend,
    state: stateOf(flags),
    idleSeconds: Math.max(0, now - Math.max(flow.seen, other?.seen ?? 0)),
    half: other === undefined && !isDsr,
    host: isDsr ? to.saddr : undefined,
  };
}

function stateOf(flags: number): FlowReading['state'] {
  if ((flags & (FlowFlag.FIN | FlowFlag.RST)) !== 0) return 'closing';
  if ((flags & FlowFlag.DSR) !== 0) return 'one-way';
  return (flags & FlowFlag.ASSURED) !== 0 ? 'established' : 'new';
}

const reversed = ({ saddr, daddr, sport, dport, proto }: Tuple): Tuple => ({ saddr: daddr, daddr: saddr, sport: dport, dport: sport, proto });
const textOf = ({ saddr, daddr, sport, dport, proto }: Tuple): string => JSON.stringify({ saddr, daddr, sport, dport, proto });

/** What a flow is, when it ends, and which source port the next one gets: docs/decisions/flows.md, written down a second time. */
import type { Flow, Tuple } from '../../agent/dataplane/generated/abi.ts';
import { FlowFlag } from '../../agent/dataplane/generated/abi.ts';
import { UDP } from './frames.ts';
import { hashTuple } from './hash.ts';
import type { World } from './world.ts';
import { SNAT, textOf } from './world.ts';

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const ACK = 16;

/** Seconds of silence after which a port may be another's. */
const IDLE = { closed: 60, unanswered: 60, udp: 180, tcp: 86_400 } as const;
const TRIES = 32;
/** Ports that a new connection leaves out after one of a closed flow. */
const STRIDE = 7;

export const reversed = ({ saddr, daddr, sport, dport, proto }: Tuple): Tuple => ({ saddr: daddr, daddr: saddr, sport: dport, dport: sport, proto });
export const isSnatPort = (port: number): boolean => port >= SNAT.min && port <= SNAT.max;
/** The first packet of a connection, or its repetition. */
export const isSyn = (flags: number): boolean => (flags & (SYN | ACK)) === SYN;
export const has = (flow: Flow, flag: number): boolean => (flow.flags & flag) !== 0;

/** The flows a packet changes, laid over those that there are; nothing is changed before `commit`. */
export class Conntrack {
  readonly #flows: World['flows'];
  readonly #changed = new Map<string, { readonly key: Tuple; readonly flow: Flow }>();
  readonly #now: number;

  /** @param now seconds of the coarse monotonic clock. */
  constructor(flows: World['flows'], now: number) {
    this.#flows = flows;
    this.#now = now;
  }

  find(key: Tuple): Flow | undefined {
    const text = textOf(key);
    return (this.#changed.get(text) ?? this.#flows.get(text))?.flow;
  }

  otherHalf(flow: Flow): Flow | undefined {
    return this.find(reversed(flow.to));
  }

  put(key: Tuple, flow: Flow): void {
    this.#changed.set(textOf(key), { key, flow });
  }

  get changed(): ReadonlyMap<string, { readonly key: Tuple; readonly flow: Flow }> {
    return this.#changed;
  }

  commit(): void {
    for (const [text, entry] of this.#changed) this.#flows.set(text, entry);
  }

  /**
   * A packet of the flow was seen, or an error about one, which proves no answer. False: its other half is another flow's by
   * now, so this one is lost.
   */
  keep(key: Tuple, flow: Flow, tcpFlags: number, isError = false): boolean {
    let flags = flow.flags;
    if ((tcpFlags & FIN) !== 0) flags |= FlowFlag.FIN;
    if ((tcpFlags & RST) !== 0) flags |= FlowFlag.RST;
    if ((flags & FlowFlag.REPLY) !== 0 && !isError) flags |= FlowFlag.ASSURED;
    if (!has(flow, FlowFlag.DSR) && flow.seen !== this.#now) {
      const otherKey = reversed(flow.to);
      const other = this.find(otherKey);
      const to = reversed(key);
      if (other === undefined) {
        const kept = (flags & (FlowFlag.FORWARD | FlowFlag.NODE)) | (~flags & FlowFlag.REPLY);
        this.put(otherKey, { to, service: flow.service, backend: flow.backend, seen: this.#now, flags: kept });
      } else if (textOf(other.to) === textOf(to)) this.put(otherKey, { ...other, seen: this.#now });
      else if ((flags & FlowFlag.REPLY) === 0) return false;
    }
    this.put(key, { ...flow, flags, seen: this.#now });
    return true;
  }

  /** Enters a flow whose packets go on as they are: it has one half. */
  enterDsr(from: Tuple, to: Tuple, ids: { readonly service: number; readonly backend: number }): void {
    this.put(from, { ...ids, to, seen: this.#now, flags: FlowFlag.DSR });
  }

  /** Enters both halves of a new flow. @returns the source port, or why there is none. */
  enter(
    from: Tuple,
    to: Tuple,
    ids: { readonly service: number; readonly backend: number },
    how: { readonly forward: number; readonly keepPort: boolean; readonly isNew: boolean },
  ): number | 'full' {
    const { forward, keepPort, isNew } = how;
    const reply: Flow = { ...ids, to: reversed(from), seen: this.#now, flags: FlowFlag.REPLY | forward };
    const port = this.#claimPort(reversed(to), reply, hashTuple(from), keepPort, isNew);
    if (port === undefined) return 'full';
    this.put({ ...reversed(to), dport: port }, reply);
    this.put(from, { ...reply, to: { ...to, sport: port }, flags: forward });
    return port;
  }

  #claimPort(answer: Tuple, reply: Flow, hash: number, keepPort: boolean, isNew: boolean): number | undefined {
    let oldest: { readonly port: number; readonly age: number } | undefined;
    for (let i = 0; i < TRIES; i++) {
      const port = i === 0 && keepPort ? answer.dport : SNAT.min + (((hash + i) >>> 0) % (SNAT.max - SNAT.min + 1));
      const holder = this.find({ ...answer, dport: port });
      if (holder === undefined || textOf(holder.to) === textOf(reply.to)) return port;
      const { expired, age } = this.#judge(holder, answer.proto);
      if (expired) return port;
      if (age > (oldest?.age ?? 0)) oldest = { port, age };
      if (isNew && age > 0) i += STRIDE;
    }
    return oldest?.port;
  }

  #judge(reply: Flow, proto: number): { readonly expired: boolean; readonly age: number } {
    const forward = this.otherHalf(reply);
    const idle = this.#now - reply.seen;
    const any = reply.flags | (forward?.flags ?? 0);
    const both = reply.flags & (forward?.flags ?? ~0);
    const isClosed = (any & FlowFlag.RST) !== 0 || (both & FlowFlag.FIN) !== 0;
    const limit = isClosed ? IDLE.closed : !has(reply, FlowFlag.ASSURED) ? IDLE.unanswered : proto === UDP ? IDLE.udp : IDLE.tcp;
    return { expired: idle > limit, age: isClosed ? idle + 1 : 0 };
  }
}

/** Some end has begun to close. */
export function isClosing(flow: Flow, other: Flow | undefined): boolean {
  return ((flow.flags | (other?.flags ?? 0)) & (FlowFlag.FIN | FlowFlag.RST)) !== 0;
}

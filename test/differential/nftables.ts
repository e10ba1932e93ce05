/**
 * Runs a table of nftables, as `nft --json list table` prints it, on the first packet of a connection.
 *
 * Only what kube-proxy's rules are made of, and nothing of kube-proxy itself: names of chains and
 * sets mean nothing here, and what is not known throws. Where the kernel draws lots (numgen), every
 * outcome is followed.
 */
import { BlockList, isIPv4 } from 'node:net';
import type { Address } from '../../agent/model/address.ts';
import { familyOf, parseAddress } from '../../agent/model/address.ts';

/** The first packet of a connection, on its way. */
export interface Packet {
  readonly source: Address;
  /** The device that it came in by; "" for the node's own. */
  readonly device: string;
  readonly destination: Address;
  /** As nft spells it: "tcp", "udp", "sctp". */
  readonly protocol: string;
  readonly port: number;
  readonly mark: number;
  readonly dnat: boolean;
  readonly masquerade: boolean;
  /** Timeout in seconds of the set that remembers this source; 0: none does. */
  readonly remembered: number;
}

export type Hook = 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';

/** Where a packet stands after a hook: "accept" goes on. */
export interface Outcome {
  readonly verdict: 'accept' | 'drop' | 'reject';
  readonly packet: Packet;
}

/** How a packet leaves a rule or a chain. "continue": without a verdict, the chain left, or with `next` on to the next rule. */
interface Step {
  readonly verdict: Outcome['verdict'] | 'continue';
  readonly packet: Packet;
  readonly next?: boolean;
}

/** As nft writes it: one key, which says what it is. */
type Json = unknown;
type Expression = Readonly<Record<string, Json>>;

interface Chain {
  readonly hook: Hook | undefined;
  readonly priority: number;
  readonly rules: Expression[][];
}

interface NamedSet {
  /** By key, "10.0.0.1 . tcp . 80": the verdict of a map's element, or undefined. */
  readonly elements: ReadonlyMap<string, Json>;
  readonly timeout: number;
}

export class Ruleset {
  readonly #chains = new Map<string, Chain>();
  readonly #sets = new Map<string, NamedSet>();
  /** Base chains of each hook, in the order in which they run. */
  readonly #hooks: ReadonlyMap<Hook | undefined, readonly string[]>;
  readonly #isLocal: (address: Address) => boolean;
  readonly #ranges = new Map<Expression, BlockList>();

  /**
   * @param listing what `nft --json list table` prints.
   * @param isLocal whether an address is one of this node's own (fib type local).
   */
  constructor(listing: unknown, isLocal: (address: Address) => boolean) {
    this.#isLocal = isLocal;
    for (const object of (listing as { readonly nftables: readonly Expression[] }).nftables) {
      const [kind, body] = only(object);
      const { name, chain, expr, elem = [], timeout = 0, hook, prio = 0 } = body as Listed;
      if (kind === 'chain') this.#chains.set(name, { hook, priority: prio, rules: [] });
      else if (kind === 'set' || kind === 'map') this.#sets.set(name, { elements: new Map(elem.map(elementOf)), timeout });
      else if (kind === 'rule') this.#chain(chain).rules.push(expr);
    }
    const base = [...this.#chains].filter(([, { hook }]) => hook !== undefined).sort(([, a], [, b]) => a.priority - b.priority);
    this.#hooks = new Map([...Map.groupBy(base, ([, { hook }]) => hook)].map(([hook, chains]) => [hook, chains.map(([name]) => name)]));
  }

  /** Every way that a packet may leave a hook. */
  run(hook: Hook, packet: Packet): Outcome[] {
    let going: Packet[] = [packet];
    const stopped: Outcome[] = [];
    for (const chain of this.#hooks.get(hook) ?? []) {
      // The policies are "accept"; and an accepted packet still meets the chains that come later.
      const steps = going.flatMap((one) => this.#runChain(chain, one));
      going = steps.filter(goesOn).map((step) => step.packet);
      for (const { verdict, packet: at } of steps) if (verdict === 'drop' || verdict === 'reject') stopped.push({ verdict, packet: at });
    }
    return [...stopped, ...going.map((one) => ({ verdict: 'accept' as const, packet: one }))];
  }

  #chain(name: string): Chain {
    const chain = this.#chains.get(name);
    if (chain === undefined) throw new Error(`nftables: no chain ${name}`);
    return chain;
  }

  #set(reference: string): NamedSet {
    const set = this.#sets.get(reference.slice(1));
    if (set === undefined) throw new Error(`nftables: no set ${reference}`);
    return set;
  }

  #runChain(name: string, packet: Packet): Step[] {
    let going = [packet];
    const left: Step[] = [];
    for (const rule of this.#chain(name).rules) {
      const next: Packet[] = [];
      for (const one of going) {
        const outcome = this.#runRule(rule, one);
        if (!Array.isArray(outcome)) {
          next.push(outcome);
          continue;
        }
        for (const step of outcome) {
          if (step.next === true) next.push(step.packet);
          else left.push(step);
        }
      }
      going = next;
      if (going.length === 0) return left;
    }
    for (const one of going) left.push({ verdict: 'continue', packet: one });
    return left;
  }

  /** The packet as it goes on to the next rule; or else every way in which it leaves this one. */
  #runRule(rule: readonly Expression[], first: Packet): Packet | Step[] {
    let packet = first;
    for (const expression of rule) {
      const [kind, body] = only(expression);
      switch (kind) {
        case 'match':
          if (!this.#matches(body as Match, packet)) return packet;
          break;
        case 'mangle':
          packet = changed(packet, { mark: this.#value((body as { readonly value: Json }).value, packet) as number });
          break;
        case 'set':
          packet = changed(packet, { remembered: this.#set((body as { readonly set: string }).set).timeout });
          break;
        case 'vmap': {
          const verdicts = this.#lookUp(body as Lookup, packet);
          if (verdicts.length > 0) return verdicts.flatMap((verdict) => this.#leave(verdict as Expression, packet));
          break;
        }
        default:
          return this.#leave(expression, packet);
      }
    }
    return packet;
  }

  /** The statements that end a rule. */
  #leave(expression: Expression, packet: Packet): Step[] {
    const [kind, body] = only(expression);
    switch (kind) {
      case 'masquerade':
        return [{ verdict: 'accept', packet: { ...packet, masquerade: true } }];
      case 'dnat':
        return this.#targets(body as Dnat, packet).map(([destination, port]) => ({ verdict: 'accept', packet: { ...packet, destination, port, dnat: true } }));
      case 'jump':
        return this.#runChain((body as Target).target, packet).map((step) => (step.verdict === 'continue' ? { ...step, next: true } : step));
      case 'goto':
        return this.#runChain((body as Target).target, packet);
      case 'return':
        return [{ verdict: 'continue', packet }];
      case 'accept':
      case 'drop':
      case 'reject':
        return [{ verdict: kind, packet }];
      default:
        throw new Error(`nftables: unknown statement ${JSON.stringify(expression)}`);
    }
  }

  #matches({ op, left, right }: Match, packet: Packet): boolean {
    const value = this.#value(left, packet);
    const holds = this.#contains(right, value, packet);
    if (op === '==' || op === 'in') return holds;
    if (op === '!=') return !holds;
    throw new Error(`nftables: unknown operator ${op}`);
  }

  /** Whether what stands at the right of a match is, or holds, a value. */
  #contains(right: Json, value: Json, packet: Packet): boolean {
    if (typeof right === 'string' && right.startsWith('@')) return this.#set(right).elements.has(textOf(value));
    if (typeof right === 'string' && right.endsWith('*')) return textOf(value).startsWith(right.slice(0, -1));
    if (typeof right !== 'object' || right === null) return textOf(right) === textOf(value);
    const [kind, body] = only(right as Expression);
    if (kind === 'set') return (body as Json[]).some((element) => this.#contains(element, value, packet));
    if (kind === 'prefix' || kind === 'range')
      return this.#range(kind, right as Expression).check(value as Address, familyOf(value as Address) === 4 ? 'ipv4' : 'ipv6');
    throw new Error(`nftables: unknown value ${JSON.stringify(right)}`);
  }

  /** Made once: many packets ask. */
  #range(kind: 'prefix' | 'range', expression: Expression): BlockList {
    const known = this.#ranges.get(expression);
    if (known !== undefined) return known;
    const list = new BlockList();
    if (kind === 'prefix') {
      const { addr, len } = expression['prefix'] as Prefix;
      list.addSubnet(addr, len, isIPv4(addr) ? 'ipv4' : 'ipv6');
    } else {
      const [first, last] = expression['range'] as [string, string];
      list.addRange(first, last, isIPv4(first) ? 'ipv4' : 'ipv6');
    }
    this.#ranges.set(expression, list);
    return list;
  }

  #value(expression: Json, packet: Packet): Json {
    if (typeof expression !== 'object' || expression === null) return expression;
    const [kind, body] = only(expression as Expression);
    switch (kind) {
      case 'payload': {
        const { field } = body as { readonly field: string };
        if (field === 'saddr') return packet.source;
        if (field === 'daddr') return packet.destination;
        if (field === 'dport') return packet.port;
        break;
      }
      case 'meta': {
        const { key } = body as { readonly key: string };
        if (key === 'mark') return packet.mark;
        if (key === 'l4proto') return packet.protocol;
        if (key === 'iifname') return packet.device;
        break;
      }
      case 'ct': {
        const { key } = body as { readonly key: string };
        if (key === 'state') return 'new';
        if (key === 'status') return packet.dnat ? 'dnat' : '';
        break;
      }
      case 'fib': {
        const { flags } = body as { readonly flags: readonly string[] };
        return this.#isLocal(flags.includes('saddr') ? packet.source : packet.destination) ? 'local' : 'unicast';
      }
      case 'concat':
        return (body as Json[])
          .map((part) => this.#value(part, packet))
          .map(textOf)
          .join(' . ');
      case '&':
      case '|':
      case '^': {
        const [a, b] = (body as Json[]).map((part) => this.#value(part, packet) as number) as [number, number];
        return kind === '&' ? a & b : kind === '|' ? a | b : a ^ b;
      }
      default:
    }
    throw new Error(`nftables: unknown expression ${JSON.stringify(expression)}`);
  }

  /** What a map may answer: with numgen as key, everything in it. */
  #lookUp({ key, data }: Lookup, packet: Packet): Json[] {
    const elements = typeof data === 'string' ? this.#set(data).elements : new Map((data as { readonly set: Json[] }).set.map(elementOf));
    if (typeof key === 'object' && key !== null && 'numgen' in key) return [...elements.values()];
    const text = textOf(this.#value(key, packet));
    return elements.has(text) ? [elements.get(text)] : [];
  }

  #targets({ addr, port }: Dnat, packet: Packet): [Address, number][] {
    if (typeof addr === 'string') return [[addressOf(addr), port ?? packet.port]];
    const [kind, body] = only(addr);
    if (kind !== 'map') throw new Error(`nftables: unknown target ${JSON.stringify(addr)}`);
    return this.#lookUp(body as Lookup, packet).map((value) => {
      const [to, toPort] = (value as { readonly concat: [string, number] }).concat;
      return [addressOf(to), toPort];
    });
  }
}

/** Fields of chains, sets and rules; each has some of them. */
interface Listed {
  readonly name: string;
  readonly chain: string;
  readonly expr: Expression[];
  readonly elem?: readonly Json[];
  readonly timeout?: number;
  readonly hook?: Hook;
  readonly prio?: number;
}

interface Match {
  readonly op: string;
  readonly left: Json;
  readonly right: Json;
}

interface Lookup {
  readonly key: Json;
  /** "@name", or a set written out. */
  readonly data: Json;
}

interface Dnat {
  readonly addr: string | Expression;
  readonly port?: number;
}

interface Target {
  readonly target: string;
}

interface Prefix {
  readonly addr: string;
  readonly len: number;
}

const changed = (packet: Packet, changes: Partial<Packet>): Packet => ({ ...packet, ...changes });

const goesOn = (step: Step): boolean => step.verdict === 'continue' || step.verdict === 'accept';

/** The single key of an object, and what it holds. */
function only(object: Expression): [string, Json] {
  for (const key in object) return [key, object[key]];
  throw new Error('nftables: an empty expression');
}

/** An element of a set, or of a map with its value; either may be wrapped to carry a comment. */
function elementOf(element: Json): [string, Json] {
  return Array.isArray(element) ? [textOf(unwrapped(element[0])), element[1]] : [textOf(unwrapped(element)), undefined];
}

function unwrapped(element: Json): Json {
  return typeof element === 'object' && element !== null && 'elem' in element ? (element.elem as { readonly val: Json }).val : element;
}

/** A value as the key of a set. */
function textOf(value: Json): string {
  if (typeof value === 'object' && value !== null && 'concat' in value) return (value.concat as Json[]).map(textOf).join(' . ');
  if (typeof value === 'string' || typeof value === 'number') return String(value);
  throw new Error(`nftables: unknown value ${JSON.stringify(value)}`);
}

function addressOf(text: string): Address {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`nftables: not an address: ${text}`);
  return address;
}

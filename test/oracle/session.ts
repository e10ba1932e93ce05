/** One world, and packets through it one after the other: what chance sends, what should come of it, what does. */
import type { Flow, Tuple } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { Conntrack } from './conntrack.ts';
import { decide } from './decide.ts';
import type { Expected, Seen } from './decide.ts';
import { open, ownAddress, wrapForUs, wrapped } from './dsr.ts';
import { claimOn, copyOf, datagramOf, firstOf, portsOf, slotFor } from './fragments.ts';
import { ICMP4, ICMP6, randomFrame, SCTP, TCP, UDP } from './frames.ts';
import type { Hook, Kernel, Run } from './kernel.ts';
import { LINKS } from './kernel.ts';
import { parse } from './parse.ts';
import type { Random } from '../support/random.ts';
import { differsFromEcho, differsFromReject } from './rejected.ts';
import { differs, rewritten, withoutTags } from './rewrite.ts';
import type { DeviceName, Family, World } from './world.ts';
import { CLIENT_PORTS, FAMILIES, PLACES, randomWorld, SERVICE_PORTS, textOf } from './world.ts';

/** Return values that mean an action: XDP_* and TC_ACT_*. */
const ACTIONS = {
  xdp: { pass: [2], rewrite: [2], send: [3, 4], wrap: [3, 4], inject: [], drop: [1], reject: [2], echo: [] },
  tc: { pass: [0xffffffff], rewrite: [0xffffffff], send: [7], wrap: [7], inject: [7], drop: [2], reject: [7], echo: [7] },
} as const;

/** Reasons of packets that become part of a flow. */
const TRANSLATED = /^(NEW_|REPLY_)?(LOCAL|REMOTE|DSR)$/;

/** The kernel's coarse clock lags by up to a tick: just after a second has begun it may still tell the one before. */
const LAG_NS = 12_000_000n;

/** The second that both clocks agree on; undefined: they may not. */
function second(): number | undefined {
  const now = process.hrtime.bigint();
  return now % 1_000_000_000n < LAG_NS ? undefined : Number(now / 1_000_000_000n);
}

function settledSecond(): number {
  for (;;) {
    const now = second();
    if (now !== undefined) return now;
  }
}

export class Session {
  readonly #kernel: Kernel;
  readonly #random: Random;
  readonly #world: World;

  constructor(kernel: Kernel, random: Random) {
    this.#kernel = kernel;
    this.#random = random;
    this.#world = randomWorld(random);
    kernel.load(this.#world);
  }

  /** One packet. @returns the reason it was counted under. @throws Error telling all of it, when the two disagree. */
  step(): string {
    if (this.#random.once(50)) this.#meddle();
    const hook = this.#random.pick(['xdp', 'ingress', 'ingress', 'egress', 'podIngress', 'podEgress'] as const);
    const device = this.#random.pick(hook.startsWith('pod') ? (['pod0', 'pod1'] as const) : (['up0', 'up0', 'mesh0'] as const));
    const frame = this.#frame();
    const packet = parse(frame, hook === 'xdp');
    const isOwn = hook === 'egress' && typeof packet !== 'string' && isNodes(packet.tuple.saddr);
    const now = settledSecond();
    const sent: Seen = { hook, device, frame, packet, isOwn, now };
    const opened = open(this.#world, sent);
    const seen = opened === undefined || opened === 'lost' ? sent : opened.seen;
    const conntrack = new Conntrack(this.#world.flows, now);
    const remembered: [string, { backend: number; used: number }][] = [];
    const expected = decide(
      this.#world,
      conntrack,
      seen,
      (service, client, backend) => remembered.push([`${service} ${client}`, { backend, used: now }]),
      opened,
    );
    const run = this.#kernel.run(seen, frame, expected.reason);
    const hadHeld = this.#world.held.size;
    this.#noteFragment(seen, run.reason, expected.isLead ?? TRANSLATED.test(run.reason));
    if (second() !== now) {
      // The second changed under way: what the kernel noted may bear either. It is right by definition.
      this.#adopt();
      return run.reason;
    }
    const why =
      this.#compare(seen, expected, run) ??
      this.#compareFlows(conntrack.changed) ??
      this.#compareHeld(run.reason === 'FRAGMENT_HELD' || hadHeld !== this.#world.held.size);
    if (why !== undefined) throw new Error(this.#story(seen, expected, run, why));
    conntrack.commit();
    for (const [key, entry] of remembered) this.#world.affinity.set(key, entry);
    return run.reason;
  }

  /** Every flow that there is, also those that no packet should have touched. @throws Error at the first difference. */
  compareAll(): void {
    const stray = this.#kernel.settle();
    if (stray !== '') throw new Error(`in the end more was counted than packets were sent: ${stray}`);
    const held = this.#kernel.flows();
    for (const [text, { flow }] of this.#world.flows) {
      const why = differsFlow(held.get(text)?.flow, flow);
      if (why !== undefined) throw new Error(`in the end the flow ${text} is not what it should be: ${why}`);
    }
    for (const text of held.keys()) if (!this.#world.flows.has(text)) throw new Error(`in the end there is a flow that should not be: ${text}`);
  }

  #frame(): Uint8Array {
    const random = this.#random;
    const inner = this.#bareFrame();
    const type = ((inner[12] ?? 0) << 8) | (inner[13] ?? 0);
    if ((type !== 0x0800 && type !== 0x86dd) || !random.once(12)) return inner;
    const { host, mesh, up, pods, outside } = PLACES[type === 0x0800 ? 4 : 6];
    const ends = { from: random.once(8) ? outside[0] : host, to: random.once(12) ? up : mesh };
    return wrapForUs(inner, ends, random.pick(pods), random.once(8) ? [random.below(12), random.below(256)] : undefined);
  }

  #bareFrame(): Uint8Array {
    const random = this.#random;
    const held = [...this.#world.held.values()].flat();
    if (held.length > 0 && random.once(20)) {
      const overtaker = random.pick(held);
      return random.once(2) ? overtaker.frame : firstOf(overtaker);
    }
    const flows = [...this.#world.flows.values()];
    if (flows.length > 0 && random.once(2)) {
      const { key, flow } = random.pick(flows);
      const tuple = random.pick([key, key, { ...flow.to, saddr: flow.to.daddr, daddr: flow.to.saddr, sport: flow.to.dport, dport: flow.to.sport }]);
      const frame = randomFrame(random, tuple, tuple.proto);
      return random.once(4) ? this.#errorAbout(frame, tuple) : frame;
    }
    const family: Family = random.pick(FAMILIES);
    const { up, mesh, outside, pods, otherPods, services, balancers } = PLACES[family];
    const saddr = random.pick([...outside, ...outside, ...outside, ...pods, ...otherPods, up]);
    const daddr = random.pick([...services, ...services, ...balancers, ...balancers, up, up, mesh, ...pods, ...outside]);
    const isNode = daddr === up || daddr === mesh;
    const dport = isNode ? 30_000 + random.below(4) : random.pick([...SERVICE_PORTS, 9]);
    const proto = random.pick([TCP, TCP, TCP, UDP, UDP, SCTP, family === 4 ? ICMP4 : ICMP6, random.below(256)]);
    return randomFrame(random, { saddr, daddr, sport: random.pick(CLIENT_PORTS), dport }, proto);
  }

  /** An ICMP error that quotes a frame's packet, as much of it as chance decides, and goes to its sender: mostly. */
  #errorAbout(frame: Uint8Array, { saddr, daddr }: Tuple): Uint8Array {
    const random = this.#random;
    const family: Family = saddr.includes(':') ? 6 : 4;
    const ends = { saddr: random.pick([daddr, ...PLACES[family].outside]), daddr: random.once(20) ? PLACES[family].up : saddr, sport: 0, dport: 0 };
    const quote = [...frame.subarray(14)];
    const length = random.once(3) ? random.below(quote.length + 1) : (family === 4 ? 20 : 40) + random.pick([8, 8, 12, 20, 64]);
    return randomFrame(random, ends, family === 4 ? ICMP4 : ICMP6, quote.slice(0, length));
  }

  /** What a fragment tells about the others of its datagram. */
  #noteFragment({ hook, frame, packet, now }: Seen, reason: string, leads: boolean): void {
    if (typeof packet === 'string' || packet.fragment === undefined) return;
    const { fragments, held } = this.#world;
    const datagram = datagramOf(packet);
    const comesIn = hook === 'ingress' || hook === 'podIngress';
    if (reason === 'FRAGMENT_HELD') {
      const slots = held.get(datagram) ?? [];
      slots[slotFor(this.#world, frame, packet, now) ?? 0] = { since: now, frame, packet };
      held.set(datagram, slots);
    } else if (packet.fragment.isFirst && leads) {
      fragments.set(datagram, portsOf(packet));
      if (comesIn) held.delete(datagram);
    } else if (packet.fragment.isFirst && comesIn && claimOn(this.#world, packet) !== 'none') {
      fragments.set(datagram, portsOf(packet));
    }
  }

  /** What time and eviction do: a flow is lost by half, or looks as if nothing had happened on it for long. */
  #meddle(): void {
    const flows = [...this.#world.flows.entries()];
    if (flows.length === 0) return;
    const [text, { key, flow }] = this.#random.pick(flows);
    if (this.#random.once(2)) {
      this.#world.flows.delete(text);
      this.#kernel.deleteFlow(key);
    } else {
      const older: Flow = { ...flow, seen: Math.max(0, flow.seen - this.#random.pick([1, 10, 100, 1_000])) };
      this.#world.flows.set(text, { key, flow: older });
      this.#kernel.setFlow(key, older);
    }
  }

  #adopt(): void {
    this.#world.held.clear();
    this.#kernel.dropHeld();
    this.#world.flows.clear();
    for (const [text, entry] of this.#kernel.flows()) this.#world.flows.set(text, entry);
  }

  #compare({ hook, frame, packet }: Seen, expected: Expected, run: Run): string | undefined {
    if (run.reason !== expected.reason) return `it is counted as ${run.reason}`;
    const actions = ACTIONS[hook === 'xdp' ? 'xdp' : 'tc'][expected.action] as readonly number[];
    if (!actions.includes(run.retval)) return `the program returns ${run.retval}`;
    if (expected.action === 'drop') return undefined;
    if (expected.error !== undefined && typeof packet !== 'string') return differsFromReject(run.data, frame, packet, expected.error);
    if (expected.action === 'echo' && typeof packet !== 'string') return differsFromEcho(run.data, frame, packet);
    const of = expected.of ?? packet;
    if (expected.to === undefined || typeof of === 'string') return Buffer.compare(run.data, frame) === 0 ? undefined : 'a byte of it changed';
    if (expected.action === 'wrap') {
      const wanted = wrapped(frame, of, expected.to, ownAddress(this.#world, of) as Address);
      if (hook === 'xdp') wanted.set(run.data.subarray(0, 12), 0);
      return Buffer.compare(run.data, wanted) === 0 ? undefined : `it is not what it was, wrapped: ${Buffer.from(wanted).toString('hex')}`;
    }
    if (expected.action === 'rewrite') return differs(run.data, rewritten(frame, of, expected.to, 0), frame, of);
    const sent = hook === 'xdp' ? { frame, packet: of } : withoutTags(frame, of);
    const wanted = rewritten(sent.frame, sent.packet, expected.to, expected.action === 'send' ? 1 : 0);
    // XDP writes the link layer itself; at tc the kernel does where the way is not known yet, or the packet comes in anew.
    const link = run.data.subarray(0, 12);
    if (expected.action === 'send' && (hook === 'xdp' || Buffer.compare(link, sent.frame.subarray(0, 12)) !== 0)) {
      if (!LINKS.has(Buffer.from(link).toString('hex'))) return 'it leaves with link-layer addresses of nobody';
      wanted.set(link, 0);
    }
    return differs(run.data, wanted, sent.frame, sent.packet);
  }

  #compareFlows(changed: ReadonlyMap<string, { readonly key: Tuple; readonly flow: Flow }>): string | undefined {
    for (const [text, { key, flow }] of changed) {
      const why = differsFlow(this.#kernel.flow(key), flow);
      if (why !== undefined) return `the flow ${text}: ${why}`;
    }
    return undefined;
  }

  /** The copies of fragments, all of them: when there should be others than before. */
  #compareHeld(changed: boolean): string | undefined {
    if (!changed) return undefined;
    const [wanted, got] = [[...this.#world.held.values()].flat().map(copyOf), this.#kernel.held()].map((copies) =>
      copies
        .map((copy) => Buffer.from(copy).toString('hex'))
        .sort()
        .join(),
    );
    return wanted === got ? undefined : `of fragments it keeps ${got}, not ${wanted}`;
  }

  #story({ hook, device, frame, packet }: Seen, expected: Expected, run: Run, why: string): string {
    const flow = typeof packet === 'string' ? undefined : this.#world.flows.get(textOf(packet.tuple))?.flow;
    const lines = [
      `${why}`,
      `hook ${hook} on ${device}: ${Buffer.from(frame).toString('hex')}`,
      `is      ${JSON.stringify(packet)}`,
      `flow    ${JSON.stringify(flow)}`,
      `wanted  ${JSON.stringify(expected)}`,
      `got     ${run.reason}, ${run.retval}: ${Buffer.from(run.data).toString('hex')}`,
    ];
    return lines.join('\n  ');
  }
}

const isNodes = (address: string): boolean => FAMILIES.some((family) => [PLACES[family].up, PLACES[family].mesh].includes(address as never));

function differsFlow(got: Flow | undefined, wanted: Flow): string | undefined {
  if (got === undefined) return 'is not there';
  const [a, b] = [got, wanted].map((flow) => JSON.stringify({ ...flow, to: textOf(flow.to) }, Object.keys({ ...wanted }).sort()));
  return a === b ? undefined : `${a}, not ${b}`;
}

export type { DeviceName, Hook };

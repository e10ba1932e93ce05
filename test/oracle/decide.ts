/** The decision on one packet, from what the documentation promises: what comes out, why, and what is remembered. */
import type { Flow, Frontend, Tuple } from '../../agent/dataplane/generated/abi.ts';
import { BackendFlag, FlowFlag, FrontendFlag, FrontendKind, NodeFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { choose, inMask, isPod } from './choose.ts';
import type { Choice, Origin } from './choose.ts';
import type { Conntrack } from './conntrack.ts';
import { ACK, has, isClosing, isSnatPort, isSyn, reversed, RST } from './conntrack.ts';
import type { Opened } from './dsr.ts';
import { hostFor, ownAddress, wrapSize } from './dsr.ts';
import { claimOn, datagramOf, slotFor } from './fragments.ts';
import { ICMP4, ICMP6, SCTP, TCP, UDP } from './frames.ts';
import type { Hook } from './kernel.ts';
import type { Parsed, Unparsed } from './parse.ts';
import { asAnswer } from './quoted.ts';
import type { DeviceName, World } from './world.ts';
import { frontendText, PLACES } from './world.ts';

export interface Expected {
  /**
   * pass: goes on untouched. rewrite: goes on as `to`. send: leaves as `to`, one hop further. inject: comes in anew as `to`.
   * wrap: leaves as it is, wrapped for the node and the backend in `to`.
   * reject: ICMP goes back. echo: it goes back as its own answer.
   */
  readonly action: 'pass' | 'rewrite' | 'send' | 'wrap' | 'inject' | 'reject' | 'echo' | 'drop';
  /** enum reason. */
  readonly reason: string;
  readonly to?: Tuple;
  /** What `to` is the new form of, when not the packet itself: the answer that an ICMP error was read as. */
  readonly of?: Parsed;
  readonly error?: IcmpError;
  /** Of a first fragment that was to be sent on, and could not be written in the end: the others go where it should have gone. */
  readonly isLead?: boolean;
}

/** The error that a packet is answered with. */
export interface IcmpError {
  readonly type: number;
  readonly code: number;
  /** The last 4 bytes of its header. */
  readonly rest: number;
  readonly source: Address;
}

export interface Seen {
  readonly hook: Hook;
  readonly device: DeviceName;
  readonly frame: Uint8Array;
  readonly packet: Parsed | Unparsed;
  /** This node made it: it came in by no device. */
  readonly isOwn: boolean;
  /** Seconds of the coarse monotonic clock. */
  readonly now: number;
}

/** A packet with a tuple, and all that its fate depends on. */
interface Case extends Seen {
  readonly packet: Parsed;
  readonly world: World;
  readonly conntrack: Conntrack;
  readonly remember: (service: number, client: Address, backend: number) => void;
}

const MTU = 1_500;
/** Longer headers are not quoted, and their packets not answered. */
const QUOTE_MAX = 128;
const REMOTE_REPLY = FlowFlag.REPLY | FlowFlag.FORWARD;

const pass = (reason: string): Expected => ({ action: 'pass', reason });
const drop = (reason: string): Expected => ({ action: 'drop', reason });
const placesOf = ({ packet }: Case) => PLACES[packet.v4 ? 4 : 6];

/** XDP cannot make an ICMP packet: it leaves that to tc, which cannot do it behind a tag within the frame. */
function reject(one: Case, reason: string, mtu = MTU): Expected {
  const { hook, packet } = one;
  if (hook === 'xdp') return pass('TO_TC');
  const quote = packet.l4 - packet.l3 + ({ [TCP]: 20, [SCTP]: 12 }[packet.tuple.proto] ?? 8);
  return packet.tagged || packet.isError || packet.fragment?.isFirst === false || quote > QUOTE_MAX
    ? drop('DROP_WRITE')
    : { action: 'reject', reason, error: errorOf(one, reason, mtu) };
}

/** From the address that was asked; from the node itself where it is a mere router, but never to itself. */
function errorOf(one: Case, reason: string, mtu: number): IcmpError {
  const { v4, tuple } = one.packet;
  const own = placesOf(one)[one.device === 'mesh0' ? 'mesh' : 'up'] as Address;
  const source = one.hook === 'egress' ? tuple.daddr : own;
  if (reason === 'DROP_TTL') return { type: v4 ? 11 : 3, code: 0, rest: 0, source };
  if (reason === 'TOO_BIG') return { type: v4 ? 3 : 2, code: v4 ? 4 : 0, rest: mtu, source };
  return { type: v4 ? 3 : 1, code: v4 ? 3 : 4, rest: 0, source: tuple.daddr };
}

/** One packet against one world. Changes of flows are in `conntrack`, those of affinity are made by `remember`. */
export function decide(world: World, conntrack: Conntrack, seen: Seen, remember: Case['remember'], opened?: Opened): Expected {
  const { packet, hook } = seen;
  if (opened === 'lost') return drop('DROP_WRITE');
  if (opened !== undefined) return decideOpened(world, conntrack, seen, remember, opened.to);
  if (packet === 'not ip') return pass('NOT_IP');
  if (packet === 'broken') return pass('UNPARSED');
  if (packet === 'elsewhere') return pass('FOREIGN');
  if (packet === 'exotic') return pass('TO_TC');
  const one: Case = { ...seen, packet, world, conntrack, remember };
  if (packet.fragment?.isFirst === false) return later(one);
  // Its sum is over the whole datagram, so that the first fragment does not tell how to change it.
  if (packet.fragment !== undefined && packet.tuple.proto === SCTP) return pass('FOREIGN');
  const icmp = settleIcmp(one);
  if (icmp !== undefined) return icmp;
  if (hook === 'podEgress') return answer(one) ?? pass('FOREIGN');
  if (hook === 'egress') return answer(one) ?? (seen.isOwn ? (misledReset(one) ?? serve(one)) : pass('FOREIGN'));
  return serve(one);
}

/** What another node has sent here as it is. */
function decideOpened(world: World, conntrack: Conntrack, seen: Seen, remember: Case['remember'], at: Pick<Tuple, 'daddr' | 'dport'>): Expected {
  const { packet } = seen;
  const lost = drop('DROP_DSR');
  if (typeof packet === 'string') return lost;
  const one: Case = { ...seen, packet, world, conntrack, remember };
  if (packet.fragment?.isFirst === false) {
    const settled = later(one);
    return settled.reason === 'FRAGMENT' ? lost : settled;
  }
  const isWhole = packet.fragment === undefined || packet.tuple.proto !== SCTP;
  if (!isWhole) return lost;
  return settleIcmp(one) ?? ([TCP, UDP, SCTP].includes(packet.tuple.proto) ? takeIn(one, at) : lost);
}

/** The other node's choice, unless a connection has its backend here already. */
function takeIn(one: Case, at: Pick<Tuple, 'daddr' | 'dport'>): Expected {
  const { conntrack, packet } = one;
  const { tuple, flags } = packet;
  const flow = conntrack.find(tuple);
  if (flow !== undefined && (flow.flags & (REMOTE_REPLY | FlowFlag.DSR)) === 0) {
    const isSame = flow.to.daddr === at.daddr && flow.to.dport === at.dport && !(isSyn(flags) && isClosing(flow, conntrack.otherHalf(flow)));
    if ((isSame || isBound(packet, flow)) && conntrack.keep(tuple, flow, flags)) return { action: 'rewrite', reason: 'LOCAL', to: flow.to };
  }
  const to = { ...tuple, ...at };
  const sport = conntrack.enter(tuple, to, { service: 0, backend: 0 }, { forward: 0, keepPort: true, isNew: isSyn(flags) });
  return sport === 'full' ? drop('DROP_SNAT_FULL') : { action: 'rewrite', reason: 'NEW_LOCAL', to: { ...to, sport } };
}

/** A fragment that is not the first: it goes with the flow of its datagram, whose ports the first one told. */
function later(one: Case): Expected {
  const { hook, world, isOwn, packet } = one;
  const ports = world.fragments.get(datagramOf(packet));
  if (ports === undefined) return hold(one);
  const whole = { ...packet, tuple: { ...packet.tuple, ...ports } };
  const about = { ...one, packet: whole };
  const back = hook === 'egress' || hook === 'podEgress' ? answer(about) : undefined;
  const settled = back ?? (hook === 'podEgress' || (hook === 'egress' && !isOwn) ? undefined : accompany(about));
  if (settled === undefined) return pass('FRAGMENT');
  return settled.to === undefined ? settled : { ...settled, of: whole };
}

/** One that comes in before the first of its datagram: a copy of it is kept if it may be ours, and if it can be nobody else's it stops here. */
function hold({ hook, world, frame, packet, now }: Case): Expected {
  const claim = hook === 'ingress' || hook === 'podIngress' ? claimOn(world, packet) : 'none';
  if (claim === 'none' || slotFor(world, frame, packet, now) === undefined) return pass('FRAGMENT');
  return claim === 'sole' ? drop('FRAGMENT_HELD') : pass('FRAGMENT_HELD');
}

/** Pings of virtual IPs, and errors about the packets of flows, which go with the answers of those; undefined: it is neither. */
function settleIcmp(one: Case): Expected | undefined {
  const { hook, frame, isOwn, packet } = one;
  if (hook !== 'podEgress' && isAnsweredPing(one)) return { action: 'echo', reason: 'ECHO' };
  const error = asAnswer(frame, packet);
  if (error === undefined) return undefined;
  const about = { ...one, packet: error };
  const back = hook === 'egress' || hook === 'podEgress' ? answer(about) : undefined;
  const settled = back ?? (hook === 'podEgress' || (hook === 'egress' && !isOwn) ? undefined : accompany(about));
  return settled?.to === undefined ? settled : { ...settled, of: error };
}

function isAnsweredPing({ frame, world, packet: { tuple, v4, l4, fragment } }: Case): boolean {
  if (fragment !== undefined || tuple.proto !== (v4 ? ICMP4 : ICMP6) || frame[l4] !== (v4 ? 8 : 128)) return false;
  const whole = world.frontends.get(frontendText({ addr: tuple.daddr, port: 0, proto: 0 }))?.value;
  return whole !== undefined && has4(whole, FrontendFlag.PING);
}

/** An error begins nothing, and goes with a flow whatever has become of its Service. */
function accompany(one: Case): Expected | undefined {
  const flow = one.conntrack.find(one.packet.tuple);
  return flow === undefined || (flow.flags & REMOTE_REPLY) === FlowFlag.REPLY ? undefined : follow(one, flow);
}

/** The answers of backends that saw the client as it is get their frontend's address back on the way out. */
function answer({ conntrack, packet: { tuple, flags, quotedL4 } }: Case): Expected | undefined {
  const flow = conntrack.find(tuple);
  if (flow === undefined || (flow.flags & REMOTE_REPLY) !== FlowFlag.REPLY) return undefined;
  conntrack.keep(tuple, flow, flags, quotedL4 !== undefined);
  return { action: 'rewrite', reason: 'REPLY_LOCAL', to: flow.to };
}

/** This node's own RST to the answer of a flow that is forgotten would end what the client's next packet brings back, or has brought back. */
function misledReset({ conntrack, packet: { tuple, flags } }: Case): Expected | undefined {
  if ((flags & (RST | ACK)) !== RST || !isSnatPort(tuple.sport)) return undefined;
  const flow = conntrack.find(reversed(tuple));
  return flow !== undefined && has(flow, FlowFlag.NODE) ? undefined : drop('DROP_NO_FLOW');
}

function serve(one: Case): Expected {
  const { hook, world, conntrack, packet } = one;
  const { tuple, flags } = packet;
  const found = conntrack.find(tuple);
  const flow = found === undefined || (found.flags & REMOTE_REPLY) === FlowFlag.REPLY ? undefined : found;
  if (flow !== undefined && isBound(packet, flow) && conntrack.keep(tuple, flow, flags)) return follow(one, flow);
  const frontend = world.frontends.get(frontendText({ addr: tuple.daddr, port: tuple.dport, proto: tuple.proto }))?.value;
  if (frontend === undefined || has4(frontend, FrontendFlag.HOST_ONLY)) return refuseOrPass(one);
  const isKept = flow !== undefined && stillServes(world, flow, frontend.service) && !isClosing(flow, conntrack.otherHalf(flow));
  if (!isKept || !conntrack.keep(tuple, flow, flags)) return begin(one, frontend);
  // A datagram that is too long with its wrapping turns its flow.
  return has(flow, FlowFlag.DSR) && tuple.proto === UDP && hook !== 'xdp' && isTooLongToWrap(one) ? begin(one, frontend) : follow(one, flow);
}

const has4 = (frontend: Frontend, flag: number): boolean => (frontend.flags & flag) !== 0;

/** An answer, or a connection: it stays with its flow whatever has become of the Service. A datagram or a SYN is free. */
function isBound({ tuple, flags }: Parsed, flow: Flow): boolean {
  return has(flow, FlowFlag.REPLY) || (tuple.proto !== UDP && !isSyn(flags));
}

function stillServes(world: World, flow: Flow, service: number): boolean {
  const backend = world.backends.get(flow.backend);
  if (backend === undefined || backend.service !== service || (backend.flags & BackendFlag.SERVING) === 0) return false;
  if (has(flow, FlowFlag.DSR) && (backend.flags & BackendFlag.HOSTED) === 0) return false;
  return backend.addr === flow.to.daddr && backend.port === flow.to.dport;
}

/** An address that is ours as a whole is refused where it is no frontend's, unless an interface of the node holds it. */
function refuseOrPass(one: Case): Expected {
  const { world, packet } = one;
  const { daddr } = packet.tuple;
  const { serviceCidrs, serviceCidrCount, flags } = world.node;
  const isInside = serviceCidrs.slice(0, serviceCidrCount).some((cidr) => inMask(daddr, cidr));
  if (!isInside && (flags & NodeFlag.OWNS_BEYOND) === 0) return pass('FOREIGN');
  const whole = world.frontends.get(frontendText({ addr: daddr, port: 0, proto: 0 }))?.value;
  if (whole === undefined ? !isInside : !has4(whole, FrontendFlag.OWNED)) return pass('FOREIGN');
  if (isOwnAddress(one, daddr)) return pass('FOREIGN');
  return whole === undefined ? drop('DROP_UNALLOCATED') : reject(one, 'REJECT_UNKNOWN_PORT');
}

const isOwnAddress = (one: Case, address: string): boolean => [placesOf(one).up, placesOf(one).mesh].includes(address as never);

/** kube-proxy's short circuit is for the node, and for pods as far as detectLocalMode can tell them. */
function originOf({ hook, device, world, packet }: Case): Origin {
  if (hook === 'egress') return 'node';
  const detects = packet.v4 ? NodeFlag.DETECTS_V4 : NodeFlag.DETECTS_V6;
  if (hook === 'podIngress') return (world.node.flags & (detects | NodeFlag.DETECTS_DEVICE)) !== 0 ? 'detected pod' : 'outside';
  return isPod(world, packet.tuple.saddr, device.startsWith('pod')) ? 'detected pod' : 'outside';
}

/** A new flow. */
function begin(one: Case, frontend: Frontend): Expected {
  const { tuple } = one.packet;
  const choice = choose(one.world, frontend, tuple, originOf(one));
  if (choice.why === 'not allowed') return drop('DROP_SOURCE_RANGES');
  if (choice.why === 'no endpoints') return reject(one, 'REJECT_NO_ENDPOINTS');
  if (choice.why === 'no local') return drop('DROP_NO_LOCAL');
  if (choice.why !== 'chosen') return drop('DROP_INCONSISTENT');
  if (choice.sticky) one.remember(frontend.service, tuple.saddr, choice.id);
  const host = hostFor(one.world, one, originOf(one), choice.backend, choice.id, frontend);
  if (host === undefined || (tuple.proto === UDP && one.hook !== 'xdp' && isTooLongToWrap(one))) return enter(one, choice, frontend);
  const to = { ...tuple, saddr: host, daddr: choice.backend.addr, dport: choice.backend.port };
  const way = wrap(one, 'NEW_DSR', to);
  if (way.action === 'wrap' || (one.packet.said === 0 && one.packet.ttl > 1))
    one.conntrack.enterDsr(tuple, to, { service: frontend.service, backend: choice.id });
  return way;
}

/** A packet that is spent goes no way at all, long or not. */
const isTooLongToWrap = ({ packet }: Case): boolean => packet.ttl > 1 && packet.said > 0 && packet.said + wrapSize(packet) > MTU;

/** The way to the backend's node. */
function wrap(one: Case, reason: string, to: Tuple): Expected {
  const { hook, packet, world } = one;
  if (ownAddress(world, packet) === undefined) return drop('DROP_NO_SOURCE');
  if (packet.ttl <= 1) return reject(one, 'DROP_TTL');
  if (hook === 'xdp' && (packet.tagged || isTooLongToWrap(one))) return pass('TO_TC');
  if (isTooLongToWrap(one)) return reject(one, 'TOO_BIG', MTU - wrapSize(packet));
  // Longer than a header can say: it would not fit behind another one either.
  if (packet.said === 0 || packet.tagged) return hook === 'xdp' ? pass('TO_TC') : { ...drop('DROP_WRITE'), isLead: true };
  return { action: 'wrap', reason, to };
}

/** The way to the backend, and as whom: the client itself where answers come by this node on their own. */
function enter(one: Case, { id, backend }: Choice & { readonly why: 'chosen' }, { service, kind }: Frontend): Expected {
  const { hook, world, conntrack, packet } = one;
  const { tuple } = packet;
  const ids = { service, backend: id };
  const isLocal = (backend.flags & BackendFlag.LOCAL) !== 0;
  const reason = isLocal ? 'NEW_LOCAL' : 'NEW_REMOTE';
  const to = { ...tuple, daddr: backend.addr, dport: backend.port };
  const isNew = isSyn(packet.flags);
  const isHere = isLocal && isOwnAddress(one, backend.addr);
  const isSeen = hook === 'podIngress' ? backend.addr !== tuple.saddr : hook !== 'egress' && isLocal;
  const seesNobody = (world.node.flags & NodeFlag.MASQUERADES_ALL) !== 0 && kind === FrontendKind.CLUSTER_IP && !isHere;
  if (isSeen && !seesNobody) {
    const sport = conntrack.enter(tuple, to, ids, { forward: 0, keepPort: true, isNew });
    return sport === 'full' ? drop('DROP_SNAT_FULL') : { action: 'rewrite', reason, to: { ...to, sport } };
  }
  const flags = FlowFlag.FORWARD | (hook === 'egress' ? FlowFlag.NODE : 0);
  if (hook === 'egress' && isHere) {
    // The node takes no packet from its own address: it is its own client under that of the frontend.
    const from = { ...to, saddr: tuple.daddr };
    const way = wayIn(one, reason, from);
    if (way.action !== 'inject') return way;
    const sport = conntrack.enter(tuple, from, ids, { forward: flags, keepPort: false, isNew });
    return sport === 'full' ? drop('DROP_SNAT_FULL') : { ...way, to: { ...from, sport } };
  }
  const route = routeOf(one, to.daddr);
  if (typeof route !== 'string') return route;
  const from = { ...to, saddr: placesOf(one)[route === 'mesh0' ? 'mesh' : 'up'] as Address };
  const sport = conntrack.enter(tuple, from, ids, { forward: flags, keepPort: false, isNew });
  return sport === 'full' ? drop('DROP_SNAT_FULL') : { action: 'send', reason, to: { ...from, sport } };
}

/** A packet of a known flow. */
function follow(one: Case, flow: Flow): Expected {
  if (has(flow, FlowFlag.DSR)) return wrap(one, 'DSR', flow.to);
  if (!has(flow, FlowFlag.FORWARD)) return { action: 'rewrite', reason: 'LOCAL', to: flow.to };
  const reason = has(flow, FlowFlag.REPLY) ? 'REPLY_REMOTE' : 'REMOTE';
  const isNodes = has(flow, FlowFlag.NODE) && (has(flow, FlowFlag.REPLY) || flow.to.saddr === one.packet.tuple.daddr);
  if (isNodes) return wayIn(one, reason, flow.to);
  const route = routeOf(one, flow.to.daddr);
  return typeof route === 'string' ? { action: 'send', reason, to: flow.to } : route;
}

/** What is for this node itself comes in by the device that leads to where it says it is from, or rp_filter drops it. */
function wayIn(one: Case, reason: string, to: Tuple): Expected {
  if (one.hook === 'xdp') return pass('TO_TC');
  const isReachable = leadsOut(one, to.saddr) && to.saddr !== placesOf(one).silent;
  return isReachable ? { action: 'inject', reason, to } : drop('DROP_NO_ROUTE');
}

const leadsOut = (one: Case, address: string): boolean => address !== placesOf(one).blackhole && !isOwnAddress(one, address);

/** Which way out, as kernel.ts has wired it; otherwise what becomes of the packet. XDP leaves to tc what it cannot send. */
function routeOf(one: Case, daddr: string): DeviceName | Expected {
  const { hook, packet } = one;
  const place = placesOf(one);
  if (packet.ttl <= 1) return reject(one, 'DROP_TTL');
  if (!leadsOut(one, daddr)) return hook === 'xdp' ? pass('TO_TC') : drop('DROP_NO_ROUTE');
  const pod = (place.pods as readonly string[]).indexOf(daddr);
  const isFar = (place.otherPods as readonly string[]).includes(daddr) || daddr === place.silent;
  const isTooLong = packet.said > MTU;
  if (hook === 'xdp' && (packet.tagged || isTooLong || daddr === place.silent || pod >= 0)) return pass('TO_TC');
  if (isTooLong) return reject(one, 'TOO_BIG');
  return pod >= 0 ? (`pod${pod}` as DeviceName) : isFar ? 'mesh0' : 'up0';
}

/** What the node remembers of datagrams in fragments: the ports that the first one told, and copies of those that came before it. */
import { FrontendFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Tuple } from '../../agent/dataplane/generated/abi.ts';
import { TCP, UDP } from './frames.ts';
import type { Parsed } from './parse.ts';
import type { World } from './world.ts';
import { frontendText, PLACES } from './world.ts';

/** Copies of one datagram's fragments, and bytes of one. */
const HELD_MAX = 8;
const HELD_BYTES = 2_048;
/** Seconds that a copy is good for, of the coarse clock: this one and the next. */
const FRESH = 1;

/** A fragment that came before the first of its datagram. */
export interface Held {
  readonly since: number;
  readonly frame: Uint8Array;
  readonly packet: Parsed;
}

/** What tells the fragments of one datagram from those of others. */
export const datagramOf = ({ tuple: { saddr, daddr, proto }, fragment }: Parsed): string => `${proto} ${saddr} ${daddr} ${fragment?.id}`;

/** What is kept of a fragment: its packet as long as that says, without link layer and padding. */
export const copyOf = ({ frame, packet: { l3, said } }: Pick<Held, 'frame' | 'packet'>): Uint8Array => frame.subarray(l3, l3 + said);

/** Whose the destination of a fragment is: nobody else's; perhaps ours, as a node's addresses are; or another's. */
export function claimOn(world: World, { tuple: { daddr, proto }, v4 }: Parsed): 'sole' | 'some' | 'none' {
  if (proto !== TCP && proto !== UDP) return 'none';
  const place = PLACES[v4 ? 4 : 6];
  if (daddr === place.up || daddr === place.mesh) return 'some';
  const whole = world.frontends.get(frontendText({ addr: daddr, port: 0, proto: 0 }))?.value;
  if (whole === undefined) return 'none';
  return (whole.flags & FrontendFlag.OWNED) !== 0 ? 'sole' : 'some';
}

/** Where the copy of a later fragment goes among those of its datagram; undefined: it is not kept. @param now seconds of the coarse clock. */
export function slotFor(world: World, frame: Uint8Array, packet: Parsed, now: number): number | undefined {
  const { l3, said } = packet;
  if (said === 0 || said > HELD_BYTES || l3 + said > frame.length) return undefined;
  const held = world.held.get(datagramOf(packet)) ?? [];
  const stale = held.findIndex(({ since }) => now - since > FRESH);
  const slot = stale < 0 ? held.length : stale;
  return slot < HELD_MAX ? slot : undefined;
}

/** Of a datagram that a copy is kept of: the copied fragment once more, or as the first one would look if it were that. */
export function firstOf({ frame, packet: { l3, l4, v4 } }: Held): Uint8Array {
  const first = frame.slice();
  if (v4) first.set([0x20, 0], l3 + 6);
  else first.set([0, 1], l4 - 6);
  return first;
}

/** The ports of a first fragment. */
export const portsOf = ({ tuple: { sport, dport } }: Parsed): Pick<Tuple, 'sport' | 'dport'> => ({ sport, dport });

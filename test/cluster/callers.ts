/** What callers of a Service meet: each waits until it is so. */
import { expect } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import { PATIENCE } from '../support/patience.ts';
import type { Way } from './cluster.ts';
import { soon, whoAnswers } from './cluster.ts';

/** One address and port to call. */
export interface Target {
  readonly way: Way;
  readonly address: string;
  readonly port: number;
}

type Callers = Host | readonly Host[];
const callersOf = (callers: Callers): readonly Host[] => ('name' in callers ? [callers] : callers);

/** Runs `check` for every caller and target, all at once, until each passes. */
async function eventually(callers: Callers, targets: readonly Target[], check: (caller: Host, target: Target, label: string) => Promise<void>): Promise<void> {
  expect(targets.length, 'targets to call').toBeGreaterThan(0);
  const pairs = callersOf(callers).flatMap((caller) => targets.map((target) => ({ caller, target })));
  await Promise.all(pairs.map(({ caller, target }) => soon(() => check(caller, target, `${caller.name}, ${target.way} ${target.address} ${target.port}`))));
}

/** Every caller meets exactly these at every target. */
export function expectReached(callers: Callers, targets: readonly Target[], expected: Callers): Promise<void> {
  const names = callersOf(expected)
    .map(({ name }) => name)
    .sort();
  const count = names.length === 1 ? 6 : 14 * names.length;
  return eventually(callers, targets, async (caller, { way, address, port }, label) =>
    expect(await whoAnswers(caller, way, address, port, count), label).toEqual(names),
  );
}

/** Every caller is refused. The kernel loses an ICMPv6 error that comes while connect() holds the socket: its next try, a second later, is refused. */
export function expectRefused(callers: Callers, targets: readonly Target[]): Promise<void> {
  return eventually(callers, targets, async (caller, target, label) => {
    const asked = target.way === 'udp' ? { ...target, way: 'udp connected' as const } : target;
    for (const { server, error } of await call(caller, asked, 2, 3_000)) expect(error ?? server, label).toBe('ECONNREFUSED');
  });
}

/** No caller gets an answer, be it refused or left without a word. */
export function expectNobody(callers: Callers, targets: readonly Target[]): Promise<void> {
  return eventually(callers, targets, async (caller, target, label) => {
    for (const { error } of await call(caller, target, 2)) expect(error, label).toMatch(/^E[A-Z]+$/);
  });
}

/** No caller gets an answer, nor a refusal: dropped. */
export function expectDropped(callers: Callers, targets: readonly Target[]): Promise<void> {
  return eventually(callers, targets, async (caller, target, label) => {
    for (const { error } of await call(caller, target, 2)) expect(error, label).toMatch(/^(ETIMEDOUT|EPERM)$/);
  });
}

/** The server sees the caller by one of these addresses. */
export function expectSourceOf(caller: Host, targets: readonly Target[], addresses: readonly string[]): Promise<void> {
  return eventually(caller, targets, async (_, target, label) => {
    for (const { from, error } of await call(caller, target, 4))
      expect(addresses, `${label}: ${error ?? from}`).toContain(from.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''));
  });
}

/** Every caller keeps meeting one and the same server, each its own. */
export function expectSticky(callers: Callers, targets: readonly Target[]): Promise<void> {
  return eventually(callers, targets, async (caller, { way, address, port }, label) => {
    const met = await whoAnswers(caller, way, address, port, 20);
    expect(met, label).toHaveLength(1);
    expect(met[0], label).not.toMatch(/^E[A-Z]+$/);
  });
}

/** What `count` attempts meet, with little patience for silence. */
export function call(caller: Host, { way, address, port }: Target, count: number, patienceMs = 500): ReturnType<Host['connect']> {
  const timeoutMs = patienceMs * PATIENCE;
  return way === 'tcp'
    ? caller.connect(address, port, { count, timeoutMs })
    : caller.send(address, port, { count, timeoutMs, connected: way === 'udp connected' });
}

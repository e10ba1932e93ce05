/**
 * What labs make outside of their process, found by name alone: so that it can be removed at the end,
 * and for processes that did not come to it.
 */
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BPFFS, cgroup2, killCgroup, removeCgroup } from './kernel.ts';
import { PATIENCE } from '../patience.ts';
import { attempt } from './shell.ts';

const NAMESPACES = '/run/netns';
const REAPER = join(import.meta.dirname, 'reaper.ts');

/* ---- names: mg<pid>x<counter>, so that labs of several processes, and several of one, stay apart ---- */

const PREFIX = /^mg(\d+)x\d+$/;
let labs = 0;

export const newPrefix = (): string => `mg${process.pid}x${labs++}`;

/** Where a lab keeps its pins, its cgroups and its files. */
export const pinsOf = (prefix: string): string => join(BPFFS, prefix);
export const cgroupOf = (prefix: string): string => join(cgroup2(), prefix);
export const folderOf = (prefix: string): string => join(tmpdir(), prefix);

const entries = (folder: string): string[] => (existsSync(folder) ? readdirSync(folder) : []);
const namespacesOf = (prefix: string): string[] => entries(NAMESPACES).filter((netns) => netns.startsWith(`${prefix}-`));

/** What there is of a lab. Its processes run in its cgroup, which stays as long as they do. */
export function remainsOf(prefix: string): string[] {
  return [...namespacesOf(prefix), ...[pinsOf(prefix), cgroupOf(prefix), folderOf(prefix)].filter((folder) => existsSync(folder))];
}

/** Removes a lab, running or not. Others may be at it, too: whoever sees the end of it is done. @throws Error naming what stays. */
export async function removeLab(prefix: string): Promise<void> {
  for (const deadline = Date.now() + 5_000 * PATIENCE; ;) {
    killCgroup(cgroupOf(prefix));
    for (const folder of [pinsOf(prefix), folderOf(prefix)]) rmSync(folder, { recursive: true, force: true });
    const input = namespacesOf(prefix).map((netns) => `netns delete ${netns}\n`);
    const { stderr } = await attempt(['ip', '-force', '-batch', '-'], { input: input.join('') });
    await removeCgroup(cgroupOf(prefix));
    const left = remainsOf(prefix);
    if (left.length === 0) return;
    if (Date.now() > deadline) throw new Error(`${left.join(', ')} cannot be removed: ${stderr.trim()}`);
  }
}

/** Removes the labs of processes that have ended: `ended` tells by pid. */
export async function sweep(ended = (pid: string): boolean => !existsSync(`/proc/${pid}`)): Promise<void> {
  const names = [...entries(BPFFS), ...entries(cgroup2()), ...entries(tmpdir()), ...entries(NAMESPACES).map((netns) => netns.split('-')[0] ?? '')];
  for (const prefix of new Set(names)) {
    const pid = PREFIX.exec(prefix)?.[1];
    if (pid !== undefined && ended(pid)) await removeLab(prefix);
  }
}

/* ---- processes that do not come to removing their labs ---- */

const living = new Set<string>();
let guard: ChildProcess | undefined;
let signalsHandled = false;

/**
 * Removes a lab should this process end without doing so. A signal that asks to end removes it first;
 * for everything else, SIGKILL included, there is a process in a session of its own that waits for this one's end.
 */
export function guardLab(prefix: string): void {
  living.add(prefix);
  if (guard === undefined) {
    guard = spawn('sh', ['-c', 'read -r _; exec "$@"', 'sh', process.execPath, REAPER, String(process.pid)], {
      detached: true,
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    guard.unref();
    (guard.stdin as Socket).unref();
  }
  if (!signalsHandled) for (const [signal, code] of SIGNALS) process.once(signal, () => endNow(code));
  signalsHandled = true;
}

/** For a lab that has been removed. */
export function unguardLab(prefix: string): void {
  living.delete(prefix);
  if (living.size > 0) return;
  guard?.kill('SIGKILL');
  guard = undefined;
}

const SIGNALS = [
  ['SIGHUP', 129],
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const;

/** Nothing else runs meanwhile, so that nobody complains of a lab that goes. */
function endNow(code: number): void {
  if (living.size > 0) spawnSync(process.execPath, [REAPER, String(process.pid)], { stdio: 'ignore' });
  process.exit(code);
}

/** What a lab needs of the kernel: a cgroup2 mount, a bpffs. */
import { mkdirSync, readFileSync, readdirSync, rmdirSync, statfsSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { findCgroup } from '../../../agent/dataplane/preflight.ts';
import { PATIENCE } from '../patience.ts';
import { run } from './shell.ts';

const BPF_FS_MAGIC = 0xcafe4a11;
export const BPFFS = '/sys/fs/bpf';

/**
 * Where cgroup2 is mounted.
 * @throws Error when it is nowhere.
 */
export function cgroup2(): string {
  const mount = findCgroup(readFileSync('/proc/self/mounts', 'utf8'));
  if (mount === undefined) throw new Error('no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup');
  return mount;
}

/** Mounts a bpffs at its usual place unless one is there. */
export async function mountBpffs(): Promise<void> {
  if (statfsSync(BPFFS).type !== BPF_FS_MAGIC) await run(['mount', '-t', 'bpf', 'bpf', BPFFS]);
}

/** Whether the kernel has tcx: Linux 6.6 and later. */
export function hasTcx(): boolean {
  const [major, minor] = release().split('.').map(Number) as [number, number];
  return major > 6 || (major === 6 && minor >= 6);
}

/** Makes a cgroup, or takes the one that is there. */
export function makeCgroup(path: string): void {
  mkdirSync(path, { recursive: true });
}

/** Kills what runs in a cgroup and those below it. */
export function killCgroup(path: string): void {
  try {
    writeFileSync(join(path, 'cgroup.kill'), '1');
  } catch (error) {
    if (!isGone(error)) throw error;
  }
}

/** Removes a cgroup and those below it as soon as the killed processes in them are gone; gives up after 5 s. */
export async function removeCgroup(path: string): Promise<void> {
  for (const deadline = Date.now() + 5_000 * PATIENCE; !removedNow(path) && Date.now() < deadline;) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** False while a process is still in one of them. */
function removedNow(path: string): boolean {
  try {
    const folders = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
    if (!folders.every(({ name }) => removedNow(join(path, name)))) return false;
    rmdirSync(path);
    return true;
  } catch (error) {
    return isGone(error);
  }
}

/** ENODEV: while the cgroup goes. */
const isGone = (error: unknown): boolean => ['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '');

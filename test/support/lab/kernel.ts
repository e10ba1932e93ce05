/** What a lab needs of the kernel: a cgroup2 mount, a bpffs. */
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, rmdirSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './shell.ts';

const BPF_FS_MAGIC = 0xcafe4a11;
export const BPFFS = '/sys/fs/bpf';

/**
 * Where cgroup2 is mounted.
 * @throws Error when it is nowhere.
 */
export function cgroup2(): string {
  const mount = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .find((line) => line.split(' ')[2] === 'cgroup2')
    ?.split(' ')[1];
  if (mount === undefined) throw new Error('no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup');
  return mount;
}

/** Mounts a bpffs at its usual place unless one is there. */
export async function mountBpffs(): Promise<void> {
  if (statfsSync(BPFFS).type !== BPF_FS_MAGIC) await run(['mount', '-t', 'bpf', 'bpf', BPFFS]);
}

/** Makes a cgroup, or takes the one that is there. */
export function makeCgroup(path: string): void {
  mkdirSync(path, { recursive: true });
}

/** Kills what runs in a cgroup and those below it. */
export function killCgroup(path: string): void {
  for (const folder of cgroupsBelow(path)) {
    const pids = readFileSync(join(folder, 'cgroup.procs'), 'utf8')
      .split('\n')
      .filter((pid) => pid !== '');
    for (const pid of pids) {
      try {
        process.kill(Number(pid), 'SIGKILL');
      } catch {
        // It ended by itself.
      }
    }
  }
}

/** Removes empty cgroups; false while a process is still in one. */
export function removeCgroup(path: string): boolean {
  try {
    for (const folder of cgroupsBelow(path)) rmdirSync(folder);
    return true;
  } catch {
    return false;
  }
}

/** Removes pins and their folders. */
export function removePins(path: string): void {
  rmSync(path, { recursive: true, force: true });
}

/** The cgroup and all below it, the deepest first. */
function cgroupsBelow(path: string): string[] {
  if (!existsSync(path)) return [];
  const folders = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [...folders.flatMap(({ name }) => cgroupsBelow(join(path, name))), path];
}

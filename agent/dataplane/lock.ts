/** One agent for each folder of pins: a lock on the folder itself, which ends with the process. */
import { readFileSync, statSync } from 'node:fs';
import native from '../../native/index.js';

/**
 * Locks the folder.
 * @param remedy what to do when an agent holds it.
 * @returns a descriptor that holds the lock until it is closed.
 * @throws Error with one line when an agent holds it.
 */
export function lockFolder(bpffs: string, remedy: string): number {
  const lock = native.lock(bpffs);
  if (lock !== undefined) return lock;
  const pid = agentPid(bpffs);
  throw new Error(`an agent${pid === undefined || pid === 0 ? '' : ` (pid ${pid})`} runs on ${bpffs}: ${remedy}`);
}

/**
 * Who holds the lock on a folder, without taking it: an agent that starts meanwhile must get it.
 * @returns its pid; 0 when it is in another pid namespace; undefined when nobody does.
 */
export function agentPid(bpffs: string): number | undefined {
  const stat = statSync(bpffs, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return undefined;
  // As proc_locks(5) writes it: major and minor number in hex, then the inode.
  const [major, minor] = [(stat.dev >> 8n) & 0xfffn, (stat.dev & 0xffn) | ((stat.dev >> 12n) & 0xfff00n)];
  const file = [major, minor].map((number) => number.toString(16).padStart(2, '0')).join(':') + `:${stat.ino}`;
  const line = readFileSync('/proc/locks', 'utf8')
    .split('\n')
    .map((text) => text.split(/\s+/))
    .find((words) => words[1] === 'FLOCK' && words[5] === file);
  return line === undefined ? undefined : Number(line[4]);
}

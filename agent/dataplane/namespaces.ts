/** Network namespaces of this node: by which file each can be entered. */
import { readdir, readFile, stat } from 'node:fs/promises';

/** Where container runtimes and `ip netns` keep namespaces by name. On most systems the second is the first. */
const NAMED = ['/run/netns', '/var/run/netns'];

/**
 * The network namespaces whose sockets the hooks may have seen: the process's own, those of the processes in the cgroup as
 * far as /proc shows them (in a container: with hostPID and CAP_SYS_PTRACE), and all that have a name.
 * @param cgroup the folder that the hooks are attached to.
 * @returns by inode number: the file that setns(2) takes; undefined: the process's own. What goes away meanwhile is left out.
 */
export async function findNamespaces(cgroup: string): Promise<Map<number, string | undefined>> {
  const ofProcesses = [...(await processesIn(cgroup))].map((pid) => `/proc/${pid}/ns/net`);
  const named = (await Promise.all(NAMED.map(async (folder) => (await namesIn(folder)).map((name) => `${folder}/${name}`)))).flat();
  const found = new Map<number, string | undefined>();
  await Promise.all([...named, ...ofProcesses].map(async (path) => found.set(await inodeOf(path), path)));
  return found.set(await inodeOf('/proc/self/ns/net'), undefined);
}

/** Pids in a cgroup and all below it; those that this pid namespace does not have are left out. */
async function processesIn(cgroup: string): Promise<Set<string>> {
  const [text, entries] = await Promise.all([
    // A threaded cgroup does not say: its processes stand in the cgroup above.
    readFile(`${cgroup}/cgroup.procs`, 'utf8').catch(() => ''),
    readdir(cgroup, { withFileTypes: true }).catch(() => []),
  ]);
  const below = await Promise.all(entries.filter((entry) => entry.isDirectory()).map(({ name }) => processesIn(`${cgroup}/${name}`)));
  const here = text.split('\n').filter((pid) => pid !== '' && pid !== '0');
  return below.reduce((all, pids) => all.union(pids), new Set(here));
}

async function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => []);
}

/** 0, which is no namespace's: gone meanwhile, or not for us to see. */
async function inodeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ ino }) => ino,
    () => 0,
  );
}

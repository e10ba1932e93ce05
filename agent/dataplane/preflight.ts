/** What must be true of the host, checked at start and said in one line each. */
import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { release } from 'node:os';
import { dirname } from 'node:path';
import type { Ports } from './settings.ts';
import { readSettings, snatPortsObstacle } from './settings.ts';

/** Facts about the host; file system types are statfs(2) magic numbers, 0 when there is no such path. */
export interface HostFacts {
  /** Effective capabilities, as /proc/self/status has them. */
  readonly capabilities: bigint;
  /** "6.1.0-18-amd64". */
  readonly kernel: string;
  readonly hasBtf: boolean;
  readonly bpffs: string;
  readonly bpffsType: number;
  readonly cgroup: string;
  readonly cgroupType: number;
}

const BPF_FS_MAGIC = 0xcafe4a11;
const CGROUP2_SUPER_MAGIC = 0x63677270;

/** Bits of linux/capability.h. */
const CAP_NET_ADMIN = 12n;
const CAP_SYS_ADMIN = 21n;
const CAP_PERFMON = 38n;
const CAP_BPF = 39n;

/** bpf_set_retval is of 5.18; 6.1 is the oldest long-term kernel that has it, and the oldest tested. */
const OLDEST_KERNEL = [6, 1] as const;

/**
 * Checks this host.
 * @param cgroup "" when none was given and none found.
 * @returns one line for each obstacle: what is wrong, and what would be right. Empty: none.
 */
export function preflight({ bpffs, cgroup, snatPorts }: { readonly bpffs: string; readonly cgroup: string; readonly snatPorts: Ports }): readonly string[] {
  const ports = snatPortsObstacle(snatPorts, readSettings());
  const others = obstacles({
    capabilities: effectiveCapabilities(readFileSync('/proc/self/status', 'utf8')),
    kernel: release(),
    hasBtf: existsSync('/sys/kernel/btf/vmlinux'),
    bpffs,
    bpffsType: fileSystemType(existingPart(bpffs)),
    cgroup,
    cgroupType: fileSystemType(cgroup),
  });
  return ports === undefined ? others : [...others, ports];
}

/** Pure part of `preflight`. */
export function obstacles(facts: HostFacts): string[] {
  const found: string[] = [];
  const has = (capability: bigint): boolean => ((facts.capabilities >> capability) & 1n) === 1n;
  const lacking = [
    [CAP_NET_ADMIN, 'CAP_NET_ADMIN'],
    [CAP_BPF, 'CAP_BPF'],
    [CAP_PERFMON, 'CAP_PERFMON'],
  ] as const;
  const missing = lacking.filter(([capability]) => !has(capability) && (capability === CAP_NET_ADMIN || !has(CAP_SYS_ADMIN))).map(([, name]) => name);
  if (missing.length > 0) found.push(`missing privilege: ${missing.join(', ')}: root, or a container with these capabilities, would be right`);

  const [major = 0, minor = 0] = facts.kernel.split('.').map((part) => parseInt(part, 10));
  const [wantedMajor, wantedMinor] = OLDEST_KERNEL;
  if (major < wantedMajor || (major === wantedMajor && minor < wantedMinor))
    found.push(`kernel ${facts.kernel} is too old: ${wantedMajor}.${wantedMinor} or later would be right`);
  if (!facts.hasBtf) found.push('the kernel has no BTF (/sys/kernel/btf/vmlinux): one built with CONFIG_DEBUG_INFO_BTF=y would be right');

  if (facts.bpffsType !== BPF_FS_MAGIC) found.push(`--bpffs ${facts.bpffs} is not on a bpffs: mount -t bpf bpf /sys/fs/bpf`);
  if (facts.cgroup === '') found.push('no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup, or say where with --cgroup');
  else if (facts.cgroupType === 0) found.push(`--cgroup ${facts.cgroup} does not exist: a folder on a cgroup2 would be right`);
  else if (facts.cgroupType !== CGROUP2_SUPER_MAGIC) found.push(`--cgroup ${facts.cgroup} is not on a cgroup2: a folder on one would be right`);
  return found;
}

/**
 * What this host, or how the agent was started on it, takes away without keeping it from its work.
 * @returns one line each: what is wrong, what is lost, and what would be right.
 */
export function limitations(status: string = readFileSync('/proc/self/status', 'utf8')): string[] {
  if (((effectiveCapabilities(status) >> CAP_SYS_ADMIN) & 1n) === 1n) return [];
  return ["missing privilege: CAP_SYS_ADMIN, to enter pods' network namespaces: connected UDP sockets of pods stay with backends that are gone"];
}

/** The first cgroup2 mount; undefined when there is none. */
export function findCgroup(mounts: string = readFileSync('/proc/self/mounts', 'utf8')): string | undefined {
  const mount = mounts
    .split('\n')
    .map((line) => line.split(' '))
    .find(([, , type]) => type === 'cgroup2');
  // Blanks in paths are written in octal: proc_mounts(5).
  return mount?.[1]?.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}

function effectiveCapabilities(status: string): bigint {
  return BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
}

/** The folder of pins is made by us: what counts is where. */
function existingPart(path: string): string {
  return existsSync(path) || path === dirname(path) ? path : existingPart(dirname(path));
}

function fileSystemType(path: string): number {
  try {
    return statfsSync(path).type;
  } catch {
    return 0;
  }
}

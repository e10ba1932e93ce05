/** Why the kernel took the programs or their maps not: libbpf's message alone has neither name nor reason. Pure. */
import type { BpfError } from '../../native/index.d.ts';

/** Options that set the size of a map. */
const SIZED_BY: Readonly<Record<string, string>> = {
  services: '--max-services',
  frontends: '--max-frontends',
  backends: '--max-backends',
  ring: '--ring-slots',
  source_ranges: '--max-source-ranges',
  flows: '--max-flows',
  affinity: '--max-affinity',
  udp_peers: '--max-udp-peers',
  devices: '--max-devices',
};

/**
 * An error with the cause in its message, from what libbpf and the verifier have logged; any other error as it is.
 * The log is a tail: what stands at its end can be relied on.
 */
export function explainLoadError(error: unknown): Error {
  const { message, log = '', code } = error as BpfError;
  const cause = programCause(log, code) ?? mapCause(log, code) ?? anyCause(log);
  return cause === undefined ? (error as Error) : new Error(`${message}: ${cause}`, { cause: error });
}

function programCause(log: string, code: string): string | undefined {
  const program = /prog '(\w+)': (?:BPF program load failed|failed to load)/.exec(log)?.[1];
  if (program === undefined) return undefined;
  // The verifier's last words stand before its statistics.
  const reason = /^(.*)\n(?:processed \d+ insns|verification time)/m.exec(log)?.[1];
  if (reason !== undefined) return `the verifier refuses ${program}: ${reason}`;
  return `the kernel refuses ${program} and says no more${code === 'EPERM' || code === 'E2BIG' ? `: ${FORBIDDEN}` : ''}`;
}

function mapCause(log: string, code: string): string | undefined {
  const map = /map '([\w.]+)': failed to create/.exec(log)?.[1];
  if (map === undefined) return undefined;
  if (code === 'EPERM') return `the kernel refuses the map ${map}: ${FORBIDDEN}`;
  const option = SIZED_BY[map];
  const isTooLarge = ['E2BIG', 'ENOMEM', 'EINVAL'].includes(code);
  return `the kernel refuses the map ${map}${isTooLarge && option !== undefined ? `: it is larger than the kernel, or the memory left, allows: a smaller ${option} would be right` : ''}`;
}

/** libbpf tries a program of two instructions first: without that nothing of ours is to blame. */
function anyCause(log: string): string | undefined {
  return log.includes("Couldn't load trivial BPF program") ? `no program at all may be loaded: ${FORBIDDEN}` : undefined;
}

const FORBIDDEN = 'CAP_BPF or CAP_PERFMON is missing, or a seccomp filter, an LSM or lockdown forbids it';

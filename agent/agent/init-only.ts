/** `maglane agent --init-only`: what needs a writable /proc/sys or a fresh bpffs, done once, as kube-proxy's --init-only. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { AgentOptions } from '../config/options.ts';
import type { PortRange } from '../config/values.ts';
import { findCgroup, preflight } from '../dataplane/preflight.ts';

const RESERVED = '/proc/sys/net/ipv4/ip_local_reserved_ports';

/**
 * Keeps the kernel from choosing ports of --snat-ports for its own sockets, checks the host, and makes the folder of pins.
 * @throws Error with one line for what is in the way.
 */
export function initOnly({ bpffs, cgroup, snatPorts }: AgentOptions): void {
  const reserved = readFileSync(RESERVED, 'utf8').trim();
  const wanted = withReserved(reserved, snatPorts);
  if (wanted !== reserved) writeFileSync(RESERVED, wanted);
  const obstacles = preflight({ bpffs, cgroup: cgroup === '' ? (findCgroup() ?? '') : cgroup, snatPorts });
  if (obstacles.length > 0) throw new Error(obstacles.join('; '));
  mkdirSync(bpffs, { recursive: true });
}

/** A list as the kernel writes it ("8080,9148-9150"), with a range added unless one of its ranges holds it. */
export function withReserved(list: string, { min, max }: PortRange): string {
  const ranges = list === '' ? [] : list.split(',').map((range) => range.split('-').map(Number));
  const held = ranges.some(([from = 0, to = from]) => from <= min && max <= to);
  return held ? list : [...(list === '' ? [] : [list]), `${min}-${max}`].join(',');
}

/** What an agent, a kube-proxy and the kernel's maps occupy. */
import { readFileSync } from 'node:fs';
import type { Rig } from './rig.ts';

export interface Memory {
  readonly services: number;
  readonly what: 'maglane agent' | 'kube-proxy iptables' | 'kube-proxy nftables' | 'maglane maps';
  readonly bytes: number;
}

/** Right after all are in step. */
export async function memoryOf(rig: Rig, services: number): Promise<Memory[]> {
  const readings: Memory[] = [{ services, what: 'maglane agent', bytes: residentOf(rig.agent.pid) }];
  for (const [variant, proxy] of rig.proxies)
    readings.push({ services, what: `kube-proxy ${variant as 'iptables' | 'nftables'}`, bytes: residentOf(proxy.pid) });
  const { stdout } = await rig
    .side('maglane')
    .front.run(['sh', '-c', `for map in ${rig.side('maglane').front.bpffs}/maps/*; do bpftool -j map show pinned "$map"; done`]);
  const maps = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { bytes_memlock?: number });
  readings.push({ services, what: 'maglane maps', bytes: maps.reduce((sum, map) => sum + (map.bytes_memlock ?? 0), 0) });
  return readings;
}

/** RSS of a process, bytes. */
export function residentOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}

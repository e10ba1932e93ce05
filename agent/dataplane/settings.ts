/** Kernel settings that the agent depends on, checked at start and said in one line each. They are the administrator's: none is changed. */
import { readFileSync } from 'node:fs';
import type { Family } from '../model/desired.ts';

/** Both ends included. */
export interface Ports {
  readonly min: number;
  readonly max: number;
}

/** As /proc/sys has them; undefined where there is no such setting. */
export interface Settings {
  readonly forwarding4: string | undefined;
  readonly forwarding6: string | undefined;
  readonly localPorts: string | undefined;
  readonly reservedPorts: string | undefined;
  readonly jit: string | undefined;
}

/** The API server's default --service-node-port-range. */
const NODE_PORTS: Ports = { min: 30_000, max: 32_767 };

/** Of the calling process's network namespace. */
export function readSettings(): Settings {
  return {
    forwarding4: setting('net/ipv4/ip_forward'),
    forwarding6: setting('net/ipv6/conf/all/forwarding'),
    localPorts: setting('net/ipv4/ip_local_port_range'),
    reservedPorts: setting('net/ipv4/ip_local_reserved_ports'),
    jit: setting('net/core/bpf_jit_enable'),
  };
}

/**
 * Whether sockets of this node may be given a port that is reserved for what is sent on: an answer would then be taken for
 * the wrong one. What iptables or nftables masquerade to ports of their own choice cannot be seen here.
 * @returns what is wrong and what would be right; undefined: nothing is wrong.
 */
export function snatPortsObstacle(snatPorts: Ports, { localPorts = '', reservedPorts = '' }: Settings): string | undefined {
  const [min = 0, max = -1] = localPorts.split(/\s+/).map(Number);
  const taken = { min: Math.max(min, snatPorts.min), max: Math.min(max, snatPorts.max) };
  const reserved = reservedPorts.split(',').filter((part) => part !== '');
  if (taken.min > taken.max || covers(reserved, taken)) return undefined;
  const remedy = [...reserved, `${snatPorts.min}-${snatPorts.max}`].join(',');
  return (
    `--snat-ports ${snatPorts.min}-${snatPorts.max} lie in net.ipv4.ip_local_port_range (${min} to ${max}), from which the kernel gives ports to sockets: ` +
    `other ports, or sysctl -w net.ipv4.ip_local_reserved_ports=${remedy}, would be right`
  );
}

/**
 * What keeps a part of the work from being done, or from being done well.
 * @param families of the node's addresses.
 * @returns one line each: what is wrong, what it costs, and what would be right.
 */
export function shortcomings(snatPorts: Ports, families: readonly Family[], settings: Settings): string[] {
  const found: string[] = [];
  if (families.includes(4) && settings.forwarding4 === '0')
    found.push('net.ipv4.ip_forward is 0: IPv4 packets reach neither pods nor other nodes: sysctl -w net.ipv4.ip_forward=1 would be right');
  if (families.includes(6) && settings.forwarding6 === '0')
    found.push('net.ipv6.conf.all.forwarding is 0: IPv6 packets reach neither pods nor other nodes: sysctl -w net.ipv6.conf.all.forwarding=1 would be right');
  if (snatPorts.min <= NODE_PORTS.max && snatPorts.max >= NODE_PORTS.min)
    found.push(
      `--snat-ports ${snatPorts.min}-${snatPorts.max} overlap the usual nodePorts (${NODE_PORTS.min} to ${NODE_PORTS.max}): ports beyond those would be right`,
    );
  if (settings.jit === '0') found.push('net.core.bpf_jit_enable is 0: programs are interpreted, slowly: sysctl -w net.core.bpf_jit_enable=1 would be right');
  return found;
}

/** Whether a list of the kernel's ("8080,9148-9200") holds all of these ports. */
function covers(list: readonly string[], ports: Ports): boolean {
  const ranges = list
    .map((part) => part.split('-').map(Number))
    .map(([min = 0, max = min]) => ({ min, max }))
    .sort((a, b) => a.min - b.min);
  let next = ports.min;
  for (const { min, max } of ranges) if (min <= next && max >= next) next = max + 1;
  return next > ports.max;
}

function setting(name: string): string | undefined {
  try {
    return readFileSync(`/proc/sys/${name}`, 'utf8').trim();
  } catch {
    return undefined;
  }
}

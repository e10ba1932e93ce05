/**
 * A place for the packet tests: network namespaces, the programs loaded and pinned in a bpffs
 * folder of their own, maps filled by hand, and child processes inside the namespaces.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { configCodec } from '../../agent/dataplane/generated/abi.ts';
import native from '../../native/index.js';
import type { BpfObject } from '../../native/index.d.ts';
import { Answering } from '../support/answering.ts';
import type { Outcome, Request } from './packet-child.ts';
import { PacketMaps } from './packet-maps.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const CHILD = fileURLToPath(new URL('./packet-child.ts', import.meta.url));
const PROGRAMS = ['mg_xdp_ingress', 'mg_tc_ingress', 'mg_tc_egress', 'mg_pod_ingress', 'mg_pod_egress'] as const;
export const SNAT = { min: 61_000, max: 61_999 } as const;

/** A process in the lab. */
export type Process = Answering<Request, Outcome>;

export interface LabOptions {
  readonly flows?: number;
  readonly snat?: { readonly min: number; readonly max: number };
  readonly dsrPort?: number;
}

export function addAddress(address: string, device: string): string {
  return `addr add ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`;
}

export class PacketLab extends PacketMaps {
  readonly #name: string;
  readonly #pins: string;
  readonly #namespaces: string[] = [];
  readonly #processes: Process[] = [];
  readonly #object: BpfObject;

  /** @param flows how many entries the table of flows has. @param snat ports for masquerade @param dsrPort 0: nodes send each other nothing as it is */
  constructor(name: string, { flows = 16_384, snat = SNAT, dsrPort = 0 }: LabOptions = {}) {
    const object = load(flows, snat, dsrPort);
    super(object);
    this.#object = object;
    this.#name = `mg-packet-${name}-${process.pid}`;
    this.#pins = `/sys/fs/bpf/${this.#name}`;
    mkdirSync(this.#pins);
    for (const program of PROGRAMS) native.pin(object.programFd(program), this.pin(program));
  }

  /** Loads another object's only program and pins it under a name. */
  pinFrom(object: string, name: string): void {
    const other = native.open(object);
    other.load();
    native.pin(other.programFd(other.programs()[0]!), this.pin(name));
    other.close();
  }

  programFd(program: (typeof PROGRAMS)[number]): number {
    return this.#object.programFd(program);
  }

  pin(program: string): string {
    return `${this.#pins}/${program}`;
  }

  // ---- namespaces and processes ----

  /** A network namespace that forwards. Returns its name. */
  namespace(name: string): string {
    const full = `${this.#name}-${name}`;
    execFileSync('ip', ['netns', 'add', full]);
    this.#namespaces.push(full);
    // No duplicate address detection: an IPv6 address is to work at once.
    const settings = ['ipv4.ip_forward=1', 'ipv6.conf.all.forwarding=1', 'ipv6.conf.default.accept_dad=0', 'ipv6.conf.all.accept_dad=0'];
    this.sh(full, `ip link set lo up; sysctl -qw ${settings.map((setting) => `net.${setting}`).join(' ')}`);
    return full;
  }

  /** Runs `ip` commands in a namespace. One process for all: in an emulated machine a process is dear. */
  ip(namespace: string, ...commands: readonly string[]): void {
    execFileSync('ip', ['-n', namespace, '-batch', '-'], { input: commands.join('\n') });
  }

  sh(namespace: string, command: string): string {
    return execFileSync('ip', ['netns', 'exec', namespace, 'sh', '-ec', command], { encoding: 'utf8' });
  }

  /** A veth pair between two namespaces. Each end: namespace, device name, addresses with prefix. */
  link(...ends: readonly [End, End]): void {
    const [a, b] = ends;
    execFileSync('ip', ['link', 'add', a.device, 'netns', a.namespace, 'type', 'veth', 'peer', 'name', b.device, 'netns', b.namespace]);
    for (const { namespace, device, addresses } of ends)
      this.ip(namespace, ...addresses.map((address) => addAddress(address, device)), `link set ${device} up`);
  }

  ifindex(namespace: string, device: string): number {
    return Number(this.sh(namespace, `cat /sys/class/net/${device}/ifindex`));
  }

  mac(namespace: string, device: string): string {
    return this.sh(namespace, `cat /sys/class/net/${device}/address`).trim();
  }

  spawn(namespace: string): Process {
    const child = spawn('nsenter', [`--net=/run/netns/${namespace}`, process.execPath, CHILD], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    });
    const handle = new Answering<Request, Outcome>(child);
    this.#processes.push(handle);
    return handle;
  }

  /** Leaves nothing behind, whatever has been made so far. */
  async close(): Promise<void> {
    await Promise.all(this.#processes.map((running) => running.stop()));
    rmSync(this.#pins, { recursive: true, force: true });
    this.#object.close();
    for (const namespace of this.#namespaces) execFileSync('ip', ['netns', 'del', namespace]);
  }
}

export interface End {
  readonly namespace: string;
  readonly device: string;
  readonly addresses: readonly string[];
}

function load(flows: number, snat: { readonly min: number; readonly max: number }, dsrPort: number): BpfObject {
  execFileSync('make', ['-s', '-C', `${ROOT}bpf`], { stdio: ['ignore', 'inherit', 'inherit'] });
  const object = native.open(`${ROOT}build/maglane.bpf.o`);
  for (const program of object.programs()) object.setAutoload(program, (PROGRAMS as readonly string[]).includes(program));
  object.setMaxEntries('flows', flows);
  const rodata = object.rodata();
  configCodec.write({ hostNetns: 0n, snatMin: snat.min, snatMax: snat.max, dsrPort }, rodata);
  object.setRodata(rodata);
  object.load();
  return object;
}

/**
 * A node for the socket tests: a cgroup with the socket programs attached, a network namespace
 * whose loopback device holds the backends' addresses, child processes inside, and maps filled by
 * hand. VIPs have no route: a dial that is not translated fails with ENETUNREACH.
 *
 * Values are encoded here field by field, not with the agent's codecs: the tests are a second
 * witness of abi.h.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import ipaddr from 'ipaddr.js';
import type { Logger } from '../../agent/dataplane/attach.ts';
import { Cutter } from '../../agent/dataplane/cut.ts';
import { CONFIG_OFFSET, nodeCodec } from '../../agent/dataplane/generated/abi.ts';
import { Maps } from '../../agent/dataplane/maps.ts';
import { recount } from '../../agent/dataplane/recount.ts';
import native from '../../native/index.js';
import type { BpfObject, CgroupAttach } from '../../native/index.d.ts';
import { Answering } from '../support/answering.ts';
import { cgroup2 } from '../support/lab/kernel.ts';
import type { Dial, Outcome, Request } from './sock-child.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const CHILD = fileURLToPath(new URL('./sock-child.ts', import.meta.url));
const HOOKS: readonly CgroupAttach[] = ['connect4', 'connect6', 'sendmsg4', 'sendmsg6', 'recvmsg4', 'recvmsg6', 'getpeername4', 'getpeername6', 'sock_release'];
const ITERATOR = 'mg_udp_dialled';
const COUNTER = 'mg_find_open';

export const TCP = 6;
export const UDP = 17;
export const SERVING = 1;
export const LOCAL = 2;
export const TERMINATING = 4;
const IN_CLUSTER = 8;
const IN_LOCAL = 16;
export const KIND = { clusterIP: 1, nodePort: 2, externalIP: 3, loadBalancer: 4 } as const;
export const FRONTEND_FLAG = { hostOnly: 1, sourceRanges: 2 } as const;
export const NODE_FLAG = { detectsV4: 1, detectsV6: 2, detectsDevice: 4 } as const;
export const SERVICE_FLAG = { internalLocal: 1, externalLocal: 2, hasAny: 4 } as const;
/** enum algorithm. */
export const ALGORITHM = { random: 1, maglev: 2, roundRobin: 3, leastConnections: 4, sourceHash: 5 } as const;
const SERVICE_SIZE = 228;
export const REASON = reasons();

/** enum reason by name, read from the header: its order is not repeated here. */
function reasons(): Readonly<Record<string, number>> {
  const body = /enum reason \{([^}]*)\}/.exec(readFileSync(`${ROOT}bpf/abi.h`, 'utf8'))![1]!;
  const names = [...body.matchAll(/^\s*REASON_(\w+)/gm)].map((match) => match[1]!);
  return Object.fromEntries(names.map((name, index) => [name, index]));
}

export interface SetSpec {
  /** First slot of the ring. */
  readonly base: number;
  readonly members: readonly number[];
  /** The Maglev table behind the members. */
  readonly table?: readonly number[];
}

export interface ServiceSpec {
  readonly affinity?: number;
  /** Of ALGORITHM; random by default. */
  readonly algorithm?: number;
  readonly flags?: number;
  readonly cluster?: SetSpec;
  readonly local?: SetSpec;
}

export interface BackendSpec extends Dial {
  readonly service: number;
  readonly flags?: number;
}

export interface FrontendSpec extends Dial {
  readonly proto: number;
  readonly service: number;
  readonly kind?: number;
  readonly flags?: number;
}

export interface Affinity {
  readonly service: number;
  readonly client: string;
  readonly backend: number;
  /** Coarse seconds since boot. */
  readonly used: number;
}

function addressBytes(address: string): Uint8Array {
  const parsed = ipaddr.parse(address);
  return Uint8Array.from((parsed instanceof ipaddr.IPv4 ? parsed.toIPv4MappedAddress() : parsed).toByteArray());
}

function u32(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

/** A process in the lab. */
export class Process extends Answering<Request, Outcome> {
  tcp(address: string, port: number): Promise<Outcome> {
    return this.ask({ op: 'tcp', address, port });
  }
}

export class SockLab {
  readonly #name: string;
  /** The folder that the programs are attached to. */
  readonly cgroup: string;
  readonly #namespaces: string[] = [];
  readonly #processes: Process[] = [];
  readonly #links: number[] = [];
  #object: BpfObject | undefined;

  constructor(name: string) {
    this.#name = `mg-sock-${name}-${process.pid}`;
    this.cgroup = `${cgroup2()}/${this.#name}`;
  }

  /** Loads and attaches the programs of build/maglane.bpf.o. `hostNetns`: the cookie that config.host_netns is to hold. */
  start(hostNetns: bigint): void {
    const object = (this.#object = native.open(`${ROOT}build/maglane.bpf.o`));
    for (const program of object.programs()) object.setAutoload(program, program === ITERATOR || program === COUNTER || HOOKS.includes(hookOf(program)));
    object.setMaxEntries('flows', 1024);
    const config = object.rodata();
    new DataView(config.buffer, config.byteOffset).setBigUint64(CONFIG_OFFSET, hostNetns, true);
    object.setRodata(config);
    object.load();
    for (const hook of HOOKS) this.#links.push(native.linkCgroup(object.programFd(`mg_${hook}`), this.cgroup, hook));
  }

  /** A network namespace with these addresses on its loopback device. */
  namespace(name: string, addresses: readonly string[]): string {
    const full = `${this.#name}-${name}`;
    execFileSync('ip', ['netns', 'add', full]);
    this.#namespaces.push(full);
    execFileSync('ip', ['-n', full, 'link', 'set', 'lo', 'up']);
    for (const address of addresses) execFileSync('ip', ['-n', full, 'addr', 'add', address, 'dev', 'lo']);
    return full;
  }

  /** A process in that namespace; with `balanced`, in the cgroup before it opens a socket. */
  spawn(namespace: string, balanced: boolean): Process {
    mkdirSync(this.cgroup, { recursive: true });
    const join = balanced ? 'echo $$ > "$0/cgroup.procs" && ' : '';
    const child = spawn('/bin/sh', ['-c', `${join}exec nsenter --net="/run/netns/$1" "$2" "$3"`, this.cgroup, namespace, process.execPath, CHILD], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const handle = new Process(child);
    this.#processes.push(handle);
    return handle;
  }

  /** Cuts connected UDP sockets loose as the agent does, with these maps. @param onCut is told how many. */
  cutter(onCut: (sockets: number) => void, log: Logger): Cutter {
    return new Cutter({ maps: this.#maps, iterator: this.#object!.programFd(ITERATOR), cgroup: this.cgroup, log, onCut });
  }

  /** Corrects the counts of open sockets as the agent does. */
  recount(): Promise<number> {
    return recount(this.#maps, this.#object!.programFd(COUNTER));
  }

  get #maps(): Maps {
    const names = this.#object!.maps().filter((name) => !name.includes('.'));
    return new Maps(new Map(names.map((name) => [name, this.#fd(name)])));
  }

  /** What the iterator says: struct udp_dialled, back to back. */
  dialled(): Promise<Uint8Array> {
    return native.iterate(this.#object!.programFd(ITERATOR), this.#fd('sock_peers'));
  }

  #fd(map: string): number {
    return this.#object!.mapFd(map);
  }

  frontend(spec: FrontendSpec): void {
    native.mapUpdate(this.#fd('frontends'), frontendKey(spec), Uint8Array.of(...u32(spec.service), spec.kind ?? KIND.clusterIP, spec.flags ?? 0, 0, 0));
  }

  removeFrontend(spec: FrontendSpec): void {
    native.mapDelete(this.#fd('frontends'), frontendKey(spec));
  }

  /** Members must have been written: they are marked as such. */
  service(id: number, spec: ServiceSpec): void {
    const value = new Uint8Array(SERVICE_SIZE);
    const view = new DataView(value.buffer);
    [spec.cluster, spec.local].forEach((set, index) => {
      const slots = [...(set?.members ?? []), ...(set?.table ?? [])];
      slots.forEach((backend, slot) => this.#ringSlot(set!.base + slot, backend));
      [set?.base ?? 0, set?.members.length ?? 0, set?.table?.length ?? 0].forEach((field, at) => view.setUint32(index * 12 + at * 4, field, true));
    });
    view.setUint32(24, spec.affinity ?? 0, true);
    view.setUint8(28, spec.algorithm ?? ALGORITHM.random);
    view.setUint8(29, spec.flags ?? 0);
    native.mapUpdate(this.#fd('services'), u32(id), value);
    for (const member of spec.cluster?.members ?? []) this.#addFlag(member, IN_CLUSTER);
    for (const member of spec.local?.members ?? []) this.#addFlag(member, IN_LOCAL);
  }

  #addFlag(backend: number, flag: number): void {
    const value = new Uint8Array(32);
    if (!native.mapLookup(this.#fd('backends'), u32(backend), value)) return; // a test of ids that lead nowhere
    value[18]! |= flag;
    native.mapUpdate(this.#fd('backends'), u32(backend), value);
  }

  /** The flags of the map `node`. */
  node(flags: number): void {
    const value = new Uint8Array(nodeCodec.size);
    value.set(u32(flags), 0);
    native.mapUpdate(this.#fd('node'), u32(0), value);
  }

  /** Points the Cluster set of a service at another place of the ring, without writing there. */
  moveSet(id: number, base: number): void {
    const value = new Uint8Array(SERVICE_SIZE);
    native.mapLookup(this.#fd('services'), u32(id), value);
    value.set(u32(base), 0);
    native.mapUpdate(this.#fd('services'), u32(id), value);
  }

  #ringSlot(index: number, backend: number): void {
    const chunk = new Uint8Array(4096);
    const key = u32(Math.floor(index / 1024));
    native.mapLookup(this.#fd('ring'), key, chunk);
    new DataView(chunk.buffer).setUint32((index % 1024) * 4, backend, true);
    native.mapUpdate(this.#fd('ring'), key, chunk);
  }

  backend(id: number, spec: BackendSpec): void {
    const value = new Uint8Array(32);
    const view = new DataView(value.buffer);
    value.set(addressBytes(spec.address), 0);
    view.setUint16(16, spec.port);
    view.setUint8(18, spec.flags ?? SERVING);
    view.setUint32(20, spec.service, true);
    native.mapUpdate(this.#fd('backends'), u32(id), value);
  }

  /** How often this backend was chosen since it was written. */
  connections(id: number): number {
    const value = new Uint8Array(32);
    native.mapLookup(this.#fd('backends'), u32(id), value);
    return Number(new DataView(value.buffer).getBigUint64(24, true));
  }

  /** Connected sockets that have this backend now, as the hooks have counted. */
  open(id: number): number {
    const value = new Uint8Array(8);
    native.mapLookup(this.#fd('open_sockets'), u32(id), value);
    return new DataView(value.buffer).getInt32(0, true);
  }

  /** What went wrong, or was missed: another count than there are sockets. */
  setOpen(id: number, open: number): void {
    native.mapUpdate(this.#fd('open_sockets'), u32(id), Uint8Array.of(...u32(open), 0, 0, 0, 0));
  }

  /** Decisions counted under this reason, over all CPUs. */
  count(reason: string): number {
    const value = new Uint8Array(16 * native.possibleCpus());
    native.mapLookup(this.#fd('counters'), u32(REASON[reason]!), value);
    const view = new DataView(value.buffer);
    let sum = 0n;
    for (let at = 0; at < value.length; at += 16) sum += view.getBigUint64(at, true);
    return Number(sum);
  }

  /** What changed under each reason while `run` ran; reasons that did not move are left out. */
  async counted(run: () => Promise<unknown>): Promise<Record<string, number>> {
    const before = Object.keys(REASON).map((name) => [name, this.count(name)] as const);
    await run();
    return Object.fromEntries(before.map(([name, was]) => [name, this.count(name) - was] as const).filter(([, change]) => change !== 0));
  }

  affinities(): Affinity[] {
    const { keys, values, count } = native.mapEntries(this.#fd('affinity'));
    const key = new DataView(keys.buffer, keys.byteOffset);
    const value = new DataView(values.buffer, values.byteOffset);
    return Array.from({ length: count }, (_, index) => ({
      service: key.getUint32(index * 20, true),
      client: ipaddr.fromByteArray([...keys.subarray(index * 20 + 4, index * 20 + 20)]).toString(),
      backend: value.getUint32(index * 8, true),
      used: value.getUint32(index * 8 + 4, true),
    }));
  }

  setAffinity(entry: Affinity): void {
    const key = Uint8Array.of(...u32(entry.service), ...addressBytes(entry.client));
    native.mapUpdate(this.#fd('affinity'), key, Uint8Array.of(...u32(entry.backend), ...u32(entry.used)));
  }

  /** Empties the LRU of unconnected UDP, as pressure would: only the entries of one direction. */
  forgetUdpPeers(direction: 'forward' | 'reply'): number {
    const fd = this.#fd('udp_peers');
    const { keys, count } = native.mapEntries(fd);
    let removed = 0;
    for (let index = 0; index < count; index++) {
      const key = keys.slice(index * 32, index * 32 + 32);
      if ((key[26] === 1) === (direction === 'reply') && native.mapDelete(fd, key)) removed++;
    }
    return removed;
  }

  /** Leaves nothing behind, whatever has been made so far. */
  async close(): Promise<void> {
    for (const link of this.#links) native.close(link);
    this.#object?.close();
    await Promise.all(this.#processes.map((running) => running.stop()));
    for (const namespace of this.#namespaces) execFileSync('ip', ['netns', 'del', namespace]);
    rmdirSync(this.cgroup);
  }
}

function frontendKey(spec: FrontendSpec): Uint8Array {
  return Uint8Array.of(...addressBytes(spec.address), spec.port >> 8, spec.port & 255, spec.proto, 0);
}

function hookOf(program: string): CgroupAttach {
  return program.replace(/^mg_/, '') as CgroupAttach;
}

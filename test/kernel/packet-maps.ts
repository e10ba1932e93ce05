/** The maps that packets meet, filled by hand and read again. */
import {
  affinityCodec,
  backendCodec,
  BackendFlag,
  Algorithm,
  counterCodec,
  deviceCodec,
  flowCodec,
  frontendCodec,
  frontendKeyCodec,
  heldFragmentCodec,
  heldKeyCodec,
  icmpBudgetCodec,
  nodeCodec,
  FrontendKind,
  Reason,
  ringChunkCodec,
  RING_CHUNK,
  serviceCodec,
  sourceRangeKeyCodec,
  tupleCodec,
} from '../../agent/dataplane/generated/abi.ts';
import type { Backend, Codec, Device, Flow, Service, Tuple } from '../../agent/dataplane/generated/abi.ts';
import { noteFrontends } from '../../agent/dataplane/ends.ts';
import { familyOf, parseCidr, readAddress, writeAddress } from '../../agent/model/address.ts';
import type { Address } from '../../agent/model/address.ts';
import native from '../../native/index.js';
import type { BpfObject } from '../../native/index.d.ts';
import { protocolNumber, splitEndpoint } from '../support/packet.ts';
import type { Proto } from '../support/packet.ts';

export type ReasonText = keyof typeof Reason;

export const NONE = '::' as Address;

export interface ServiceSpec {
  readonly cluster?: readonly number[];
  readonly local?: readonly number[];
  readonly flags?: number;
  readonly affinity?: number;
}

export function encode<T>(codec: Codec<T>, value: T): Uint8Array {
  const bytes = new Uint8Array(codec.size);
  codec.write(value, bytes);
  return bytes;
}

const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer);

/** A tuple, from what a test would write: `tuple('tcp', '10.0.0.1:1', '10.0.0.2:2')`. */
export function tuple(proto: Proto, from: string, to: string): Tuple {
  const [source, destination] = [splitEndpoint(from), splitEndpoint(to)];
  return {
    saddr: source.address as Address,
    sport: source.port,
    daddr: destination.address as Address,
    dport: destination.port,
    proto: protocolNumber(proto, !source.address.includes(':')),
  };
}

function addressBytes(at: string): Uint8Array {
  const bytes = new Uint8Array(16);
  writeAddress(at as Address, bytes, 0);
  return bytes;
}

/** A range as the maps have it; `bits` counts from the first of 128. */
function rangeOf(text: string): { readonly net: Address; readonly mask: Address; readonly bits: number } {
  const { base, prefix } = parseCidr(text)!;
  const bits = prefix + (familyOf(base) === 4 ? 96 : 0);
  const mask = Uint8Array.from({ length: 16 }, (_, at) => 0xff << (8 - Math.min(8, Math.max(0, bits - 8 * at))));
  return { net: base, mask: readAddress(mask, 0), bits };
}

export class PacketMaps {
  readonly #object: BpfObject;
  readonly #ends: Uint8Array;
  readonly #usedRing: number[] = [];

  /** @param object loaded; it stays the caller's. */
  constructor(object: BpfObject) {
    this.#object = object;
    this.#ends = new Uint8Array(native.mapMmap(object.mapFd('ends')));
  }

  #fd(map: string): number {
    return this.#object.mapFd(map);
  }

  /** Protocol and port 0 stand for the address itself. */
  frontend(proto: Proto, at: string, service: number, options: { kind?: number; flags?: number } = {}): void {
    const { address, port } = splitEndpoint(at);
    const key = { addr: address as Address, port, proto: protocolNumber(proto, !address.includes(':')) };
    const value = { service, kind: options.kind ?? FrontendKind.LOAD_BALANCER, flags: options.flags ?? 0 };
    noteFrontends(this.#ends, encode(frontendKeyCodec, key));
    native.mapUpdate(this.#fd('frontends'), encode(frontendKeyCodec, key), encode(frontendCodec, value));
  }

  removeFrontend(proto: Proto, at: string): void {
    const { address, port } = splitEndpoint(at);
    native.mapDelete(this.#fd('frontends'), encode(frontendKeyCodec, { addr: address as Address, port, proto: protocolNumber(proto, !address.includes(':')) }));
  }

  /**
   * Writes a service; each of its sets, of at most 4 backends, has a place of its own in the first page of the ring. Maglev tables hold each member once.
   * Members must have been written: they are marked as such.
   */
  service(id: number, spec: ServiceSpec): void {
    const sets = [spec.cluster ?? [], spec.local ?? []].map((members, index) => {
      const base = (id % 64) * 16 + index * 8;
      [...members, ...members].forEach((backend, slot) => this.#slot(base + slot, backend));
      return { base, count: members.length, table: members.length };
    });
    const value: Service = {
      sets,
      affinitySeconds: spec.affinity ?? 0,
      algorithm: Algorithm.MAGLEV,
      flags: spec.flags ?? 0,
      proto: 0,
      family: 0,
      namespace: 'default',
      name: `service-${id}`,
      portName: '',
      turn: 0,
    };
    native.mapUpdate(this.#fd('services'), u32(id), encode(serviceCodec, value));
    for (const member of spec.cluster ?? []) this.#addFlag(member, BackendFlag.IN_CLUSTER);
    for (const member of spec.local ?? []) this.#addFlag(member, BackendFlag.IN_LOCAL);
  }

  #addFlag(backend: number, flag: number): void {
    const bytes = new Uint8Array(backendCodec.size);
    native.mapLookup(this.#fd('backends'), u32(backend), bytes);
    const value = backendCodec.read(bytes);
    native.mapUpdate(this.#fd('backends'), u32(backend), encode(backendCodec, { ...value, flags: value.flags | flag }));
  }

  #slot(index: number, backend: number): void {
    this.#usedRing[index] = backend;
    const slot = Array.from({ length: RING_CHUNK }, (_, at) => this.#usedRing[at] ?? 0);
    native.mapUpdate(this.#fd('ring'), u32(0), encode(ringChunkCodec, { slot }));
  }

  backend(id: number, at: string, service: number, flags: number = BackendFlag.SERVING): void {
    const { address, port } = splitEndpoint(at);
    const value: Backend = { addr: address as Address, port, flags, service, connections: 0n };
    native.mapUpdate(this.#fd('backends'), u32(id), encode(backendCodec, value));
  }

  /** Packets for a backend go to its node as they are. */
  host(id: number, at: string): void {
    this.#addFlag(id, BackendFlag.HOSTED);
    native.mapUpdate(this.#fd('hosts'), u32(id), addressBytes(at));
  }

  /** Another node, whose packets are opened. */
  peer(at: string): void {
    native.mapUpdate(this.#fd('peers'), addressBytes(at), u32(1));
  }

  connections(id: number): number {
    const value = new Uint8Array(backendCodec.size);
    native.mapLookup(this.#fd('backends'), u32(id), value);
    return Number(backendCodec.read(value).connections);
  }

  device(ifindex: number, spec: Partial<Device>): void {
    const value: Device = { addr4: NONE, addr6: NONE, mode: 0, flags: 0, why: 0, hook: 0, name: '', ...spec };
    native.mapUpdate(this.#fd('devices'), u32(ifindex), encode(deviceCodec, value));
  }

  /** What holds on the whole node. */
  node(spec: {
    readonly flags?: number;
    readonly pods?: readonly string[];
    readonly serviceCidrs?: readonly string[];
    readonly addr?: readonly string[];
  }): void {
    const serviceCidrs = (spec.serviceCidrs ?? []).map(rangeOf);
    const pods = [4, 6].map((family) => (spec.pods ?? []).map(rangeOf).find(({ net }) => familyOf(net) === family) ?? { net: NONE, mask: NONE });
    const addr = [4, 6].map((family) => ((spec.addr ?? []) as Address[]).find((address) => familyOf(address) === family) ?? NONE);
    const value = { flags: spec.flags ?? 0, addr, serviceCidrCount: serviceCidrs.length, pods, serviceCidrs };
    native.mapUpdate(this.#fd('node'), u32(0), encode(nodeCodec, value));
  }

  /** Lets sources of a range use the frontends of a service that have FRONTEND_SOURCE_RANGES. */
  sourceRange(service: number, range: string): void {
    const { net, bits } = rangeOf(range);
    native.mapUpdate(this.#fd('source_ranges'), encode(sourceRangeKeyCodec, { prefixlen: 32 + bits, service, addr: net }), u32(1));
  }

  flow(key: Tuple): Flow | undefined {
    const value = new Uint8Array(flowCodec.size);
    return native.mapLookup(this.#fd('flows'), encode(tupleCodec, key), value) ? flowCodec.read(value) : undefined;
  }

  setFlow(key: Tuple, flow: Flow): void {
    native.mapUpdate(this.#fd('flows'), encode(tupleCodec, key), encode(flowCodec, flow));
  }

  flows(): readonly { readonly key: Tuple; readonly flow: Flow }[] {
    const { keys, values, count } = native.mapEntries(this.#fd('flows'));
    return Array.from({ length: count }, (_, at) => ({
      key: tupleCodec.read(keys, at * tupleCodec.size),
      flow: flowCodec.read(values, at * flowCodec.size),
    }));
  }

  /** Forgets flows: all, or those that match. */
  forget(which: (key: Tuple, flow: Flow) => boolean = () => true): number {
    const gone = this.flows().filter(({ key, flow }) => which(key, flow));
    for (const { key } of gone) native.mapDelete(this.#fd('flows'), encode(tupleCodec, key));
    return gone.length;
  }

  /** The routing table is asked again for each packet's way. */
  forgetWays(): void {
    const fd = this.#fd('ways');
    const { maxEntries, valueSize } = native.mapInfo(fd);
    const slots = Uint32Array.from({ length: maxEntries }, (_, slot) => slot);
    const none = new Uint8Array(Math.ceil(valueSize / 8) * 8 * native.possibleCpus() * maxEntries);
    native.mapUpdateBatch(fd, new Uint8Array(slots.buffer), none, maxEntries);
  }

  /** Makes all flows look as if nothing had happened on them for some seconds. */
  age(seconds: number): void {
    for (const { key, flow } of this.flows()) this.setFlow(key, { ...flow, seen: flow.seen - seconds });
  }

  /** Makes it look as if every CPU had sent so many errors of a router in the second that is now. Returns that second. */
  spendIcmpBudget(sent: number): number {
    const second = Math.floor(Number(process.hrtime.bigint()) / 1e9);
    const spent = Array.from({ length: native.possibleCpus() }, () => [...encode(icmpBudgetCodec, { second, sent })]);
    native.mapUpdate(this.#fd('icmp_budget'), u32(0), Uint8Array.from(spent.flat()));
    return second;
  }

  /** How many fragments wait for the first of their datagram. */
  held(): number {
    return native.mapEntries(this.#fd('held_fragments')).count;
  }

  /** Makes them look as if they had waited some seconds longer. */
  ageHeld(seconds: number): void {
    const { keys, values, count } = native.mapEntries(this.#fd('held_fragments'));
    for (let at = 0; at < count; at++) {
      const value = values.subarray(at * heldFragmentCodec.size, (at + 1) * heldFragmentCodec.size);
      const view = new DataView(value.buffer, value.byteOffset);
      const { since } = heldFragmentCodec.offsets;
      view.setUint32(since, view.getUint32(since, true) - seconds, true);
      native.mapUpdate(this.#fd('held_fragments'), keys.subarray(at * heldKeyCodec.size, (at + 1) * heldKeyCodec.size), value);
    }
  }

  affinityUsed(): readonly number[] {
    const { values, count } = native.mapEntries(this.#fd('affinity'));
    return Array.from({ length: count }, (_, at) => affinityCodec.read(values, at * affinityCodec.size).backend);
  }

  /** Removes every frontend, flow, affinity, source range, fragment and peer, and what is said of the node; all errors may be sent again. */
  clear(): void {
    for (const map of ['frontends', 'flows', 'affinity', 'source_ranges', 'fragments', 'held_fragments', 'peers']) {
      const { keys, count } = native.mapEntries(this.#fd(map));
      native.mapDeleteBatch(this.#fd(map), keys, count);
    }
    this.node({});
    this.spendIcmpBudget(0);
  }

  /** Packets and bytes counted under a reason, over all CPUs. */
  count(reason: ReasonText): { readonly packets: number; readonly bytes: number } {
    const value = new Uint8Array(counterCodec.size * native.possibleCpus());
    native.mapLookup(this.#fd('counters'), u32(Reason[reason]), value);
    let [packets, bytes] = [0n, 0n];
    for (let at = 0; at < value.length; at += counterCodec.size) {
      const counter = counterCodec.read(value, at);
      packets += counter.packets;
      bytes += counter.bytes;
    }
    return { packets: Number(packets), bytes: Number(bytes) };
  }

  /** The counters that moved while `run` ran, by how many packets and bytes. */
  async counted(run: () => Promise<unknown>): Promise<Partial<Record<ReasonText, { packets: number; bytes: number }>>> {
    const names = Object.keys(Reason) as ReasonText[];
    const before = names.map((name) => this.count(name));
    await run();
    return Object.fromEntries(
      names.flatMap((name, index) => {
        const [was, is] = [before[index]!, this.count(name)];
        return is.packets === was.packets ? [] : [[name, { packets: is.packets - was.packets, bytes: is.bytes - was.bytes }]];
      }),
    );
  }
}

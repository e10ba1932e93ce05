/**
 * The kernel's side: the real programs, run one packet at a time (BPF_PROG_TEST_RUN) in a network namespace that is
 * wired as world.ts says; its maps are filled from a world and read back. The process must be in a fresh namespace.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import {
  affinityCodec,
  affinityKeyCodec,
  backendCodec,
  configCodec,
  counterCodec,
  deviceCodec,
  DeviceFlag,
  flowCodec,
  frontendCodec,
  frontendKeyCodec,
  heldFragmentCodec,
  nodeCodec,
  Reason,
  RING_CHUNK,
  ringChunkCodec,
  serviceCodec,
  sourceRangeKeyCodec,
  tupleCodec,
} from '../../agent/dataplane/generated/abi.ts';
import type { Codec, Flow, Tuple } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { renewFrontends } from '../../agent/dataplane/ends.ts';
import { familyOf, writeAddress } from '../../agent/model/address.ts';
import native from '../../native/index.js';
import type { BpfObject } from '../../native/index.d.ts';
import type { Seen } from './decide.ts';
import { DSR_PORT } from './dsr.ts';
import type { DeviceName, World } from './world.ts';
import { DEVICES, FAMILIES, PLACES, SNAT, textOf } from './world.ts';

export const HOOKS = {
  xdp: 'mg_xdp_ingress',
  ingress: 'mg_tc_ingress',
  egress: 'mg_tc_egress',
  podIngress: 'mg_pod_ingress',
  podEgress: 'mg_pod_egress',
} as const;
export type Hook = keyof typeof HOOKS;

export const NODE_MAC = '02:00:00:00:00:02';
const NEIGHBOURS = { up0: '02:00:00:00:00:fe', mesh0: '02:00:00:00:00:f2' } as const;
const podMac = (i: number): string => `02:00:00:00:01:0${i}`;
/** The link-layer addresses that a frame may leave with, destination and source, as hexadecimal digits. */
export const LINKS: ReadonlySet<string> = new Set(
  [...Object.values(NEIGHBOURS), ...[0, 1, 2, 3].map(podMac)].map((neighbour) => `${neighbour}${NODE_MAC}`.replaceAll(':', '')),
);
/** The devices' far ends stand where a router, another node and two pods would. */
const VIA = {
  4: { up: '192.0.2.254', mesh: '198.51.100.2', silent: '198.51.100.3' },
  6: { up: '2001:db8::fe', mesh: '2001:db8:1::2', silent: '2001:db8:1::3' },
} as const;

export interface Run {
  readonly retval: number;
  readonly data: Uint8Array;
  readonly reason: string;
}

const REASONS = Object.fromEntries(Object.entries(Reason).map(([name, value]) => [value, name]));
const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer);

function encode<T>(codec: Codec<T>, value: T): Uint8Array {
  const bytes = new Uint8Array(codec.size);
  codec.write(value, bytes);
  return bytes;
}

function addressRecord(address: Address): Uint8Array {
  const bytes = new Uint8Array(16);
  writeAddress(address, bytes, 0);
  return bytes;
}

/** Wires the namespace. Needs `ip` and an empty namespace. */
export function wire(): void {
  const lines = ['link set lo up'];
  for (const name of DEVICES)
    lines.push(`link add ${name} address ${NODE_MAC} type veth peer name far-${name}`, `link set far-${name} up`, `link set ${name} up`);
  for (const family of FAMILIES) {
    const { up, mesh, pods, podCidr: _, ...place } = PLACES[family];
    const [bits, nodad] = family === 4 ? [24, ''] : [64, ' nodad'];
    const host = family === 4 ? 32 : 128;
    lines.push(`addr add ${up}/${bits} dev up0${nodad}`, `addr add ${mesh}/${bits} dev mesh0${nodad}`);
    lines.push(
      `neigh add ${VIA[family].up} dev up0 lladdr ${NEIGHBOURS.up0} nud permanent`,
      `neigh add ${VIA[family].mesh} dev mesh0 lladdr ${NEIGHBOURS.mesh0} nud permanent`,
    );
    lines.push(
      `route add default via ${VIA[family].up} dev up0`,
      `route add ${place.otherPods[0]}/${family === 4 ? 31 : 127} via ${VIA[family].mesh} dev mesh0`,
    );
    lines.push(`route add ${place.silent}/${host} via ${VIA[family].silent} dev mesh0`, `route add blackhole ${place.blackhole}/${host}`);
    // Whoever announces a load balancer's address answers for it on the link.
    place.balancers.forEach((vip) => lines.push(`neigh add ${vip} dev up0 lladdr ${NEIGHBOURS.up0} nud permanent`));
    pods.forEach((pod, i) => lines.push(`route add ${pod}/${host} dev pod${i}`, `neigh add ${pod} dev pod${i} lladdr ${podMac(i)} nud permanent`));
  }
  execFileSync('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1', 'net.ipv6.conf.default.accept_dad=0']);
  execFileSync('ip', ['-batch', '-'], { input: lines.join('\n') });
}

/** Of one counter, over all CPUs. */
function sumPackets(values: Uint8Array): bigint {
  const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
  let packets = 0n;
  for (let at = 0; at < values.length; at += counterCodec.size) packets += view.getBigUint64(at, true);
  return packets;
}

export class Kernel {
  readonly #object: BpfObject;
  /** Packets by reason, as accounted for. */
  readonly #counts: bigint[] = [];
  readonly #counter = new Uint8Array(counterCodec.size * native.possibleCpus());
  readonly #ifindex: ReadonlyMap<string, number>;
  readonly #ends: Uint8Array;

  constructor() {
    const object = (this.#object = native.open(fileURLToPath(new URL('../../build/maglane.bpf.o', import.meta.url))));
    for (const program of object.programs()) object.setAutoload(program, (Object.values(HOOKS) as string[]).includes(program));
    object.setMaxEntries('flows', 65_536);
    const rodata = object.rodata();
    configCodec.write({ hostNetns: 0n, snatMin: SNAT.min, snatMax: SNAT.max, dsrPort: DSR_PORT }, rodata);
    object.setRodata(rodata);
    object.load();
    this.#ends = new Uint8Array(native.mapMmap(object.mapFd('ends')));
    this.#ifindex = new Map(native.interfaces().map(({ name, index }) => [name, index]));
    this.#writeDevices();
    this.settle();
  }

  #fd(map: string): number {
    return this.#object.mapFd(map);
  }

  #put<K, V>(map: string, key: Uint8Array | [Codec<K>, K], [codec, value]: [Codec<V>, V]): void {
    native.mapUpdate(this.#fd(map), key instanceof Uint8Array ? key : encode(key[0], key[1]), encode(codec, value));
  }

  indexOf(device: DeviceName): number {
    return this.#ifindex.get(device) ?? 0;
  }

  #writeDevices(): void {
    for (const name of DEVICES) {
      const isPod = name.startsWith('pod');
      const of = name === 'mesh0' ? 'mesh' : 'up';
      const flags = isPod ? DeviceFlag.POD | DeviceFlag.DETECTED : DeviceFlag.XDP_TX;
      const value = { addr4: PLACES[4][of] as Address, addr6: PLACES[6][of] as Address, mode: 1, flags, why: 0, hook: 1, name };
      this.#put('devices', u32(this.indexOf(name)), [deviceCodec, value]);
    }
  }

  /** Makes the maps hold this world and nothing else. */
  load(world: World): void {
    for (const map of ['frontends', 'services', 'flows', 'affinity', 'source_ranges', 'fragments', 'held_fragments', 'peers']) this.#clear(map);
    const ring: number[] = [];
    const place = ({ members, table }: { readonly members: readonly number[]; readonly table: readonly number[] }) => {
      const base = ring.length;
      ring.push(...members, ...table);
      return { base, count: members.length, table: table.length };
    };
    for (const [id, { record, sets, ranges }] of world.services) {
      this.#put('services', u32(id), [serviceCodec, { ...record, sets: sets.map(place) }]);
      for (const { addr, prefix } of ranges) {
        const prefixlen = 32 + prefix + (familyOf(addr) === 4 ? 96 : 0);
        native.mapUpdate(this.#fd('source_ranges'), encode(sourceRangeKeyCodec, { prefixlen, service: id, addr }), u32(1));
      }
    }
    this.#put('ring', u32(0), [ringChunkCodec, { slot: Array.from({ length: RING_CHUNK }, (_, i) => ring[i] ?? 0) }]);
    for (let id = 1; id < 256; id++) {
      this.#put('backends', u32(id), [backendCodec, world.backends.get(id) ?? { addr: '::' as Address, port: 0, flags: 0, service: 0, connections: 0n }]);
    }
    const frontends = [...world.frontends.values()];
    renewFrontends(this.#ends, new Uint8Array(frontends.flatMap(({ key }) => [...encode(frontendKeyCodec, key)])));
    for (const { key, value } of frontends) this.#put('frontends', [frontendKeyCodec, key], [frontendCodec, value]);
    this.#put('node', u32(0), [nodeCodec, world.node]);
    for (const [id, host] of world.hosts) native.mapUpdate(this.#fd('hosts'), u32(id), addressRecord(host));
    for (const peer of world.peers) native.mapUpdate(this.#fd('peers'), addressRecord(peer), u32(1));
  }

  #clear(map: string): void {
    const { keys, count } = native.mapEntries(this.#fd(map));
    const size = keys.length / Math.max(1, count);
    for (let i = 0; i < count; i++) native.mapDelete(this.#fd(map), keys.subarray(i * size, (i + 1) * size));
  }

  /**
   * Runs one packet. @param expected the reason that should count it: it is looked at first, and all others only if it did
   * not move, or when `settle` is called.
   */
  run({ hook, device, isOwn }: Seen, frame: Uint8Array, expected: string): Run {
    const words = new Uint32Array(hook === 'xdp' ? 6 : 48);
    if (hook === 'xdp') [words[1], words[3]] = [frame.length, this.indexOf(device)];
    // struct __sk_buff: ingress_ifindex, ifindex.
    else [words[9], words[10]] = [isOwn ? 0 : this.indexOf(device), this.indexOf(device)];
    const { retval, data } = native.testRun(this.#object.programFd(HOOKS[hook]), { data: frame, ctx: new Uint8Array(words.buffer) });
    const index = Reason[expected as keyof typeof Reason];
    const count = sumPackets(this.#lookup('counters', u32(index), this.#counter));
    if (count !== (this.#counts[index] ?? 0n) + 1n) return { retval, data, reason: this.settle() };
    this.#counts[index] = count;
    return { retval, data, reason: expected };
  }

  /** The reasons that have moved and were not accounted for; "" when there are none. */
  settle(): string {
    const { values } = native.mapEntries(this.#fd('counters'));
    const size = this.#counter.length;
    const moved: string[] = [];
    for (let reason = 0; reason * size < values.length; reason++) {
      const count = sumPackets(values.subarray(reason * size, (reason + 1) * size));
      const delta = count - (this.#counts[reason] ?? 0n);
      this.#counts[reason] = count;
      if (delta !== 0n) moved.push(delta === 1n ? (REASONS[reason] ?? '?') : `${delta} times ${REASONS[reason]}`);
    }
    return moved.join(', ');
  }

  #lookup(map: string, key: Uint8Array, into: Uint8Array): Uint8Array {
    native.mapLookup(this.#fd(map), key, into);
    return into;
  }

  flow(key: Tuple): Flow | undefined {
    const value = new Uint8Array(flowCodec.size);
    return native.mapLookup(this.#fd('flows'), encode(tupleCodec, key), value) ? flowCodec.read(value) : undefined;
  }

  setFlow(key: Tuple, flow: Flow): void {
    this.#put('flows', [tupleCodec, key], [flowCodec, flow]);
  }

  deleteFlow(key: Tuple): void {
    native.mapDelete(this.#fd('flows'), encode(tupleCodec, key));
  }

  flows(): World['flows'] {
    const { keys, values, count } = native.mapEntries(this.#fd('flows'));
    return new Map(
      Array.from({ length: count }, (_, i) => {
        const key = tupleCodec.read(keys, i * tupleCodec.size);
        return [textOf(key), { key, flow: flowCodec.read(values, i * flowCodec.size) }] as const;
      }),
    );
  }

  /** The copies of fragments that wait for the first of their datagram. */
  held(): readonly Uint8Array[] {
    const { values, count } = native.mapEntries(this.#fd('held_fragments'));
    const { bytes, size } = heldFragmentCodec.offsets;
    return Array.from({ length: count }, (_, i) => {
      const held = values.subarray(i * heldFragmentCodec.size, (i + 1) * heldFragmentCodec.size);
      return held.subarray(bytes, bytes + new DataView(held.buffer, held.byteOffset).getUint32(size, true));
    });
  }

  dropHeld(): void {
    this.#clear('held_fragments');
  }

  affinity(service: number, client: Address): number | undefined {
    const value = new Uint8Array(affinityCodec.size);
    return native.mapLookup(this.#fd('affinity'), encode(affinityKeyCodec, { service, client }), value) ? affinityCodec.read(value).backend : undefined;
  }

  close(): void {
    this.#object.close();
  }
}

/**
 * Pinned maps of an earlier agent: kept where they fit, replaced where they do not.
 *
 * Replacement is build-aside. The new maps are filled and pinned in `maps-next` while the old
 * programs go on with the old maps; once all links have the new programs, the folders change names.
 */
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import native from '../../native/index.js';
import type { BpfObject, MapInfo } from '../../native/index.d.ts';
import type { Capacity, Held } from '../plan/held.ts';
import { renewFrontends } from './ends.ts';
import { ABI_VERSION, agentInfoCodec, RING_CHUNK } from './generated/abi.ts';
import { Maps, namesIn, wordsOf } from './maps.ts';

export interface MapSizes {
  readonly capacity: Omit<Capacity, 'serviceCidrs' | 'peers'>;
  /** Tracked flows: two entries each. */
  readonly maxFlows: number;
  readonly maxAffinity: number;
  /** Sockets times VIPs: two entries each. */
  readonly maxUdpPeers: number;
  /** Devices that programs are attached to. */
  readonly maxDevices: number;
  /** Packets may be sent on as they are: where they are not, no backend's node needs to be known. */
  readonly hosts: boolean;
}

export interface Adopted {
  readonly maps: Maps;
  /** Names of maps that replace one of another size, with its content. */
  readonly copied: readonly string[];
  /** Names of maps that replace one whose content is lost. */
  readonly lost: readonly string[];
  /** Makes the new maps the pinned ones; to be called when no link runs an old program any more. The second time it does nothing. */
  flip(): void;
}

/** These point at each other: they are kept, copied or lost together. */
const LINKED = ['backends', 'open_sockets', 'ring', 'services', 'frontends', 'source_ranges'];

/** BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH and BPF_MAP_TYPE_LPM_TRIE: entries by key, in any number up to the size. */
const KEYED = new Set([1, 9, 11]);

/** Sets the sizes of the maps that have an option. Before loading. */
export function setSizes(object: BpfObject, { capacity, maxFlows, maxAffinity, maxUdpPeers, maxDevices, hosts }: MapSizes): void {
  object.setMaxEntries('services', capacity.services);
  object.setMaxEntries('frontends', capacity.frontends);
  object.setMaxEntries('backends', capacity.backends);
  object.setMaxEntries('open_sockets', capacity.backends);
  object.setMaxEntries('hosts', hosts ? capacity.backends : 1);
  object.setMaxEntries('source_ranges', capacity.sourceRanges);
  object.setMaxEntries('ring', Math.ceil(capacity.ringSlots / RING_CHUNK));
  object.setMaxEntries('flows', 2 * maxFlows);
  object.setMaxEntries('affinity', maxAffinity);
  object.setMaxEntries('udp_peers', 2 * maxUdpPeers);
  object.setMaxEntries('devices', maxDevices);
}

/**
 * Loads the object with the pinned maps that fit, and pins the others. The verifier is at work on another thread meanwhile.
 * @param bpffs folder of the pins.
 * @throws BpfError when the kernel refuses the object.
 */
export async function loadWithPins(object: BpfObject, bpffs: string): Promise<Adopted> {
  finishFlip(bpffs);
  const old = Maps.openPins(`${bpffs}/maps`);
  try {
    const names = object.maps().filter((name) => !name.includes('.'));
    const { kept, copied, lost } = decide(object, names, old);
    for (const name of kept) object.reuseMap(name, old.fd(name));
    await object.loadAsync();
    const maps = new Maps(new Map(names.map((name) => [name, native.dup(object.mapFd(name))])));
    for (const name of copied) copyMap(name, old, maps); // in any order: nothing reads them yet
    renewFrontends(maps.memory('ends'), native.mapEntries(maps.fd('frontends')).keys);
    let isAside = copied.length + lost.length > 0;
    pinAll(maps, `${bpffs}/${isAside ? 'maps-next' : 'maps'}`);
    const flip = (): void => {
      if (isAside) flipPins(bpffs);
      isAside = false;
    };
    return { maps, copied, lost, flip };
  } finally {
    old.close();
  }
}

function decide(object: BpfObject, names: readonly string[], old: Maps): { kept: string[]; copied: string[]; lost: string[] } {
  const present = names.filter((name) => old.has(name)).sort();
  if (!isSameAbi(old)) return { kept: [], copied: [], lost: present };
  const isLike = (name: string): boolean => isSameLayout(object.mapInfo(name), old.info(name));
  const isEqual = (name: string): boolean => isLike(name) && object.mapInfo(name).maxEntries === old.info(name).maxEntries;
  const fates = new Map<string, 'kept' | 'copied' | 'lost'>();
  for (const name of present) {
    const isKeyed = KEYED.has(old.info(name).type);
    fates.set(name, isEqual(name) ? 'kept' : isLike(name) && isKeyed ? 'copied' : 'lost');
  }
  const linked = LINKED.filter((name) => old.has(name));
  if (!linked.every(isEqual)) {
    const fits = linked.length === LINKED.length && linked.every(isLike) && fitsInto(object, old.read());
    for (const name of linked) fates.set(name, fits ? 'copied' : 'lost');
  }
  const having = (fate: string): string[] => present.filter((name) => fates.get(name) === fate);
  return { kept: having('kept'), copied: having('copied'), lost: having('lost') };
}

/** An agent that never came to describe itself had today's layout, or its maps differ in size. */
function isSameAbi(old: Maps): boolean {
  if (!old.has('agent')) return true;
  const version = wordsOf(old.memory('agent'))[agentInfoCodec.offsets.abiVersion / 4];
  return version === 0 || version === ABI_VERSION;
}

function isSameLayout(a: MapInfo, b: MapInfo): boolean {
  return a.type === b.type && a.keySize === b.keySize && a.valueSize === b.valueSize && a.flags === b.flags;
}

/** Whether what is held has a place under the same ids and at the same slots. */
function fitsInto(object: BpfObject, held: Held): boolean {
  const ends = held.services.flatMap(({ cluster, local }) => [cluster, local]).map(({ base, count, table }) => base + count + table);
  return (
    held.services.length <= object.mapInfo('services').maxEntries &&
    held.frontends.length + held.addresses.length <= object.mapInfo('frontends').maxEntries &&
    held.sourceRanges.length <= object.mapInfo('source_ranges').maxEntries &&
    held.backends.every(({ id }) => id < object.mapInfo('backends').maxEntries) &&
    ends.every((end) => end <= object.mapInfo('ring').maxEntries * RING_CHUNK)
  );
}

function copyMap(name: string, from: Maps, to: Maps): void {
  if (KEYED.has(from.info(name).type)) {
    const { keys, values, count } = native.mapEntries(from.fd(name));
    if (count > 0) native.mapUpdateBatch(to.fd(name), keys, values, count);
    return;
  }
  for (const { offset, bytes } of from.stretches(name)) {
    const target = to.from(name, offset);
    target.set(bytes.subarray(0, target.length));
  }
}

function pinAll(maps: Maps, folder: string): void {
  mkdirSync(folder, { recursive: true });
  const pinned = new Set(namesIn(folder));
  for (const name of maps.names) if (!pinned.has(name)) native.pin(maps.fd(name), `${folder}/${name}`);
}

function flipPins(bpffs: string): void {
  renameSync(`${bpffs}/maps`, `${bpffs}/maps-old`);
  renameSync(`${bpffs}/maps-next`, `${bpffs}/maps`);
  rmSync(`${bpffs}/maps-old`, { recursive: true });
}

/** Ends what an agent that died left half done: before the first rename the old maps are in use, after it the new ones. */
function finishFlip(bpffs: string): void {
  if (!existsSync(`${bpffs}/maps`) && existsSync(`${bpffs}/maps-next`)) renameSync(`${bpffs}/maps-next`, `${bpffs}/maps`);
  for (const name of ['maps-next', 'maps-old']) rmSync(`${bpffs}/${name}`, { recursive: true, force: true });
}

/** The map `devices`: what the programs know of each device, and what `status` shows. */
import native from '../../native/index.js';
import type { Address } from '../model/address.ts';
import { familyOf, parseAddress } from '../model/address.ts';
import type { Family } from '../model/desired.ts';
import { isTunnel, sourceAddress } from './devices.ts';
import type { WantedDevice } from './devices.ts';
import type { Device } from './generated/abi.ts';
import { deviceCodec, DeviceFlag, DeviceMode, DeviceModeName, DeviceWhyName, TcHookName } from './generated/abi.ts';
import type { Maps } from './maps.ts';

export interface AttachedDevice {
  readonly name: string;
  readonly index: number;
  /** "xdp" (native), "xdp_generic" or "tc"; tc is always attached too. */
  readonly mode: string;
  /** "asked", "native", "veth", "tunnel", "pod" or "refused": enum device_why. */
  readonly why: string;
  /** "tcx" or "clsact". */
  readonly hook: string;
  readonly tunnel: boolean;
  /** Leads to a pod of this node. */
  readonly pod: boolean;
  /** detectLocalMode says that what comes in here is a pod's. */
  readonly detected: boolean;
  /** Sources of what is forwarded out of it. */
  readonly addr4: Address | undefined;
  readonly addr6: Address | undefined;
}

/** How programs are attached to a device: enum tc_hook, enum device_mode, enum device_why. */
export type Place = Pick<Device, 'hook' | 'mode' | 'why'>;

const NO_ADDRESS = parseAddress('::') as Address;

/** The map with what it holds in memory: an agent is the only one who writes it. */
export class DeviceMap {
  readonly #maps: Maps;
  readonly #entries: Map<number, Device>;

  constructor(maps: Maps) {
    this.#maps = maps;
    this.#entries = readDevices(maps);
  }

  get size(): number {
    return this.#maps.info('devices').maxEntries;
  }

  /** By index. */
  get entries(): ReadonlyMap<number, Device> {
    return this.#entries;
  }

  get described(): AttachedDevice[] {
    return describeAll(this.#entries);
  }

  /**
   * Writes a device's entry, unless it stands there.
   * @param nodeIps what is sent back into a pod's device gets the node's address as its source.
   * @throws BpfError E2BIG when the map is full.
   */
  set(wanted: WantedDevice, nodeIps: readonly Address[], place: Place): void {
    const { index } = wanted.device;
    const device = entryOf(wanted, nodeIps, place);
    if (isEqual(this.#entries.get(index), device)) return;
    const value = new Uint8Array(deviceCodec.size);
    deviceCodec.write(device, value);
    native.mapUpdate(this.#maps.fd('devices'), indexKey(index), value);
    this.#entries.set(index, device);
  }

  delete(index: number): void {
    native.mapDelete(this.#maps.fd('devices'), indexKey(index));
    this.#entries.delete(index);
  }
}

/** The devices that programs are attached to, as the map says. */
export function attachedDevices(maps: Maps): AttachedDevice[] {
  return describeAll(readDevices(maps));
}

function entryOf({ device, pod, detected }: WantedDevice, nodeIps: readonly Address[], { hook, mode, why }: Place): Device {
  const source = (family: Family): Address => (pod ? nodeIps.find((address) => familyOf(address) === family) : sourceAddress(device, family)) ?? NO_ADDRESS;
  const flags =
    (mode === DeviceMode.TC ? 0 : DeviceFlag.XDP_TX) |
    (isTunnel(device) ? DeviceFlag.TUNNEL : 0) |
    (pod ? DeviceFlag.POD : 0) |
    (detected ? DeviceFlag.DETECTED : 0);
  return { addr4: source(4), addr6: source(6), mode, flags, why, hook, name: device.name };
}

/** By index. */
export function readDevices(maps: Maps): Map<number, Device> {
  const { keys, values, count } = native.mapEntries(maps.fd('devices'));
  const indices = new DataView(keys.buffer, keys.byteOffset);
  return new Map(Array.from({ length: count }, (_, i) => [indices.getUint32(4 * i, true), deviceCodec.read(values, i * deviceCodec.size)]));
}

function describeAll(entries: ReadonlyMap<number, Device>): AttachedDevice[] {
  return [...entries].map(([index, device]) => describe(index, device)).sort((a, b) => a.index - b.index);
}

function describe(index: number, { name, mode, why, hook, flags, addr4, addr6 }: Device): AttachedDevice {
  return {
    name,
    index,
    mode: DeviceModeName[mode] ?? '',
    why: DeviceWhyName[why] ?? '',
    hook: TcHookName[hook] ?? '',
    tunnel: (flags & DeviceFlag.TUNNEL) !== 0,
    pod: (flags & DeviceFlag.POD) !== 0,
    detected: (flags & DeviceFlag.DETECTED) !== 0,
    addr4: addr4 === NO_ADDRESS ? undefined : addr4,
    addr6: addr6 === NO_ADDRESS ? undefined : addr6,
  };
}

function isEqual(a: Device | undefined, b: Device): boolean {
  return a !== undefined && (Object.keys(b) as (keyof Device)[]).every((key) => a[key] === b[key]);
}

function indexKey(index: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(index).buffer);
}

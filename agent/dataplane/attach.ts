/** Attaches the programs: the socket hooks to the cgroup, XDP and tc to the devices. */
import { statSync } from 'node:fs';
import native from '../../native/index.js';
import type { BpfError, BpfObject, CgroupAttach, Interface } from '../../native/index.d.ts';
import { parseAddress } from '../model/address.ts';
import type { Address } from '../model/address.ts';
import { isTunnel, sourceAddress, xdpFor } from './devices.ts';
import type { XdpMode } from './devices.ts';
import type { Device } from './generated/abi.ts';
import { deviceCodec, DeviceFlag, DeviceMode, DeviceModeName, DeviceWhy, DeviceWhyName, TcHook, TcHookName } from './generated/abi.ts';
import type { Direction } from './links.ts';
import { cgroupPin, Links, tcxPin, xdpPin } from './links.ts';
import type { Maps } from './maps.ts';

export interface AttachedDevice {
  readonly name: string;
  readonly index: number;
  /** "xdp" (native), "xdp_generic" or "tc"; tc is always attached too. */
  readonly mode: string;
  /** "asked", "native", "veth", "tunnel" or "refused": enum device_why. */
  readonly why: string;
  /** "tcx" or "clsact". */
  readonly hook: string;
  readonly tunnel: boolean;
  /** Sources of what is forwarded out of it. */
  readonly addr4: Address | undefined;
  readonly addr6: Address | undefined;
}

export interface Logger {
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
}

const CGROUP_HOOKS: readonly CgroupAttach[] = ['connect4', 'connect6', 'sendmsg4', 'sendmsg6', 'recvmsg4', 'recvmsg6', 'getpeername4', 'getpeername6'];
const DIRECTIONS: readonly Direction[] = ['ingress', 'egress'];
const NO_ADDRESS = parseAddress('::') as Address;

/** Our place among the tc filters of a device, where there is no tcx. */
const CLSACT_HANDLE = 0x6d61676c;
const CLSACT_PRIORITY = 20;

export class Attachments {
  readonly #object: BpfObject;
  readonly #maps: Maps;
  readonly #links: Links;
  readonly #xdpMode: XdpMode;
  readonly #log: Logger;
  /** Devices ("index name") that refused XDP: not asked again. */
  readonly #refused = new Set<string>();
  #hasTcx = true;

  /** @param folder of the pinned links; must exist. */
  constructor(object: BpfObject, maps: Maps, folder: string, xdpMode: XdpMode, log: Logger) {
    this.#object = object;
    this.#maps = maps;
    this.#links = new Links(folder);
    this.#xdpMode = xdpMode;
    this.#log = log;
  }

  /**
   * Makes exactly these be attached; what stands is left alone.
   * @throws BpfError when the kernel refuses anything but XDP.
   */
  attach(cgroup: string, devices: readonly Interface[]): readonly AttachedDevice[] {
    const keep = new Set(this.#attachCgroup(cgroup));
    const attached = devices.map((device) => this.#attachDevice(device, keep));
    this.#detachOthers(devices, keep);
    return attached;
  }

  #attachCgroup(cgroup: string): string[] {
    const { ino } = statSync(cgroup, { bigint: true });
    return CGROUP_HOOKS.map((hook) => {
      const program = this.#object.programFd(`mg_${hook}`);
      this.#links.ensure(cgroupPin(ino, hook), program, () => native.linkCgroup(program, cgroup, hook));
      return cgroupPin(ino, hook);
    });
  }

  /** The device's entry comes first, without XDP until the driver has taken it. */
  #attachDevice(device: Interface, keep: Set<string>): AttachedDevice {
    const held = readDevices(this.#maps).get(device.index);
    const base = {
      addr4: sourceAddress(device, 4) ?? NO_ADDRESS,
      addr6: sourceAddress(device, 6) ?? NO_ADDRESS,
      flags: isTunnel(device) ? DeviceFlag.TUNNEL : 0,
      hook: this.#hasTcx ? TcHook.TCX : TcHook.CLSACT,
      name: device.name,
    };
    if (held?.name !== device.name) this.#writeDevice(device.index, { ...base, mode: DeviceMode.TC, why: 0 });
    const hook = this.#attachTc(device, keep);
    const { mode, why } = this.#attachXdp(device, keep);
    const entry: Device = { ...base, hook, mode, why, flags: base.flags | (mode === DeviceMode.TC ? 0 : DeviceFlag.XDP_TX) };
    if (!isEqual(held, entry)) this.#writeDevice(device.index, entry);
    return describe(device.index, entry);
  }

  #attachTc({ index }: Interface, keep: Set<string>): number {
    for (const direction of DIRECTIONS) {
      const program = this.#object.programFd(`mg_tc_${direction}`);
      if (this.#hasTcx) this.#tryTcx(index, direction, program);
      if (this.#hasTcx) keep.add(tcxPin(index, direction));
      else if (native.clsactQuery(index, direction, CLSACT_HANDLE, CLSACT_PRIORITY) !== native.programInfo(program).id) {
        native.clsactAttach(program, index, direction, CLSACT_HANDLE, CLSACT_PRIORITY);
      }
    }
    return this.#hasTcx ? TcHook.TCX : TcHook.CLSACT;
  }

  /** Kernels before 6.6 answer EINVAL: they have no tcx. */
  #tryTcx(index: number, direction: Direction, program: number): void {
    try {
      this.#links.ensure(tcxPin(index, direction), program, () => native.linkTcx(program, index, direction));
    } catch (error) {
      if ((error as BpfError).code !== 'EINVAL') throw error;
      this.#hasTcx = false;
    }
  }

  #attachXdp(device: Interface, keep: Set<string>): { readonly mode: number; readonly why: number } {
    const choice = xdpFor(device, this.#xdpMode);
    if (choice.attempt === undefined) return { mode: DeviceMode.TC, why: DeviceWhy[choice.why] };
    const { attempt } = choice;
    const { index, name } = device;
    if (this.#refused.has(`${index} ${name}`)) return { mode: DeviceMode.TC, why: DeviceWhy.REFUSED };
    const program = this.#object.programFd('mg_xdp_ingress');
    this.#links.remove(xdpPin(index, attempt === 'native' ? 'generic' : 'native')); // a device takes one of them
    try {
      this.#links.ensure(xdpPin(index, attempt), program, () => native.linkXdp(program, index, attempt));
    } catch (error) {
      this.#refused.add(`${index} ${name}`);
      const report = this.#xdpMode === 'auto' ? 'info' : 'warn';
      this.#log[report](`${name} refuses ${attempt} XDP: tc does the work there`, { error: (error as Error).message });
      return { mode: DeviceMode.TC, why: DeviceWhy.REFUSED };
    }
    keep.add(xdpPin(index, attempt));
    return { mode: attempt === 'native' ? DeviceMode.XDP : DeviceMode.XDP_GENERIC, why: this.#xdpMode === 'auto' ? DeviceWhy.NATIVE : DeviceWhy.ASKED };
  }

  /** XDP before tc, so that nothing is left to a tc program that is no longer there. */
  #detachOthers(devices: readonly Interface[], keep: ReadonlySet<string>): void {
    const others = this.#links.pins.filter((pin) => !keep.has(pin)).sort((a, b) => Number(b.includes('_xdp_')) - Number(a.includes('_xdp_')));
    for (const pin of others) this.#links.remove(pin);
    for (const [index, device] of readDevices(this.#maps)) {
      if (devices.some((wanted) => wanted.index === index)) continue;
      detachClsact(index, device);
      native.mapDelete(this.#maps.fd('devices'), indexKey(index));
    }
  }

  #writeDevice(index: number, device: Device): void {
    const value = new Uint8Array(deviceCodec.size);
    deviceCodec.write(device, value);
    native.mapUpdate(this.#maps.fd('devices'), indexKey(index), value);
  }
}

/** The devices that programs are attached to, as the map says. */
export function attachedDevices(maps: Maps): AttachedDevice[] {
  return [...readDevices(maps)].map(([index, device]) => describe(index, device)).sort((a, b) => a.index - b.index);
}

/**
 * Removes all links of the folder, and what the devices in the map have at clsact.
 * @returns what was removed, one line each.
 */
export function detachAll(folder: string, maps: Maps): string[] {
  const links = new Links(folder);
  const pins = [...links.pins].sort((a, b) => Number(b.includes('_xdp_')) - Number(a.includes('_xdp_')));
  for (const pin of pins) links.remove(pin);
  const devices = maps.has('devices') ? [...readDevices(maps)] : [];
  const filtered = devices.filter(([index, device]) => detachClsact(index, device));
  return [...pins.map((pin) => `link ${pin}`), ...filtered.map(([, { name }]) => `tc filters of ${name}`)];
}

/** Only from the device that had it: its index may be another's by now. */
function detachClsact(index: number, { hook, name }: Device): boolean {
  if (hook !== TcHook.CLSACT || !native.interfaces().some((device) => device.index === index && device.name === name)) return false;
  return DIRECTIONS.map((direction) => native.clsactDetach(index, direction, CLSACT_HANDLE, CLSACT_PRIORITY)).includes(true);
}

function readDevices(maps: Maps): Map<number, Device> {
  const { keys, values, count } = native.mapEntries(maps.fd('devices'));
  const indices = new DataView(keys.buffer, keys.byteOffset);
  return new Map(Array.from({ length: count }, (_, i) => [indices.getUint32(4 * i, true), deviceCodec.read(values, i * deviceCodec.size)]));
}

function describe(index: number, { name, mode, why, hook, flags, addr4, addr6 }: Device): AttachedDevice {
  return {
    name,
    index,
    mode: DeviceModeName[mode] ?? '',
    why: DeviceWhyName[why] ?? '',
    hook: TcHookName[hook] ?? '',
    tunnel: (flags & DeviceFlag.TUNNEL) !== 0,
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

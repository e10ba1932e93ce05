/** Attaches the programs: the socket hooks to the cgroup, XDP and tc to the devices. */
import { statSync } from 'node:fs';
import native from '../../native/index.js';
import type { BpfError, BpfObject, CgroupAttach } from '../../native/index.d.ts';
import type { Address } from '../model/address.ts';
import type { Problem } from '../model/problem.ts';
import type { AttachedDevice, Place } from './device-map.ts';
import { DeviceMap, readDevices } from './device-map.ts';
import { xdpFor } from './devices.ts';
import type { WantedDevice, XdpMode } from './devices.ts';
import type { Device } from './generated/abi.ts';
import { DeviceMode, DeviceWhy, TcHook } from './generated/abi.ts';
import type { Direction } from './links.ts';
import { cgroupPin, Links, tcxPin, xdpPin } from './links.ts';
import type { Maps } from './maps.ts';

export interface Logger {
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
}

/** Who counts what is closed goes first: what is opened before nobody counts is counted for good. */
const CGROUP_HOOKS: readonly CgroupAttach[] = [
  'sock_release',
  'connect4',
  'connect6',
  'sendmsg4',
  'sendmsg6',
  'recvmsg4',
  'recvmsg6',
  'getpeername4',
  'getpeername6',
];
const DIRECTIONS: readonly Direction[] = ['ingress', 'egress'];

/** Our place among the tc filters of a device, where there is no tcx. */
const CLSACT_HANDLE = 0x6d61676c;
const CLSACT_PRIORITY = 20;

/** How long one call attaches to devices of pods, ms: then others have their turn on the event loop. */
const SLICE_MS = 100;

/** What stands after `attach`. */
export interface Attached {
  readonly devices: readonly AttachedDevice[];
  /** Why devices of pods have no programs. */
  readonly problems: readonly Problem[];
  /** Devices of pods whose turn comes with the next call, which should be soon. */
  readonly pending: number;
}

export class Attachments {
  readonly #object: BpfObject;
  readonly #devices: DeviceMap;
  readonly #links: Links;
  readonly #xdpMode: XdpMode;
  readonly #log: Logger;
  /** Devices ("index name") that refused XDP: not asked again. */
  readonly #refused = new Set<string>();
  /** By index: the device whose programs have been looked at, so that not each change of one costs a look at all. */
  readonly #seen = new Map<number, string>();
  /** Whether links may stand that belong to no entry. */
  #untidy = true;
  #hasTcx = true;

  /** @param folder of the pinned links; must exist. */
  constructor(object: BpfObject, maps: Maps, folder: string, xdpMode: XdpMode, log: Logger) {
    this.#object = object;
    this.#devices = new DeviceMap(maps);
    this.#links = new Links(folder);
    this.#xdpMode = xdpMode;
    this.#log = log;
  }

  /**
   * Makes exactly these be attached; what stands is left alone. Uplinks and tunnels are attached to at once; tcx waits
   * for an RCU grace period each time, so that hundreds of pods take several calls.
   * @param nodeIps sources of what is sent back into a pod that it came from.
   * @param recheck looks at all links anew; otherwise only at those of devices that were not here the last time.
   * @throws BpfError when the kernel refuses anything but XDP on an uplink or a tunnel.
   */
  attach(cgroup: string, wanted: readonly WantedDevice[], nodeIps: readonly Address[], recheck: boolean): Attached {
    if (recheck) this.#seen.clear();
    const deadline = performance.now() + SLICE_MS;
    const room = wanted.slice(0, this.#devices.size);
    const problems = wanted.length > room.length ? [tooMany(wanted.length, room.length)] : [];
    const cgroupPins = this.#attachCgroup(cgroup, recheck);
    // Those which went make room for those which come.
    const here = new Set(room.map(({ device }) => device.index));
    const went = this.#forget((index) => !here.has(index));
    this.#untidy ||= recheck || went;
    let pending = 0;
    const failed = new Set<number>();
    for (const one of room) {
      if (one.pod && !this.#hasSeen(one) && performance.now() > deadline) pending++;
      else if (!this.#tryAttach(one, nodeIps, problems)) failed.add(one.device.index);
    }
    this.#forget((index) => failed.has(index));
    if (pending === 0 && this.#untidy) this.#removeOthers(cgroupPins);
    return { devices: this.#devices.described, problems, pending };
  }

  /** @returns the pins. */
  #attachCgroup(cgroup: string, recheck: boolean): string[] {
    const { ino } = statSync(cgroup, { bigint: true });
    return CGROUP_HOOKS.map((hook) => {
      const pin = cgroupPin(ino, hook);
      const program = this.#object.programFd(`mg_${hook}`);
      if (recheck) this.#links.ensure(pin, program, () => native.linkCgroup(program, cgroup, hook));
      return pin;
    });
  }

  /** False: the device went away meanwhile, or it is a pod's and refuses. */
  #tryAttach(wanted: WantedDevice, nodeIps: readonly Address[], problems: Problem[]): boolean {
    const { index, name } = wanted.device;
    try {
      this.#attachDevice(wanted, nodeIps);
      return true;
    } catch (error) {
      this.#seen.delete(index);
      if (!native.interfaces().some((device) => device.index === index)) return false;
      if (!wanted.pod) throw error;
      const message = `takes no programs, and what the pod behind it sends passes unseen: ${(error as Error).message}`;
      problems.push({ object: `device ${name}`, field: '', value: '', message, reason: 'device' });
      return false;
    }
  }

  /** The device's entry comes first, without XDP until the driver has taken it. */
  #attachDevice(wanted: WantedDevice, nodeIps: readonly Address[]): void {
    const { index, name } = wanted.device;
    const held = this.#devices.entries.get(index);
    let place: Place | undefined = held;
    if (place === undefined || !this.#hasSeen(wanted)) {
      if (held?.name !== name) this.#devices.set(wanted, nodeIps, { hook: this.#hasTcx ? TcHook.TCX : TcHook.CLSACT, mode: DeviceMode.TC, why: 0 });
      const hook = this.#attachTc(wanted);
      place = { hook, ...this.#attachXdp(wanted) };
      this.#seen.set(index, identityOf(wanted));
    }
    this.#devices.set(wanted, nodeIps, place);
  }

  #hasSeen(wanted: WantedDevice): boolean {
    return this.#seen.get(wanted.device.index) === identityOf(wanted);
  }

  #attachTc({ device: { index }, pod }: WantedDevice): number {
    for (const direction of DIRECTIONS) {
      const program = this.#object.programFd(`${pod ? 'mg_pod' : 'mg_tc'}_${direction}`);
      if (this.#hasTcx) this.#tryTcx(index, direction, program);
      if (!this.#hasTcx && native.clsactQuery(index, direction, CLSACT_HANDLE, CLSACT_PRIORITY) !== native.programInfo(program).id) {
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

  #attachXdp(wanted: WantedDevice): { readonly mode: number; readonly why: number } {
    const choice = xdpFor(wanted, this.#xdpMode);
    if (choice.attempt === undefined) return { mode: DeviceMode.TC, why: DeviceWhy[choice.why] };
    const { attempt } = choice;
    const { index, name } = wanted.device;
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
    return { mode: attempt === 'native' ? DeviceMode.XDP : DeviceMode.XDP_GENERIC, why: this.#xdpMode === 'auto' ? DeviceWhy.NATIVE : DeviceWhy.ASKED };
  }

  /** Detaches from these devices, and takes their entries away. @returns whether there were any. */
  #forget(isOther: (index: number) => boolean): boolean {
    const others = [...this.#devices.entries].filter(([index]) => isOther(index));
    for (const [index, entry] of others) for (const pin of xdpFirst(pinsOf(index, entry))) this.#links.remove(pin);
    detachClsact(others);
    for (const [index] of others) {
      this.#devices.delete(index);
      this.#seen.delete(index);
    }
    return others.length > 0;
  }

  /** Removes the links that belong to no entry: of another cgroup, another XDP mode, an agent that died half way. */
  #removeOthers(cgroupPins: readonly string[]): void {
    const keep = new Set([...cgroupPins, ...[...this.#devices.entries].flatMap(([index, entry]) => pinsOf(index, entry))]);
    for (const pin of xdpFirst(this.#links.pins)) if (!keep.has(pin)) this.#links.remove(pin);
    this.#untidy = false;
  }
}

/**
 * Removes all links of the folder, and what the devices in the map have at clsact.
 * @returns what was removed, one line each.
 */
export function detachAll(folder: string, maps: Maps): string[] {
  const links = new Links(folder);
  const pins = xdpFirst(links.pins);
  for (const pin of pins) links.remove(pin);
  const filtered = detachClsact(maps.has('devices') ? [...readDevices(maps)] : []);
  return [...pins.map((pin) => `link ${pin}`), ...filtered.map((name) => `tc filters of ${name}`)];
}

/** XDP before tc, so that nothing is left to a tc program that is no longer there. */
function xdpFirst(pins: readonly string[]): string[] {
  return [...pins].sort((a, b) => Number(b.includes('_xdp_')) - Number(a.includes('_xdp_')));
}

/** Only from the device that had it: its index may be another's by now. @returns names of the devices that had filters. */
function detachClsact(devices: readonly (readonly [number, Device])[]): string[] {
  const filtered = devices.filter(([, { hook }]) => hook === TcHook.CLSACT);
  if (filtered.length === 0) return [];
  const names = new Map(native.interfaces().map(({ index, name }) => [index, name]));
  return filtered
    .filter(([index, { name }]) => names.get(index) === name)
    .filter(([index]) => DIRECTIONS.map((direction) => native.clsactDetach(index, direction, CLSACT_HANDLE, CLSACT_PRIORITY)).includes(true))
    .map(([, { name }]) => name);
}

/** Tells a device from another that had its index, or its part, before. */
function identityOf({ device: { name, mac }, pod }: WantedDevice): string {
  return `${name} ${mac} ${pod}`;
}

/** The same line as pods come and go: it is told once. */
function tooMany(wanted: number, room: number): Problem {
  const enough = Math.ceil(wanted / 256) * 256;
  const message = `is too few for the devices of this node's pods: what some of them send passes unseen: ${enough} would do`;
  return { object: '--max-devices', field: '', value: String(room), message, reason: 'capacity' };
}

/** The links of a device, by its entry. */
function pinsOf(index: number, { hook, mode }: Device): string[] {
  const tcx = hook === TcHook.TCX ? DIRECTIONS.map((direction) => tcxPin(index, direction)) : [];
  const xdp = mode === DeviceMode.TC ? [] : [xdpPin(index, mode === DeviceMode.XDP ? 'native' : 'generic')];
  return [...xdp, ...tcx];
}

/** Which devices are attached to, and how. Pure. */
import { matchesGlob } from 'node:path';
import type { Interface } from '../../native/index.d.ts';
import type { Address } from '../model/address.ts';
import { familyOf, parseAddress } from '../model/address.ts';
import type { Family } from '../model/desired.ts';

export type XdpMode = 'auto' | 'native' | 'generic' | 'off';

/** Tunnels that carry Ethernet frames: packets for remote pods leave, and their answers arrive, through these. */
const TUNNEL_DRIVERS = new Set(['vxlan', 'geneve', 'gretap', 'ip6gretap', 'erspan', 'ip6erspan']);

/** How detectLocalMode tells a pod by the device: BridgeInterface, or InterfaceNamePrefix. */
export type DetectByDevice = { readonly bridge: string } | { readonly prefix: string };

export interface DeviceChoice {
  /** Of `--devices`; none: those that hold the node's addresses. */
  readonly names: readonly string[];
  readonly nodeIps: readonly Address[];
  /** `--pod-devices`: auto, none, or a glob pattern. */
  readonly podDevices: string;
  readonly detect?: DetectByDevice;
}

/** A device to attach to. */
export interface WantedDevice {
  readonly device: Interface;
  /** Leads to a pod of this node; otherwise an uplink or a tunnel. */
  readonly pod: boolean;
  /** detectLocalMode says that what comes in here is a pod's. */
  readonly detected: boolean;
}

export interface ChosenDevices {
  /** Uplinks and tunnels first: should there be no room for all, they have it. */
  readonly wanted: readonly WantedDevice[];
  /** Names of `--devices` that no device has. */
  readonly missing: readonly string[];
  /** Uplinks, and devices that the pattern names, that the programs cannot serve: their packets have no Ethernet header. */
  readonly unfit: readonly string[];
}

/**
 * The uplinks (those named, else those that hold the node's addresses), all tunnels, and the devices of pods. With
 * `auto` these are the veths whose other end is in another network namespace, on a bridge or each with a route of its own.
 */
export function chooseDevices(interfaces: readonly Interface[], choice: DeviceChoice): ChosenDevices {
  const { names, nodeIps } = choice;
  const isUplink = (device: Interface): boolean =>
    names.length > 0 ? names.includes(device.name) : !device.loopback && addressesOf(device).some((address) => nodeIps.includes(address));
  const uplinks = interfaces.filter(isUplink);
  const tunnels = interfaces.filter((device) => isTunnel(device) && !isUplink(device));
  const pods = interfaces.filter((device) => !isUplink(device) && !isTunnel(device) && isPodDevice(device, choice.podDevices));
  const byIndex = new Map(interfaces.map((device) => [device.index, device]));
  const want = (devices: readonly Interface[], pod: boolean): WantedDevice[] =>
    devices.filter(({ ethernet }) => ethernet).map((device) => ({ device, pod, detected: isDetected(device, byIndex, choice.detect) }));
  return {
    wanted: [...want([...uplinks, ...tunnels], false), ...want(pods, true)],
    missing: names.filter((name) => !interfaces.some((device) => device.name === name)),
    unfit: [...uplinks, ...pods].filter(({ ethernet }) => !ethernet).map(({ name }) => name),
  };
}

export function isTunnel({ driver }: Interface): boolean {
  return TUNNEL_DRIVERS.has(driver);
}

function isPodDevice(device: Interface, podDevices: string): boolean {
  if (podDevices === 'none' || device.loopback) return false;
  return podDevices === 'auto' ? device.driver === 'veth' && device.peerElsewhere : matchesGlob(device.name, podDevices);
}

/** By the device that IP sees the packet come in by, as kube-proxy's rules match it: for a bridge's port that is the bridge. */
function isDetected(device: Interface, byIndex: ReadonlyMap<number, Interface>, detect: DetectByDevice | undefined): boolean {
  if (detect === undefined) return false;
  const master = byIndex.get(device.master);
  const { name } = master?.driver === 'bridge' ? master : device;
  return 'bridge' in detect ? name === detect.bridge : name.startsWith(detect.prefix);
}

/** What to try for a device: an XDP mode, or none with the reason why. */
export function xdpFor(
  { device, pod }: WantedDevice,
  asked: XdpMode,
): { readonly attempt: 'native' | 'generic' } | { readonly attempt: undefined; readonly why: 'ASKED' | 'VETH' | 'TUNNEL' | 'POD' } {
  if (pod) return { attempt: undefined, why: 'POD' };
  if (asked === 'off') return { attempt: undefined, why: 'ASKED' };
  if (isTunnel(device)) return { attempt: undefined, why: 'TUNNEL' };
  if (asked !== 'auto') return { attempt: asked };
  return device.driver === 'veth' ? { attempt: undefined, why: 'VETH' } : { attempt: 'native' };
}

/** The first address of the family that other nodes can answer to: not link-local, not loopback. */
export function sourceAddress(device: Interface, family: Family): Address | undefined {
  return addressesOf(device).find((address) => familyOf(address) === family && !/^(127\.|169\.254\.|::1$|fe[89ab])/.test(address));
}

function addressesOf({ addresses }: Interface): Address[] {
  return addresses.map((address) => parseAddress(address.replace(/[%/].*/, ''))).filter((address) => address !== undefined);
}

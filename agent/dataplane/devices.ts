/** Which devices are attached to, and how. Pure. */
import type { Interface } from '../../native/index.d.ts';
import type { Address } from '../model/address.ts';
import { familyOf, parseAddress } from '../model/address.ts';
import type { Family } from '../model/desired.ts';

export type XdpMode = 'auto' | 'native' | 'generic' | 'off';

/** Tunnels that carry Ethernet frames: packets for remote pods leave, and their answers arrive, through these. */
const TUNNEL_DRIVERS = new Set(['vxlan', 'geneve']);

/**
 * The uplinks (those named, else those that hold the node's addresses) and all tunnels.
 * @returns `missing`: names that no device has.
 */
export function chooseDevices(
  interfaces: readonly Interface[],
  { names, nodeIps }: { readonly names: readonly string[]; readonly nodeIps: readonly Address[] },
): { readonly devices: readonly Interface[]; readonly missing: readonly string[] } {
  const isUplink = (device: Interface): boolean =>
    names.length > 0 ? names.includes(device.name) : !device.loopback && addressesOf(device).some((address) => nodeIps.includes(address));
  return {
    devices: interfaces.filter((device) => isUplink(device) || isTunnel(device)),
    missing: names.filter((name) => !interfaces.some((device) => device.name === name)),
  };
}

export function isTunnel({ driver }: Interface): boolean {
  return TUNNEL_DRIVERS.has(driver);
}

/** What to try for a device: an XDP mode, or none with the reason why. */
export function xdpFor(
  device: Interface,
  asked: XdpMode,
): { readonly attempt: 'native' | 'generic' } | { readonly attempt: undefined; readonly why: 'ASKED' | 'VETH' | 'TUNNEL' } {
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

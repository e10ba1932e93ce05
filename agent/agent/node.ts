/** Facts of this node that the model and the dataplane need: its own addresses, and those that serve nodePorts. */
import type { Interface } from '../../native/index.js';
import type { Address, Cidr } from '../model/address.ts';
import { familyOf, inRanges, parseAddress } from '../model/address.ts';
import type { Node } from '../model/objects.ts';

/** Devices that carry traffic of pods or of the node itself, never its own address. */
const NOT_UPLINKS = new Set(['bridge', 'vxlan', 'geneve', 'wireguard', 'dummy', 'tun', 'ipip', 'ip_tunnel', 'sit', 'gre']);

/**
 * This node's addresses, the first of each family: as asked for; where that names none of a family, as its Node object
 * says (InternalIP before ExternalIP, as kube-proxy takes them); where neither names any, the first global ones of an uplink.
 */
export function nodeAddresses(asked: readonly Address[], node: Node | undefined, interfaces: readonly Interface[]): readonly Address[] {
  const ofNode = (node?.addresses ?? []).map(parseAddress).filter((address) => address !== undefined);
  const told = [...asked, ...ofNode];
  const candidates = told.length > 0 ? told : localAddresses(interfaces.filter((device) => device.up && !device.loopback && !NOT_UPLINKS.has(device.driver)));
  return ([4, 6] as const).map((family) => candidates.find((address) => familyOf(address) === family)).filter((address) => address !== undefined);
}

/**
 * The addresses that serve nodePorts: the node's own ("primary"), or those of its interfaces that lie in the ranges; of a
 * family that has no range, all (k8s.io/kubernetes/pkg/proxy/util.NewNodePortAddresses). Loopback never (kube-proxy's
 * nftables mode): the node's own processes have 127.0.0.1 and ::1 besides.
 */
export function nodePortAddresses(asked: 'primary' | readonly Cidr[], node: readonly Address[], interfaces: readonly Interface[]): readonly Address[] {
  if (asked === 'primary') return node;
  const families = new Set(asked.map(({ base }) => familyOf(base)));
  return localAddresses(interfaces).filter((address) => !families.has(familyOf(address)) || inRanges(asked, address));
}

/** Those of the addresses that an interface holds: what can be listened on. A cloud may give a node addresses that it never sees. */
export function heldAddresses(addresses: readonly Address[], interfaces: readonly Interface[]): readonly Address[] {
  const held = new Set(localAddresses(interfaces));
  return addresses.filter((address) => held.has(address));
}

/** Global addresses of the interfaces, without loopback and link-local ones: lo may hold others. */
function localAddresses(interfaces: readonly Interface[]): Address[] {
  return interfaces
    .flatMap((device) => device.addresses)
    .map((cidr) => parseAddress(cidr.split('/')[0] ?? ''))
    .filter((address) => address !== undefined)
    .filter((address) => !/^(127\.|169\.254\.|::1$|fe[89ab])/.test(address));
}

/** The addresses of a node with a pod, its client and a second node with a pod of its own, and the way between the two nodes: routed, or in a vxlan. */
import { addAddress } from './packet-lab.ts';
import type { PacketLab } from './packet-lab.ts';

export const FAMILIES = [4, 6] as const;

export const IP = {
  4: {
    client: '192.0.2.2',
    up: '192.0.2.1',
    vip: '198.18.0.10',
    gateway: '10.1.0.1',
    pod: '10.1.0.2',
    mesh: '198.51.100.1',
    mesh2: '198.51.100.2',
    pod2: '10.2.0.2',
    vx: '10.9.0.1',
    vx2: '10.9.0.2',
    length: 24,
    host: 32,
  },
  6: {
    client: '2001:db8::2',
    up: '2001:db8::1',
    vip: '2001:db8:ff::10',
    gateway: '2001:db8:1::1',
    pod: '2001:db8:1::2',
    mesh: '2001:db8:9::1',
    mesh2: '2001:db8:9::2',
    pod2: '2001:db8:2::2',
    vx: '2001:db8:a::1',
    vx2: '2001:db8:a::2',
    length: 64,
    host: 128,
  },
} as const;
type Name = 'client' | 'up' | 'gateway' | 'pod' | 'mesh' | 'mesh2' | 'vx' | 'vx2';

/** That address of each family, as `ip addr add` takes it. */
export const withLength = (name: Name): string[] => FAMILIES.map((family) => `${IP[family][name]}/${IP[family].length}`);

/** Links client and node by c0 and up0, node and node2 by mesh0 and m0; `vxlan`: with a vx0 in each over that. */
export function linkMesh(lab: PacketLab, { client, node, node2 }: Record<'client' | 'node' | 'node2', string>, vxlan: boolean): void {
  lab.link({ namespace: client, device: 'c0', addresses: withLength('client') }, { namespace: node, device: 'up0', addresses: withLength('up') });
  lab.link({ namespace: node, device: 'mesh0', addresses: withLength('mesh') }, { namespace: node2, device: 'm0', addresses: withLength('mesh2') });
  if (!vxlan) return;
  for (const [namespace, near, far, own] of [
    [node, 'mesh', 'mesh2', 'vx'],
    [node2, 'mesh2', 'mesh', 'vx2'],
  ] as const) {
    const add = `link add vx0 type vxlan id 7 local ${IP[4][near]} remote ${IP[4][far]} dstport 8472`;
    lab.ip(namespace, add, ...withLength(own).map((address) => addAddress(address, 'vx0')), 'link set vx0 up');
  }
}

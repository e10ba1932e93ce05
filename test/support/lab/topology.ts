/** The lab's addresses and the `ip` commands that build its networks. */
import { run } from './shell.ts';

/** Addresses of node i (from 1) and of its pods. */
export const nodeAddresses = (i: number): string[] => [`172.30.0.${10 + i}`, `fd00:30::${10 + i}`];
export const podCidrs = (i: number): string[] => [`10.244.${i}.0/24`, `fd00:244:${i}::/64`];
export const podAddresses = (i: number, n: number): string[] => [`10.244.${i}.${n}`, `fd00:244:${i}::${n}`];
export const gatewayAddresses = (i: number): string[] => podAddresses(i, 1);
export const FABRIC = ['172.30.0.1', 'fd00:30::1'];
export const CLIENT = ['172.30.0.100', 'fd00:30::100'];
export const CONTROL = ['172.30.0.2', 'fd00:30::2'];

const isV6 = (address: string): boolean => address.includes(':');

/** The longest prefix of an address's family. */
export const whole = (address: string): string => `${address}/${isV6(address) ? 128 : 32}`;

/** `ip` in a namespace, with as many commands as it takes in one process. */
export async function ip(netns: string, commands: readonly string[]): Promise<void> {
  await run(['ip', '-n', netns, '-batch', '-'], { input: `${commands.join('\n')}\n` });
}

/** A route; its family is its destination's. */
export const route = (destination: string, rest: string): string => `route replace ${destination} ${rest}`;

/** An address, without duplicate address detection, which would keep IPv6 from working for a second. */
export const address = (cidr: string, device: string): string => `address add ${cidr} dev ${device}${isV6(cidr) ? ' nodad' : ''}`;

/** A default route of each family. */
export const defaults = (gateways: readonly string[], rest = ''): string[] =>
  gateways.map((gateway) => route(isV6(gateway) ? '::/0' : '0.0.0.0/0', `via ${gateway} ${rest}`));

/** Makes namespaces, loopback up, with forwarding where asked. */
export async function makeNamespaces(namespaces: readonly { readonly netns: string; readonly forwards: boolean }[]): Promise<void> {
  await run(['ip', '-batch', '-'], { input: namespaces.map(({ netns }) => `netns add ${netns}\n`).join('') });
  await Promise.all(
    namespaces.map(async ({ netns, forwards }) => {
      // Strict reverse path filtering: what works here works under the strictest distribution.
      const settings = ['ipv6/conf/all/accept_dad=0', 'ipv6/conf/default/accept_dad=0', 'ipv4/conf/all/rp_filter=1'];
      // A packet for a VIP that no node knows yet comes back to the switch: a redirect would have its sender avoid that node for minutes.
      settings.push(...['ipv4', 'ipv6'].flatMap((ip) => ['all', 'default'].map((device) => `${ip}/conf/${device}/accept_redirects=0`)));
      if (forwards) settings.push('ipv4/ip_forward=1', 'ipv6/conf/all/forwarding=1');
      const writes = settings.map((setting) => `echo ${setting.split('=')[1]} > /proc/sys/net/${setting.split('=')[0]}`).join(' && ');
      await run(['nsenter', `--net=/run/netns/${netns}`, 'sh', '-c', `ip link set lo up && ${writes}`]);
    }),
  );
}

/** A cable between two namespaces; both ends up. */
export async function cable(netns: string, device: string, farNetns: string, farDevice: string, mtu = 1500): Promise<void> {
  await ip(netns, [`link add ${device} mtu ${mtu} type veth peer name ${farDevice} netns ${farNetns} mtu ${mtu}`, `link set ${device} up`]);
  await ip(farNetns, [`link set ${farDevice} up`]);
}

/** The MAC address that the lab gives the pods' bridge of node i: left to itself, it would change when a pod goes, and the others would not know. */
export const bridgeMac = (i: number): string => `02:4d:47:00:01:${i.toString(16).padStart(2, '0')}`;

/** The MAC address that the lab gives the vxlan device of node i. */
export const tunnelMac = (i: number): string => `02:4d:47:00:00:${i.toString(16).padStart(2, '0')}`;

/** Node i's tunnel to the others, as flannel builds it: one vxlan device, neighbours and forwarding entries written by hand. */
export function tunnel(i: number, nodes: number): string[] {
  const own = nodeAddresses(i)[0];
  const others = Array.from({ length: nodes }, (_, n) => n + 1).filter((n) => n !== i);
  return [
    `link add vxlan0 address ${tunnelMac(i)} mtu 1450 type vxlan id 42 local ${own} dev eth0 dstport 8472 nolearning`,
    'link set vxlan0 up',
    ...tunnelAddresses(i).map((own6) => address(whole(own6), 'vxlan0')),
    ...others.flatMap((n) => tunnelAddresses(n).map((far) => `neigh replace ${far} lladdr ${tunnelMac(n)} dev vxlan0 nud permanent`)),
    ...others.flatMap((n) => podCidrs(n).map((cidr, family) => route(cidr, `via ${tunnelAddresses(n)[family]} dev vxlan0 onlink`))),
  ];
}

/** `bridge fdb` commands that go with `tunnel`. */
export function tunnelForwarding(i: number, nodes: number): string[] {
  const others = Array.from({ length: nodes }, (_, n) => n + 1).filter((n) => n !== i);
  return others.map((n) => `fdb append ${tunnelMac(n)} dev vxlan0 dst ${nodeAddresses(n)[0]} self permanent`);
}

const tunnelAddresses = (i: number): string[] => [`10.244.${i}.0`, `fd00:244:${i}::ffff`];

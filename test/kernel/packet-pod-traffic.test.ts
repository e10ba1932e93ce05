/**
 * Real connections of this node's pods and of the node itself, by packets alone: no socket hook runs. All with a strict
 * rp_filter.
 *
 *   client c0 --- up0 [node] ya --- p0 [a]        on a bridge, or each on a veth of its own (ptp)
 *                            yb --- p0 [b]
 *                            mesh0 --- m0 [node2, with a pod of its own]     routed, or in a vxlan
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BackendFlag, DeviceFlag, FrontendFlag, FrontendKind, NodeFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { joinEndpoint } from '../support/packet.ts';
import { addAddress, PacketLab, SNAT } from './packet-lab.ts';
import type { Outcome } from './packet-child.ts';
import type { Process } from './packet-lab.ts';
import { FAMILIES, IP as MESH, linkMesh, withLength } from './packet-mesh.ts';

const IP = {
  4: { ...MESH[4], nobody: '198.18.0.99', a: MESH[4].pod, b: '10.1.0.3', pods: '10.1.0.0/24' },
  6: { ...MESH[6], nobody: '2001:db8:ff::99', a: MESH[6].pod, b: '2001:db8:1::3', pods: '2001:db8:1::/64' },
} as const;
type Attach = 'bridge' | 'ptp';
type Network = 'routed' | 'vxlan';

const SERVICE_CIDRS = ['198.18.0.0/24', '2001:db8:ff::/64'];

/** Ports of the VIP, by who serves them. */
const PORT = { b: 80, pod2: 81, nobody: 82, node: 83, a: 84, unknown: 99 } as const;

interface Net {
  readonly lab: PacketLab;
  readonly client: Process;
  readonly node: Process;
  readonly a: Process;
}

async function build(attach: Attach, network: Network): Promise<Net> {
  const lab = new PacketLab(`pod-${attach}-${network}`);
  try {
    return await wire(lab, attach, network);
  } catch (error) {
    await lab.close();
    throw error;
  }
}

/** One command for each family. */
const both = (command: (ip: (typeof IP)[4 | 6]) => string): string[] => FAMILIES.map((family) => command(IP[family]));

async function wire(lab: PacketLab, attach: Attach, network: Network): Promise<Net> {
  const [client, node, node2] = ['client', 'node', 'node2'].map((name) => lab.namespace(name)) as [string, string, string];
  for (const namespace of [node, node2]) lab.sh(namespace, 'sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1');
  linkMesh(lab, { client, node, node2 }, network === 'vxlan');
  const [here, there] = network === 'vxlan' ? (['vx', 'vx2'] as const) : (['mesh', 'mesh2'] as const);
  lab.ip(node, ...both((ip) => `route add ${ip.pod2}/${ip.host} via ${ip[there]}`), ...both((ip) => `route add default via ${ip.client}`));
  lab.ip(node2, ...both((ip) => `addr add ${ip.pod2}/${ip.host} dev lo`), ...both((ip) => `route add ${ip.pods} via ${ip[here]}`));
  lab.ip(client, ...both((ip) => `route add ${ip.vip}/${ip.host} via ${ip.up}`), ...both((ip) => `route add ${ip.nobody}/${ip.host} via ${ip.up}`));
  if (attach === 'bridge') lab.ip(node, 'link add br0 type bridge', ...withLength('gateway').map((address) => addAddress(address, 'br0')), 'link set br0 up');
  const pods = Object.fromEntries(
    (['a', 'b'] as const).map((name) => {
      const pod = lab.namespace(name);
      const addresses = both((ip) => `${ip[name]}/${attach === 'bridge' ? ip.length : ip.host}`);
      const gateways = attach === 'bridge' ? [] : both((ip) => `${ip.gateway}/${ip.host}`);
      lab.link({ namespace: node, device: `y${name}`, addresses: gateways }, { namespace: pod, device: 'p0', addresses });
      if (attach === 'bridge') lab.ip(node, `link set y${name} master br0`);
      else lab.ip(node, ...both((ip) => `route add ${ip[name]}/${ip.host} dev y${name}`));
      // Room for the tunnel's own headers.
      if (network === 'vxlan') lab.ip(pod, 'link set p0 mtu 1400');
      lab.ip(pod, ...(attach === 'ptp' ? both((ip) => `route add ${ip.gateway} dev p0`) : []), ...both((ip) => `route add default via ${ip.gateway}`));
      return [name, lab.spawn(pod)];
    }),
  ) as Record<'a' | 'b', Process>;
  const [inClient, inNode, inNode2] = [client, node, node2].map((namespace) => lab.spawn(namespace)) as [Process, Process, Process];

  lab.node({ serviceCidrs: SERVICE_CIDRS });
  for (const family of FAMILIES) serveVip(lab, family);
  const uplinks = { up0: 'up', mesh0: 'mesh', ...(network === 'vxlan' ? { vx0: 'vx' } : {}) } as const;
  for (const [device, source] of Object.entries(uplinks) as ['up0', 'up'][]) {
    lab.device(lab.ifindex(node, device), { addr4: IP[4][source] as Address, addr6: IP[6][source] as Address });
    for (const how of ['ingress', 'egress'] as const) await inNode.must({ op: 'attach', pin: lab.pin(`mg_tc_${how}`), device, how, clsact: false });
  }
  for (const device of ['ya', 'yb']) {
    lab.device(lab.ifindex(node, device), { addr4: IP[4].up as Address, addr6: IP[6].up as Address, flags: DeviceFlag.POD });
    for (const how of ['ingress', 'egress'] as const) await inNode.must({ op: 'attach', pin: lab.pin(`mg_pod_${how}`), device, how, clsact: false });
  }
  for (const family of FAMILIES) {
    const ip = IP[family];
    await pods.a.must({ op: 'serve', name: 'a', address: ip.a, port: 8080 });
    await pods.b.must({ op: 'serve', name: 'b', address: ip.b, port: 8080 });
    await inNode2.must({ op: 'serve', name: 'pod2', address: ip.pod2, port: 8080 });
    await inNode.must({ op: 'serve', name: 'node', address: ip.up, port: 8080 });
  }
  return { lab, client: inClient, node: inNode, a: pods.a };
}

function serveVip(lab: PacketLab, family: 4 | 6, kind: number = FrontendKind.LOAD_BALANCER): void {
  const ip = IP[family];
  lab.frontend(0, joinEndpoint(ip.vip, 0), 0, { kind: FrontendKind.ADDRESS, flags: FrontendFlag.OWNED });
  const backends = { b: ip.b, pod2: ip.pod2, nobody: '', node: ip.up, a: ip.a } as const;
  Object.entries(backends).forEach(([name, at], index) => {
    const service = family * 10 + index;
    if (at !== '') lab.backend(service, joinEndpoint(at, 8080), service, BackendFlag.SERVING | (name === 'pod2' ? 0 : BackendFlag.LOCAL));
    lab.service(service, { cluster: at === '' ? [] : [service] });
    for (const proto of ['tcp', 'udp'] as const) lab.frontend(proto, joinEndpoint(ip.vip, PORT[name as keyof typeof backends]), service, { kind });
  });
}

describe.each([
  ['bridge', 'routed'],
  ['ptp', 'vxlan'],
] as const)('pods by %s, %s', (attach, network) => {
  let net: Net;
  beforeAll(async () => {
    net = await build(attach, network);
  });
  afterAll(() => net?.lab.close());

  describe.each(FAMILIES)('IPv%i', (family) => {
    const ip = IP[family];
    const meshed = network === 'vxlan' ? ip.vx : ip.mesh;
    const at = (port: number): { address: string; port: number } => ({ address: ip.vip, port });

    describe.each(['tcp', 'udp'] as const)('%s', (op) => {
      it.each([
        ['a', 'b', 'a'],
        ['a', 'pod2', 'a'],
        ['a', 'node', 'a'],
        ['client', 'b', 'client'],
        ['client', 'node', 'client'],
      ] as const)('of %s reaches %s, which sees it as it is', async (who, whom, seen) => {
        const from = 45_000 + PORT[whom];
        expect(await net[who].ask({ op, ...at(PORT[whom]), from })).toEqual({ answer: `${whom} ${ip[seen]}:${from}` });
      });

      it.each([
        ['a', 'a', ip.up],
        ['node', 'b', ip.up],
        ['node', 'pod2', meshed],
        ['node', 'node', ip.vip],
        ['client', 'pod2', meshed],
      ] as const)('of %s reaches %s, which sees %s', async (who, whom, seen) => {
        const { answer, error } = await net[who].ask({ op, ...at(PORT[whom]) });
        expect(error).toBeUndefined();
        const [name, from] = answer!.split(' ') as [string, string];
        const colon = from.lastIndexOf(':');
        expect([name, from.slice(0, colon)]).toEqual([whom, seen]);
        expect(Number(from.slice(colon + 1))).toBeGreaterThanOrEqual(SNAT.min);
        expect(Number(from.slice(colon + 1))).toBeLessThanOrEqual(SNAT.max);
      });

      // The node sends within connect(), where an ICMP error is lost once: there, it is the second SYN that is refused.
      it('is refused to all where there is no endpoint, and at a port that is none', async () => {
        const asked = (['a', 'client', 'node'] as const).flatMap((who) => [PORT.nobody, PORT.unknown].map((port) => net[who].ask({ op, ...at(port) })));
        expect(new Set((await Promise.all(asked)).map(({ error }) => error))).toEqual(new Set(['ECONNREFUSED']));
      });
    });

    it.each([
      ['a', 'b'],
      ['a', 'pod2'],
      ['a', 'a'],
      ['node', 'b'],
      ['node', 'pod2'],
      ['node', 'node'],
    ] as const)('megabytes pass both ways between %s and %s', async (who, whom) => {
      expect(await net[who].ask({ op: 'echo', ...at(PORT[whom]), bytes: 3_000_000 })).toEqual({ answer: '3000000' });
    });

    it.each([
      ['a', 'b'],
      ['a', 'a'],
      ['node', 'pod2'],
      ['client', 'b'],
    ] as const)('a connection of %s to %s outlives its frontend', async (who, whom) => {
      const vip = joinEndpoint(ip.vip, PORT[whom]);
      await net[who].must({ op: 'open', id: 1, ...at(PORT[whom]) });
      const { answer } = await net[who].must({ op: 'ask', id: 1 });
      net.lab.removeFrontend('tcp', vip);
      try {
        expect(await net[who].ask({ op: 'ask', id: 1 })).toEqual({ answer });
        expect(await net[who].ask({ op: 'tcp', ...at(PORT[whom]) })).toEqual({ error: 'ECONNREFUSED' });
      } finally {
        serveVip(net.lab, family);
        await net[who].must({ op: 'hangup', id: 1 });
      }
    });

    describe('under masqueradeAll, as a cluster IP', () => {
      beforeAll(() => {
        net.lab.node({ serviceCidrs: SERVICE_CIDRS, flags: NodeFlag.MASQUERADES_ALL });
        serveVip(net.lab, family, FrontendKind.CLUSTER_IP);
      });
      afterAll(() => {
        net.lab.node({ serviceCidrs: SERVICE_CIDRS });
        serveVip(net.lab, family);
      });

      it.each([
        ['a', 'b', ip.up],
        ['a', 'a', ip.up],
        ['a', 'pod2', meshed],
        ['client', 'b', ip.up],
        ['client', 'pod2', meshed],
        ['a', 'node', ip.a],
        ['client', 'node', ip.client],
      ] as const)('%s reaches %s, which sees %s', async (who, whom, seen) => {
        for (const op of ['tcp', 'udp'] as const) {
          const { answer, error } = await net[who].ask({ op, ...at(PORT[whom]) });
          expect(error).toBeUndefined();
          expect(answer?.slice(0, answer.lastIndexOf(':'))).toBe(`${whom} ${seen}`);
        }
        expect(await net[who].ask({ op: 'echo', ...at(PORT[whom]), bytes: 300_000 })).toEqual({ answer: '300000' });
      });
    });

    it('an address that is nobody’s is dropped without a word', async () => {
      const asked = (): Promise<Outcome[]> =>
        Promise.all(([net.a, net.client, net.node] as const).map((who) => who.ask({ op: 'udp', address: ip.nobody, port: 80 })));
      const counted = await net.lab.counted(async () => expect(await asked()).toEqual(Array.from({ length: 3 }, () => ({ error: 'no answer' }))));
      expect(counted.DROP_UNALLOCATED?.packets).toBe(3);
    });
  });

  it('nothing went wrong on the way', () => {
    for (const reason of ['UNPARSED', 'DROP_WRITE', 'DROP_INCONSISTENT', 'DROP_NO_ROUTE', 'DROP_FLOWS_FULL', 'DROP_NO_SOURCE', 'DROP_NO_FLOW'] as const)
      expect(net.lab.count(reason).packets, reason).toBe(0);
  });
});

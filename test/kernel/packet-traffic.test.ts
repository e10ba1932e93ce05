/**
 * Real connections through a node, with real TCP, offloads and neighbours:
 *
 *   client c0 --- up0 [node] pod0 --- p0 [pod]
 *                            mesh0 --- m0 [node2, with a pod of its own]     routed, or in a vxlan
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { BackendFlag, DeviceFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { joinEndpoint } from '../support/packet.ts';
import { PacketLab, SNAT } from './packet-lab.ts';
import type { Process } from './packet-lab.ts';
import { FAMILIES, IP, linkMesh, withLength } from './packet-mesh.ts';

type Mode = 'tcx' | 'clsact' | 'vxlan' | 'xdp';

interface Net {
  readonly lab: PacketLab;
  readonly client: Process;
  readonly node2: Process;
}

/** Without an XDP program on the far end of a veth, what XDP sends to it is lost. */
async function dummyXdp(lab: PacketLab, ends: readonly (readonly [namespace: string, device: string, inside: Process])[]): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'mg-packet-'));
  try {
    writeFileSync(
      `${folder}/pass.c`,
      '__attribute__((section("xdp.frags"), used)) int pass(void *ctx) { return 2; } char _license[] __attribute__((section("license"), used)) = "GPL";',
    );
    execFileSync('clang', ['-O2', '-g', '-target', 'bpf', '-c', `${folder}/pass.c`, '-o', `${folder}/pass.o`]);
    lab.pinFrom(`${folder}/pass.o`, 'pass');
  } finally {
    rmSync(folder, { recursive: true });
  }
  for (const [namespace, device, inside] of ends) {
    await inside.must({ op: 'attach', pin: lab.pin('pass'), device, how: 'xdp', clsact: false });
    // XDP must find checksums finished.
    lab.sh(namespace, `ethtool -K ${device} tx off >/dev/null`);
  }
}

async function build(mode: Mode): Promise<Net> {
  const lab = new PacketLab(mode);
  try {
    return await wire(lab, mode);
  } catch (error) {
    await lab.close();
    throw error;
  }
}

async function wire(lab: PacketLab, mode: Mode): Promise<Net> {
  const [client, node, pod, node2] = ['client', 'node', 'pod', 'node2'].map((name) => lab.namespace(name)) as [string, string, string, string];
  const [inClient, inNode, inPod, inNode2] = [client, node, pod, node2].map((namespace) => lab.spawn(namespace)) as [Process, Process, Process, Process];
  linkMesh(lab, { client, node, node2 }, mode === 'vxlan');
  const each = (command: (ip: (typeof IP)[4 | 6]) => string): string[] => FAMILIES.map((family) => command(IP[family]));
  lab.link({ namespace: node, device: 'pod0', addresses: withLength('gateway') }, { namespace: pod, device: 'p0', addresses: withLength('pod') });
  const devices = mode === 'vxlan' ? ['up0', 'mesh0', 'vx0'] : ['up0', 'mesh0'];
  lab.ip(client, ...each((ip) => `route add ${ip.vip}/${ip.host} via ${ip.up}`));
  lab.ip(pod, ...each((ip) => `route add default via ${ip.gateway}`));
  lab.ip(node2, ...each((ip) => `addr add ${ip.pod2}/${ip.host} dev lo`));
  lab.ip(node, ...each((ip) => `route add ${ip.pod2}/${ip.host} via ${mode === 'vxlan' ? ip.vx2 : ip.mesh2}`));
  for (const family of FAMILIES) {
    const ip = IP[family];
    for (const proto of ['tcp', 'udp'] as const) {
      const LOCAL = BackendFlag.SERVING | BackendFlag.LOCAL;
      for (const [port, service, at, flags] of [
        [80, 10 + family, ip.pod, LOCAL],
        [81, 20 + family, ip.pod2, BackendFlag.SERVING],
        [82, 30 + family, '', 0],
        [83, 40 + family, ip.up, LOCAL],
      ] as const) {
        lab.frontend(proto, joinEndpoint(ip.vip, port), service);
        if (at !== '') lab.backend(service, joinEndpoint(at, 8080), service, flags);
        lab.service(service, { cluster: at === '' ? [] : [service] });
      }
    }
  }
  for (const device of devices) {
    const source = { up0: 'up', mesh0: 'mesh', vx0: 'vx' }[device] as 'up' | 'mesh' | 'vx';
    lab.device(lab.ifindex(node, device), { addr4: IP[4][source] as Address, addr6: IP[6][source] as Address, flags: mode === 'xdp' ? DeviceFlag.XDP_TX : 0 });
  }
  for (const device of devices) {
    for (const how of ['ingress', 'egress'] as const) await inNode.must({ op: 'attach', pin: lab.pin(`mg_tc_${how}`), device, how, clsact: mode === 'clsact' });
    if (mode === 'xdp') await inNode.must({ op: 'attach', pin: lab.pin('mg_xdp_ingress'), device, how: 'xdp', clsact: false });
  }
  // Between veths a partial checksum stays partial for ever, right or wrong. Here, what leaves the
  // node has to be finished first, as for a real device.
  if (mode === 'clsact') lab.sh(node, 'for d in up0 pod0 mesh0; do ethtool -K $d tx off >/dev/null; done');
  if (mode === 'xdp')
    await dummyXdp(lab, [
      [client, 'c0', inClient],
      [node2, 'm0', inNode2],
    ]);
  for (const family of FAMILIES) {
    await inPod.must({ op: 'serve', name: 'pod', address: IP[family].pod, port: 8080 });
    await inNode2.must({ op: 'serve', name: 'pod2', address: IP[family].pod2, port: 8080 });
    await inNode.must({ op: 'serve', name: 'node', address: IP[family].up, port: 8080 });
  }
  return { lab, client: inClient, node2: inNode2 };
}

describe.each(['tcx', 'clsact', 'vxlan', 'xdp'] as const)('traffic by %s', (mode) => {
  let net: Net;
  beforeAll(async () => {
    net = await build(mode);
  });
  afterAll(() => net?.lab.close());

  describe.each(FAMILIES)('IPv%i', (family) => {
    const ip = IP[family];
    const at = (port: number): { address: string; port: number } => ({ address: ip.vip, port });
    const source = mode === 'vxlan' ? ip.vx : ip.mesh;

    it.each(['tcp', 'udp'] as const)('%s reaches a local pod, which sees the client', async (op) => {
      expect(await net.client.ask({ op, ...at(80), from: 45_000 })).toEqual({ answer: `pod ${ip.client}:45000` });
    });

    it.each(['tcp', 'udp'] as const)('%s reaches the node itself as backend', async (op) => {
      expect(await net.client.ask({ op, ...at(83), from: 45_001 })).toEqual({ answer: `node ${ip.client}:45001` });
    });

    it.each(['tcp', 'udp'] as const)('%s reaches a pod on another node, which sees this one', async (op) => {
      const { answer, error } = await net.client.ask({ op, ...at(81) });
      expect(error).toBeUndefined();
      const [name, from] = answer!.split(' ') as [string, string];
      const colon = from.lastIndexOf(':');
      expect([name, from.slice(0, colon)]).toEqual(['pod2', source]);
      expect(Number(from.slice(colon + 1))).toBeGreaterThanOrEqual(SNAT.min);
      expect(Number(from.slice(colon + 1))).toBeLessThanOrEqual(SNAT.max);
    });

    it.each(['tcp', 'udp'] as const)('%s is refused where there are no endpoints', async (op) => {
      expect(await net.client.ask({ op, ...at(82) })).toEqual({ error: 'ECONNREFUSED' });
    });

    it.each([
      ['local', 80],
      ['remote', 81],
    ] as const)('megabytes pass both ways, %s', async (_, port) => {
      expect(await net.client.ask({ op: 'echo', ...at(port), bytes: 3_000_000 })).toEqual({ answer: '3000000' });
    });

    it.each([
      ['local', 80],
      ['remote', 81],
    ] as const)('a connection outlives its flow, %s', async (_, port) => {
      net.lab.forget(); // another flow could hold the port that this one finds free afterwards
      await net.client.must({ op: 'open', id: port, ...at(port) });
      const { answer } = await net.client.must({ op: 'ask', id: port });
      expect(net.lab.forget()).toBeGreaterThan(1);
      expect(await net.client.ask({ op: 'ask', id: port })).toEqual({ answer });
      await net.client.must({ op: 'hangup', id: port });
    });

    it('a connection outlives its flow when the backend on another node speaks first', async () => {
      net.lab.forget();
      await net.client.must({ op: 'open', id: 1, ...at(81) });
      await net.client.must({ op: 'ask', id: 1 });
      const before = net.lab.count('DROP_NO_FLOW').packets;
      net.lab.forget();
      // What it says comes to a node that has forgotten everything, and would answer with a RST.
      await net.node2.must({ op: 'say', text: 'by the way, ' });
      await vi.waitFor(() => expect(net.lab.count('DROP_NO_FLOW').packets).toBeGreaterThan(before), { timeout: 5_000 });
      const { answer } = await net.client.must({ op: 'ask', id: 1 });
      expect(answer).toMatch(/^by the way, /);
      await net.client.must({ op: 'hangup', id: 1 });
    });
  });

  it('was sent on by XDP where there is XDP, by tc where not', () => {
    const { packets } = net.lab.count('TO_TC');
    // A rejection and a neighbour not known yet are tc's; what flows then is not.
    if (mode === 'xdp') expect(packets).toBeLessThan(net.lab.count('REMOTE').packets / 4);
    else expect(packets).toBe(0);
    for (const reason of ['UNPARSED', 'DROP_WRITE', 'DROP_INCONSISTENT', 'DROP_NO_ROUTE', 'DROP_FLOWS_FULL'] as const)
      expect(net.lab.count(reason).packets, reason).toBe(0);
  });
});

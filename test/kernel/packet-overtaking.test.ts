/**
 * Fragments that overtake the first of their datagram, sent by hand in whatever order, between real kernels that put them together:
 *
 *   client c0 --- up0 [node] pod0 --- p0 [pod]
 *                            mesh0 --- m0 [node2, with a pod of its own]
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { BackendFlag, DeviceFlag, FlowFlag, FrontendFlag, FrontendKind } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { buildPacket, joinEndpoint, splitEndpoint, UDP } from '../support/packet.ts';
import { PacketLab } from './packet-lab.ts';
import type { Process } from './packet-lab.ts';
import { FAMILIES, IP, linkMesh, withLength } from './packet-mesh.ts';

const SENDER = fileURLToPath(new URL('./fixtures/send-frames.c', import.meta.url));
/** Of the VIP: to the pod here, and to that of the other node. The nodePort is for the latter, too. */
const PORTS = { local: 80, remote: 81, node: 30_080 } as const;
/** The datagrams' contents: four fragments, all bytes different enough. */
const TEXT = Array.from({ length: 1_000 }, (_, i) => `<${i}>`).join('');
const BACKWARDS = [3, 2, 1, 0] as const;

interface Net {
  readonly lab: PacketLab;
  readonly namespaces: Readonly<Record<'client' | 'node' | 'pod' | 'node2', string>>;
  readonly client: Process;
  readonly node: Process;
  readonly pod: Process;
  readonly node2: Process;
}

let net: Net;
let folder: string;
let nextId = 1;

async function wire(lab: PacketLab): Promise<Net> {
  const [client, node, pod, node2] = ['client', 'node', 'pod', 'node2'].map((name) => lab.namespace(name)) as [string, string, string, string];
  linkMesh(lab, { client, node, node2 }, false);
  lab.link({ namespace: node, device: 'pod0', addresses: withLength('gateway') }, { namespace: pod, device: 'p0', addresses: withLength('pod') });
  const each = (command: (ip: (typeof IP)[4 | 6]) => string): string[] => FAMILIES.map((family) => command(IP[family]));
  lab.ip(client, ...each((ip) => `route add default via ${ip.up}`));
  lab.ip(pod, ...each((ip) => `route add default via ${ip.gateway}`));
  lab.ip(node2, ...each((ip) => `addr add ${ip.pod2}/${ip.host} dev lo`), ...each((ip) => `route add default via ${ip.mesh}`));
  lab.ip(node, ...each((ip) => `route add ${ip.pod2}/${ip.host} via ${ip.mesh2}`));
  const [inClient, inNode, inPod, inNode2] = [client, node, pod, node2].map((namespace) => lab.spawn(namespace)) as [Process, Process, Process, Process];
  for (const [device, name, kind] of [
    ['up0', 'up', 'tc'],
    ['mesh0', 'mesh', 'tc'],
    ['pod0', 'up', 'pod'],
  ] as const) {
    const flags = kind === 'pod' ? DeviceFlag.POD : 0;
    lab.device(lab.ifindex(node, device), { addr4: IP[4][name] as Address, addr6: IP[6][name] as Address, flags });
    for (const how of ['ingress', 'egress'] as const) await inNode.must({ op: 'attach', pin: lab.pin(`mg_${kind}_${how}`), device, how, clsact: false });
  }
  for (const family of FAMILIES) {
    await inPod.must({ op: 'serve', name: 'pod', address: IP[family].pod, port: 8080 });
    await inNode2.must({ op: 'serve', name: 'pod2', address: IP[family].pod2, port: 8080 });
    await inNode.must({ op: 'serve', name: 'node', address: IP[family].up, port: 53 });
  }
  return { lab, namespaces: { client, node, pod, node2 }, client: inClient, node: inNode, pod: inPod, node2: inNode2 };
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mg-frames-'));
  execFileSync('cc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', join(folder, 'send-frames'), SENDER]);
  const lab = new PacketLab('overtaking');
  try {
    net = await wire(lab);
  } catch (error) {
    await lab.close();
    throw error;
  }
});
afterAll(async () => {
  await net?.lab.close();
  rmSync(folder, { recursive: true, force: true });
});

function send(from: 'client' | 'pod' | 'node2', device: string, frames: readonly Uint8Array[]): void {
  const input = Buffer.concat(frames.flatMap((frame) => [Buffer.from([frame.length >> 8, frame.length & 255]), frame]));
  execFileSync('ip', ['netns', 'exec', net.namespaces[from], join(folder, 'send-frames'), device], { input });
}

describe.each(FAMILIES)('over IPv%i', (family) => {
  const ip = IP[family];
  beforeEach(() => {
    net.lab.clear();
    for (const [address, flags] of [[ip.vip, FrontendFlag.OWNED]] as const)
      net.lab.frontend(0, joinEndpoint(address, 0), 0, { kind: FrontendKind.ADDRESS, flags });
    net.lab.backend(1, joinEndpoint(ip.pod, 8080), 1, BackendFlag.SERVING | BackendFlag.LOCAL);
    net.lab.backend(2, joinEndpoint(ip.pod2, 8080), 2);
    net.lab.service(1, { cluster: [1] });
    net.lab.service(2, { cluster: [2] });
    net.lab.frontend('udp', joinEndpoint(ip.vip, PORTS.local), 1);
    net.lab.frontend('udp', joinEndpoint(ip.vip, PORTS.remote), 2);
    net.lab.frontend('udp', joinEndpoint(ip.up, PORTS.node), 2, { kind: FrontendKind.NODE_PORT });
  });

  /** A datagram cut as a kernel would, for a link of 1,500 bytes. */
  function fragments(from: string, to: string, macs: { readonly source: string; readonly destination: string }, text = TEXT): readonly Uint8Array[] {
    const id = nextId++;
    const step = family === 4 ? 1_480 : 1_448;
    const data = buildPacket({ proto: 'udp', from, to, payload: text }).slice(family === 4 ? 34 : 54);
    return Array.from({ length: Math.ceil(data.length / step) }, (_, i) => {
      const more = (i + 1) * step < data.length;
      const at = i * step;
      const part = { proto: UDP, from, to, macs, payload: [...data.subarray(at, at + step)] };
      return buildPacket(
        family === 4
          ? { ...part, id, fragment: { offset: at / 8, more } }
          : { ...part, extensions: [{ type: 44, body: [at >> 8, (at & 255) | Number(more), 0, 0, id >> 8, id & 255] }] },
      );
    });
  }
  const macs = (from: 'client' | 'pod' | 'node2', device: string, to: string) => ({
    source: net.lab.mac(net.namespaces[from], device),
    destination: net.lab.mac(net.namespaces.node, to),
  });
  const toNode = () => macs('client', 'c0', 'up0');
  const pick = (all: readonly Uint8Array[], order: readonly number[]): readonly Uint8Array[] => order.map((i) => all[i]!);
  /** A client's datagram in fragments, and what is answered: itself, whole. */
  async function ask(to: string, order: readonly number[], text = TEXT): Promise<unknown> {
    const id = nextId++;
    const port = 40_000 + id;
    await net.client.must({ op: 'bind', id, address: ip.client, port });
    send('client', 'c0', pick(fragments(joinEndpoint(ip.client, port), to, toNode(), text), order));
    return net.client.ask({ op: 'hear', id });
  }

  /** How many fragments a kernel has been given to put together. */
  function requests(where: 'node' | 'pod' | 'node2'): number {
    const text = net.lab.sh(net.namespaces[where], 'cat /proc/net/snmp /proc/net/snmp6');
    if (family === 6) return Number(/^Ip6ReasmReqds\s+(\d+)$/m.exec(text)![1]);
    const [names, values] = [...text.matchAll(/^Ip: (.*)$/gm)].map(([, line]) => line!.split(' ')) as [string[], string[]];
    return Number(values[names.indexOf('ReasmReqds')]);
  }

  it.each([
    ['a pod here', () => joinEndpoint(ip.vip, PORTS.local)],
    ['a pod of another node', () => joinEndpoint(ip.vip, PORTS.remote)],
    ['a nodePort', () => joinEndpoint(ip.up, PORTS.node)],
  ])('%s gets a datagram whatever order its fragments come in', async (_, to) => {
    const dialled = splitEndpoint(to());
    for (const order of [BACKWARDS, [1, 0, 2, 3], [2, 0, 3, 1], [3, 3, 1, 0, 2], [0, 1, 2, 3]])
      expect(await ask(to(), order)).toEqual({ answer: `${dialled.address}:${dialled.port} ${TEXT}` });
    expect(net.lab.held()).toBe(0);
  });

  it('so does what a pod sends through its device', async () => {
    const id = nextId++;
    await net.pod.must({ op: 'bind', id, address: ip.pod, port: 40_000 });
    send('pod', 'p0', pick(fragments(joinEndpoint(ip.pod, 40_000), joinEndpoint(ip.vip, PORTS.remote), macs('pod', 'p0', 'pod0')), BACKWARDS));
    expect(await net.pod.ask({ op: 'hear', id })).toEqual({ answer: `${ip.vip}:${PORTS.remote} ${TEXT}` });
  });

  it('and a client, of what is answered from another node', async () => {
    const id = nextId++;
    await net.client.must({ op: 'bind', id, address: ip.client, port: 39_000 });
    send('client', 'c0', fragments(joinEndpoint(ip.client, 39_000), joinEndpoint(ip.vip, PORTS.remote), toNode(), 'hello'));
    expect(await net.client.ask({ op: 'hear', id })).toEqual({ answer: `${ip.vip}:${PORTS.remote} hello` });
    const reply = net.lab.flows().find(({ flow }) => (flow.flags & FlowFlag.REPLY) !== 0)!;
    const here = joinEndpoint(reply.key.daddr, reply.key.dport);
    send('node2', 'm0', pick(fragments(joinEndpoint(ip.pod2, 8080), here, macs('node2', 'm0', 'mesh0')), BACKWARDS));
    expect(await net.client.ask({ op: 'hear', id })).toEqual({ answer: `${ip.vip}:${PORTS.remote} ${TEXT}` });
  });

  it.each([
    ['to the node itself', () => ip.up, 53, 'node'],
    ['on their way through the node', () => ip.pod2, 8080, 'node2'],
  ] as const)('those of others %s come through at once and as they are', async (_, address, port, where) => {
    const to = joinEndpoint(address(), port);
    const id = nextId++;
    await net.client.must({ op: 'bind', id, address: ip.client, port: 38_000 + id });
    const all = fragments(joinEndpoint(ip.client, 38_000 + id), to, toNode());
    const before = requests(where);
    // None waits for the one before it: each is where it belongs before the next is sent.
    for (const [sent, i] of BACKWARDS.entries()) {
      send('client', 'c0', [all[i]!]);
      await vi.waitFor(() => expect(requests(where)).toBe(before + sent + 1), { timeout: 3_000, interval: 5 });
    }
    expect(await net.client.ask({ op: 'hear', id })).toEqual({ answer: `${address()}:${port} ${TEXT}` });
    expect(net.lab.flows()).toEqual([]);
    expect(requests(where)).toBe(before + BACKWARDS.length);
  });

  it('however many come without a first one: they take no more than their room, and the next datagram is served', async () => {
    const own = toNode();
    const flood = Array.from(
      { length: 300 },
      (_, i) => fragments(joinEndpoint(ip.client, 1_000 + i), joinEndpoint(ip.vip, PORTS.local), own, 'x'.repeat(1_500))[1]!,
    );
    const counted = await net.lab.counted(async () => {
      send('client', 'c0', flood);
      await vi.waitFor(() => expect(net.lab.count('FRAGMENT_HELD').packets).toBeGreaterThanOrEqual(flood.length));
    });
    expect(counted.FRAGMENT_HELD?.packets).toBe(flood.length);
    expect(net.lab.held()).toBeLessThanOrEqual(256);
    expect(await ask(joinEndpoint(ip.vip, PORTS.local), BACKWARDS)).toEqual({ answer: `${ip.vip}:${PORTS.local} ${TEXT}` });
  });

  it('eight wait for one first, and no more', async () => {
    const to = joinEndpoint(ip.vip, PORTS.local);
    const [nine, ten] = [13_000, 14_400].map((length) => TEXT.repeat(3).slice(0, length)) as [string, string];
    expect(await ask(to, [8, 7, 6, 5, 4, 3, 2, 1, 0], nine)).toEqual({ answer: `${ip.vip}:${PORTS.local} ${nine}` });
    expect(await ask(to, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0], ten)).toEqual({ error: 'nothing' });
  });

  it('what has waited for seconds does not become part of another datagram with the same number', async () => {
    const id = nextId++;
    await net.client.must({ op: 'bind', id, address: ip.client, port: 38_000 + id });
    const all = fragments(joinEndpoint(ip.client, 38_000 + id), joinEndpoint(ip.vip, PORTS.local), toNode());
    const before = requests('pod');
    send('client', 'c0', pick(all, [3, 2, 1]));
    await vi.waitFor(() => expect(net.lab.held()).toBe(3));
    net.lab.ageHeld(2);
    send('client', 'c0', pick(all, [0]));
    await vi.waitFor(() => expect(net.lab.held()).toBe(0));
    send('client', 'c0', pick(all, [1, 2, 3]));
    expect(await net.client.ask({ op: 'hear', id })).toEqual({ answer: `${ip.vip}:${PORTS.local} ${TEXT}` });
    expect(requests('pod')).toBe(before + 4);
  });
});

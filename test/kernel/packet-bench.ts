/**
 * A node for single packets: the programs are run over one frame at a time (BPF_PROG_TEST_RUN), at
 * XDP and at tc alike, with a real routing table behind them.
 *
 *   clients -- router 192.0.2.254 -- up0 [node] mesh0 -- 198.51.100.2, another node with 10.2.0.0/16
 *                                        pod0 -- a pod of the node, 10.1.0.2
 */
import type { TestRun } from '../../native/index.d.ts';
import { BackendFlag, DeviceFlag } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import { buildPacket, joinEndpoint } from '../support/packet.ts';
import type { PacketSpec, Proto } from '../support/packet.ts';
import { PacketLab } from './packet-lab.ts';
import type { LabOptions } from './packet-lab.ts';
import type { ReasonText } from './packet-maps.ts';
import type { Process } from './packet-lab.ts';

/** 'egress' has what the node itself sends, 'passing' what it forwards; 'pod' what a pod of it sends, 'topod' what goes to one. */
export type Hook = 'xdp' | 'tc' | 'egress' | 'passing' | 'pod' | 'topod';
export type Action = 'pass' | 'drop' | 'tx' | 'redirect';

/** The addresses of each IP. */
export const IP = {
  4: {
    client: '203.0.113.7',
    vip: '192.0.2.10',
    vip2: '192.0.2.11',
    up: '192.0.2.1',
    mesh: '198.51.100.1',
    local: '10.1.0.2',
    local2: '10.1.0.3',
    remote: '10.2.0.2',
    remote2: '10.2.0.3',
    silent: '10.3.0.2',
    blackhole: '10.4.0.2',
  },
  6: {
    client: '2001:db8:c::7',
    vip: '2001:db8::10',
    vip2: '2001:db8::11',
    up: '2001:db8::1',
    mesh: '2001:db8:1::1',
    local: '2001:db8:41::2',
    local2: '2001:db8:41::3',
    remote: '2001:db8:42::2',
    remote2: '2001:db8:42::3',
    silent: '2001:db8:43::2',
    blackhole: '2001:db8:44::2',
  },
} as const;
export type Family = keyof typeof IP;

const ROUTER_MAC = '02:00:00:00:00:fe';
const NODE2_MAC = '02:00:00:00:00:f2';
const POD_MAC = '02:00:00:00:00:f3';
const SENT_ON: readonly string[] = ['NEW_REMOTE', 'REMOTE', 'REPLY_REMOTE', 'NEW_LOCAL', 'LOCAL'] satisfies ReasonText[];
const NEIGHBOURS = [ROUTER_MAC, NODE2_MAC, POD_MAC];
const ACTIONS: Readonly<Record<'xdp' | 'skb', Readonly<Record<number, Action>>>> = {
  xdp: { 1: 'drop', 2: 'pass', 3: 'tx', 4: 'redirect' },
  skb: { 0xffffffff: 'pass', 2: 'drop', 7: 'redirect' },
};

export interface Result {
  readonly action: Action;
  readonly data: Uint8Array;
  /** The one reason that it was counted under. */
  readonly reason: ReasonText;
  readonly bytes: number;
}

/** `packet`, of which only the link-layer addresses differ, with those of a frame that XDP sends. */
export interface Bench {
  readonly lab: PacketLab;
  /** The node's network namespace. */
  readonly node: string;
  /** Interface indexes. */
  readonly up: number;
  readonly mesh: number;
  readonly pod: number;
  /** Link-layer addresses of frames that leave: to the router, and to the other node. */
  readonly toRouter: { readonly source: string; readonly destination: string };
  readonly toNode2: { readonly source: string; readonly destination: string };
  /**
   * What a program at tc sends on is as if it left the link layer to the kernel: `neighbour` says whether it did.
   * @param device by default pod0 for a pod's packets, up0 for others.
   */
  run(hook: Hook, packet: PacketSpec | Uint8Array, device?: 'up0' | 'mesh0' | 'pod0'): Promise<Result>;
  /** Whom the last frame was addressed to at tc, where the program knew the way. */
  neighbour(): string | undefined;
  /** Runs a pinned program over and over: the packet goes on as each run leaves it. */
  repeat(pin: string, packet: { readonly data: Uint8Array; readonly ctx: Uint8Array; readonly repeat: number }): Promise<TestRun>;
  /** Empties the maps and enters what most tests use: both devices, with addresses and able to send. */
  reset(): void;
}

/** struct xdp_md or struct __sk_buff with what the kernel takes from it. */
export function context(hook: Hook, length: number, ifindex: number): Uint8Array {
  const words = new Uint32Array(hook === 'xdp' ? 6 : 48);
  if (hook === 'xdp') [words[1], words[3]] = [length, ifindex];
  else [words[9], words[10]] = [hook === 'egress' ? 0 : ifindex, ifindex];
  return new Uint8Array(words.buffer);
}

export async function startBench(name: string, options?: LabOptions): Promise<Bench> {
  const lab = new PacketLab(name, options);
  try {
    return await furnish(lab);
  } catch (error) {
    await lab.close();
    throw error;
  }
}

async function furnish(lab: PacketLab): Promise<Bench> {
  const node = lab.namespace('node');
  const far = lab.namespace('far');
  lab.link({ namespace: node, device: 'up0', addresses: [`${IP[4].up}/24`, `${IP[6].up}/64`] }, { namespace: far, device: 'up1', addresses: [] });
  lab.link({ namespace: node, device: 'mesh0', addresses: [`${IP[4].mesh}/24`, `${IP[6].mesh}/64`] }, { namespace: far, device: 'mesh1', addresses: [] });
  for (const [via, silent, route, gone, router, second] of [
    ['198.51.100.2', '198.51.100.3', '10.3.0.0/16', '10.4.0.0/16', '192.0.2.254', '10.2.0.0/16'],
    ['2001:db8:1::2', '2001:db8:1::3', '2001:db8:43::/64', '2001:db8:44::/64', '2001:db8::fe', '2001:db8:42::/64'],
  ] as const) {
    lab.ip(
      node,
      `neigh add ${router} dev up0 lladdr ${ROUTER_MAC} nud permanent`,
      `neigh add ${via} dev mesh0 lladdr ${NODE2_MAC} nud permanent`,
      `route add default via ${router} dev up0`,
      `route add ${second} via ${via} dev mesh0`,
      `route add ${route} via ${silent} dev mesh0`,
      `route add blackhole ${gone}`,
    );
  }
  lab.link({ namespace: node, device: 'pod0', addresses: [] }, { namespace: far, device: 'pod1', addresses: [] });
  for (const family of [4, 6] as const) {
    const { local, vip } = IP[family];
    lab.ip(node, `route add ${local} dev pod0`, `neigh add ${local} dev pod0 lladdr ${POD_MAC} nud permanent`);
    // What the node itself sends to a VIP has found a neighbour before a program sees it.
    lab.ip(node, `neigh add ${vip} dev up0 lladdr ${ROUTER_MAC} nud permanent`);
  }
  const [up, mesh, pod] = ['up0', 'mesh0', 'pod0'].map((device) => lab.ifindex(node, device)) as [number, number, number];
  const runner = lab.spawn(node);
  let neighbour: string | undefined;
  return {
    lab,
    node,
    up,
    mesh,
    pod,
    toRouter: { source: lab.mac(node, 'up0'), destination: ROUTER_MAC },
    toNode2: { source: lab.mac(node, 'mesh0'), destination: NODE2_MAC },
    async run(hook, packet, device = hook.endsWith('pod') ? 'pod0' : 'up0') {
      const { neighbour: met, ...result } = await run(lab, runner, hook, packet, { up0: up, mesh0: mesh, pod0: pod }[device]);
      neighbour = met;
      return result;
    },
    neighbour: () => neighbour,
    repeat: async (pin, packet) => (await runner.must({ op: 'run', pin, ...packet })).run!,
    reset(): void {
      lab.clear();
      lab.forgetWays();
      for (let id = 1; id <= 8; id++) lab.backend(id, '0.0.0.0:0', 0, 0);
      const [xdpTx, addresses] = [DeviceFlag.XDP_TX, (which: 'up' | 'mesh') => ({ addr4: IP[4][which] as Address, addr6: IP[6][which] as Address })];
      lab.device(up, { ...addresses('up'), flags: xdpTx });
      lab.device(mesh, { ...addresses('mesh'), flags: xdpTx });
      lab.device(pod, { ...addresses('up'), flags: DeviceFlag.POD });
    },
  };
}

const PROGRAM = {
  xdp: 'mg_xdp_ingress',
  tc: 'mg_tc_ingress',
  egress: 'mg_tc_egress',
  passing: 'mg_tc_egress',
  pod: 'mg_pod_ingress',
  topod: 'mg_pod_egress',
} as const;

async function run(
  lab: PacketLab,
  runner: Process,
  hook: Hook,
  packet: PacketSpec | Uint8Array,
  ifindex: number,
): Promise<Result & { neighbour: string | undefined }> {
  const data = packet instanceof Uint8Array ? packet : buildPacket(packet);
  let result!: TestRun;
  const counted = Object.entries(
    await lab.counted(async () => {
      result = (await runner.must({ op: 'run', pin: lab.pin(PROGRAM[hook]), data, ctx: context(hook, data.length, ifindex) })).run!;
    }),
  );
  if (counted.length !== 1 || counted[0]![1].packets !== 1) throw new Error(`one packet was counted as ${JSON.stringify(counted)}`);
  const action = ACTIONS[hook === 'xdp' ? 'xdp' : 'skb'][result.retval];
  if (action === undefined) throw new Error(`the program returned ${result.retval}`);
  const reason = counted[0]![0] as ReasonText;
  const neighbour =
    hook === 'xdp' || !SENT_ON.includes(reason) ? undefined : NEIGHBOURS.find((mac) => mac.replaceAll(':', '') === hex(result.data.subarray(0, 6)));
  const left = neighbour === undefined ? result.data : Uint8Array.from([...data.subarray(0, 12), ...result.data.subarray(12)]);
  return { action, data: left, neighbour, reason, bytes: counted[0]![1].bytes };
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** One service 1 on the VIP's port 80, backends on port 8080: ids count from 1. */
export function serveOn(bench: Bench, proto: Proto, vip: string, backends: readonly { readonly at: string; readonly local: boolean }[]): void {
  backends.forEach(({ at, local }, index) => bench.lab.backend(index + 1, joinEndpoint(at, 8080), 1, BackendFlag.SERVING | (local ? BackendFlag.LOCAL : 0)));
  bench.lab.service(1, { cluster: backends.map((_, index) => index + 1) });
  bench.lab.frontend(proto, joinEndpoint(vip, 80), 1);
}

/**
 * What one packet costs in each program, in ns over an empty one: BPF_PROG_TEST_RUN with many repetitions over a
 * wrapper (packets.bpf.c) that makes each a packet of another flow. One CPU, nothing else of the stack.
 */
import native from '../../native/index.js';
import type { BpfObject } from '../../native/index.d.ts';
import type { Bench, Family } from '../kernel/packet-bench.ts';
import { context, IP, serveOn, startBench } from '../kernel/packet-bench.ts';
import { buildPacket, joinEndpoint } from '../support/packet.ts';
import { bpfObject } from './compile.ts';
import { summarise } from './statistics.ts';
import type { Summary } from './statistics.ts';

/** Packets in one run. */
const PACKETS = 65_536;
/** How many flows they are of: what fits into a CPU's caches, and what does not. */
const MANY = 65_536;
const FEW = 256;
/** struct template of packets.bpf.c. */
const FRAME = 128;
const ZERO = new Uint8Array(4);

const HOOKS = [
  { hook: 'xdp', program: 'mg_xdp_ingress' },
  { hook: 'tc', program: 'mg_tc_ingress' },
] as const;
type Hook = (typeof HOOKS)[number]['hook'];

/** What becomes of the packets. */
const KINDS = {
  foreign: 'to an address that is no frontend’s',
  established: 'of an established flow, forwarded to another node',
  new: 'the first of a flow, forwarded to another node',
} as const;
export type Kind = keyof typeof KINDS;

/** In this order: the established ones are those that were new. With few flows, 'new' is only there to make them. */
const CASES = [
  { kind: 'foreign', flows: MANY },
  { kind: 'new', flows: MANY },
  { kind: 'established', flows: MANY },
  { kind: 'new', flows: FEW },
  { kind: 'established', flows: FEW },
] as const;

export interface PacketCost {
  readonly program: string;
  readonly family: Family;
  readonly kind: Kind;
  /** How many flows the packets are spread over, in no order. */
  readonly flows: number;
  readonly title: string;
  /** Over an empty program, by the same wrapper in the same round. */
  readonly ns: Summary;
}

/** @param rounds each takes 65,536 packets of every kind, hook and family. @throws Error when a program does not forward what it should */
export async function packetCosts(rounds: number): Promise<PacketCost[]> {
  const bench = await startBench('bench', { flows: 4 * PACKETS, snat: { min: 1_024, max: 65_535 } });
  const wrapper = openWrapper(bench);
  try {
    const taken = new Map<string, { cost: Omit<PacketCost, 'ns'>; values: number[] }>();
    for (let round = 0; round < rounds; round++)
      for (const { hook, program } of HOOKS)
        for (const family of [4, 6] as const) {
          const base = await measure(bench, wrapper, hook, family, 'empty', PACKETS);
          for (const { kind, flows } of CASES) {
            const key = `${hook} ${family} ${kind} ${flows}`;
            const one = taken.get(key) ?? { cost: { program, family, kind, flows, title: KINDS[kind] }, values: [] };
            taken.set(key, one);
            one.values.push((await measure(bench, wrapper, hook, family, kind, flows)) - base);
          }
        }
    return [...taken.values()].filter(({ cost }) => cost.kind !== 'new' || cost.flows === MANY).map(({ cost, values }) => ({ ...cost, ns: summarise(values) }));
  } finally {
    wrapper.close();
    await bench.lab.close();
  }
}

function openWrapper({ lab }: Bench): BpfObject {
  const wrapper = native.open(bpfObject('packets'));
  wrapper.load();
  for (const { hook } of HOOKS) native.pin(wrapper.programFd(`restore_${hook}`), lab.pin(`restore_${hook}`));
  return wrapper;
}

/** ns a packet, the wrapper's own included. 'established' follows 'new', whose flows it finds. */
async function measure(bench: Bench, wrapper: BpfObject, hook: Hook, family: Family, kind: Kind | 'empty', flows: number): Promise<number> {
  const { client, vip, vip2, remote } = IP[family];
  if (kind === 'new') {
    bench.reset();
    bench.lab.frontend('tcp', joinEndpoint(vip, 80), 1);
    // Four, so that the ports to masquerade from are a quarter used.
    serveOn(
      bench,
      'tcp',
      vip,
      ['2', '3', '4', '5'].map((end) => ({ at: remote.replace(/2$/, end), local: false })),
    );
  }
  const to = joinEndpoint(kind === 'foreign' ? vip2 : vip, 80);
  const headers = family === 4 ? 54 : 74;
  const payload = Array<number>(FRAME - headers).fill(0x61);
  const frame = buildPacket({ proto: 'tcp', from: joinEndpoint(client, 1), to, flags: kind === 'new' ? 'S' : 'A', payload });
  const template = new Uint8Array(FRAME + 8);
  template.set(frame);
  new DataView(template.buffer).setUint32(FRAME, headers - 20, true);
  new DataView(template.buffer).setUint32(FRAME + 4, flows - 1, true);
  native.mapUpdate(wrapper.mapFd('template'), ZERO, template);
  native.mapUpdate(wrapper.mapFd('sent'), ZERO, new Uint8Array(8));
  const target = kind === 'empty' ? wrapper.programFd(`empty_${hook}`) : bench.lab.programFd(HOOKS.find((one) => one.hook === hook)!.program);
  native.mapUpdate(wrapper.mapFd(`next_${hook}`), ZERO, new Uint8Array(Uint32Array.of(target).buffer));

  const run = await bench.repeat(bench.lab.pin(`restore_${hook}`), { data: frame, ctx: context(hook, frame.length, bench.up), repeat: PACKETS });
  const passes = hook === 'xdp' ? 2 : 0xffffffff;
  if ((run.retval === passes || run.retval === 0) !== (kind === 'foreign' || kind === 'empty'))
    throw new Error(`${hook} IPv${family} ${kind}: the program returned ${run.retval}`);
  return run.duration;
}

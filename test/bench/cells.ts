/** What is measured: each cell asks one side for one number, in one short run. */
import type { Host } from '../support/lab/host.ts';
import { command } from './compile.ts';
import { forwardCost } from './forward.ts';
import type { Rig, Side } from './rig.ts';
import { BULK, HTTP, UDP } from './rig.ts';

export interface Cell {
  readonly name: string;
  /** For the reader: what was done. */
  readonly title: string;
  /** How, where the title does not say it all. */
  readonly note?: string;
  readonly unit: string;
  /** Whether more is better. Ratios are made so that above 1 is better than direct. */
  readonly moreIsBetter: boolean;
  /** What its runs need, until disposed of. */
  prepare?(rig: Rig): Promise<AsyncDisposable>;
  /** One run on one side. @throws Error with what the load generator said. */
  measure(rig: Rig, side: Side, seconds: number): Promise<number>;
}

/** Where requests come from: the pod on the front node, or the client outside. */
const WAYS = [
  {
    name: 'pod',
    title: 'from a pod',
    from: (_: Rig, side: Side): Host => side.client,
    to: (side: Side) => ({ host: side.inside, ports: { http: HTTP, bulk: BULK, udp: UDP } }),
  },
  {
    name: 'outside',
    title: 'from outside, nodePort of a node without the backend',
    from: (rig: Rig): Host => rig.lab.client,
    to: (side: Side) => side.outside,
  },
] as const;

const TRAFFIC: readonly Cell[] = WAYS.flatMap(({ name, title, from, to }): Cell[] => [
  {
    name: `${name}-new`,
    title: `a new connection for each request, ${title}`,
    unit: 'requests/s',
    moreIsBetter: true,
    measure: (rig, side, seconds) => requests(from(rig, side), to(side), seconds, ['-H', 'Connection: close']),
  },
  {
    name: `${name}-keepalive`,
    title: `requests over 16 connections that stay, ${title}`,
    unit: 'requests/s',
    moreIsBetter: true,
    measure: (rig, side, seconds) => requests(from(rig, side), to(side), seconds, []),
  },
  {
    name: `${name}-bulk`,
    title: `one bulk TCP stream, ${title}`,
    unit: 'Gbit/s',
    moreIsBetter: true,
    measure: (rig, side, seconds) => bulk(from(rig, side), to(side), seconds),
  },
  {
    name: `${name}-udp`,
    title: `UDP there and back, ${title}`,
    unit: 'us',
    moreIsBetter: false,
    measure: (rig, side, seconds) => roundTrip(from(rig, side), to(side), seconds),
  },
]);

/** From the pod alone: what comes from outside connects without us. */
const CONNECTS: readonly Cell[] = [
  {
    name: 'connect',
    title: 'connect() of TCP alone, with its handshake, from a pod',
    unit: 'us',
    moreIsBetter: false,
    measure: (_, { client, inside }, seconds) => connects(client, 'tcp', inside, HTTP, seconds),
  },
  {
    name: 'connect-udp',
    title: 'connect() of UDP alone, which sends no packet, from a pod: all of our work is in it, and none of kube-proxy’s, which does its own for each packet',
    unit: 'us',
    moreIsBetter: false,
    measure: (_, { client, inside }, seconds) => connects(client, 'udp', inside, UDP, seconds),
  },
];

const FORWARDING =
  'UDP in frames of 64 bytes, of 1,024 flows that have been answered, as fast as one CPU makes them (BPF_F_TEST_XDP_LIVE_FRAMES) and carries them through the node. Counted is all from the node’s device to the far end of its cable, where they end: less what frames take that are dropped where they arrive. Direct is the kernel’s own routing.';

const FORWARDS: readonly Cell[] = [
  { name: 'forward', with: 'Maglane at tc' },
  { name: 'forward-xdp', with: 'Maglane at XDP', prepare: (rig: Rig): Promise<AsyncDisposable> => rig.useXdp() },
].map(({ with: how, ...cell }) => ({
  ...cell,
  title: `CPU time of the forwarding node for a packet of an established flow, from outside, nodePort of a node without the backend, ${how}`,
  note: FORWARDING,
  unit: 'ns',
  moreIsBetter: false,
  measure: forwardCost,
}));

export const CELLS: readonly Cell[] = [...TRAFFIC, ...CONNECTS, ...FORWARDS];

interface Target {
  readonly host: string;
  readonly ports: Readonly<Record<'http' | 'bulk' | 'udp', number>>;
}

async function read(host: Host, line: readonly string[], pattern: RegExp): Promise<number> {
  const { stdout, stderr } = await host.run(line);
  const value = Number(pattern.exec(stdout)?.[1]);
  if (!(value > 0)) throw new Error(`${host.name}: ${line.join(' ')}: ${stderr || stdout}`);
  return value;
}

function requests(host: Host, { host: address, ports }: Target, seconds: number, more: readonly string[]): Promise<number> {
  return read(host, ['wrk', '-t1', '-c16', `-d${seconds}s`, ...more, `http://${address}:${ports.http}/`], /Requests\/sec:\s*([\d.]+)/);
}

async function bulk(host: Host, { host: address, ports }: Target, seconds: number): Promise<number> {
  const bits = await read(
    host,
    ['iperf3', '--client', address, '--port', String(ports.bulk), '--time', String(seconds), '--json'],
    /"sum_received":[^}]*"bits_per_second":\s*([\d.e+]+)/,
  );
  return bits / 1e9;
}

/** The median of half of a round trip, as sockperf counts, doubled. */
async function roundTrip(host: Host, { host: address, ports }: Target, seconds: number): Promise<number> {
  const half = await read(
    host,
    ['sockperf', 'ping-pong', '--ip', address, '--port', String(ports.udp), '--time', String(seconds)],
    /percentile 50.000\s*=\s*([\d.]+)/,
  );
  return 2 * half;
}

/** The median. */
async function connects(host: Host, protocol: 'tcp' | 'udp', address: string, port: number, seconds: number): Promise<number> {
  return (await read(host, [command('connect'), protocol, address, String(port), String(seconds)], /^(\d+)$/m)) / 1e3;
}

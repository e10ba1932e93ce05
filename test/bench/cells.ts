/** What is measured: each cell asks one side for one number, in one short run. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from '../support/lab/host.ts';
import type { Rig, Side } from './rig.ts';
import { BULK, HTTP, UDP } from './rig.ts';

export interface Cell {
  readonly name: string;
  /** For the reader: what was done. */
  readonly title: string;
  readonly unit: string;
  /** Whether more is better. Ratios are made so that above 1 is better than direct. */
  readonly moreIsBetter: boolean;
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

export const CELLS: readonly Cell[] = [...TRAFFIC, ...CONNECTS];

interface Target {
  readonly host: string;
  readonly ports: Readonly<Record<'http' | 'bulk' | 'udp', number>>;
}

async function read(host: Host, command: readonly string[], pattern: RegExp): Promise<number> {
  const { stdout, stderr } = await host.run(command);
  const value = Number(pattern.exec(stdout)?.[1]);
  if (!(value > 0)) throw new Error(`${host.name}: ${command.join(' ')}: ${stderr || stdout}`);
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

let connecter: string | undefined;

/** The median. The program is compiled when it is first used. */
async function connects(host: Host, protocol: 'tcp' | 'udp', address: string, port: number, seconds: number): Promise<number> {
  connecter ??= compile('connect');
  return (await read(host, [connecter, protocol, address, String(port), String(seconds)], /^(\d+)$/m)) / 1e3;
}

function compile(name: string): string {
  const [folder, source] = [join(import.meta.dirname, '../../build'), join(import.meta.dirname, `${name}.c`)];
  mkdirSync(folder, { recursive: true });
  const program = join(folder, `bench-${name}`);
  execFileSync('cc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', program, source]);
  return program;
}

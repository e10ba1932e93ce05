/**
 * A process of the packet tests, started in a network namespace: it attaches programs there, runs
 * them over single packets, serves and dials, as its parent asks over IPC. See packet-lab.ts.
 */
import dgram from 'node:dgram';
import type { RemoteInfo } from 'node:dgram';
import { on } from 'node:events';
import net from 'node:net';
import native from '../../native/index.js';
import type { TestRun } from '../../native/index.d.ts';
import { answer } from '../support/answering.ts';
import { hasTcx } from '../support/lab/kernel.ts';

export interface Dial {
  readonly address: string;
  readonly port: number;
  /** The client's own port. */
  readonly from?: number;
}

export type Request =
  /** Runs a pinned program over a frame; `ctx` is its struct xdp_md or __sk_buff. */
  | { readonly op: 'run'; readonly pin: string; readonly data: Uint8Array; readonly ctx: Uint8Array; readonly repeat?: number }
  | { readonly op: 'attach'; readonly pin: string; readonly device: string; readonly how: 'xdp' | 'ingress' | 'egress'; readonly clsact: boolean }
  /** TCP and UDP; one byte is answered with "name client-address:port", more with itself. TCP keeps the connection open and answers each line. */
  | ({ readonly op: 'serve'; readonly name: string } & Dial)
  | ({ readonly op: 'tcp' | 'udp' } & Dial)
  /** Sends `bytes` over TCP and resolves to how many came back. */
  | ({ readonly op: 'echo'; readonly bytes: number } & Dial)
  /** A TCP connection that stays: opened, then used. */
  | ({ readonly op: 'open'; readonly id: number } & Dial)
  | { readonly op: 'ask'; readonly id: number }
  /** The servers of this process write something to whoever is connected, unasked. */
  | { readonly op: 'say'; readonly text: string }
  | { readonly op: 'hangup'; readonly id: number }
  /** A UDP socket that stays, at a port of its own. */
  | ({ readonly op: 'bind'; readonly id: number } & Dial)
  /** What it has heard next: "address:port data". */
  | { readonly op: 'hear'; readonly id: number };

export interface Outcome {
  readonly error?: string;
  readonly answer?: string;
  readonly run?: TestRun;
}

const connections = new Map<number, net.Socket>();
const ears = new Map<number, AsyncIterableIterator<unknown[]>>();
const clients = new Set<net.Socket>();
const programs = new Map<string, number>();
const at = (host: string | undefined, port: number | undefined): string => `${host}:${port}`;
const failed = (error: unknown): Outcome => ({ error: (error as NodeJS.ErrnoException).code ?? String(error) });

function program(pin: string): number {
  const fd = programs.get(pin) ?? native.openPin(pin);
  if (fd === undefined) throw new Error(`${pin} is not there`);
  programs.set(pin, fd);
  return fd;
}

function attach({ pin, device, how, clsact }: Extract<Request, { op: 'attach' }>): Outcome {
  const fd = program(pin);
  const { index } = native.interfaces().find(({ name }) => name === device)!;
  // Links live as long as this process holds them.
  if (how === 'xdp') native.linkXdp(fd, index, 'native');
  else if (clsact || !hasTcx()) native.clsactAttach(fd, index, how, 1, 1);
  else native.linkTcx(fd, index, how);
  return {};
}

async function serve({ name, address, port }: Extract<Request, { op: 'serve' }>): Promise<Outcome> {
  const tcp = net.createServer((socket) => {
    const hello = `${name} ${at(socket.remoteAddress, socket.remotePort)}`;
    socket.on('error', () => {});
    socket.on('data', (data) => socket.write(data.length === 1 ? hello : data));
    clients.add(socket);
    socket.on('close', () => clients.delete(socket));
  });
  await new Promise<void>((resolve) => tcp.listen(port, address, resolve));
  const udp = dgram.createSocket(net.isIPv6(address) ? 'udp6' : 'udp4');
  udp.on('message', (data, from) => udp.send(data.length === 1 ? `${name} ${at(from.address, from.port)}` : data, from.port, from.address));
  await new Promise<void>((resolve) => udp.bind(port, address, resolve));
  return {};
}

function connect({ address, port, from }: Dial): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host: address, port, ...(from === undefined ? {} : { localPort: from }) });
    socket.setTimeout(5_000, () => socket.destroy(new Error('no answer')));
    socket.once('error', reject).once('connect', () => resolve(socket.off('error', reject).on('error', () => {})));
  });
}

/** Asks over a connection who is there. */
function ask(socket: net.Socket): Promise<Outcome> {
  return new Promise((resolve) => {
    const end = (): void => resolve({ error: 'closed' });
    socket.once('close', end).once('data', (data) => {
      socket.off('close', end);
      resolve({ answer: data.toString() });
    });
    socket.write('?');
  });
}

async function tcp(dial: Dial): Promise<Outcome> {
  const socket = await connect(dial);
  const outcome = await ask(socket);
  await new Promise<void>((resolve) => socket.once('close', () => resolve()).end());
  return outcome;
}

async function echo(dial: Dial, bytes: number): Promise<Outcome> {
  const socket = await connect(dial);
  let received = 0;
  const done = new Promise<Outcome>((resolve) => {
    const finish = (): void => resolve({ answer: String(received) });
    socket
      .on('data', (data) => {
        received += data.length;
        if (received >= bytes) finish();
      })
      .once('close', finish);
  });
  socket.write(new Uint8Array(bytes));
  const outcome = await done;
  socket.destroy();
  return outcome;
}

/** A connected socket: it hears ICMP errors, and answers from the dialled address alone. */
function udp({ address, port, from }: Dial): Promise<Outcome> {
  return new Promise((resolve) => {
    const socket = dgram.createSocket(net.isIPv6(address) ? 'udp6' : 'udp4');
    const end = (outcome: Outcome): void => {
      clearTimeout(timer);
      socket.close();
      resolve(outcome);
    };
    const timer = setTimeout(() => end({ error: 'no answer' }), 3_000);
    socket.on('error', (error) => end(failed(error))).on('message', (data) => end({ answer: data.toString() }));
    socket.bind(from ?? 0, () => socket.connect(port, address, () => socket.send('?')));
  });
}

function bind({ id, address, port }: Extract<Request, { op: 'bind' }>): Promise<Outcome> {
  const socket = dgram.createSocket(net.isIPv6(address) ? 'udp6' : 'udp4');
  ears.set(id, on(socket, 'message') as AsyncIterableIterator<unknown[]>);
  return new Promise((resolve, reject) => socket.once('error', reject).bind(port, address, () => resolve({})));
}

async function hear({ id }: Extract<Request, { op: 'hear' }>): Promise<Outcome> {
  const silence = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 3_000).unref());
  const heard = await Promise.race([ears.get(id)!.next(), silence]);
  if (heard === undefined) return { error: 'nothing' };
  const [data, from] = heard.value as [Buffer, RemoteInfo];
  return { answer: `${at(from.address, from.port)} ${data.toString()}` };
}

async function perform(request: Request): Promise<Outcome> {
  switch (request.op) {
    case 'run':
      return { run: native.testRun(program(request.pin), { data: request.data, ctx: request.ctx, repeat: request.repeat ?? 1 }) };
    case 'attach':
      return attach(request);
    case 'serve':
      return serve(request);
    case 'tcp':
      return tcp(request);
    case 'udp':
      return udp(request);
    case 'echo':
      return echo(request, request.bytes);
    case 'open':
      connections.set(request.id, await connect(request));
      return {};
    case 'ask':
      return ask(connections.get(request.id)!);
    case 'say':
      for (const socket of clients) socket.write(request.text);
      return {};
    case 'hangup':
      connections.get(request.id)!.destroy();
      return {};
    case 'bind':
      return bind(request);
    case 'hear':
      return hear(request);
  }
}

answer(perform, failed);

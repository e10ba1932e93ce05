/**
 * A process of the socket tests: started in a cgroup and a network namespace, it opens sockets as
 * its parent asks over IPC, and says what a program would see. See sock-lab.ts for the parent.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import native from '../../native/index.js';
import { answer } from '../support/answering.ts';
import { PATIENCE } from '../support/patience.ts';

/** What a call found: the answer and who gave it, or the errno of what failed. */
export interface Outcome {
  readonly error?: string;
  /** The name of the server that answered. */
  readonly answer?: string;
  /** "address:port" of getpeername, or of the sender of the answer. */
  readonly peer?: string;
}

export interface Dial {
  readonly address: string;
  readonly port: number;
}

export type Request =
  | { readonly op: 'netns' }
  | ({ readonly op: 'serve'; readonly name: string } & Dial)
  | ({ readonly op: 'tcp' } & Dial)
  /** So many connections that stay until `tcp.drop` closes them; answers who they are with, joined by commas. */
  | ({ readonly op: 'tcp.hold'; readonly count: number } & Dial)
  | { readonly op: 'tcp.drop' }
  | { readonly op: 'udp.open'; readonly id: number; readonly family: 4 | 6; readonly connect?: Dial }
  /** Without `to`: as the socket is connected. */
  | { readonly op: 'udp.send'; readonly id: number; readonly to?: Dial }
  | { readonly op: 'udp.disconnect' | 'udp.close'; readonly id: number }
  /** getsockname's address. */
  | { readonly op: 'udp.own'; readonly id: number }
  /** The errno that reaches the socket unasked. */
  | { readonly op: 'udp.error'; readonly id: number };

const sockets = new Map<number, dgram.Socket>();
const errors = new Map<number, Error>();
const failed = (error: unknown): Outcome => ({ error: (error as NodeJS.ErrnoException).code ?? String(error) });

async function serve(name: string, at: Dial): Promise<Outcome> {
  const tcp = net.createServer((socket) => socket.on('error', () => {}).end(name));
  await new Promise<void>((resolve) => tcp.listen(at.port, at.address, resolve));
  const udp = dgram.createSocket(net.isIPv6(at.address) ? 'udp6' : 'udp4');
  udp.on('message', (_, from) => udp.send(name, from.port, from.address));
  await new Promise<void>((resolve) => udp.bind(at.port, at.address, resolve));
  return {};
}

function tcp(to: Dial): Promise<Outcome> {
  return new Promise((resolve) => {
    let answer = '';
    let peer = '';
    const socket = net.connect({ host: to.address, port: to.port }, () => {
      peer = `${socket.remoteAddress}:${socket.remotePort}`;
    });
    socket.on('data', (data) => (answer += data.toString()));
    socket.on('error', (error) => resolve(failed(error)));
    socket.on('end', () => resolve({ answer, peer }));
  });
}

const held: net.Socket[] = [];

/** One after the other, so that each chooses with all before it counted. */
async function hold(count: number, to: Dial): Promise<Outcome> {
  const answers: string[] = [];
  for (let i = 0; i < count; i++) {
    const socket = net.connect({ host: to.address, port: to.port, allowHalfOpen: true });
    held.push(socket.on('error', () => {}));
    const [data] = (await once(socket, 'data')) as [Buffer];
    answers.push(data.toString());
  }
  return { answer: answers.join(',') };
}

async function drop(): Promise<Outcome> {
  await Promise.all(held.splice(0).map((socket) => once(socket.destroy(), 'close')));
  return {};
}

async function udpOpen(id: number, family: 4 | 6, connect?: Dial): Promise<Outcome> {
  const socket = sockets.get(id) ?? dgram.createSocket(family === 4 ? 'udp4' : 'udp6');
  if (!sockets.has(id)) socket.on('error', (error) => errors.set(id, error));
  sockets.set(id, socket);
  if (connect === undefined) return {};
  return new Promise((resolve) => {
    const done = (error?: Error): void => resolve(error ? failed(error) : { peer: peerOf(socket) });
    socket.connect(connect.port, connect.address, done as () => void);
  });
}

function peerOf(socket: dgram.Socket): string {
  const peer = socket.remoteAddress();
  return `${peer.address}:${peer.port}`;
}

/** Sends one datagram and waits for its answer. */
function udpSend(socket: dgram.Socket, to?: Dial): Promise<Outcome> {
  return new Promise((resolve) => {
    const end = (outcome: Outcome): void => {
      clearTimeout(timer);
      socket.off('message', onMessage).off('error', onError);
      resolve(outcome);
    };
    const onMessage = (data: Buffer, from: dgram.RemoteInfo): void => end({ answer: data.toString(), peer: `${from.address}:${from.port}` });
    const onError = (error: Error): void => end(failed(error));
    const onSent = (error: Error | null): void => {
      if (error) end(failed(error));
    };
    const timer = setTimeout(() => end({ error: 'no answer' }), 3_000);
    socket.on('message', onMessage).on('error', onError);
    if (to) socket.send('?', to.port, to.address, onSent);
    else socket.send('?', onSent);
  });
}

async function perform(request: Request): Promise<Outcome> {
  switch (request.op) {
    case 'netns':
      return { answer: native.netnsCookie().toString() };
    case 'serve':
      return serve(request.name, request);
    case 'tcp':
      return tcp(request);
    case 'tcp.hold':
      return hold(request.count, request);
    case 'tcp.drop':
      return drop();
    case 'udp.open':
      return udpOpen(request.id, request.family, request.connect);
    case 'udp.send':
      return udpSend(sockets.get(request.id)!, request.to);
    case 'udp.disconnect':
      sockets.get(request.id)!.disconnect();
      return {};
    case 'udp.own':
      return { answer: sockets.get(request.id)!.address().address };
    case 'udp.error':
      for (const deadline = Date.now() + 10_000 * PATIENCE; !errors.has(request.id) && Date.now() < deadline;)
        await new Promise((resolve) => setTimeout(resolve, 5));
      return errors.has(request.id) ? failed(errors.get(request.id)) : {};
    case 'udp.close':
      errors.delete(request.id);
      sockets.get(request.id)!.close();
      sockets.delete(request.id);
      return {};
  }
}

answer(perform, failed);

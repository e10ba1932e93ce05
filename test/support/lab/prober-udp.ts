/** The prober's UDP clients. */
import { createSocket } from 'node:dgram';
import type { RemoteInfo } from 'node:dgram';
import { endpoint } from './protocol.ts';
import type { Answer, Request, Target, UdpRequest } from './protocol.ts';

type UdpSocket = ReturnType<typeof createSocket>;

/** Sockets that stay. */
interface Held {
  readonly socket: UdpSocket;
  /** Of a socket that is not to be connected: where each datagram goes. */
  readonly to: Target | undefined;
  connected: boolean;
  /** What has reached it since it connected. */
  error: NodeJS.ErrnoException | undefined;
}

const held = new Map<number, Held>();
let handles = 0;

/** Datagrams, each after the answer to the one before. */
export async function sendAll({ target, count, connected, oneSocket, bytes, timeoutMs }: Extract<Request, { op: 'send' }>): Promise<Answer[]> {
  const answers: Answer[] = [];
  const shared = oneSocket ? await open(target, connected) : undefined;
  for (let i = 0; i < count; i++) {
    const own = shared ?? (await open(target, connected));
    answers.push(own instanceof Error ? failure(own) : await exchange(own, connected ? undefined : target, timeoutMs, bytes));
    if (!oneSocket && !(own instanceof Error)) own.close();
  }
  if (shared !== undefined && !(shared instanceof Error)) shared.close();
  return answers;
}

/** Whatever is asked of sockets that stay. */
export async function handleUdp(request: UdpRequest): Promise<unknown> {
  if (request.op === 'udp.hold') return hold(request.target, request.connected);
  const one = held.get(request.held);
  if (one === undefined) throw new Error(`no UDP socket is held as ${request.held}`);
  switch (request.op) {
    case 'udp.ask':
      return exchange(one.socket, one.to, request.timeoutMs);
    case 'udp.error':
      for (const deadline = Date.now() + request.timeoutMs; one.error === undefined && Date.now() < deadline;)
        await new Promise((resolve) => setTimeout(resolve, 5));
      return one.error?.code ?? '';
    case 'udp.connect':
      one.error = undefined;
      if (one.connected) one.socket.disconnect();
      return connect(one.socket, request.target).then((error) => {
        one.connected = error === undefined;
        return error?.code ?? '';
      });
    case 'udp.release':
      one.socket.close();
      held.delete(request.held);
      return null;
  }
}

async function hold(target: Target, connected: boolean): Promise<number> {
  const socket = await open(target, connected);
  if (socket instanceof Error) throw socket;
  const one: Held = { socket, connected, to: connected ? undefined : target, error: undefined };
  socket.on('error', (error) => (one.error = error));
  held.set(++handles, one);
  return handles;
}

const failure = (error: NodeJS.ErrnoException): Answer => ({ server: '', from: '', error: error.code ?? error.message });

async function open(target: Target, connected: boolean): Promise<UdpSocket | Error> {
  const socket = createSocket(target.host.includes(':') ? 'udp6' : 'udp4');
  return (connected ? await connect(socket, target) : undefined) ?? socket;
}

function connect(socket: UdpSocket, { host, port }: Target): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => socket.connect(port, host, ((error?: Error) => resolve(error)) as () => void));
}

/** @param to undefined: as the socket is connected. @param bytes of the question; the answer has to have as many. */
function exchange(socket: UdpSocket, to: Target | undefined, timeoutMs: number, bytes = 3): Promise<Answer> {
  const question = 'who'.padEnd(bytes);
  return new Promise((resolve) => {
    const finish = (answer: Answer): void => {
      clearTimeout(timer);
      socket.off('message', onMessage).off('error', onError);
      resolve(answer);
    };
    const onMessage = (data: Buffer, peer: RemoteInfo): void =>
      data.length < bytes
        ? finish(failure(new Error(`${data.length} bytes`)))
        : finish({ ...(JSON.parse(data.toString()) as Answer), replyFrom: endpoint(peer.address, peer.port) });
    const onError = (error: Error): void => finish(failure(error));
    const onSent = (error: Error | null): void => {
      if (error !== null) finish(failure(error));
    };
    const timer = setTimeout(() => finish({ server: '', from: '', error: 'ETIMEDOUT' }), timeoutMs);
    socket.on('message', onMessage).on('error', onError);
    if (to === undefined) socket.send(question, onSent);
    else socket.send(question, to.port, to.host, onSent);
  });
}

/** The prober's UDP clients. */
import { createSocket } from 'node:dgram';
import type { RemoteInfo } from 'node:dgram';
import { endpoint } from './protocol.ts';
import type { Answer, Request, Target, UdpRequest } from './protocol.ts';

type UdpSocket = ReturnType<typeof createSocket>;

/** Connected sockets that stay; `error`: what has reached them since they connected. */
const held = new Map<number, { readonly socket: UdpSocket; connected: boolean; error: NodeJS.ErrnoException | undefined }>();
let handles = 0;

/** Datagrams, each after the answer to the one before. */
export async function sendAll({ target, count, connected, oneSocket, timeoutMs }: Extract<Request, { op: 'send' }>): Promise<Answer[]> {
  const answers: Answer[] = [];
  const shared = oneSocket ? await open(target, connected) : undefined;
  for (let i = 0; i < count; i++) {
    const own = shared ?? (await open(target, connected));
    answers.push(own instanceof Error ? failure(own) : await exchange(own, connected ? undefined : target, timeoutMs));
    if (!oneSocket && !(own instanceof Error)) own.close();
  }
  if (shared !== undefined && !(shared instanceof Error)) shared.close();
  return answers;
}

/** Whatever is asked of connected sockets that stay. */
export async function handleUdp(request: UdpRequest): Promise<unknown> {
  if (request.op === 'udp.hold') return hold(request.target);
  const one = held.get(request.held);
  if (one === undefined) throw new Error(`no UDP socket is held as ${request.held}`);
  switch (request.op) {
    case 'udp.ask':
      return exchange(one.socket, undefined, request.timeoutMs);
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

async function hold(target: Target): Promise<number> {
  const socket = await open(target, true);
  if (socket instanceof Error) throw socket;
  const one = { socket, connected: true, error: undefined as NodeJS.ErrnoException | undefined };
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

/** @param to undefined: as the socket is connected. */
function exchange(socket: UdpSocket, to: Target | undefined, timeoutMs: number): Promise<Answer> {
  return new Promise((resolve) => {
    const finish = (answer: Answer): void => {
      clearTimeout(timer);
      socket.off('message', onMessage).off('error', onError);
      resolve(answer);
    };
    const onMessage = (data: Buffer, peer: RemoteInfo): void =>
      finish({ ...(JSON.parse(data.toString()) as Answer), replyFrom: endpoint(peer.address, peer.port) });
    const onError = (error: Error): void => finish(failure(error));
    const onSent = (error: Error | null): void => {
      if (error !== null) finish(failure(error));
    };
    const timer = setTimeout(() => finish({ server: '', from: '', error: 'ETIMEDOUT' }), timeoutMs);
    socket.on('message', onMessage).on('error', onError);
    if (to === undefined) socket.send('who', onSent);
    else socket.send('who', to.port, to.host, onSent);
  });
}

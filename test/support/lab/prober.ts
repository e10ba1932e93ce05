/**
 * The lab's hands inside a network namespace: serves and connects as it is told on standard input,
 * so that a connection costs no process start. Ends with its standard input.
 */
import { createHash, randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { endpoint } from './protocol.ts';
import type { Answer, Request, Target, Tally } from './protocol.ts';
import { handleUdp, sendAll } from './prober-udp.ts';

const held = new Map<number, Socket>();
const traffics = new Map<number, { readonly timer: NodeJS.Timeout; readonly tally: MutableTally; open: number }>();
let handles = 0;

interface MutableTally extends Tally {
  answers: number;
  readonly servers: Record<string, number>;
  readonly errors: Record<string, number>;
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const { id, ...request } = JSON.parse(line) as Request & { id: number };
    handle(request as Request).then(
      (result) => reply({ id, result }),
      (error: unknown) => reply({ id, failed: String(error) }),
    );
  })
  .on('close', () => process.exit(0));

// Whoever asked may end before the answer.
process.stdout.on('error', () => process.exit(0));

function reply(message: object): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

async function handle(request: Request): Promise<unknown> {
  switch (request.op) {
    case 'serve':
      await Promise.all([
        ...(request.tcp ?? []).map((port) => serveTcp(request.name, port, request.address)),
        ...(request.udp ?? []).map((port) => serveUdp(request.name, port, request.address)),
      ]);
      return null;
    case 'connect':
      return inParallel(request.count, request.parallel, () => ask(request.target, request.timeoutMs));
    case 'send':
      return sendAll(request);
    case 'hold':
      return hold(request.target);
    case 'echo':
      return echo(heldSocket(request.held), request.timeoutMs);
    case 'bulk':
      return bulk(heldSocket(request.held), request.bytes, request.timeoutMs);
    case 'udp.hold':
    case 'udp.ask':
    case 'udp.error':
    case 'udp.connect':
    case 'udp.release':
      return handleUdp(request);
    case 'release':
      heldSocket(request.held).destroy();
      held.delete(request.held);
      return null;
    case 'traffic':
      return startTraffic(request.target, request.perSecond, request.timeoutMs);
    case 'tally':
      return readTally(request.traffic, request.stop);
    case 'get': {
      const response = await fetch(request.url, { signal: AbortSignal.timeout(request.timeoutMs) });
      return { status: response.status, body: await response.text() };
    }
  }
}

/* ---- servers: "who" is answered and closed, by the server, whose side keeps TIME_WAIT; "stay" is echoed ---- */

function serveTcp(name: string, port: number, address = '::'): Promise<void> {
  const server = createServer((socket) => {
    const answer: Answer = { server: name, from: endpoint(socket.remoteAddress, socket.remotePort) };
    let asked = false;
    socket.on('error', () => undefined);
    socket.on('data', (data) => {
      if (asked) socket.write(data);
      else if (data.toString() === 'who\n') socket.end(`${JSON.stringify(answer)}\n`);
      else socket.write(`${JSON.stringify(answer)}\n`);
      asked = true;
    });
  });
  return new Promise((resolve, reject) => server.once('error', reject).listen({ port, host: address, backlog: 4096 }, resolve));
}

function serveUdp(name: string, port: number, address = '::'): Promise<void> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  socket.on('message', (asked, peer) => {
    const answer: Answer = { server: name, from: endpoint(peer.address, peer.port) };
    socket.send(JSON.stringify(answer).padEnd(asked.length), peer.port, peer.address);
  });
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(port, address, resolve);
  });
}

/* ---- TCP clients ---- */

function ask(target: Target, timeoutMs: number): Promise<Answer> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect({ host: target.host, port: target.port }, () => socket.write('who\n'));
    const fail = (error: string): void => {
      socket.destroy();
      resolve({ server: '', from: '', error });
    };
    socket.setTimeout(timeoutMs, () => fail('ETIMEDOUT'));
    socket.on('data', (data) => (text += data.toString()));
    socket.on('end', () => (text === '' ? fail('EMPTY') : resolve(JSON.parse(text) as Answer)));
    socket.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? error.message));
  });
}

async function hold(target: Target): Promise<{ held: number; answer: Answer }> {
  const socket = connect({ host: target.host, port: target.port });
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  socket.on('error', () => undefined);
  socket.write('stay\n');
  const answer = JSON.parse(await received(socket, 5_000)) as Answer;
  held.set(++handles, socket);
  return { held: handles, answer };
}

function heldSocket(handle: number): Socket {
  const socket = held.get(handle);
  if (socket === undefined) throw new Error(`nothing is held as ${handle}`);
  return socket;
}

/** "ok", or what came instead of the same text. */
async function echo(socket: Socket, timeoutMs: number): Promise<string> {
  if (socket.destroyed) return 'ECONNRESET';
  const text = `${performance.now()}\n`;
  socket.write(text);
  return received(socket, timeoutMs).then(
    (back) => (back === text ? 'ok' : `another text: ${back}`),
    (error: Error) => error.message,
  );
}

/** "ok" when all that was sent comes back as it was; else how much did, or the errno. */
function bulk(socket: Socket, bytes: number, timeoutMs: number): Promise<string> {
  const data = randomBytes(bytes);
  const [sent, back] = [createHash('sha256').update(data), createHash('sha256')];
  return new Promise((resolve) => {
    let count = 0;
    const finish = (result: string): void => {
      clearTimeout(timer);
      socket.off('data', take).off('close', closed);
      resolve(result);
    };
    const take = (chunk: Buffer): void => {
      back.update(chunk);
      count += chunk.length;
      if (count >= bytes) finish(sent.digest('hex') === back.digest('hex') ? 'ok' : 'other bytes than were sent');
    };
    const closed = (): void => finish(`ECONNRESET after ${count} of ${bytes} bytes`);
    const timer = setTimeout(() => finish(`ETIMEDOUT after ${count} of ${bytes} bytes`), timeoutMs);
    socket.on('data', take).on('close', closed);
    socket.write(data);
  });
}

function received(socket: Socket, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const settle = (finish: () => void) => (): void => {
      clearTimeout(timer);
      for (const [event, listener] of listeners) socket.off(event, listener);
      finish();
    };
    let data = '';
    const listeners: [string, (chunk: Buffer) => void][] = [
      ['data', (chunk) => ((data += chunk.toString()), data.endsWith('\n') && settle(() => resolve(data))())],
      ['close', settle(() => reject(new Error('ECONNRESET')))],
    ];
    const timer = setTimeout(
      settle(() => reject(new Error('ETIMEDOUT'))),
      timeoutMs,
    );
    for (const [event, listener] of listeners) socket.on(event, listener);
  });
}

async function inParallel(count: number, parallel: number, once: () => Promise<Answer>): Promise<Answer[]> {
  const answers: Answer[] = [];
  let left = count;
  const worker = async (): Promise<void> => {
    while (left-- > 0) answers.push(await once());
  };
  await Promise.all(Array.from({ length: Math.min(count, parallel) }, worker));
  return answers;
}

/* ---- steady TCP traffic ---- */

const TICK_MS = 10;
/** A slow machine makes fewer connections a second, not ever more at a time. */
const MOST_OPEN = 200;

function startTraffic(target: Target, perSecond: number, timeoutMs: number): number {
  const state = { tally: { answers: 0, servers: {}, errors: {} } as MutableTally, open: 0, timer: setInterval(() => tick(), TICK_MS) };
  const started = performance.now();
  let sent = 0;
  const tick = (): void => {
    const due = ((performance.now() - started) / 1000) * perSecond;
    for (; sent < due; sent++) {
      if (state.open >= MOST_OPEN) continue;
      state.open++;
      void ask(target, timeoutMs)
        .then((answer) => record(state.tally, answer))
        .finally(() => state.open--);
    }
  };
  traffics.set(++handles, state);
  return handles;
}

function record(tally: MutableTally, answer: Answer): void {
  const [counts, key] = answer.error === undefined ? [tally.servers, answer.server] : [tally.errors, answer.error];
  if (answer.error === undefined) tally.answers++;
  counts[key] = (counts[key] ?? 0) + 1;
}

async function readTally(handle: number, stop: boolean): Promise<Tally> {
  const traffic = traffics.get(handle);
  if (traffic === undefined) throw new Error(`no traffic ${handle}`);
  if (stop) {
    clearInterval(traffic.timer);
    while (traffic.open > 0) await new Promise(setImmediate);
    traffics.delete(handle);
  }
  return traffic.tally;
}

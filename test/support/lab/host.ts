/** One network namespace of a lab, with hands in it: a node, a pod, the client outside. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { join } from 'node:path';
import { PATIENCE } from '../patience.ts';
import { makeCgroup } from './kernel.ts';
import type { Answer, Reply, Request, Tally } from './protocol.ts';
import type { Output } from './shell.ts';
import { attempt } from './shell.ts';

const PROBER = join(import.meta.dirname, 'prober.ts');

/** Puts itself into a cgroup before it opens any socket, then enters the namespace. `nsenter` keeps /sys, which `ip netns exec` would hide. */
const ENTER = 'echo 0 > "$1/cgroup.procs" && ns=$2 && shift 2 && exec nsenter --net="/run/netns/$ns" "$@"';

export interface ConnectOptions {
  /** @default 1 */
  readonly count?: number;
  /** @default 8 */
  readonly parallel?: number;
  /** @default 5000 */
  readonly timeoutMs?: number;
}

export interface SendOptions {
  /** Datagrams, each after the answer to the one before. @default 1 */
  readonly count?: number;
  /** connect() the socket first. @default false */
  readonly connected?: boolean;
  /** All from one socket. @default false */
  readonly oneSocket?: boolean;
  /** Of each datagram; its answer has to be as long. @default 3 */
  readonly bytes?: number;
  /** @default 2000 */
  readonly timeoutMs?: number;
}

/** A connection that stays open. */
export interface Held {
  readonly answer: Answer;
  /** Sends a line through it: "ok", or the errno that came instead. */
  echo(timeoutMs?: number): Promise<string>;
  /** Sends random bytes through it and compares what comes back: "ok", or what went wrong. */
  bulk(bytes: number, timeoutMs?: number): Promise<string>;
  release(): Promise<void>;
}

/** A UDP socket that stays. */
export interface HeldUdp {
  /** Sends a datagram: who answers, or the errno of the call that failed. */
  ask(timeoutMs?: number): Promise<Answer>;
  /** The errno that reaches the socket unasked; "" when none does in time. */
  error(timeoutMs?: number): Promise<string>;
  /** connect()s the same socket again: "", or the errno. */
  connect(host: string, port: number): Promise<string>;
  release(): Promise<void>;
}

/** Steady new connections. */
export interface Traffic {
  /** What it has met until now. */
  tally(): Promise<Tally>;
  /** Stops, waits for what is open, and tells. */
  stop(): Promise<Tally>;
}

export class Host {
  /** As people call it: "node-a", "web-1", "client". */
  readonly name: string;
  /** Of the network namespace, as `ip netns` lists it. */
  readonly netns: string;
  /** Folder of the cgroup that its processes run in. */
  readonly cgroup: string;
  readonly addresses: readonly string[];
  #prober: ChildProcess | undefined;
  #requests = 0;
  readonly #waiting = new Map<number, { resolve: (result: never) => void; reject: (error: Error) => void }>();

  constructor(name: string, netns: string, cgroup: string, addresses: readonly string[]) {
    this.name = name;
    this.netns = netns;
    this.cgroup = cgroup;
    this.addresses = addresses;
    makeCgroup(cgroup);
  }

  /** A command line that runs `command` in this host's cgroup and namespace. */
  command(command: readonly string[]): string[] {
    return ['sh', '-c', ENTER, 'sh', this.cgroup, this.netns, ...command];
  }

  /** Runs a command here to its end, whatever its exit code. */
  run(command: readonly string[]): Promise<Output> {
    return attempt(this.command(command));
  }

  /** Starts TCP and UDP servers that say who they are and whom they saw. @throws when a port is taken. */
  async serve(servers: {
    readonly name?: string;
    readonly tcp?: readonly number[];
    readonly udp?: readonly number[];
    readonly address?: string;
  }): Promise<void> {
    await this.#ask<null>({ op: 'serve', name: this.name, ...servers });
  }

  /** Connects over TCP, asks who is there, and tells each answer or errno. */
  connect(host: string, port: number, options: ConnectOptions = {}): Promise<Answer[]> {
    return this.#ask({
      op: 'connect',
      target: { host, port },
      count: options.count ?? 1,
      parallel: options.parallel ?? 8,
      timeoutMs: options.timeoutMs ?? 5_000,
    });
  }

  /** Sends datagrams and tells each answer or errno. */
  send(host: string, port: number, options: SendOptions = {}): Promise<Answer[]> {
    const { count = 1, connected = false, oneSocket = false, bytes = 3, timeoutMs = 2_000 } = options;
    return this.#ask({ op: 'send', target: { host, port }, count, connected, oneSocket, bytes, timeoutMs });
  }

  /** Opens a connection and keeps it. @throws when it is refused. */
  async hold(host: string, port: number): Promise<Held> {
    const { held, answer } = await this.#ask<{ held: number; answer: Answer }>({ op: 'hold', target: { host, port } });
    return {
      answer,
      echo: (timeoutMs = 5_000) => this.#ask({ op: 'echo', held, timeoutMs }),
      bulk: (bytes, timeoutMs = 60_000) => this.#ask({ op: 'bulk', held, bytes, timeoutMs }),
      release: () => this.#ask({ op: 'release', held }),
    };
  }

  /** Opens a UDP socket and keeps it. @param connected else each datagram says where it goes. @throws when connect() is refused. */
  async holdUdp(host: string, port: number, connected = true): Promise<HeldUdp> {
    const held = await this.#ask<number>({ op: 'udp.hold', target: { host, port }, connected });
    return {
      ask: (timeoutMs = 2_000) => this.#ask({ op: 'udp.ask', held, timeoutMs }),
      error: (timeoutMs = 10_000 * PATIENCE) => this.#ask({ op: 'udp.error', held, timeoutMs }),
      connect: (to, toPort) => this.#ask({ op: 'udp.connect', held, target: { host: to, port: toPort } }),
      release: () => this.#ask({ op: 'udp.release', held }),
    };
  }

  /** Starts steady new connections. */
  async traffic(host: string, port: number, perSecond: number): Promise<Traffic> {
    const traffic = await this.#ask<number>({ op: 'traffic', target: { host, port }, perSecond, timeoutMs: 5_000 });
    return {
      tally: () => this.#ask({ op: 'tally', traffic, stop: false }),
      stop: () => this.#ask({ op: 'tally', traffic, stop: true }),
    };
  }

  /** GET over HTTP. @throws when there is no answer. */
  get(url: string): Promise<{ status: number; body: string }> {
    return this.#ask({ op: 'get', url, timeoutMs: 2_000 * PATIENCE });
  }

  /** Ends the prober; the lab does it. */
  close(): void {
    this.#prober?.kill('SIGKILL');
  }

  #ask<T>(request: Request): Promise<T> {
    const prober = (this.#prober ??= this.#startProber());
    const id = ++this.#requests;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      prober.stdin?.write(`${JSON.stringify({ id, ...request })}\n`);
    });
  }

  #startProber(): ChildProcess {
    const [file = '', ...args] = this.command([process.execPath, PROBER]);
    const prober = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: prober.stdout }).on('line', (line) => {
      const reply = JSON.parse(line) as Reply;
      const waiting = this.#waiting.get(reply.id);
      this.#waiting.delete(reply.id);
      if ('failed' in reply) waiting?.reject(new Error(`${this.name}: ${reply.failed}`));
      else waiting?.resolve(reply.result as never);
    });
    prober.stdin.on('error', () => undefined);
    prober.on('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`${this.name}: its prober has ended`));
      this.#waiting.clear();
    });
    return prober;
  }
}

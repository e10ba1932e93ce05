/** A node of a lab: a host that pods hang on and an agent runs on. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { PATIENCE } from '../patience.ts';
import { Host } from './host.ts';
import type { Output } from './shell.ts';

/** The command of this checkout, as `make build` leaves it. */
export const MAGLANE = join(import.meta.dirname, '../../../bin/maglane');

export interface AgentOptions {
  /** `--source manifests --manifests PATH`; or give the source in `args`. */
  readonly manifests?: string;
  /** More of the command line. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Wait for /healthz to answer 200. @default true */
  readonly ready?: boolean;
}

/** One run of the agent. */
export class Agent {
  readonly #process: ChildProcess;
  readonly #lines: string[] = [];
  readonly exited: Promise<number | null>;

  constructor(process: ChildProcess) {
    this.#process = process;
    this.exited = new Promise((resolve) => process.once('close', (code) => resolve(code)));
    for (const stream of [process.stdout, process.stderr]) {
      let rest = '';
      stream?.setEncoding('utf8').on('data', (text: string) => {
        const lines = (rest + text).split('\n');
        rest = lines.pop() ?? '';
        this.#lines.push(...lines);
      });
    }
  }

  /** What it has logged. */
  get log(): readonly string[] {
    return this.#lines;
  }

  get running(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null> {
    this.#process.kill('SIGTERM');
    return this.exited;
  }

  /** SIGKILL. */
  kill(): Promise<number | null> {
    this.#process.kill('SIGKILL');
    return this.exited;
  }
}

export class LabNode extends Host {
  /** Folder of its agent's pins. */
  readonly bpffs: string;
  /** What the agent serves: the node's sockets and its pods'. */
  readonly agentCgroup: string;
  readonly #agents: Agent[] = [];

  constructor(name: string, netns: string, cgroup: string, addresses: readonly string[], bpffs: string) {
    super(name, netns, join(cgroup, 'host'), addresses);
    this.agentCgroup = cgroup;
    this.bpffs = bpffs;
  }

  /**
   * Starts `maglane agent` on this node and waits until it serves.
   * @throws Error with its log when it ends, or is not ready within a minute.
   */
  async startAgent(options: AgentOptions = {}): Promise<Agent> {
    const source = options.manifests === undefined ? [] : ['--source', 'manifests', '--manifests', options.manifests];
    const own = ['--node-name', this.name, '--node-ip', this.addresses.join(','), '--bpffs', this.bpffs, '--cgroup', this.agentCgroup];
    const [file = '', ...args] = this.command([MAGLANE, 'agent', ...source, ...own, ...(options.args ?? [])]);
    const agent = new Agent(spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...options.env } }));
    this.#agents.push(agent);
    if (options.ready ?? true) await this.#ready(agent);
    return agent;
  }

  /** Runs a command of maglane here: `['services', '-o', 'json']`; --bpffs is added. */
  maglane(args: readonly string[]): Promise<Output> {
    return this.run([MAGLANE, ...args, '--bpffs', this.bpffs]);
  }

  /** The standard output of a command of maglane, as JSON. @throws with its error. */
  async inspect<T>(command: string, ...args: string[]): Promise<T> {
    const output = await this.maglane([command, ...args, '-o', 'json']);
    if (output.status !== 0) throw new Error(`maglane ${command} on ${this.name}: ${output.stderr}`);
    return JSON.parse(output.stdout) as T;
  }

  override close(): void {
    for (const agent of this.#agents) if (agent.running) void agent.kill();
    super.close();
  }

  async #ready(agent: Agent): Promise<void> {
    const deadline = Date.now() + 60_000 * PATIENCE;
    while (agent.running && Date.now() < deadline) {
      const answer = await this.get('http://127.0.0.1:10256/healthz').catch(() => undefined);
      if (answer?.status === 200) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    if (!agent.running) await agent.exited;
    throw new Error(`the agent on ${this.name} is not ${agent.running ? 'ready' : 'running'}:\n${agent.log.join('\n')}`);
  }
}

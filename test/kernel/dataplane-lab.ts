/** A node for the dataplane's tests: a network namespace, a cgroup and a folder of pins, all removed again. */
import type { ChildProcess } from 'node:child_process';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, rmdirSync } from 'node:fs';
import type { Interface as Lines } from 'node:readline';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { AttachedDevice } from '../../agent/dataplane/device-map.ts';
import { cleanup } from '../../agent/dataplane/cleanup.ts';
import type { DataplaneOptions } from '../../agent/dataplane/dataplane.ts';
import type { DeviceChoice } from '../../agent/dataplane/devices.ts';
import { findCgroup } from '../../agent/dataplane/preflight.ts';
import type { DesiredService } from '../../agent/model/desired.ts';
import type { Write } from '../../agent/plan/held.ts';
import type { Everything } from './dataplane-child.ts';
import native from '../../native/index.js';

const CHILD = fileURLToPath(new URL('./dataplane-child.ts', import.meta.url));
let count = 0;

/** What an agent answers, by request. */
interface Answers {
  open: [DataplaneOptions, string[]];
  sync: [readonly DesiredService[], string[]];
  syncAll: [Everything, string[]];
  reclaim: [undefined, string[]];
  execute: [readonly Write[], null];
  attach: [readonly string[], AttachedDevice[]];
  attachPods: [DeviceChoice & { readonly recheck?: boolean }, { devices: AttachedDevice[]; problems: string[]; ms: number }];
  close: [undefined, null];
  cleanup: [string, readonly string[]];
}

export class AgentProcess {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterator<string>;
  readonly #lines: Lines;

  constructor(netns: string) {
    this.#child = spawn('nsenter', [`--net=/run/netns/${netns}`, process.execPath, CHILD], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#child.stdout! });
    this.#answers = this.#lines[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Throws what the agent threw: an Error with its message, code and subject. */
  async ask<Name extends keyof Answers>(name: Name, argument?: Answers[Name][0]): Promise<Answers[Name][1]> {
    this.#child.stdin!.write(`${JSON.stringify({ name, argument })}\n`);
    const { value, done } = await this.#answers.next();
    if (done === true) throw new Error(`the agent died at ${name}`);
    const { result, error } = JSON.parse(value) as { result: Answers[Name][1]; error?: { message: string } };
    if (error !== undefined) throw Object.assign(new Error(error.message), error);
    return result;
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }
}

export class Node {
  readonly netns = `mg-5-${process.pid}-${++count}`;
  readonly bpffs = `/sys/fs/bpf/mg-5-${process.pid}-${count}`;
  readonly cgroup = `${findCgroup()}/mg-5-${process.pid}-${count}`;
  readonly #agents: AgentProcess[] = [];

  constructor() {
    execFileSync('ip', ['netns', 'add', this.netns]);
    mkdirSync(this.cgroup);
    this.ip('link set lo up');
  }

  ip(command: string): string {
    return execFileSync('ip', ['-n', this.netns, ...command.split(' ')], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  }

  options(other: Partial<DataplaneOptions> = {}): DataplaneOptions {
    return {
      bpffs: this.bpffs,
      cgroup: this.cgroup,
      xdpMode: 'auto',
      snatPorts: { min: 61_000, max: 65_535 },
      capacity: { services: 64, frontends: 64, backends: 128, ringSlots: 8192, sourceRanges: 64 },
      maxFlows: 1024,
      maxAffinity: 256,
      maxUdpPeers: 256,
      maxDevices: 64,
      dsrPort: 0,
      hosts: false,
      ...other,
    };
  }

  agent(): AgentProcess {
    const agent = new AgentProcess(this.netns);
    this.#agents.push(agent);
    return agent;
  }

  /** An agent that has synced and attached. */
  async start(desired: readonly DesiredService[], names: readonly string[] = [], other: Partial<DataplaneOptions> = {}): Promise<AgentProcess> {
    const agent = this.agent();
    await agent.ask('open', this.options(other));
    await agent.ask('sync', desired);
    await agent.ask('attach', names);
    return agent;
  }

  /** By pin: the link's and its program's ids; the device that the link is on, 0 when that is gone or it is no device's. */
  links(): Map<string, { link: number; program: number; ifindex: number }> {
    return new Map(
      this.pins('links').map((pin) => {
        const fd = native.openPin(`${this.bpffs}/links/${pin}`)!;
        const { id, programId, ifindex } = native.linkInfo(fd);
        native.close(fd);
        return [pin, { link: id, program: programId, ifindex }];
      }),
    );
  }

  /** Ids of the pinned maps, by name. */
  maps(): Map<string, number> {
    return new Map(
      this.pins('maps').map((pin) => {
        const fd = native.openPin(`${this.bpffs}/maps/${pin}`)!;
        const { id } = native.mapInfo(fd);
        native.close(fd);
        return [pin, id];
      }),
    );
  }

  /** Our tc programs on a device, by direction: at tcx, or at clsact where the kernel has no tcx. */
  tcPrograms(device: string): string[] {
    const index = Number(/^\d+/.exec(this.ip(`link show ${device}`))?.[0]);
    return ['ingress', 'egress'].filter((direction) => {
      if (this.pins('links').includes(`dev_${index}_tcx_${direction}`)) return true;
      const filters = execFileSync('tc', ['-n', this.netns, 'filter', 'show', 'dev', device, direction], { encoding: 'utf8' });
      return filters.includes(`mg_tc_${direction}`) || filters.includes(`mg_pod_${direction}`);
    });
  }

  pins(folder: string): string[] {
    const path = `${this.bpffs}/${folder}`;
    return existsSync(path) ? readdirSync(path).sort() : [];
  }

  /** A TCP dial from a process in the cgroup and the namespace: what the other end says, or an errno's name. */
  dial(address: string, port: number): string {
    const script = `const s=require('net').connect(${port},'${address}');s.setTimeout(3000,()=>{console.log('ETIMEDOUT');s.destroy()});s.on('data',d=>{process.stdout.write(d);s.destroy()}).on('error',e=>console.log(e.code))`;
    return this.#inCgroup(process.execPath, '-e', script).trim();
  }

  /** A TCP server in the namespace that tells its name to each client. */
  async serve(address: string, port: number, name: string): Promise<ChildProcess> {
    const script = `require('net').createServer(s=>{s.on('error',()=>0);s.end('${name}')}).listen(${port},'${address}',()=>console.log('ready'))`;
    const server = spawn('nsenter', [`--net=/run/netns/${this.netns}`, process.execPath, '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(server.stdout!, 'data');
    return server;
  }

  async remove(): Promise<void> {
    for (const agent of this.#agents) await agent.kill();
    cleanup(this.bpffs);
    rmdirSync(this.cgroup);
    execFileSync('ip', ['netns', 'del', this.netns]);
  }

  /** The shell moves itself into the cgroup, then becomes the command. */
  #inCgroup(...command: string[]): string {
    const shell = `echo $$ > ${this.cgroup}/cgroup.procs && exec "$@"`;
    return execFileSync('nsenter', [`--net=/run/netns/${this.netns}`, 'sh', '-c', shell, 'sh', ...command], { encoding: 'utf8' });
  }
}

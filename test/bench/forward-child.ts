/**
 * Runs where the far end of a node's cable is: `forward-child.ts JOB`, a `Job` as JSON. Sends packets of established flows down the cable, takes what
 * the node forwards, and prints what that costs in CPU time, in ns a packet, over frames that are dropped at the end of a cable. See forward.bpf.c.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import native from '../../native/index.js';

export interface Job {
  /** forward.bpf.c, compiled. */
  readonly object: string;
  /** The far end of the node's cable. */
  readonly device: string;
  /** UDP over IPv4, of source port 0. */
  readonly frame: readonly number[];
  /** The backend's address and the client's, as their bytes. */
  readonly backend: readonly number[];
  readonly client: readonly number[];
  readonly backendPort: number;
  readonly frontendPort: number;
  /** The only one that all of it runs on. */
  readonly cpu: number;
  readonly seconds: number;
}

const ZERO = new Uint8Array(4);
const LIVE_FRAMES = 2;
const FLOWS = 1_024;
/** In one system call: some tens of ms. */
const BURST = 65_536;
/** A cable that leads nowhere. */
const [NEAR, FAR] = ['bench0', 'bench1'];

const job = JSON.parse(process.argv[2] ?? '') as Job;
const object = native.open(job.object);
object.load();
const ksoftirqd = readdirSync('/proc').find((pid) => /^\d+$/.test(pid) && commandOf(pid) === `ksoftirqd/${job.cpu}`);

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return ''; // it has ended
  }
}

function indexOf(device: string): number {
  const found = native.interfaces().find(({ name }) => name === device);
  if (found === undefined) throw new Error(`there is no device ${device}`);
  return found.index;
}

/** struct traffic. */
function direct(device: string, answers: boolean): void {
  const traffic = new Uint8Array(88);
  const view = new DataView(traffic.buffer);
  traffic.set(job.frame);
  view.setUint32(64, indexOf(device), true);
  view.setUint32(68, FLOWS, true);
  traffic.set(job.backend, 72);
  traffic.set(job.client, 76);
  view.setUint16(80, job.backendPort);
  view.setUint16(82, job.frontendPort);
  view.setUint32(84, answers ? 1 : 0, true);
  native.mapUpdate(object.mapFd('traffic'), ZERO, traffic);
}

/** struct counts, since the last time. */
function counted(): { readonly sent: number; readonly arrived: number; readonly answered: number } {
  const counts = new BigUint64Array(3);
  native.mapLookup(object.mapFd('counts'), ZERO, new Uint8Array(counts.buffer));
  native.mapUpdate(object.mapFd('counts'), ZERO, new Uint8Array(24));
  const [sent = 0, arrived = 0, answered = 0] = [...counts].map(Number);
  return { sent, arrived, answered };
}

const send = (repeat: number): unknown => native.testRun(object.programFd('generate'), { data: Uint8Array.from(job.frame), repeat, flags: LIVE_FRAMES });

/** Whether the kernel charges softirqs to nobody (CONFIG_IRQ_TIME_ACCOUNTING), and not to the process that they interrupt. */
const softirqsApart = readFileSync('/proc/kallsyms', 'latin1').includes(' irqtime_account_irq\n');

/** Of the CPU, ns. */
function softirqs(): number {
  const line = readFileSync('/proc/stat', 'utf8')
    .split('\n')
    .find((text) => text.startsWith(`cpu${job.cpu} `));
  return Number(line?.split(' ')[7]) * 1e7;
}

/**
 * CPU time so far, ns: of this process, in whose system call the kernel does all work on packets, and of the kernel's thread that takes
 * over where it is much.
 */
function spent(): number {
  const { user, system } = process.cpuUsage();
  const thread = ksoftirqd === undefined ? 0 : Number(readFileSync(`/proc/${ksoftirqd}/schedstat`, 'utf8').split(' ')[0]);
  return (user + system) * 1e3 + thread + (softirqsApart ? softirqs() : 0);
}

/** @returns ns a packet. @throws Error when packets are lost: those that are not forwarded cost nothing. */
function measure(device: string, seconds: number): number {
  direct(device, false);
  counted();
  const before = spent();
  for (const end = performance.now() + seconds * 1e3; performance.now() < end;) send(BURST);
  const cost = spent() - before;
  const { sent, arrived } = counted();
  if (arrived < 0.99 * sent) throw new Error(`of ${sent} packets to ${device}, ${arrived} arrived`);
  return cost / arrived;
}

/** Each flow sends and is answered, twice: once established, it stays. The first packets may be lost while a neighbour is being asked for. */
function establish(): void {
  direct(job.device, true);
  send(FLOWS);
  for (let tries = 1; ; tries++) {
    counted();
    send(FLOWS);
    const { arrived, answered } = counted();
    if (arrived === FLOWS && answered === FLOWS) return;
    if (tries === 20) throw new Error(`of ${FLOWS} flows through ${job.device}, ${arrived} reach the backend and ${answered} are answered`);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  }
}

execFileSync('ip', ['link', 'add', NEAR, 'type', 'veth', 'peer', 'name', FAR]);
try {
  for (const end of [NEAR, FAR]) execFileSync('ip', ['link', 'set', end, 'up']);
  native.linkXdp(object.programFd('drop'), indexOf(FAR), 'native');
  native.linkXdp(object.programFd('sink'), indexOf(job.device), 'native');
  establish();
  const base = measure(NEAR, job.seconds / 2);
  process.stdout.write(String(measure(job.device, job.seconds) - base));
} finally {
  execFileSync('ip', ['link', 'delete', NEAR]);
}

/**
 * `agent-maps.ts SERVICES ENDPOINTS CHANGES`: the agent without its API server and without sockets to attach to. What a watch would bring goes
 * through decoding, model and plan into maps of the kernel, in this process; prints as JSON what that took (`Measured`).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Controller } from '../../agent/agent/controller.ts';
import { Problems } from '../../agent/agent/problems.ts';
import { cleanup } from '../../agent/dataplane/cleanup.ts';
import { Dataplane } from '../../agent/dataplane/dataplane.ts';
import { parseAddress } from '../../agent/model/address.ts';
import type { Address } from '../../agent/model/address.ts';
import type { NodeFacts } from '../../agent/model/facts.ts';
import { Model } from '../../agent/model/model.ts';
import { createLog } from '../../agent/observe/log.ts';
import { Metrics } from '../../agent/observe/metrics.ts';
import { Inventory } from '../../agent/source/kubernetes/inventory.ts';
import { watchedKinds } from '../../agent/source/kubernetes/kinds.ts';
import type { KindName } from '../../agent/source/kubernetes/kinds.ts';
import { readWatchEvent } from '../../agent/source/kubernetes/protobuf/envelope.ts';
import { FrameReader } from '../../agent/source/kubernetes/protobuf/frames.ts';
import { encode, enveloped, frame } from '../support/fake-apiserver/encode.ts';
import * as objects from '../support/fake-apiserver/objects.ts';
import { quantile } from './statistics.ts';

/** ms, but for what is said to be else. */
export interface Measured {
  /** From the first byte of the listing, all of which is there, to all maps written; CPU time of it, user and system. */
  readonly cold: { readonly ms: number; readonly cpu: number };
  /** From the read event to the maps written, one endpoint of one Service changing at a time. */
  readonly change: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly changes: number;
  /** CPU time of the main thread for each, which others on the machine do not lengthen; a mean, as the kernel counts it by ticks. */
  readonly changeCpu: number;
  /** CPU time of the main thread until all that the changes had replaced was reclaimed, for each change. */
  readonly reclaimCpu: number;
}

const [services = 0, each = 0, changes = 0] = process.argv.slice(2).map(Number);
const FACTS: NodeFacts = {
  name: 'node-a',
  zone: '',
  nodePortAddresses: ['172.30.0.11'] as Address[],
  localhostNodePorts: true,
  defaultAlgorithm: 'maglev',
  defaultForwarding: 'snat',
  dsr: false,
  nodeAddresses: ['172.30.0.11'] as Address[],
  detectLocal: { by: 'ranges', ranges: [] },
  masqueradeAll: false,
  ownLbIps: false,
  vipPing: true,
  allowExternalIPs: true,
};
const CAPACITY = { services: 65_536, frontends: 131_072, backends: 262_144, ringSlots: 4_194_304, sourceRanges: 65_536 };
/** Longer than all changes take: what is reclaimed is counted apart. */
const GRACE_MS = 5_000;
const CHUNK = 16_384;

const address = (network: number, n: number): string => parseAddress(`${network}.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`) as string;

function serviceEvent(n: number): Buffer {
  const ip = address(11, n);
  const fields = objects.service(`svc-${n}`, { clusterIP: ip, clusterIPs: [ip] }, { resourceVersion: '1' });
  return frame('ADDED', enveloped('v1', 'Service', encode('Service', fields)));
}

/** `turn`: the last endpoint is another one in each. */
function sliceEvent(n: number, turn: number): Buffer {
  const addresses = Array.from({ length: each }, (_, i) => address(i === each - 1 ? 20 + (turn % 100) : 10, n * each + i));
  const metadata = { namespace: 'default', name: `svc-${n}-1`, labels: { 'kubernetes.io/service-name': `svc-${n}` }, resourceVersion: String(turn + 1) };
  const endpoints = addresses.map((one, i) => ({
    addresses: [one],
    conditions: { ready: true, serving: true, terminating: false },
    nodeName: `node-${(n * each + i) % 500}`,
  }));
  const raw = encode('EndpointSlice', objects.slice(`svc-${n}-1`, [], { metadata, endpoints }));
  return frame(turn === 0 ? 'ADDED' : 'MODIFIED', enveloped('discovery.k8s.io/v1', 'EndpointSlice', raw));
}

/** As `Reflector` does it. */
class Watch {
  readonly #frames = new FrameReader(1 << 24);
  readonly #inventory: Inventory;

  constructor(kind: KindName, controller: Controller) {
    this.#inventory = new Inventory(
      watchedKinds(FACTS.name).find((one) => one.kind === kind)!,
      controller,
    );
  }

  read(chunk: Buffer): void {
    for (const one of this.#frames.push(chunk)) this.#inventory.putEnveloped(readWatchEvent(one).object);
    this.#inventory.flush();
  }
}

const bpffs = `/sys/fs/bpf/maglane-bench-${process.pid}`;
const log = createLog('error', 'text');
const options = {
  capacity: CAPACITY,
  maxFlows: 131_072,
  maxAffinity: 65_536,
  maxUdpPeers: 32_768,
  maxDevices: 1024,
  bpffs,
  cgroup: '/',
  xdpMode: 'off',
} as const;
const dataplane = await Dataplane.open({ ...options, snatPorts: { min: 61_000, max: 65_535 }, dsrPort: 0, hosts: false }, log);
let written: () => void = () => undefined;
const controller = new Controller({
  model: new Model(FACTS),
  maps: dataplane,
  problems: new Problems(log, new Metrics()),
  log,
  onChanges: () => undefined,
  onDelta: () => undefined,
  onWrites: () => undefined,
  onSync: () => written(),
  onFailure: () => undefined,
  graceMs: GRACE_MS,
});
const slices = new Watch('EndpointSlice', controller);

async function cold(): Promise<Measured['cold']> {
  const watch = new Watch('Service', controller);
  const streams = [
    [watch, Buffer.concat(Array.from({ length: services }, (_, n) => serviceEvent(n)))],
    [slices, Buffer.concat(Array.from({ length: services }, (_, n) => sliceEvent(n, 0)))],
  ] as const;
  const [started, cpu] = [performance.now(), process.cpuUsage()];
  for (const [to, stream] of streams) {
    // A buffer of its own for each chunk, as from a socket: what is kept of one keeps it all.
    for (let at = 0; at < stream.length; at += CHUNK) to.read(Buffer.from(stream.subarray(at, at + CHUNK)));
  }
  controller.start();
  await controller.firstSync;
  const { user, system } = process.cpuUsage(cpu);
  return { ms: performance.now() - started, cpu: (user + system) / 1000 };
}

async function change(turn: number): Promise<{ ms: number; cpu: number }> {
  const event = sliceEvent((turn * 7919) % services, turn);
  const { promise, resolve } = Promise.withResolvers<void>();
  written = resolve;
  await sleep(2);
  const [started, cpu] = [performance.now(), mainThread()];
  slices.read(event);
  await promise;
  return { ms: performance.now() - started, cpu: mainThread() - cpu };
}

/** CPU time of the main thread until now, ms. */
function mainThread(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

try {
  const first = await cold();
  await sleep(2 * GRACE_MS);
  const taken: { ms: number; cpu: number }[] = [];
  for (let turn = 1; turn <= changes; turn++) taken.push(await change(turn));
  const changed = taken.map(({ ms }) => ms).toSorted((a, b) => a - b);
  const before = mainThread();
  await sleep(2 * GRACE_MS);
  const measured: Measured = {
    cold: first,
    change: { p50: quantile(changed, 0.5), p99: quantile(changed, 0.99), max: changed.at(-1) ?? 0 },
    changes,
    changeCpu: taken.reduce((sum, { cpu }) => sum + cpu, 0) / changes,
    reclaimCpu: (mainThread() - before) / changes,
  };
  process.stdout.write(`${JSON.stringify(measured)}\n`);
} finally {
  controller.stop();
  dataplane.close();
  cleanup(bpffs);
}

/** `maglane agent`: puts the parts together, and takes them apart again without disturbing anything. */
import native from '../../native/index.js';
import type { Interface } from '../../native/index.js';
import type { AgentOptions } from '../config/options.ts';
import { dsrPortOf } from '../config/options.ts';
import type { Resolved } from '../config/resolve.ts';
import { version } from '../cli/version.ts';
import type { Cutter } from '../dataplane/cut.ts';
import { Dataplane } from '../dataplane/dataplane.ts';
import type { DeviceChoice } from '../dataplane/devices.ts';
import type { Recounter } from '../dataplane/recount.ts';
import { findCgroup, limitations, preflight } from '../dataplane/preflight.ts';
import { readSettings, shortcomings } from '../dataplane/settings.ts';
import { familyOf } from '../model/address.ts';
import { Model } from '../model/model.ts';
import type { Change } from '../model/objects.ts';
import type { AdjustableLog, Log } from '../observe/log.ts';
import { createLog } from '../observe/log.ts';
import { Metrics } from '../observe/metrics.ts';
import type { Answer, Routes } from '../observe/server.ts';
import { serve } from '../observe/server.ts';
import { Gate } from '../source/gate.ts';
import type { Source } from '../source/source.ts';
import { watchConfig } from './config-watch.ts';
import { Controller } from './controller.ts';
import { DeviceFollower } from './devices.ts';
import type { Events } from './events.ts';
import { HealthChecks } from './health-checks.ts';
import { Health } from './health.ts';
import { watchForKubeProxy } from './kube-proxy.ts';
import { agentMetrics, watchMetrics } from './metrics.ts';
import { heldAddresses } from './node.ts';
import { pages } from './pages.ts';
import { Problems } from './problems.ts';
import { ProxyMetrics } from './proxy-metrics.ts';
import { detectByDevice, ThisNode } from './this-node.ts';

/**
 * Runs until SIGTERM or SIGINT; what is pinned stays and goes on.
 * @param again resolves the same command line once more, when its --config file has changed.
 * @throws Error with one line when it cannot start (exit code 1).
 */
export async function runAgent(resolved: Resolved, again: () => Promise<Resolved>): Promise<void> {
  const { options, warnings, idle } = resolved;
  const log = createLog(options.logLevel, options.logFormat);
  for (const warning of warnings) log.warn(warning);
  if (idle.length > 0) log.info('these mean nothing to eBPF and have no effect', { options: idle.join(',') });
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      log.info('stopping; connections and Services go on', { signal });
      stop.abort();
    });
  }
  const cgroup = options.cgroup === '' ? findCgroup() : options.cgroup;
  const obstacles = preflight({ bpffs: options.bpffs, cgroup: cgroup ?? '', snatPorts: options.snatPorts });
  if (obstacles.length > 0) throw new Error(obstacles.join('; '));
  for (const limitation of limitations()) log.warn(limitation);
  const metrics = new Metrics();
  const source = await createSource(options, log, metrics);
  log.info('starting', { version: version().version, node: options.nodeName, source: source.name, bpffs: options.bpffs });
  // The kernel verifies the programs, which takes it most of a second, while the lists come.
  const opening = Dataplane.open(
    { ...sizes(options), bpffs: options.bpffs, cgroup: cgroup ?? '', xdpMode: options.xdpMode, snatPorts: options.snatPorts, dsrPort: dsrPortOf(options) },
    log,
  );
  const gate = new Gate();
  const feed = source.run(gate, stop.signal);
  // Its failure is the agent's to tell, once that waits for it.
  feed.catch(() => undefined);
  try {
    const dataplane = await opening;
    try {
      if (stop.signal.aborted) return;
      const agent = new Agent(resolved, log, metrics, source, dataplane);
      watchConfig({ resolved, again, log, changed: (error) => agent.fail(error) }, stop.signal);
      await agent.run(gate, feed, stop);
    } finally {
      dataplane.close();
    }
  } finally {
    stop.abort();
    await feed.catch(() => undefined);
  }
}

/** The running parts of one agent. */
class Agent {
  readonly #options: AgentOptions;
  readonly #log: AdjustableLog;
  readonly #source: Source;
  readonly #dataplane: Dataplane;
  readonly #model: Model;
  readonly #controller: Controller;
  readonly #cutter: Cutter;
  readonly #recounter: Recounter;
  readonly #metrics: Metrics;
  readonly #health = new Health();
  readonly #healthChecks: HealthChecks;
  readonly #proxyMetrics: ProxyMetrics;
  readonly #started = Date.now();
  readonly #resolved: Resolved;
  readonly #node: ThisNode;
  readonly #problems: Problems;
  #follower: DeviceFollower | undefined;
  /** undefined where the source has no API. */
  #events: Events | undefined;
  readonly #failed = Promise.withResolvers<never>();

  constructor(resolved: Resolved, log: AdjustableLog, metrics: Metrics, source: Source, dataplane: Dataplane) {
    const { options } = resolved;
    this.#resolved = resolved;
    this.#options = options;
    this.#log = log;
    this.#metrics = metrics;
    this.#source = source;
    this.#dataplane = dataplane;
    this.#node = new ThisNode({ options, log, interfaces: native.interfaces(), fail: (error) => this.fail(error) });
    this.#model = new Model(this.#node.facts);
    const observed = agentMetrics(this.#metrics, this.#model, dataplane, () => this.#controller.usage);
    this.#proxyMetrics = new ProxyMetrics(metrics, this.#started);
    this.#problems = new Problems(log, metrics, (problem) => this.#events?.problem(problem));
    this.#healthChecks = new HealthChecks({ problems: this.#problems, healthy: () => this.#health.healthy });
    this.#cutter = dataplane.cutter(log, (sockets) => observed.cuts.add({}, sockets));
    this.#recounter = dataplane.recounter(log);
    this.#controller = new Controller({
      model: this.#model,
      maps: dataplane,
      problems: this.#problems,
      log,
      onChanges: (changes) => this.#take(changes),
      onDelta: (delta) => {
        this.#proxyMetrics.delta(delta);
        this.#healthChecks.apply(delta.healthChecks);
      },
      onWrites: (writes) => this.#cutter.after(writes),
      onSync: (seconds, full) => {
        observed.syncs.observe(seconds);
        this.#health.written(this.#proxyMetrics.written(seconds, full));
        dataplane.synced(Date.now());
      },
      onFailure: () => observed.failures.add(),
    });
  }

  /** Ends `run` with an error: a part other than the source cannot go on. */
  fail(error: Error): void {
    this.#failed.reject(error);
  }

  /**
   * Runs until `stop` aborts, or a part fails for good: then it aborts `stop` and throws.
   * @param gate where the source speaks. @param feed what its `run` returned.
   */
  async run(gate: Gate, feed: Promise<void>, stop: AbortController): Promise<void> {
    const { nodeName, healthzBindAddress, metricsBindAddress } = this.#options;
    const describe = () => this.#dataplane.describe({ nodeName, version: version().version, source: this.#source.name, started: this.#started });
    describe();
    // A cluster's address is known only when its kubeconfig has been read.
    void this.#controller.listed.then(describe);
    try {
      watchForKubeProxy(this.#log, this.#metrics, stop.signal);
      if (healthzBindAddress !== undefined) await serve('--healthz-bind-address', healthzBindAddress, this.#healthPages(), stop.signal);
      if (metricsBindAddress !== undefined) await serve('--metrics-bind-address', metricsBindAddress, this.#metricsPages(), stop.signal);
      await this.#startEvents(stop.signal);
      gate.open(this.#controller);
      await Promise.race([Promise.all([feed, this.#start(stop.signal)]), this.#failed.promise]);
    } finally {
      stop.abort();
      this.#controller.stop();
      this.#healthChecks.close();
      await Promise.all([this.#cutter.stop(), this.#recounter.stop()]);
    }
  }

  async #startEvents(signal: AbortSignal): Promise<void> {
    const { writer } = this.#source;
    if (writer === undefined) return;
    const { Events } = await import('./events.ts');
    const uidOf = (service: string): string => this.#model.uidOf(service);
    this.#events = new Events({ writer, nodeName: this.#options.nodeName, uidOf, log: this.#log, metrics: this.#metrics });
    this.#events.started(version().version);
    void this.#events.run(signal);
  }

  #healthPages(): Routes {
    const counted = (page: 'healthz' | 'livez', answer: Answer): Answer => {
      this.#proxyMetrics.answered(page, answer.status);
      return answer;
    };
    return {
      '/healthz': () => counted('healthz', this.#health.healthz(this.#node.eligible)),
      '/livez': () => counted('livez', this.#health.livez()),
    };
  }

  #metricsPages(): Routes {
    const page = (): Answer => ({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: this.#metrics.render() });
    return { ...pages({ resolved: this.#resolved, started: this.#started, log: this.#log }), '/metrics': page };
  }

  #take(changes: readonly Change[]): void {
    this.#health.queued();
    this.#proxyMetrics.changes(changes);
    for (const change of changes) {
      if (change.kind !== 'Node' || change.key !== this.#options.nodeName) continue;
      this.#node.update(change.object);
      this.#follower?.look();
    }
  }

  /** Once all is listed: learn the node's addresses, write the maps, and only then attach to them. */
  async #start(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    await Promise.race([this.#controller.listed, aborted]);
    if (signal.aborted) return;
    await this.#node.known(() => native.interfaces(), signal);
    if (signal.aborted) return;
    const { nodeAddresses, nodePortAddresses } = this.#node.facts;
    this.#healthChecks.listenOn(heldAddresses(nodePortAddresses, native.interfaces()));
    for (const line of shortcomings(this.#options.snatPorts, nodeAddresses.map(familyOf), readSettings())) this.#log.warn(line);
    this.#model.setFacts(this.#node.facts);
    this.#controller.start();
    await Promise.race([this.#controller.firstSync, aborted]);
    if (signal.aborted) return;
    this.#follow(signal);
    this.#cutter.soon();
    this.#recounter.start();
    const { services, slices, endpoints } = this.#model.counts;
    // Most of what was read and made to start is not needed again, and counts as ours while it is resident. Left to itself, the
    // collector would not look at the listing's garbage before twice as much has come.
    globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
    native.releaseMemory();
    this.#log.info('serving', { services, slices, endpoints, nodeIp: this.#node.facts.nodeAddresses.join(',') });
    await aborted;
  }

  #follow(signal: AbortSignal): void {
    const parts = { dataplane: this.#dataplane, log: this.#log, problems: this.#problems, metrics: this.#metrics };
    this.#follower = new DeviceFollower((interfaces) => this.#devices(interfaces), parts);
    this.#follower.start(signal);
  }

  /** What is attached to, the node being what it is by now: its addresses may have changed with its interfaces or its Node object. */
  #devices(interfaces: readonly Interface[]): DeviceChoice {
    const facts = this.#node.refresh(interfaces);
    if (facts !== undefined) {
      this.#log.info('this node has changed', { nodeIp: facts.nodeAddresses.join(','), nodePorts: facts.nodePortAddresses.join(',') });
      this.#model.setFacts(facts);
      this.#healthChecks.listenOn(heldAddresses(facts.nodePortAddresses, interfaces));
      this.#controller.schedule();
    }
    const { devices, podDevices } = this.#options;
    const detect = detectByDevice(this.#options);
    return { names: devices, nodeIps: this.#node.facts.nodeAddresses, podDevices, ...(detect !== undefined && { detect }) };
  }
}

function sizes(options: AgentOptions) {
  const { maxServices, maxFrontends, maxBackends, ringSlots, maxSourceRanges, maxFlows, maxAffinity, maxUdpPeers, maxDevices } = options;
  const capacity = { services: maxServices, frontends: maxFrontends, backends: maxBackends, ringSlots, sourceRanges: maxSourceRanges };
  return { capacity, maxFlows, maxAffinity, maxUdpPeers, maxDevices, hosts: dsrPortOf(options) !== 0 };
}

/** Each source is imported when it is the one: neither pays for the other. */
async function createSource(options: AgentOptions, log: Log, metrics: Metrics): Promise<Source> {
  if (options.source === 'manifests') {
    const { ManifestsSource } = await import('../source/manifests/manifests.ts');
    return new ManifestsSource(options.manifests, { log });
  }
  const { KubernetesSource } = await import('../source/kubernetes/kubernetes.ts');
  const { kubeconfig, master, nodeName } = options;
  return new KubernetesSource({ kubeconfig, master, nodeName, allNodes: dsrPortOf(options) !== 0, log, observer: watchMetrics(metrics) });
}

/** `maglane agent`: puts the parts together, and takes them apart again without disturbing anything. */
import native from '../../native/index.js';
import type { ConfigFile } from '../config/file.ts';
import type { AgentOptions } from '../config/options.ts';
import { version } from '../cli/version.ts';
import type { Cutter } from '../dataplane/cut.ts';
import { Dataplane } from '../dataplane/dataplane.ts';
import { findCgroup, limitations, preflight } from '../dataplane/preflight.ts';
import { readSettings, shortcomings } from '../dataplane/settings.ts';
import type { Address } from '../model/address.ts';
import { familyOf } from '../model/address.ts';
import { Model } from '../model/model.ts';
import type { Node } from '../model/objects.ts';
import type { Log } from '../observe/log.ts';
import { createLog } from '../observe/log.ts';
import { Metrics } from '../observe/metrics.ts';
import { serve } from '../observe/server.ts';
import type { Source } from '../source/source.ts';
import { Controller } from './controller.ts';
import { DeviceFollower } from './devices.ts';
import type { Health } from './health.ts';
import { healthz } from './health.ts';
import { watchForKubeProxy } from './kube-proxy.ts';
import { agentMetrics, watchMetrics } from './metrics.ts';
import { nodeAddresses, nodePortAddresses } from './node.ts';
import { Problems } from './problems.ts';

/**
 * Runs until SIGTERM or SIGINT; what is pinned stays and goes on.
 * @param file what the log should say of the --config file: it is read before there is a log.
 * @throws Error with one line when it cannot start (exit code 1).
 */
export async function runAgent(options: AgentOptions, file?: Pick<ConfigFile, 'warnings' | 'idle'>): Promise<void> {
  const log = createLog(options.logLevel, options.logFormat);
  for (const warning of file?.warnings ?? []) log.warn(warning);
  if (file !== undefined && file.idle.length > 0) log.info('these mean nothing to eBPF and have no effect', { options: file.idle.join(',') });
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
  const dataplane = Dataplane.open(
    { ...sizes(options), bpffs: options.bpffs, cgroup: cgroup ?? '', xdpMode: options.xdpMode, snatPorts: options.snatPorts },
    log,
  );
  try {
    await new Agent(options, log, metrics, source, dataplane).run(stop);
  } finally {
    dataplane.close();
  }
}

/** The running parts of one agent. */
class Agent {
  readonly #options: AgentOptions;
  readonly #log: Log;
  readonly #source: Source;
  readonly #dataplane: Dataplane;
  readonly #model: Model;
  readonly #controller: Controller;
  readonly #cutter: Cutter;
  readonly #metrics: Metrics;
  readonly #health: Health = { synced: 0, failingSince: 0 };
  #node: Node | undefined;
  #addresses: readonly Address[] = [];
  readonly #problems: Problems;

  constructor(options: AgentOptions, log: Log, metrics: Metrics, source: Source, dataplane: Dataplane) {
    this.#options = options;
    this.#log = log;
    this.#metrics = metrics;
    this.#source = source;
    this.#dataplane = dataplane;
    this.#model = new Model(this.#facts([]));
    const observed = agentMetrics(this.#metrics, this.#model, dataplane, () => this.#controller.usage);
    this.#problems = new Problems(log, metrics);
    this.#cutter = dataplane.cutter(log, (sockets) => observed.cuts.add({}, sockets));
    this.#controller = new Controller({
      model: this.#model,
      maps: dataplane,
      problems: this.#problems,
      log,
      onNode: (name, node) => {
        if (name === options.nodeName) this.#node = node;
      },
      onWrites: (writes) => this.#cutter.after(writes),
      onSync: (seconds) => {
        observed.syncs.observe(seconds);
        this.#health.synced = Date.now();
        this.#health.failingSince = 0;
        dataplane.synced(this.#health.synced);
      },
      onFailure: () => {
        observed.failures.add();
        this.#health.failingSince ||= Date.now();
      },
    });
  }

  /** Runs until `stop` aborts, or a part fails for good: then it aborts `stop` and throws. */
  async run(stop: AbortController): Promise<void> {
    const { nodeName, healthzBindAddress, metricsBindAddress } = this.#options;
    this.#log.info('starting', { version: version().version, node: nodeName, source: this.#source.name, bpffs: this.#options.bpffs });
    const started = Date.now();
    const describe = () => this.#dataplane.describe({ nodeName, version: version().version, source: this.#source.name, started });
    describe();
    // A cluster's address is known only when its kubeconfig has been read.
    void this.#controller.listed.then(describe);
    const health = () => healthz(this.#health, Date.now());
    const page = () => ({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: this.#metrics.render() }) as const;
    try {
      watchForKubeProxy(this.#log, this.#metrics, stop.signal);
      if (healthzBindAddress !== undefined) await serve('--healthz-bind-address', healthzBindAddress, { '/healthz': health, '/livez': health }, stop.signal);
      if (metricsBindAddress !== undefined) await serve('--metrics-bind-address', metricsBindAddress, { '/metrics': page }, stop.signal);
      await Promise.all([this.#source.run(this.#controller, stop.signal), this.#start(stop.signal)]);
    } finally {
      stop.abort();
      this.#controller.stop();
      await this.#cutter.stop();
    }
  }

  /** Once all is listed: learn the node's addresses, write the maps, and only then attach to them. */
  async #start(signal: AbortSignal): Promise<void> {
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    await Promise.race([this.#controller.listed, aborted]);
    if (signal.aborted) return;
    const interfaces = native.interfaces();
    this.#addresses = nodeAddresses(this.#options.nodeIp, this.#node, interfaces);
    if (this.#addresses.length === 0) throw new Error('no address of this node is known: give --node-ip, or a Node object with status.addresses');
    for (const line of shortcomings(this.#options.snatPorts, this.#addresses.map(familyOf), readSettings())) this.#log.warn(line);
    this.#model.setFacts(this.#facts(nodePortAddresses(this.#options.nodeportAddresses, this.#addresses, interfaces)));
    this.#controller.start();
    await Promise.race([this.#controller.firstSync, aborted]);
    if (signal.aborted) return;
    this.#follower().start(signal);
    this.#cutter.soon();
    const { services, slices, endpoints } = this.#model.counts;
    // Most of what was read to start is not needed again, and counts as ours while it is resident.
    native.releaseCode();
    this.#log.info('serving', { services, slices, endpoints, nodeIp: this.#addresses.join(',') });
    await aborted;
  }

  #follower(): DeviceFollower {
    const { devices, podDevices } = this.#options;
    const choice = { names: devices, nodeIps: this.#addresses, podDevices };
    return new DeviceFollower(choice, { dataplane: this.#dataplane, log: this.#log, problems: this.#problems, metrics: this.#metrics });
  }

  #facts(nodePorts: readonly Address[]) {
    const { nodeName, localhostNodeports, algorithm } = this.#options;
    return {
      name: nodeName,
      zone: '',
      nodePortAddresses: nodePorts,
      localhostNodePorts: localhostNodeports,
      defaultAlgorithm: algorithm,
      nodeAddresses: this.#addresses,
      detectLocal: { by: 'ranges', ranges: this.#options.clusterCidr } as const,
      ownLbIps: false,
      vipPing: true,
      allowExternalIPs: true,
    };
  }
}

function sizes(options: AgentOptions) {
  const { maxServices, maxFrontends, maxBackends, ringSlots, maxFlows, maxAffinity, maxDevices } = options;
  return { capacity: { services: maxServices, frontends: maxFrontends, backends: maxBackends, ringSlots }, maxFlows, maxAffinity, maxDevices };
}

/** Each source is imported when it is the one: neither pays for the other. */
async function createSource(options: AgentOptions, log: Log, metrics: Metrics): Promise<Source> {
  if (options.source === 'manifests') {
    const { ManifestsSource } = await import('../source/manifests/manifests.ts');
    return new ManifestsSource(options.manifests, { log });
  }
  const { KubernetesSource } = await import('../source/kubernetes/kubernetes.ts');
  const kubeconfig = options.kubeconfig === '' ? {} : { kubeconfig: options.kubeconfig };
  return new KubernetesSource({ ...kubeconfig, nodeName: options.nodeName, log, observer: watchMetrics(metrics) });
}

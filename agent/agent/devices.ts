/** Keeps the programs on this node's devices, as these come and go. */
import native from '../../native/index.js';
import type { Interface } from '../../native/index.js';
import type { Attached } from '../dataplane/dataplane.ts';
import type { DeviceChoice } from '../dataplane/devices.ts';
import { chooseDevices } from '../dataplane/devices.ts';
import type { Problem } from '../model/problem.ts';
import type { Log } from '../observe/log.ts';
import type { Metrics } from '../observe/metrics.ts';
import type { Dataplane } from '../dataplane/dataplane.ts';
import type { Problems } from './problems.ts';

/** The pause after a look at the devices: a pod that starts makes a dozen changes, one after the other. */
const PAUSE_MS = 10;

/** How often all links are looked at, for those that somebody else took away. */
const RECHECK_MS = 30_000;

export interface FollowerOptions {
  readonly dataplane: Pick<Dataplane, 'attach'>;
  readonly log: Log;
  readonly problems: Problems;
  readonly metrics: Metrics;
}

export class DeviceFollower {
  readonly #options: FollowerOptions;
  readonly #choose: (interfaces: readonly Interface[]) => DeviceChoice;
  #attached: Attached = { devices: [], problems: [], pending: 0 };
  /** What the log said last of uplinks and tunnels. */
  #told = '';
  #waiting: NodeJS.Timeout | undefined;
  #changed = false;
  #stopped = false;

  /** @param choose says what is attached to, each time the devices are looked at. */
  constructor(choose: (interfaces: readonly Interface[]) => DeviceChoice, options: FollowerOptions) {
    this.#choose = choose;
    this.#options = options;
    options.metrics.gauge('maglane_devices', 'Devices with programs, by what they lead to and how the programs run.', () => this.#counts());
  }

  /**
   * Attaches, and goes on doing so at each change until `signal` aborts. A change is followed within milliseconds; a
   * burst of them costs one look every PAUSE_MS.
   * @throws BpfError when the kernel refuses at once; later that is logged and tried again.
   */
  start(signal: AbortSignal): void {
    // Watching begins before the first look, so that nothing is missed in between.
    const unwatch = native.watchInterfaces(() => this.look());
    try {
      this.#attach(true);
    } catch (error) {
      unwatch();
      throw error;
    }
    const timer = setInterval(() => this.#attachAgain(true), RECHECK_MS);
    signal.addEventListener(
      'abort',
      () => {
        // What is queued on the event loop already must find nothing to do: the dataplane is closed then.
        this.#stopped = true;
        unwatch();
        clearInterval(timer);
        clearTimeout(this.#waiting);
      },
      { once: true },
    );
  }

  /** Looks at the devices, now or within PAUSE_MS: something has changed. */
  look(): void {
    this.#changed = true;
    if (this.#stopped || this.#waiting !== undefined) return;
    this.#changed = false;
    this.#attachAgain(false);
    this.#waiting = setTimeout(() => {
      this.#waiting = undefined;
      if (this.#changed) this.look();
    }, PAUSE_MS);
  }

  #attachAgain(recheck: boolean): void {
    try {
      this.#attach(recheck);
    } catch (error) {
      this.#options.log.error('cannot attach to the devices; will try again', { error: String(error) });
    }
  }

  #attach(recheck: boolean): void {
    const { dataplane, log, problems } = this.#options;
    const interfaces = native.interfaces();
    const choice = this.#choose(interfaces);
    const chosen = chooseDevices(interfaces, choice);
    this.#attached = dataplane.attach(chosen.wanted, choice.nodeIps, recheck);
    problems.set('devices', 'devices', [
      ...chosen.missing.map((name) => deviceProblem(name, 'is not there: it is attached to once it is')),
      ...chosen.unfit.map((name) => deviceProblem(name, 'has no Ethernet headers and gets no programs: Services are not served to what comes in there')),
      ...this.#attached.problems,
    ]);
    const others = this.#attached.devices.filter(({ pod }) => !pod);
    const told = others.map(({ name, mode }) => `${name}=${mode}`).join(' ');
    if (told !== this.#told) log.info('devices', { attached: told, pods: this.#attached.devices.length - others.length });
    this.#told = told;
    if (this.#attached.pending > 0) setImmediate(() => this.look());
  }

  #counts(): [{ leads_to: string; mode: string }, number][] {
    const counts = Map.groupBy(this.#attached.devices, ({ pod, tunnel, mode }) => `${pod ? 'pod' : tunnel ? 'tunnel' : 'outside'} ${mode}`);
    return [...counts].map(([key, devices]) => {
      const [leadsTo = '', mode = ''] = key.split(' ');
      return [{ leads_to: leadsTo, mode }, devices.length];
    });
  }
}

function deviceProblem(name: string, message: string): Problem {
  return { object: `device ${name}`, field: '', value: '', message, reason: 'device' };
}

/** What the maps say, for people and metrics: read-only, and with the agent dead just as well. */
import native from '../../native/index.js';
import type { Held } from '../plan/held.ts';
import type { AttachedDevice } from './device-map.ts';
import { attachedDevices } from './device-map.ts';
import { ABI_VERSION, agentInfoCodec, backendCodec, counterCodec, ReasonName, REASONS } from './generated/abi.ts';
import type { FlowReading } from './flows.ts';
import { readFlows } from './flows.ts';
import { agentPid } from './lock.ts';
import { Maps } from './maps.ts';
import { openSockets } from './recount.ts';

/** What the agent said of itself; times in ms since the epoch, 0: never. */
export interface AgentState {
  readonly nodeName: string;
  readonly version: string;
  readonly source: string;
  readonly pid: number;
  readonly started: number;
  readonly synced: number;
  readonly abiVersion: number;
  readonly running: boolean;
}

export interface CounterReading {
  /** Of enum reason, in lower case: "new_local". */
  readonly reason: string;
  readonly packets: number;
  readonly bytes: number;
}

export interface MapFill {
  readonly name: string;
  readonly entries: number;
  readonly maxEntries: number;
}

/** Maps with a bound that someone may run into. */
const BOUNDED = ['frontends', 'services', 'backends', 'ring', 'source_ranges', 'peers', 'flows', 'affinity', 'udp_peers', 'devices'];

/**
 * Opens the pins of a folder.
 * @throws Error with one line when there are none, or they are of another ABI.
 */
export function openView(bpffs: string): View {
  const maps = Maps.openPins(`${bpffs}/maps`);
  try {
    if (maps.names.length === 0) throw new Error(`nothing is pinned under ${bpffs}/maps: has an agent run with this --bpffs?`);
    const view = new View(maps, bpffs);
    const { abiVersion } = view.agent();
    if (abiVersion !== 0 && abiVersion !== ABI_VERSION)
      throw new Error(`the maps under ${bpffs}/maps have ABI ${abiVersion}, this maglane reads ${ABI_VERSION}: use the maglane of the agent that made them`);
    return view;
  } catch (error) {
    maps.close();
    throw error;
  }
}

export class View implements Disposable {
  readonly #maps: Maps;
  readonly #bpffs: string;

  constructor(maps: Maps, bpffs: string) {
    this.#maps = maps;
    this.#bpffs = bpffs;
  }

  /** Services, frontends and backends. */
  read(): Held {
    return this.#maps.read();
  }

  /** Flows and sockets that chose this backend since its slot was filled. */
  connections(backend: number): number {
    const bytes = this.#maps.from('backends', backend * backendCodec.size);
    return Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(backendCodec.offsets.connections, true));
  }

  /** Connected sockets that have this backend now. */
  openSockets(backend: number): number {
    return openSockets(this.#maps, backend);
  }

  /** One for each reason, summed over the CPUs. */
  counters(): CounterReading[] {
    const perReason = counterCodec.size * native.possibleCpus();
    const { values } = native.mapEntries(this.#maps.fd('counters'));
    return Array.from({ length: REASONS }, (_, reason) => {
      const reading = { reason: ReasonName[reason] ?? '', packets: 0, bytes: 0 };
      for (let at = reason * perReason; at < (reason + 1) * perReason; at += counterCodec.size) {
        const { packets, bytes } = counterCodec.read(values, at);
        reading.packets += Number(packets);
        reading.bytes += Number(bytes);
      }
      return reading;
    });
  }

  /** Connection tracking of the packet path. Reads the map whole. */
  flows(): FlowReading[] {
    return readFlows(this.#maps);
  }

  devices(): AttachedDevice[] {
    return attachedDevices(this.#maps);
  }

  agent(): AgentState {
    const info = agentInfoCodec.read(this.#maps.memory('agent'));
    const holder = agentPid(this.#bpffs);
    return {
      ...info,
      pid: holder === undefined || holder === 0 ? info.pid : holder,
      started: Number(info.started),
      synced: Number(info.synced),
      running: holder !== undefined,
    };
  }

  /** How full each bounded map is; backends and ring count what is in use. Reads the maps whole: not for every second. */
  maps(): MapFill[] {
    const held = this.read();
    const slots = held.services.flatMap(({ cluster, local }) => [cluster, local]).reduce((sum, { count, table }) => sum + count + table, 0);
    return BOUNDED.map((name) => {
      if (name === 'ring') return { name, entries: slots, maxEntries: held.capacity.ringSlots };
      if (name === 'backends') return { name, entries: held.backends.length, maxEntries: held.capacity.backends };
      return this.fill(name);
    });
  }

  /** How full one hash map is. */
  fill(name: string): MapFill {
    return { name, entries: native.mapCount(this.#maps.fd(name)), maxEntries: this.#maps.info(name).maxEntries };
  }

  /** Lets go of the maps. */
  [Symbol.dispose](): void {
    this.#maps.close();
  }
}

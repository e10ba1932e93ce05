/**
 * The kernel's side of the agent: its object, its pinned maps and links. Everything here outlives the
 * process; an agent that starts takes over what it finds, and changes programs in place.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import native from '../../native/index.js';
import type { BpfObject } from '../../native/index.d.ts';
import type { Address } from '../model/address.ts';
import type { Held, Write } from '../plan/held.ts';
import type { Adopted, MapSizes } from './adopt.ts';
import { loadWithPins, setSizes } from './adopt.ts';
import type { Attached, Logger } from './attach.ts';
import { Attachments } from './attach.ts';
import { Cutter } from './cut.ts';
import type { WantedDevice, XdpMode } from './devices.ts';
import { ABI_VERSION, agentInfoCodec, CONFIG_OFFSET, configCodec } from './generated/abi.ts';
import { explainLoadError } from './load-error.ts';
import { lockFolder } from './lock.ts';
import { openSockets, Recounter } from './recount.ts';
import { View } from './view.ts';
import { executeWrites } from './write.ts';

export type { Attached } from './attach.ts';
export type { AttachedDevice } from './device-map.ts';

export interface DataplaneOptions extends MapSizes {
  /** Folder on a bpffs, made when it is not there. */
  readonly bpffs: string;
  /** Folder on a cgroup2. */
  readonly cgroup: string;
  readonly xdpMode: XdpMode;
  /** Source ports reserved for what is sent on. */
  readonly snatPorts: { readonly min: number; readonly max: number };
  /** UDP port at which nodes take what they send each other as it is; 0: they send nothing so. */
  readonly dsrPort: number;
  /** The compiled programs. Default: $MAGLANE_OBJECT, else beside this module, else build/ of the source tree. */
  readonly object?: string;
}

/** What the agent says of itself. */
export interface AgentDescription {
  readonly nodeName: string;
  readonly version: string;
  readonly source: string;
  /** ms since the epoch. */
  readonly started: number;
}

export class Dataplane {
  readonly #options: DataplaneOptions;
  readonly #lock: number;
  readonly #object: BpfObject;
  readonly #adopted: Adopted;
  readonly #attachments: Attachments;

  private constructor(options: DataplaneOptions, lock: number, object: BpfObject, adopted: Adopted, log: Logger) {
    this.#options = options;
    this.#lock = lock;
    this.#object = object;
    this.#adopted = adopted;
    this.#attachments = new Attachments(object, adopted.maps, `${options.bpffs}/links`, options.xdpMode, log);
  }

  /**
   * Locks the folder, loads the programs, takes over the maps that fit or makes new ones. Nothing that runs changes
   * before `attach`. The event loop is free while the kernel verifies the programs.
   * @throws Error with one line: another agent runs there, or the kernel refuses.
   */
  static async open(options: DataplaneOptions, log: Logger): Promise<Dataplane> {
    mkdirSync(`${options.bpffs}/links`, { recursive: true });
    const lock = lockFolder(options.bpffs, 'stop it, or give this one a --bpffs of its own');
    let object: BpfObject | undefined;
    try {
      object = native.open(options.object ?? findObject());
      setSizes(object, options);
      setConfig(object, options);
      const adopted = await loadWithPins(object, options.bpffs);
      tellReplaced(adopted, log);
      return new Dataplane(options, lock, object, adopted, log);
    } catch (error) {
      object?.close();
      native.close(lock);
      throw explainLoadError(error);
    }
  }

  /** What the maps hold now. */
  read(): Held {
    return this.#adopted.maps.read();
  }

  /**
   * Executes a plan's writes, in order.
   * @throws BpfError, naming the map: then read again and plan anew.
   */
  execute(writes: readonly Write[]): void {
    executeWrites(this.#adopted.maps, writes);
  }

  /**
   * Attaches to the cgroup and to exactly these devices, or updates what is attached; what stands is left alone. To be
   * called once the first plan is executed, and again when devices change.
   * @param nodeIps sources of what is sent back into a pod that it came from.
   * @param recheck looks at all links anew; otherwise only at those of devices that were not here the last time.
   * @throws BpfError when the kernel refuses anything but XDP on an uplink or a tunnel.
   */
  attach(wanted: readonly WantedDevice[], nodeIps: readonly Address[], recheck = true): Attached {
    const attached = this.#attachments.attach(this.#options.cgroup, wanted, nodeIps, recheck);
    if (attached.pending === 0) this.#adopted.flip();
    return attached;
  }

  /** Leaves word of this agent for the commands. */
  describe({ nodeName, version, source, started }: AgentDescription): void {
    const memory = this.#adopted.maps.memory('agent');
    const { synced } = agentInfoCodec.read(memory);
    agentInfoCodec.write({ abiVersion: ABI_VERSION, pid: process.pid, started: BigInt(started), synced, nodeName, version, source }, memory);
  }

  /** Leaves word of a complete write. @param at ms since the epoch. */
  synced(at: number): void {
    const memory = this.#adopted.maps.memory('agent');
    new DataView(memory.buffer).setBigUint64(agentInfoCodec.offsets.synced, BigInt(at), true);
  }

  /** Cuts connected UDP sockets loose from backends that are gone; to be stopped before this dataplane is closed. */
  cutter(log: Logger, onCut: (sockets: number) => void): Cutter {
    return new Cutter({ maps: this.#adopted.maps, iterator: this.#object.programFd('mg_udp_dialled'), cgroup: this.#options.cgroup, log, onCut });
  }

  /** Sockets that have this backend open, as the hooks have counted. */
  openSockets(backend: number): number {
    return openSockets(this.#adopted.maps, backend);
  }

  /** Corrects the counts of open sockets now and then; to be stopped before this dataplane is closed. */
  recounter(log: Logger): Recounter {
    return new Recounter(this.#adopted.maps, this.#object.programFd('mg_find_open'), log);
  }

  /** The same reading as the commands'; ends with this dataplane, not to be closed. */
  view(): View {
    return new View(this.#adopted.maps, this.#options.bpffs);
  }

  /** Gives up descriptors and the lock; what is pinned stays and goes on. */
  close(): void {
    this.#adopted.maps.close();
    this.#object.close();
    native.close(this.#lock);
  }
}

/** The compiled programs stand beside the bundle, or in build/ of the source tree. */
function findObject(): string {
  const given = process.env['MAGLANE_OBJECT'];
  if (given !== undefined) return given;
  const beside = fileURLToPath(new URL('./maglane.bpf.o', import.meta.url));
  return existsSync(beside) ? beside : fileURLToPath(new URL('../../build/maglane.bpf.o', import.meta.url));
}

function setConfig(object: BpfObject, { snatPorts, dsrPort }: DataplaneOptions): void {
  const rodata = object.rodata();
  configCodec.write({ hostNetns: native.netnsCookie(), snatMin: snatPorts.min, snatMax: snatPorts.max, dsrPort }, rodata, CONFIG_OFFSET);
  object.setRodata(rodata);
}

function tellReplaced({ copied, lost }: Adopted, log: Logger): void {
  if (copied.length + lost.length === 0) return;
  log.warn('pinned maps of another size or layout are replaced', { copied: copied.join(','), lost: lost.join(',') });
}

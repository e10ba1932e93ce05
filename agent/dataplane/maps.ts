/** Open maps by name, and what they hold. The agent and the commands read them alike. */
import { readdirSync } from 'node:fs';
import native from '../../native/index.js';
import type { MapInfo } from '../../native/index.d.ts';
import type { DesiredAddress } from '../model/desired.ts';
import type { Held, HeldBackend, HeldFrontend, HeldService, HeldSourceRange, SetRegion } from '../plan/held.ts';
import { backendCodec, frontendCodec, frontendKeyCodec, nodeCodec, RING_CHUNK, SERVICE_CIDRS_MAX, serviceCodec, sourceRangeKeyCodec } from './generated/abi.ts';
import { fromAddress, fromBackend, fromFrontend, fromNode, fromService, fromSourceRange } from './records.ts';

/** u32 words of a backend slot, and the one that holds its service. */
const BACKEND_WORDS = backendCodec.size / 4;
const SERVICE_WORD = backendCodec.offsets.service / 4;

export class Maps {
  readonly #fds: ReadonlyMap<string, number>;
  readonly #memory = new Map<string, Uint8Array>();

  /** @param fds by map name; closed by `close`. */
  constructor(fds: ReadonlyMap<string, number>) {
    this.#fds = fds;
  }

  /** Opens all pins of a folder; none when there is no such folder. */
  static openPins(folder: string): Maps {
    const fds = new Map<string, number>();
    for (const name of namesIn(folder)) {
      const fd = native.openPin(`${folder}/${name}`);
      if (fd !== undefined) fds.set(name, fd);
    }
    return new Maps(fds);
  }

  get names(): readonly string[] {
    return [...this.#fds.keys()];
  }

  has(name: string): boolean {
    return this.#fds.has(name);
  }

  /** @throws Error when there is no such map. */
  fd(name: string): number {
    const fd = this.#fds.get(name);
    if (fd === undefined) throw new Error(`the map ${name} is not there`);
    return fd;
  }

  info(name: string): MapInfo {
    return native.mapInfo(this.fd(name));
  }

  /** An mmap-ed array: reading and writing it costs what memory does. */
  memory(name: string): Uint8Array {
    let memory = this.#memory.get(name);
    if (memory === undefined) {
      memory = new Uint8Array(native.mapMmap(this.fd(name)));
      this.#memory.set(name, memory);
    }
    return memory;
  }

  /** The ring as one array of backend ids; what lies beyond its size belongs to no region. */
  get ring(): Uint32Array {
    return wordsOf(this.memory('ring'));
  }

  /** What the maps of the plan hold. */
  read(): Held {
    const ring = this.ring;
    return {
      capacity: {
        services: this.info('services').maxEntries,
        frontends: this.info('frontends').maxEntries,
        backends: this.info('backends').maxEntries,
        ringSlots: this.info('ring').maxEntries * RING_CHUNK,
        sourceRanges: this.info('source_ranges').maxEntries,
        serviceCidrs: SERVICE_CIDRS_MAX,
      },
      services: this.#services(),
      ...this.#frontends(),
      sourceRanges: this.#sourceRanges(),
      node: fromNode(nodeCodec.read(this.memory('node'))),
      backends: this.#backends(),
      members: ({ base, count }: SetRegion) => ring.slice(base, base + count),
    };
  }

  close(): void {
    for (const fd of this.#fds.values()) native.close(fd);
    this.#memory.clear();
  }

  #services(): HeldService[] {
    const { keys, values, count } = native.mapEntries(this.fd('services'));
    const ids = wordsOf(keys);
    return Array.from({ length: count }, (_, i) => fromService(ids[i] ?? 0, serviceCodec.read(values, i * serviceCodec.size)));
  }

  /** One map holds both. */
  #frontends(): { frontends: HeldFrontend[]; addresses: DesiredAddress[] } {
    const { keys, values, count } = native.mapEntries(this.fd('frontends'));
    const frontends: HeldFrontend[] = [];
    const addresses: DesiredAddress[] = [];
    for (let i = 0; i < count; i++) {
      const [key, value] = [frontendKeyCodec.read(keys, i * frontendKeyCodec.size), frontendCodec.read(values, i * frontendCodec.size)];
      const address = fromAddress(key, value);
      if (address === undefined) frontends.push(fromFrontend(key, value));
      else addresses.push(address);
    }
    return { frontends, addresses };
  }

  #sourceRanges(): HeldSourceRange[] {
    const { keys, count } = native.mapEntries(this.fd('source_ranges'));
    return Array.from({ length: count }, (_, i) => fromSourceRange(sourceRangeKeyCodec.read(keys, i * sourceRangeKeyCodec.size)));
  }

  /** Most slots are empty: only the service is looked at until one is not. */
  #backends(): HeldBackend[] {
    const bytes = this.memory('backends');
    const words = wordsOf(bytes);
    const held: HeldBackend[] = [];
    for (let id = 1; (id + 1) * BACKEND_WORDS <= words.length; id++) {
      if (words[id * BACKEND_WORDS + SERVICE_WORD] !== 0) held.push(fromBackend(id, backendCodec.read(bytes, id * backendCodec.size)));
    }
    return held;
  }
}

/** Names in a folder; none when it is not there. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Bytes as u32 words in host order, copied only where their place in memory asks for it. */
export function wordsOf(bytes: Uint8Array): Uint32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Uint32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength >> 2);
}

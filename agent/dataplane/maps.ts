/** Open maps by name, and what they hold. The agent and the commands read them alike. */
import { readdirSync } from 'node:fs';
import native from '../../native/index.js';
import type { MapInfo } from '../../native/index.d.ts';
import type { Address } from '../model/address.ts';
import { readAddress } from '../model/address.ts';
import type { DesiredAddress } from '../model/desired.ts';
import type { Held, HeldBackend, HeldFrontend, HeldService, HeldSourceRange, SetRegion } from '../plan/held.ts';
import { backendCodec, frontendCodec, frontendKeyCodec, nodeCodec, RING_CHUNK, SERVICE_CIDRS_MAX, serviceCodec, sourceRangeKeyCodec } from './generated/abi.ts';
import { Window } from './window.ts';
import { fromAddress, fromBackend, fromFrontend, fromNode, fromService, fromSourceRange, NO_ADDRESS } from './records.ts';

/** u32 words of a backend slot, and the one that holds its service. */
const BACKEND_WORDS = backendCodec.size / 4;
const SERVICE_WORD = backendCodec.offsets.service / 4;

/** Of a struct addr. */
const ADDRESS_BYTES = 16;
const NO_BYTES = new Uint8Array();

export class Maps {
  readonly #fds: ReadonlyMap<string, number>;
  readonly #memory = new Map<string, Uint8Array>();
  readonly #windows = new Map<string, Window>();

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

  /** A small mmap-ed array: reading and writing it costs what memory does. */
  memory(name: string): Uint8Array {
    let memory = this.#memory.get(name);
    if (memory === undefined) {
      memory = new Uint8Array(native.mapMmap(this.fd(name)));
      this.#memory.set(name, memory);
    }
    return memory;
  }

  /** A large mmap-ed array, as `Window.from` shows it: from `offset` on, for now. */
  from(name: string, offset: number): Uint8Array {
    let window = this.#windows.get(name);
    if (window === undefined) {
      window = new Window(this.fd(name));
      this.#windows.set(name, window);
    }
    return window.from(offset);
  }

  /** All of a large mmap-ed array, stretch by stretch; each is to be used before the next. */
  *stretches(name: string): Generator<{ readonly offset: number; readonly bytes: Uint8Array }> {
    for (let offset = 0, next = 0; ; offset = next) {
      const bytes = this.from(name, offset);
      if (bytes.length === 0) return;
      next = offset + bytes.length;
      yield { offset, bytes };
    }
  }

  /** Slots of the ring from `base` on; fewer than `count` at its end. */
  readRing(base: number, count: number): Uint32Array {
    const slots = new Uint32Array(count);
    let done = 0;
    for (const words of this.#ring(base, count)) {
      slots.set(words, done);
      done += words.length;
    }
    return slots.subarray(0, done);
  }

  writeRing(base: number, slots: Uint32Array): void {
    let done = 0;
    for (const words of this.#ring(base, slots.length)) {
      words.set(slots.subarray(done, done + words.length));
      done += words.length;
    }
  }

  *#ring(base: number, count: number): Generator<Uint32Array> {
    for (let done = 0; done < count;) {
      const bytes = this.from('ring', 4 * (base + done));
      if (bytes.length === 0) return;
      const words = wordsOf(bytes).subarray(0, count - done);
      yield words;
      done += words.length;
    }
  }

  /** What the maps of the plan hold. */
  read(): Held {
    return {
      capacity: {
        services: this.info('services').maxEntries,
        frontends: this.info('frontends').maxEntries,
        backends: this.info('backends').maxEntries,
        ringSlots: this.info('ring').maxEntries * RING_CHUNK,
        sourceRanges: this.info('source_ranges').maxEntries,
        serviceCidrs: SERVICE_CIDRS_MAX,
        peers: this.has('peers') ? this.info('peers').maxEntries : 0,
      },
      services: this.#services(),
      ...this.#frontends(),
      sourceRanges: this.#sourceRanges(),
      node: fromNode(nodeCodec.read(this.memory('node'))),
      peers: this.#peers(),
      backends: this.#backends(),
      members: ({ base, count }: SetRegion) => this.readRing(base, count),
    };
  }

  close(): void {
    for (const fd of this.#fds.values()) native.close(fd);
    this.#memory.clear();
    for (const window of this.#windows.values()) window.close();
    this.#windows.clear();
  }

  /** In the order of their sets, so that whoever reads those goes through the ring once. */
  #services(): HeldService[] {
    const { keys, values, count } = native.mapEntries(this.fd('services'));
    const ids = wordsOf(keys);
    const services = Array.from({ length: count }, (_, i) => fromService(ids[i] ?? 0, serviceCodec.read(values, i * serviceCodec.size)));
    return services.sort((a, b) => a.cluster.base - b.cluster.base);
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

  #peers(): Address[] {
    if (!this.has('peers')) return [];
    const { keys, count } = native.mapEntries(this.fd('peers'));
    return Array.from({ length: count }, (_, i) => readAddress(keys, i * ADDRESS_BYTES));
  }

  /** Most slots are empty: only the service is looked at until one is not. */
  #backends(): HeldBackend[] {
    const held: HeldBackend[] = [];
    for (const { offset, bytes } of this.stretches('backends')) {
      const words = wordsOf(bytes);
      for (let at = 0; at < words.length; at += BACKEND_WORDS) {
        const id = (offset / 4 + at) / BACKEND_WORDS;
        if (words[at + SERVICE_WORD] !== 0 && id !== 0) held.push(fromBackend(id, backendCodec.read(bytes, 4 * at), (hosted) => this.#hostOf(hosted)));
      }
    }
    return held;
  }

  /** Where nothing is sent on as it is, the map is too small to say: then what a backend's flags say is an earlier agent's. */
  #hostOf(backend: number): Address {
    const bytes = this.has('hosts') ? this.from('hosts', backend * ADDRESS_BYTES) : NO_BYTES;
    return bytes.length === 0 ? NO_ADDRESS : readAddress(bytes, 0);
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

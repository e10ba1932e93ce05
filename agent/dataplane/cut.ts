/**
 * Cuts connected UDP sockets loose: those that came through the hooks to a backend which their VIP does not lead to any
 * more. Nothing else would ever tell such a socket: its datagrams go where connect() decided. Its owner hears ECONNABORTED
 * and connects again. What dialled a pod directly has no entry in `sock_peers`, and is never touched; TCP neither.
 */
import native from '../../native/index.js';
import type { BpfError } from '../../native/index.d.ts';
import type { Address } from '../model/address.ts';
import type { Write } from '../plan/held.ts';
import type { Logger } from './attach.ts';
import type { SockPeer } from './generated/abi.ts';
import { BackendFlag, backendCodec, frontendCodec, frontendKeyCodec, serviceCodec, sockIdCodec, udpDialledCodec } from './generated/abi.ts';
import type { Maps } from './maps.ts';
import { wordsOf } from './maps.ts';
import { findNamespaces } from './namespaces.ts';
import { fromService, toFrontendKey } from './records.ts';

/** Passes at a time: the kernel's listing moves while it is read, so that one which cut something is followed by another. */
const PASSES = 5;
/** Bytes of the kernel's listing in one reading. A longer one goes on by counting, and misses a socket for each that was closed meanwhile. */
const READING = 32_768;
/** What changes together is cut together. */
const WAIT_MS = 20;
/** Of the time, at most one part in so many goes into cutting. */
const SHARE = 10;

export interface CutterOptions {
  readonly maps: Maps;
  /** The iterator mg_udp_dialled. */
  readonly iterator: number;
  /** The folder that the socket hooks are attached to. */
  readonly cgroup: string;
  readonly log: Logger;
  /** Told how many sockets were cut, whenever some were. */
  readonly onCut: (sockets: number) => void;
}

export class Cutter {
  readonly #options: CutterOptions;
  readonly #maps: Maps;
  readonly #told = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  /** Something changed while a pass was under way. */
  #again = false;
  #stopped = false;

  constructor(options: CutterOptions) {
    this.#options = options;
    this.#maps = options.maps;
  }

  /** Cuts soon, if these writes can have left a connected UDP socket without its backend. */
  after(writes: readonly Write[]): void {
    const known = new Map<number, boolean>();
    const isUdp = (service: number): boolean => {
      const is = known.get(service) ?? this.#isUdp(service);
      known.set(service, is);
      return is;
    };
    if (writes.some((write) => loosens(write, isUdp))) this.soon();
  }

  /** Cuts soon whatever has lost its backend; also what was missed while no agent ran. */
  soon(): void {
    if (this.#stopped || this.#timer !== undefined) return;
    if (this.#running === undefined) this.#schedule(WAIT_MS);
    else this.#again = true;
  }

  /** Resolves when nothing is under way any more; the maps must stay open until then. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  #schedule(wait: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const started = performance.now();
      this.#running = this.#cut()
        .catch((error: unknown) => void this.#tell(error))
        .finally(() => {
          this.#running = undefined;
          if (this.#again && !this.#stopped) this.#schedule(WAIT_MS + (SHARE - 1) * (performance.now() - started));
          this.#again = false;
        });
    }, wait);
    this.#timer.unref();
  }

  async #cut(): Promise<void> {
    for (let pass = 0; pass < PASSES && !this.#stopped; pass++) {
      const dialled = await native.iterate(this.#options.iterator, this.#maps.fd('sock_peers'));
      if (this.#stopped) return;
      const loose = this.#looseOf(dialled);
      const cut = loose.length === 0 ? 0 : await this.#end(loose);
      if (cut > 0) this.#options.onCut(cut);
      else if (pass > 0 || dialled.length < READING) return;
    }
  }

  /** Ends sockets, one namespace after the other. @returns how many there were. */
  async #end(records: readonly Uint8Array[]): Promise<number> {
    const { netns, id } = udpDialledCodec.offsets;
    const byNamespace = Map.groupBy(records, (record) => new DataView(record.buffer, record.byteOffset).getUint32(netns, true));
    const namespaces = await findNamespaces(this.#options.cgroup);
    let ended = 0;
    for (const [inode, inside] of byNamespace) {
      if (!namespaces.has(inode)) {
        this.#tell(new Error('their network namespace is not in sight: /run/netns of the host, or hostPID with CAP_SYS_PTRACE, would show it'));
        continue;
      }
      const ids = Buffer.concat(inside.map((record) => record.subarray(id, id + sockIdCodec.size)));
      ended += await native.destroyUdp(ids, namespaces.get(inode)).catch((error: BpfError) => this.#tell(error));
    }
    return ended;
  }

  /**
   * Those of the iterator's records whose VIP leads to a service without such a serving backend, or to none. By address, not
   * by id: an endpoint that came back under another id, or whose Service was made anew, is the same for its socket.
   */
  #looseOf(dialled: Uint8Array): Uint8Array[] {
    const bytes = Buffer.from(dialled.buffer, dialled.byteOffset, dialled.byteLength);
    const records = Array.from({ length: bytes.length / udpDialledCodec.size }, (_, i) =>
      bytes.subarray(i * udpDialledCodec.size, (i + 1) * udpDialledCodec.size),
    );
    // Thousands of sockets may have come from one VIP to one backend: what is judged is that pair.
    const byPeer = Map.groupBy(records, (record) => record.toString('latin1', udpDialledCodec.offsets.peer));
    const suspects = [...byPeer.values()].flatMap((alike) => {
      const { peer } = udpDialledCodec.read(alike[0] as Uint8Array);
      const service = this.#serviceAt(peer.vip, peer.vipPort);
      return service === peer.service && this.#serves(peer) ? [] : [{ alike, peer, service }];
    });
    if (suspects.length === 0) return [];
    const serving = this.#servingOf(new Set(suspects.map(({ service }) => service)));
    return suspects.filter(({ peer, service }) => !serving.has(`${service} ${peer.addr} ${peer.port}`)).flatMap(({ alike }) => alike);
  }

  /** The service that this UDP frontend leads to; 0: there is none. */
  #serviceAt(address: Address, port: number): number {
    const [key, value] = [new Uint8Array(frontendKeyCodec.size), new Uint8Array(frontendCodec.size)];
    frontendKeyCodec.write(toFrontendKey({ address, port, protocol: 'UDP' }), key);
    return native.mapLookup(this.#maps.fd('frontends'), key, value) ? frontendCodec.read(value).service : 0;
  }

  /** Whether the slot that the hook chose is still what it was, and serves. */
  #serves({ backend, service, addr, port }: SockPeer): boolean {
    const bytes = this.#maps.from('backends', backend * backendCodec.size);
    if (bytes.length < backendCodec.size) return false;
    const slot = backendCodec.read(bytes);
    return slot.service === service && (slot.flags & BackendFlag.SERVING) !== 0 && slot.addr === addr && slot.port === port;
  }

  /** All serving backends of these services, as "service address port". */
  #servingOf(services: ReadonlySet<number>): Set<string> {
    const serving = new Set<string>();
    const [stride, service] = [backendCodec.size / 4, backendCodec.offsets.service / 4];
    for (const { bytes } of this.#maps.stretches('backends')) {
      const words = wordsOf(bytes);
      for (let at = 0; at < words.length; at += stride) {
        const owner = words[at + service] ?? 0;
        if (owner === 0 || !services.has(owner)) continue;
        const { addr, port, flags } = backendCodec.read(bytes, 4 * at);
        if ((flags & BackendFlag.SERVING) !== 0) serving.add(`${owner} ${addr} ${port}`);
      }
    }
    return serving;
  }

  #isUdp(service: number): boolean {
    const [key, record] = [new Uint8Array(Uint32Array.of(service).buffer), new Uint8Array(serviceCodec.size)];
    return native.mapLookup(this.#maps.fd('services'), key, record) && fromService(service, serviceCodec.read(record)).protocol === 'UDP';
  }

  /** Each kind of failure once; a namespace that went away meanwhile is none. @returns 0: nothing was cut. */
  #tell(error: unknown): 0 {
    const { code, message } = error as BpfError;
    const kind = code ?? message;
    if (kind === 'ENOENT' || kind === 'ESRCH' || this.#told.has(kind)) return 0;
    this.#told.add(kind);
    this.#options.log.warn('connected UDP sockets stay with backends that are gone', { error: message });
    return 0;
  }
}

/**
 * Whether a write can leave a connected UDP socket without its backend.
 * @param isUdp of a service's id; asked only where the write does not tell.
 */
export function loosens(write: Write, isUdp: (service: number) => boolean): boolean {
  switch (write.op) {
    case 'frontend.delete':
      return write.protocol === 'UDP';
    case 'frontend.put':
      // It may have been another Service's.
      return write.frontend.protocol === 'UDP';
    case 'backend.flags':
      return !write.backend.serving && isUdp(write.backend.service);
    default:
      return false;
  }
}

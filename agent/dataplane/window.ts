/**
 * A large map seen through a window: the kernel counts every page that is mapped as memory of the process, touched or not.
 * One stretch of the map is mapped at a time; neighbours are mostly wanted after each other.
 */
import native from '../../native/index.js';

/** Bytes; a multiple of every page size and of the records that are looked at. */
const WINDOW = 1 << 20;

export class Window {
  readonly #fd: number;
  /** Bytes of the map. */
  readonly #size: number;
  #start = 0;
  #bytes = new Uint8Array();

  /** @param fd of an mmap-able array, which stays the caller's. */
  constructor(fd: number) {
    this.#fd = fd;
    const { valueSize, maxEntries } = native.mapInfo(fd);
    this.#size = Math.ceil(valueSize / 8) * 8 * maxEntries;
  }

  /**
   * The map's memory from `offset` on, as far as the window goes; to be used before the next call.
   * @returns nothing at the end of the map and behind it.
   */
  from(offset: number): Uint8Array {
    if (offset >= this.#size) return new Uint8Array();
    if (offset < this.#start || offset >= this.#start + this.#bytes.length) this.#move(offset - (offset % WINDOW));
    return this.#bytes.subarray(offset - this.#start);
  }

  /** Gives the memory back. */
  close(): void {
    if (this.#bytes.length === 0) return;
    // The mapping ends with the buffer's memory; to wait for the garbage collector would leave it mapped for hours.
    (this.#bytes.buffer as ArrayBuffer).transfer(0);
    this.#bytes = new Uint8Array();
  }

  #move(start: number): void {
    this.close();
    const length = Math.min(WINDOW, this.#size - start);
    this.#bytes = new Uint8Array(native.mapMmap(this.#fd, start, length), 0, length);
    this.#start = start;
  }
}

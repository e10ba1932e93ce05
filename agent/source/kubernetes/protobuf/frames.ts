/** Cuts a watch's byte stream into frames: a 4-byte big-endian length, then a WatchEvent. */

/** A stream that can be read no further. */
export class FrameError extends Error {
  readonly code = 'FRAME';
}

/**
 * Frames may be split anywhere. What is held is at most what arrived of one frame: the claimed length
 * is checked against the limit first and never allocated ahead.
 */
export class FrameReader {
  readonly #limit: number;
  /** The bytes of the frame under way, header included. */
  #held: Buffer[] = [];
  #heldBytes = 0;

  /** @param limit longest frame accepted, in bytes. etcd takes no object above 1.5 MiB by default. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Part of a frame has arrived, and not all of it. */
  get pending(): boolean {
    return this.#heldBytes > 0;
  }

  /**
   * Takes the next bytes of the stream.
   * @returns the frames they complete, without their headers; views of `chunk` where they lie within it.
   * @throws FrameError for a frame above the limit: no length after it can be trusted.
   */
  push(chunk: Buffer): Buffer[] {
    this.#held.push(chunk);
    this.#heldBytes += chunk.length;
    const frames: Buffer[] = [];
    for (;;) {
      const size = this.#nextSize();
      if (size === undefined || this.#heldBytes < 4 + size) return frames;
      const bytes = this.#joined();
      frames.push(bytes.subarray(4, 4 + size));
      const rest = bytes.subarray(4 + size);
      this.#held = rest.length === 0 ? [] : [rest];
      this.#heldBytes = rest.length;
    }
  }

  #nextSize(): number | undefined {
    if (this.#heldBytes < 4) return undefined;
    if ((this.#held[0]?.length ?? 0) < 4) this.#joined();
    const size = this.#held[0]?.readUInt32BE(0) ?? 0;
    if (size > this.#limit) throw new FrameError(`a watch frame of ${size} bytes, above the limit of ${this.#limit}`);
    return size;
  }

  #joined(): Buffer {
    const bytes = this.#held.length === 1 && this.#held[0] !== undefined ? this.#held[0] : Buffer.concat(this.#held);
    this.#held = [bytes];
    return bytes;
  }
}

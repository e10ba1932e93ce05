/**
 * Corrects the counts of open sockets. The hooks count every socket that a process of the cgroup connects and closes; what
 * passes them by makes a count wrong for good: a socket of the kernel itself (NFS) runs no hook when it is closed, and
 * neither does one whose hooks belonged to an agent with another cgroup or another layout of the map `sock_peers`.
 */
import native from '../../native/index.js';
import type { Logger } from './attach.ts';
import { openSocketsCodec } from './generated/abi.ts';
import type { Maps } from './maps.ts';

/** Sockets come and go while they are counted: one reading alone proves nothing. */
const READINGS = 3;
const INTERVAL_MS = 600_000;

/** Words of a record, and which they are. */
const WORDS = openSocketsCodec.size / 4;
const [COUNTED, FOUND] = [openSocketsCodec.offsets.counted / 4, openSocketsCodec.offsets.found / 4];

/** The map `open_sockets` in words. Mapped, so that it is always today's. */
function wordsIn(maps: Maps): Int32Array {
  const { buffer, byteOffset, byteLength } = maps.memory('open_sockets');
  return new Int32Array(buffer, byteOffset, byteLength >> 2);
}

/** Sockets that this backend has open, as the hooks have counted; below 0 only by a mistake. */
export function openSockets(maps: Maps, backend: number): number {
  return wordsIn(maps)[WORDS * backend + COUNTED] ?? 0;
}

/** Begins a slot's count anew: nobody has it open. */
export function forgetSockets(maps: Maps, backend: number): void {
  wordsIn(maps)[WORDS * backend + COUNTED] = 0;
}

/**
 * Compares the counts with the sockets that there are, and corrects those that every reading finds wrong in the same direction,
 * by the least that one of them found: too small a correction is made good by the next recount, too large a one is an error.
 * @param iterator the program mg_find_open.
 * @returns how many counts were wrong.
 * @throws BpfError when the kernel does not let the sockets be listed.
 */
export async function recount(maps: Maps, iterator: number): Promise<number> {
  const words = wordsIn(maps);
  let wrong = await differences(maps, iterator, words);
  for (let reading = 1; reading < READINGS && wrong.size > 0; reading++) {
    const again = await differences(maps, iterator, words);
    wrong = new Map([...wrong].map(([backend, by]) => [backend, lesser(by, again.get(backend) ?? 0)] as const).filter(([, by]) => by !== 0));
  }
  // Atomic as the kernel's own additions are, which go on meanwhile.
  for (const [backend, by] of wrong) Atomics.add(words, WORDS * backend + COUNTED, by);
  return wrong.size;
}

/** What is missing in each count that is not right, by backend. */
async function differences(maps: Maps, iterator: number, words: Int32Array): Promise<Map<number, number>> {
  for (let at = FOUND; at < words.length; at += WORDS) if (words[at] !== 0) words[at] = 0;
  const before = words.slice();
  await native.iterate(iterator, maps.fd('sock_peers'));
  const wrong = new Map<number, number>();
  for (let at = 0; at < before.length; at += WORDS) {
    const by = (words[at + FOUND] ?? 0) - (before[at + COUNTED] ?? 0);
    if (by !== 0) wrong.set(at / WORDS, by);
  }
  return wrong;
}

/** The smaller of two differences; 0 when they contradict each other. */
function lesser(one: number, other: number): number {
  if (Math.sign(one) !== Math.sign(other)) return 0;
  return Math.abs(one) < Math.abs(other) ? one : other;
}

/** Recounts at once, for what was missed while no agent ran, and every ten minutes. */
export class Recounter {
  readonly #maps: Maps;
  readonly #iterator: number;
  readonly #log: Logger;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #stopped = false;

  /** @param iterator the program mg_find_open. */
  constructor(maps: Maps, iterator: number, log: Logger) {
    this.#maps = maps;
    this.#iterator = iterator;
    this.#log = log;
  }

  start(): void {
    this.#running = this.#recount().finally(() => {
      if (!this.#stopped) this.#timer = setTimeout(() => this.start(), INTERVAL_MS).unref();
    });
  }

  async #recount(): Promise<void> {
    try {
      const wrong = await recount(this.#maps, this.#iterator);
      if (wrong > 0) this.#log.info('counts of open sockets are put right', { backends: wrong });
    } catch (error) {
      this.#log.warn('open sockets cannot be counted: least-connections may choose by wrong counts', { error: String(error) });
    }
  }

  /** Resolves when nothing is under way any more; the maps must stay open until then. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
  }
}

/** A child process that does what its parent asks over IPC, one answer a request: both of its sides. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';

interface Asked {
  readonly op: string;
}

interface Answered {
  /** What failed; else it was done. */
  readonly error?: string;
}

/** The parent's side. */
export class Answering<Request extends Asked, Outcome extends Answered> {
  readonly #child: ChildProcess;
  #next = 0;

  /** @param child - Forked with an IPC channel; it calls `answer`. */
  constructor(child: ChildProcess) {
    this.#child = child;
    child.setMaxListeners(0);
  }

  /** @throws Error when the process is gone, or ends before it answers. */
  async ask(request: Request): Promise<Outcome> {
    if (!this.#child.connected) throw new Error(`the process is gone: ${request.op}`);
    const id = this.#next++;
    const outcome = new Promise<Outcome>((resolve, reject) => {
      const onExit = (): void => reject(new Error(`the process ended during ${request.op}`));
      const onMessage = (message: { id: number; outcome: Outcome }): void => {
        if (message.id !== id) return;
        this.#child.off('message', onMessage).off('exit', onExit);
        resolve(message.outcome);
      };
      this.#child.on('message', onMessage).on('exit', onExit);
    });
    this.#child.send({ id, request });
    return outcome;
  }

  /** @throws Error when it failed, too. */
  async must(request: Request): Promise<Outcome> {
    const outcome = await this.ask(request);
    if (outcome.error !== undefined) throw new Error(`${request.op}: ${outcome.error}`);
    return outcome;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}

/** The child's side, until the parent goes. `failed` makes an outcome of what `perform` throws. */
export function answer<Request extends Asked, Outcome extends Answered>(
  perform: (request: Request) => Promise<Outcome>,
  failed: (error: unknown) => Outcome,
): void {
  process.on('message', async (message: { id: number; request: Request }) => {
    process.send!({ id: message.id, outcome: await perform(message.request).catch(failed) });
  });
  process.on('disconnect', () => process.exit());
}

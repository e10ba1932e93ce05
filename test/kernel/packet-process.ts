/** The parent's side of packet-child.ts: a process that does what it is asked, one answer a request. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Outcome, Request } from './packet-child.ts';

export class Process {
  readonly #child: ChildProcess;
  #next = 0;

  constructor(child: ChildProcess) {
    this.#child = child;
    child.setMaxListeners(0);
  }

  async ask(request: Request): Promise<Outcome> {
    if (!this.#child.connected) throw new Error(`the process is gone: ${request.op}`);
    const id = this.#next++;
    const answer = new Promise<Outcome>((resolve, reject) => {
      const onExit = (): void => reject(new Error(`the process ended during ${request.op}`));
      const onMessage = (message: { id: number; outcome: Outcome }): void => {
        if (message.id !== id) return;
        this.#child.off('message', onMessage).off('exit', onExit);
        resolve(message.outcome);
      };
      this.#child.on('message', onMessage).on('exit', onExit);
    });
    this.#child.send({ id, request });
    return answer;
  }

  /** @throws Error when it failed. */
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

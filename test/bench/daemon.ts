/** A server on a host of the lab, for as long as it is used. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import type { Host } from '../support/lab/host.ts';

export class Daemon implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #exited: Promise<unknown>;

  private constructor(process: ChildProcess) {
    this.#process = process;
    this.#exited = new Promise((resolve) => process.once('close', resolve));
  }

  /** Starts it; that it serves is for the caller to see. */
  static start(host: Host, command: readonly string[]): Daemon {
    const [file = '', ...args] = host.command(command);
    return new Daemon(spawn(file, args, { stdio: ['ignore', 'ignore', 'inherit'] }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#exited;
  }
}

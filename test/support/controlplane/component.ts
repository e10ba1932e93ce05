/** One program of the control plane: started, watched, stopped, started again. */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { createWriteStream, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENCE } from '../patience.ts';

export interface ComponentInit {
  /** For people, and of the log file: "kube-apiserver". */
  readonly name: string;
  readonly command: readonly string[];
  /** Where its output goes. */
  readonly log: string;
  /** Resolves to true once it serves. Asked again until then. */
  ready(): Promise<boolean>;
}

/** How long a component may take to serve, in ms: ten times what it takes on two busy CPUs. */
const DEADLINE_MS = 60_000 * PATIENCE;

export class Component {
  readonly #init: ComponentInit;
  /** The running process; undefined when stopped. */
  #process: ChildProcess | undefined;
  #exited: Promise<unknown> = Promise.resolve();

  constructor(init: ComponentInit) {
    this.#init = init;
  }

  /** Starts it and waits until it serves. Throws with the end of its log when it exits before. */
  async start(): Promise<void> {
    const [command = '', ...args] = this.#init.command;
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const log = createWriteStream(this.#init.log, { flags: 'a' });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#process = child;
    this.#exited = new Promise<void>((resolve) => {
      const exited = (): void => {
        if (this.#process === child) this.#process = undefined;
        log.end();
        resolve();
      };
      child.once('error', exited);
      child.once('close', exited);
    });

    for (const deadline = Date.now() + DEADLINE_MS; !(await this.#init.ready()); await sleep(50)) {
      if (this.#process === undefined) throw new Error(`${this.#init.name} exited: ${this.#lastWords()}`);
      if (Date.now() > deadline) throw new Error(`${this.#init.name} does not serve after ${DEADLINE_MS / 1000} s: ${this.#lastWords()}`);
    }
  }

  /** Of the running process; 0 when there is none. */
  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** Ends it at once, as a crash would. Does nothing when it is not running. */
  async stop(): Promise<void> {
    this.#process?.kill('SIGKILL');
    await this.#exited;
  }

  #lastWords(): string {
    return readFileSync(this.#init.log, 'utf8').trimEnd().split('\n').slice(-5).join('\n');
  }
}

/** Running commands, with errors that say which one failed and why. */
import { execFile } from 'node:child_process';

export interface Output {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end, whatever its exit code. */
export function attempt(command: readonly string[], options: { readonly input?: string; readonly timeoutMs?: number } = {}): Promise<Output> {
  const [file = '', ...args] = command;
  return new Promise((resolve) => {
    const child = execFile(file, args, { encoding: 'utf8', maxBuffer: 64 << 20, timeout: options.timeoutMs ?? 60_000 }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === 'number' ? error.code : 127;
      resolve({ status, stdout, stderr: error !== null && stderr === '' ? String(error.message) : stderr });
    });
    // A command that ends early does not read its input.
    child.stdin?.on('error', () => undefined).end(options.input ?? '');
  });
}

/**
 * Runs a command that must succeed.
 * @returns its standard output.
 * @throws Error with the command and what it wrote to standard error.
 */
export async function run(command: readonly string[], options: { readonly input?: string; readonly timeoutMs?: number } = {}): Promise<string> {
  const output = await attempt(command, options);
  if (output.status !== 0) throw new Error(`${command.join(' ')} failed (${output.status}): ${output.stderr.trim() || output.stdout.trim()}`);
  return output.stdout;
}

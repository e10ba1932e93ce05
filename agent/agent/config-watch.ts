/** Notices that the --config file has been rewritten, as ConfigMaps are while an agent runs. */
import { unwatchFile, watchFile } from 'node:fs';
import type { Resolved } from '../config/resolve.ts';
import { sameSettings } from '../config/resolve.ts';
import type { Log } from '../observe/log.ts';

/** A look every so often follows the symbolic links by which a ConfigMap is replaced, which inotify would not. */
const EVERY_MS = 5_000;

export interface ConfigWatch {
  readonly resolved: Resolved;
  /** Resolves the same command line again. */
  readonly again: () => Promise<Resolved>;
  readonly log: Log;
  /** Called when the file asks for other options than those in force. */
  readonly changed: (error: Error) => void;
}

/**
 * Follows the file until `signal` aborts. kube-proxy ends at any rewrite; here a file that comes to the same, or that cannot be read,
 * is no reason to end an agent that works. Options that differ are: started again, it has them all at once.
 */
export function watchConfig({ resolved, again, log, changed }: ConfigWatch, signal: AbortSignal, everyMs = EVERY_MS): void {
  const { path } = resolved;
  if (path === undefined) return;
  const look = async (): Promise<void> => {
    try {
      if (!sameSettings(resolved, await again())) changed(new Error(`--config ${path} has been rewritten: a fresh start is due`));
    } catch (error) {
      log.error('the rewritten --config is not taken; what is in force stays in force', { error: error instanceof Error ? error.message : String(error) });
    }
  };
  const listener = (): void => void look();
  watchFile(path, { persistent: false, interval: everyMs }, listener);
  signal.addEventListener('abort', () => unwatchFile(path, listener), { once: true });
}

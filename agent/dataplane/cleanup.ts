/** Takes everything out of the kernel again. */
import { existsSync, rmdirSync, rmSync } from 'node:fs';
import native from '../../native/index.js';
import { detachAll } from './attach.ts';
import { lockFolder } from './lock.ts';
import { Maps, namesIn } from './maps.ts';

/**
 * Detaches all programs and removes all pins of a folder, and the folder. Doing it twice is no failure.
 * @returns what was removed, one line each.
 * @throws Error with one line while an agent runs there.
 */
export function cleanup(bpffs: string): readonly string[] {
  if (!existsSync(bpffs)) return [];
  const lock = lockFolder(bpffs, 'stop it first');
  const maps = Maps.openPins(`${bpffs}/maps`);
  try {
    const removed = detachAll(`${bpffs}/links`, maps);
    for (const folder of ['links', 'maps', 'maps-next', 'maps-old']) {
      removed.push(...namesIn(`${bpffs}/${folder}`).map((name) => `pin ${folder}/${name}`));
      rmSync(`${bpffs}/${folder}`, { recursive: true, force: true });
    }
    rmdirSync(bpffs);
    return [...removed, `folder ${bpffs}`];
  } finally {
    maps.close();
    native.close(lock);
  }
}

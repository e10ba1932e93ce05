/**
 * Before the tests of a project: compiles what they start by the hundred as processes of their own. Node keeps what it makes of
 * TypeScript (NODE_COMPILE_CACHE), so each starts in a third of the time and with two thirds of the memory.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';

const CHILDREN = ['kernel/dataplane-child.ts', 'kernel/packet-child.ts', 'kernel/sock-child.ts', 'support/lab/prober.ts'];

/** What to have in the environment for that. */
export const COMPILED = { NODE_COMPILE_CACHE: join(import.meta.dirname, '../../build/compile-cache') } as const;

/** They end when their input does, and leave behind what they have compiled: those that tests kill could not. */
export default function compileChildren(): void {
  for (const child of CHILDREN) {
    const { status, stderr } = spawnSync(process.execPath, [join(import.meta.dirname, '..', child)], {
      input: '',
      encoding: 'utf8',
      env: { ...process.env, ...COMPILED },
    });
    // A process that has died while it compiled has cost time, no more: the next one does so itself.
    if (status !== 0) console.warn(`${child} was not compiled beforehand: ${stderr}`);
  }
}

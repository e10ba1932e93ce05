/** `maglane verify`: does what is in the kernel hold together. Exit code 1 when it does not. */
import { setTimeout } from 'node:timers/promises';
import { openView } from '../dataplane/view.ts';
import { verifyMaps } from '../plan/verify.ts';
import type { OutputFormat } from './output.ts';
import { print } from './output.ts';

interface Verdict {
  readonly bpffs: string;
  readonly services: number;
  readonly frontends: number;
  readonly backends: number;
  readonly wrong: readonly string[];
}

/** A plan is written within milliseconds: what is still wrong after this is wrong. */
const SECOND_LOOK_MS = 200;

/** Prints what is wrong, one line each, and sets the exit code. */
export async function verify(bpffs: string, format: OutputFormat): Promise<void> {
  using view = openView(bpffs);
  let held = view.read();
  let wrong = verifyMaps(held);
  if (wrong.length > 0) {
    await setTimeout(SECOND_LOOK_MS);
    held = view.read();
    const again = new Set(verifyMaps(held));
    wrong = wrong.filter((line) => again.has(line));
  }
  const { services, frontends, backends } = held;
  const verdict = { bpffs, services: services.length, frontends: frontends.length, backends: backends.length, wrong };
  await print<Verdict>(format, verdict, page);
  if (wrong.length > 0) process.exitCode = 1;
}

function page({ services, frontends, backends, wrong }: Verdict): string {
  const size = `${services} service ports, ${frontends} frontends, ${backends} backends`;
  if (wrong.length === 0) return `the maps hold together: ${size}\n`;
  return [...wrong, `${wrong.length} wrong among ${size}`, ''].join('\n');
}

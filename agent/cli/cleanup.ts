/** `maglane cleanup`: nothing of Maglane remains in the kernel for this folder of pins. */
import { cleanup as remove } from '../dataplane/cleanup.ts';
import type { OutputFormat } from './output.ts';
import { print } from './output.ts';

/**
 * Detaches the programs and removes the pins.
 * @throws Error while an agent runs there.
 */
export async function cleanup(bpffs: string, format: OutputFormat): Promise<void> {
  const removed = remove(bpffs);
  await print(format, { bpffs, removed }, () =>
    removed.length === 0 ? `nothing to remove under ${bpffs}\n` : removed.map((line) => `removed ${line}\n`).join(''),
  );
}

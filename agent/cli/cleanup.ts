/** `maglane cleanup`: nothing of Maglane remains in the kernel for this folder of pins; or, asked so, nothing of kube-proxy. */
import { cleanup as remove } from '../dataplane/cleanup.ts';
import { cleanupKubeProxy } from '../dataplane/kube-proxy-cleanup.ts';
import type { OutputFormat } from './output.ts';
import { print } from './output.ts';

/**
 * Detaches the programs and removes the pins.
 * @throws Error while an agent runs there.
 */
export async function cleanup(bpffs: string, format: OutputFormat): Promise<void> {
  const removed = remove(bpffs);
  await print(format, { bpffs, removed }, () => page(removed, `nothing to remove under ${bpffs}`));
}

/**
 * Removes what kube-proxy left in this network namespace; Maglane and its agent go on.
 * @throws Error while a kube-proxy runs, or when something could not be removed.
 */
export async function cleanupOfKubeProxy(format: OutputFormat): Promise<void> {
  const { removed, left } = cleanupKubeProxy();
  await print(format, { removed, left }, () => (left.length > 0 && removed.length === 0 ? '' : page(removed, 'nothing of kube-proxy is here')));
  if (left.length > 0) throw new Error(`not removed: ${left.join('; ')}`);
}

function page(removed: readonly string[], none: string): string {
  return removed.length === 0 ? `${none}\n` : removed.map((line) => `removed ${line}\n`).join('');
}

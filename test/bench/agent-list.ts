/**
 * `agent-list.ts KUBECONFIG NODE`: reads what an agent reads to start and does nothing with it, and prints how long that took, in ms,
 * and how many bytes came: the API server's part of a cold start.
 */
import { Client } from '../../agent/source/kubernetes/client.ts';
import { kubeconfigAccess } from '../../agent/source/kubernetes/kubeconfig.ts';
import type { Kind } from '../../agent/source/kubernetes/kinds.ts';
import { watchedKinds } from '../../agent/source/kubernetes/kinds.ts';
import { INITIAL_EVENTS_END } from '../../agent/source/kubernetes/protobuf/meta.ts';

const [kubeconfig = '', node = ''] = process.argv.slice(2);
const client = new Client(await kubeconfigAccess(kubeconfig));

/** Until the bookmark that ends the initial events, which is the last thing to come. @returns bytes. */
async function read({ path, selectors }: Kind): Promise<number> {
  const query = { ...selectors, watch: '1', allowWatchBookmarks: 'true', sendInitialEvents: 'true', resourceVersionMatch: 'NotOlderThan' };
  const headers = { accept: 'application/vnd.kubernetes.protobuf;stream=watch' };
  const opened = await client.open({ method: 'GET', path: `${path}?${new URLSearchParams(query)}`, headers, signal: new AbortController().signal });
  let bytes = 0;
  let tail = Buffer.alloc(0);
  for await (const chunk of opened.body) {
    bytes += chunk.length;
    tail = Buffer.concat([tail, chunk]).subarray(-4096);
    if (tail.includes(INITIAL_EVENTS_END)) break;
  }
  return bytes;
}

const started = performance.now();
const sizes = await Promise.all(watchedKinds(node).map(read));
process.stdout.write(`${performance.now() - started} ${sizes.reduce((sum, bytes) => sum + bytes, 0)}\n`);
await client.close();

/** Says plainly that a kube-proxy decides beside us, and goes on. */
import type { Sign } from '../dataplane/kube-proxy.ts';
import { findKubeProxy, portSign } from '../dataplane/kube-proxy.ts';
import type { Log } from '../observe/log.ts';
import type { Metrics } from '../observe/metrics.ts';

/** How often it is looked for again: a look costs as much as kube-proxy has chains. */
const LOOK_EVERY_MS = 600_000;

/**
 * Looks for kube-proxy, tells what is there and when it is gone, and goes on looking until `signal` aborts. To be called
 * before this agent listens on kube-proxy's ports.
 */
export function watchForKubeProxy(log: Log, metrics: Metrics, signal: AbortSignal): void {
  let signs: readonly Sign[] = [];
  const look = (more: readonly Sign[] = []): void => {
    const before = signs;
    try {
      signs = [...findKubeProxy(), ...more];
    } catch (error) {
      log.warn('cannot look for a kube-proxy', { error: String(error) });
      return;
    }
    for (const { what } of signs) if (!before.some((sign) => sign.what === what)) log.warn(`kube-proxy: ${what}`, { remedy: remedyOf(signs) });
    if (signs.length === 0 && before.length > 0) log.info('kube-proxy is gone');
  };
  metrics.gauge('maglane_kube_proxy_signs', 'Signs of a kube-proxy on this node, running or left over, by kind.', () =>
    [...Map.groupBy(signs, ({ kind }) => kind)].map(([kind, found]) => [{ kind }, found.length]),
  );
  look(portSign());
  const timer = setInterval(look, LOOK_EVERY_MS);
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
}

function remedyOf(signs: readonly Sign[]): string {
  const remove = 'maglane cleanup --kube-proxy';
  return signs.some(({ kind }) => kind === 'process' || kind === 'port') ? `delete its DaemonSet, then ${remove}` : remove;
}

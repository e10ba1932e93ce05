/** What --metrics-bind-address serves besides /metrics: kube-proxy's paths, for people and tools that look there. */
import { version } from '../cli/version.ts';
import { levelOf } from '../config/kube-proxy.ts';
import type { Resolved, Setting } from '../config/resolve.ts';
import type { AdjustableLog } from '../observe/log.ts';
import { cpuProfile } from '../observe/profile.ts';
import type { Answer, Routes } from '../observe/server.ts';
import { text } from '../observe/server.ts';
import { Slis } from '../observe/slis.ts';

const WARNING = 'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.';

/** What the pages tell of, and what they set. */
export interface Told {
  readonly resolved: Resolved;
  /** ms since the epoch. */
  readonly started: number;
  readonly log: AdjustableLog;
}

export function pages({ resolved, started, log }: Told): Routes {
  const slis = new Slis();
  const routes: Routes = {
    '/healthz': () => {
      slis.pinged();
      return text(200, 'ok');
    },
    '/metrics/slis': () => ({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body: slis.render() }),
    // The truth: no mode of kube-proxy's own would be. Tools that ask expect one word.
    '/proxyMode': () => text(200, 'ebpf'),
    '/configz': () => ({ status: 200, type: 'application/json', body: JSON.stringify(configz(resolved)) }),
    '/flagz': () => text(200, ['', 'maglane flagz', WARNING, '', ...resolved.settings.map(({ flag, value }) => `${flag.slice(2)}=${value}`), ''].join('\n')),
    '/statusz': () => text(200, statusz(started, [...Object.keys(routes), '/metrics'])),
    ...(resolved.options.profiling && { '/debug/pprof/profile': cpuProfile(), '/debug/flags/v': { put: (body: string) => setVerbosity(body, log) } }),
  };
  return routes;
}

/** Until the agent ends. @param body klog's number. */
function setVerbosity(body: string, log: AdjustableLog): Answer {
  if (!/^\d{1,9}$/.test(body)) return text(400, `${JSON.stringify(body)}: expected a whole number from 0\n`);
  log.level = levelOf(Number(body));
  return text(200, `the log level is ${log.level} now\n`);
}

function statusz(started: number, paths: readonly string[]): string {
  const seconds = Math.floor((Date.now() - started) / 1000);
  const lines = [
    `Started: ${new Date(started).toUTCString()}`,
    `Up: ${Math.floor(seconds / 3600)} hr ${String(Math.floor(seconds / 60) % 60).padStart(2, '0')} min ${String(seconds % 60).padStart(2, '0')} sec`,
    `Node version: ${process.version}`,
    `Binary version: ${version().version}`,
    `Paths: ${paths.toSorted().join(' ')}`,
  ];
  return ['', 'maglane statusz', WARNING, '', ...lines, ''].join('\n');
}

/** The options in force as kubeproxy.config.k8s.io/v1alpha1 would say them, and in full under Maglane's own name. */
function configz({ settings }: Resolved): object {
  const value = (key: Setting['key']): string => settings.find((setting) => setting.key === key)?.value ?? '';
  const nodePorts = value('nodeportAddresses');
  return {
    'kubeproxy.config.k8s.io': {
      featureGates: { AllowServiceExternalIPs: value('allowServiceExternalIps') === 'true' },
      enableProfiling: value('profiling') === 'true',
      clientConnection: { kubeconfig: value('kubeconfig') },
      logging: { format: value('logFormat'), verbosity: value('logLevel') === 'debug' ? 4 : 0 },
      hostnameOverride: value('nodeName'),
      bindAddress: value('nodeIp').split(',')[0] || '0.0.0.0',
      healthzBindAddress: value('healthzBindAddress'),
      metricsBindAddress: value('metricsBindAddress'),
      mode: 'ebpf',
      detectLocalMode: value('detectLocalMode'),
      detectLocal: { bridgeInterface: value('podBridgeInterface'), interfaceNamePrefix: value('podInterfaceNamePrefix') },
      clusterCIDR: value('clusterCidr'),
      nodePortAddresses: nodePorts.split(','),
      iptables: { masqueradeAll: value('masqueradeAll') === 'true', localhostNodePorts: value('localhostNodeports') === 'true' },
    },
    maglane: Object.fromEntries(settings.map(({ key, value: text }) => [key, text])),
  };
}

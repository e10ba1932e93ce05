/** What --metrics-bind-address serves besides /metrics: kube-proxy's paths, for people and tools that look there. */
import type { Resolved, Setting } from '../config/resolve.ts';
import { version } from '../cli/version.ts';
import type { Answer, Routes } from '../observe/server.ts';

const WARNING = 'Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.';

/** @param started ms since the epoch. */
export function pages(resolved: Resolved, started: number): Routes {
  const routes: Routes = {
    '/healthz': () => text('ok'),
    // The truth: no mode of kube-proxy's own would be. Tools that ask expect one word.
    '/proxyMode': () => text('ebpf'),
    '/configz': () => ({ status: 200, type: 'application/json', body: JSON.stringify(configz(resolved)) }),
    '/flagz': () => text(['', 'maglane flagz', WARNING, '', ...resolved.settings.map(({ flag, value }) => `${flag.slice(2)}=${value}`), ''].join('\n')),
    '/statusz': () => text(statusz(started, [...Object.keys(routes), '/metrics'])),
  };
  return routes;
}

function text(body: string): Answer {
  return { status: 200, type: 'text/plain; charset=utf-8', body };
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

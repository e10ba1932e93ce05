import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { readConfigFile } from '../../agent/config/file.ts';
import type { ConfigFile } from '../../agent/config/file.ts';
import { SCHEDULERS } from '../../agent/config/ipvs.ts';
import { readOptions } from '../../agent/config/options.ts';

const folder = mkdtempSync(join(tmpdir(), 'maglane-kube-proxy-'));
const path = join(folder, 'config.conf');
afterAll(() => rmSync(folder, { recursive: true }));

const HEAD = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n';

function load(content: string): Promise<ConfigFile> {
  writeFileSync(path, HEAD + content);
  return readConfigFile(path);
}

const options = async (content: string) => readOptions((await load(content)).given);

/** As kubeadm leaves it in the ConfigMap kube-proxy, zeros and all. */
const KUBEADM = `bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
`;

describe('a KubeProxyConfiguration', () => {
  test("kubeadm's own is taken without a warning", async () => {
    const file = await load(KUBEADM);
    expect(file.warnings).toEqual([]);
    expect(file.idle).toEqual([]);
    expect(Object.fromEntries([...file.given].map(([key, { value }]) => [key, value]))).toEqual({
      kubeconfig: '/var/lib/kube-proxy/kubeconfig.conf',
      masqueradeAll: 'false',
      profiling: 'false',
      clusterCidr: '10.244.0.0/16',
      healthzBindAddress: '0.0.0.0:10256',
      metricsBindAddress: '127.0.0.1:10249',
      logLevel: 'info',
    });
    expect(readOptions(file.given)).toMatchObject({ nodeportAddresses: 'primary', localhostNodeports: true });
  });

  test('what has a counterpart is mapped', async () => {
    const read = await options(`
hostnameOverride: " Node-A "
healthzBindAddress: 192.0.2.1
metricsBindAddress: '[::]:9999'
nodePortAddresses: [10.0.0.0/8, 'fd00::/16']
clusterCIDR: 10.244.0.0/16,fd00:244::/56
iptables: {localhostNodePorts: false}
logging: {format: json, verbosity: 4}
`);
    expect(read).toMatchObject({
      nodeName: 'node-a',
      healthzBindAddress: { host: '192.0.2.1', port: 10256 },
      metricsBindAddress: { host: '::', port: 9999 },
      nodeportAddresses: [
        { base: '10.0.0.0', prefix: 8 },
        { base: 'fd00::', prefix: 16 },
      ],
      clusterCidr: [
        { base: '10.244.0.0', prefix: 16 },
        { base: 'fd00:244::', prefix: 56 },
      ],
      localhostNodeports: false,
      logFormat: 'json',
      logLevel: 'debug',
    });
    expect((await options('nodePortAddresses: [primary]')).nodeportAddresses).toBe('primary');
    expect((await options('nodePortAddresses: []')).nodeportAddresses).toBe('primary');
  });

  test.each(['', '\nhealthzBindAddress: ""\nmetricsBindAddress: ""', '\nhealthzBindAddress: "::"\nmetricsBindAddress: "::1"'])(
    'an IPv6 bindAddress moves the defaults%#',
    async (given) => {
      expect(await options(`bindAddress: "::"${given}`)).toMatchObject({
        healthzBindAddress: { host: '::', port: 10256 },
        metricsBindAddress: { host: '::1', port: 10249 },
      });
    },
  );

  test('what means nothing to eBPF is named; what says no, is not', async () => {
    const file = await load(`
mode: ipvs
ipvs: {syncPeriod: 30s}
conntrack: {maxPerCore: 32768, tcpEstablishedTimeout: 0s}
featureGates: {NFTablesProxyMode: true, AllowServiceExternalIPs: true}
enableProfiling: true
windowsRunAsService: false
`);
    expect(file.idle).toEqual(['mode', 'ipvs.syncPeriod', 'conntrack.maxPerCore', 'featureGates.NFTablesProxyMode']);
    expect(file.warnings).toEqual([]);
    expect(readOptions(file.given).profiling).toBe(true);
  });

  test.each([
    ['iptables: {masqueradeAll: true}', true],
    ['mode: ipvs\niptables: {masqueradeAll: true}', true],
    ['nftables: {masqueradeAll: true}', false],
    ['mode: nftables\nnftables: {masqueradeAll: true}', true],
    ['mode: nftables\niptables: {masqueradeAll: true}', false],
  ])('of the two masqueradeAll that of the mode counts: %s', async (fields, expected) => {
    expect((await options(fields)).masqueradeAll).toBe(expected);
  });

  test('each scheduler of ipvs becomes an algorithm, and a line says so', async () => {
    const page = readFileSync(new URL('../../docs/balancing.md', import.meta.url), 'utf8');
    for (const [scheduler, algorithm] of Object.entries(SCHEDULERS)) {
      const file = await load(`mode: ipvs\nipvs: {scheduler: ${scheduler}}`);
      expect(file.warnings).toEqual([`${path}: ipvs.scheduler "${scheduler}" is --algorithm ${algorithm} here: docs/balancing.md`]);
      expect(readOptions(file.given).algorithm).toBe(algorithm);
      expect(page).toMatch(new RegExp(`^\\| (\\w+, )*${scheduler}(, \\w+)* \\| \`${algorithm}\` \\|`, 'm'));
    }
  });

  test('a scheduler counts in ipvs mode alone, and only one that there is', async () => {
    const other = await load('mode: nftables\nipvs: {scheduler: lc}');
    expect([other.warnings, readOptions(other.given).algorithm]).toEqual([[], 'maglev']);
    const none = await load('mode: ipvs\nipvs: {scheduler: ""}');
    expect([none.warnings, readOptions(none.given).algorithm]).toEqual([[], 'maglev']);
    const unknown = await load('mode: ipvs\nipvs: {scheduler: best}');
    expect(unknown.warnings).toEqual([expect.stringContaining('ipvs.scheduler "best" is no scheduler of ipvs')]);
    expect(readOptions(unknown.given).algorithm).toBe('maglev');
  });

  test('who is a pod, and which address is the node, are taken', async () => {
    expect(
      await options('detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0, interfaceNamePrefix: ""}\nbindAddress: 192.0.2.7'),
    ).toMatchObject({
      detectLocalMode: 'BridgeInterface',
      podBridgeInterface: 'cni0',
      podInterfaceNamePrefix: '',
      nodeIp: ['192.0.2.7'],
      allowServiceExternalIps: true,
    });
    expect(await options('bindAddress: "::"')).toMatchObject({ nodeIp: [], detectLocalMode: 'ClusterCIDR' });
    expect((await options('featureGates: {AllowServiceExternalIPs: false}')).allowServiceExternalIps).toBe(false);
  });

  test('unknown and repeated fields cost a line each, and the rest is taken', async () => {
    const file = await load('clusterCIDR: 10.0.0.0/8\nclustercidr: x\nipvs: {shceduler: rr}\nclusterCIDR: 10.244.0.0/16\nudpIdleTimeout: 250ms\n');
    expect(file.warnings).toEqual([
      `${path}: repeated field "clusterCIDR" at line 6: the last one stands`,
      `${path}: unknown field "clustercidr" is passed over`,
      `${path}: unknown field "ipvs.shceduler" is passed over`,
      `${path}: unknown field "udpIdleTimeout" is passed over`,
    ]);
    expect(readOptions(file.given).clusterCidr).toEqual([{ base: '10.244.0.0', prefix: 16 }]);
  });

  test.each([
    ['a number for a text', 'hostnameOverride: 5', 'hostnameOverride 5: expected a text'],
    ['a text for a flag', 'enableProfiling: "true"', 'enableProfiling "true": expected true or false'],
    ['a value for a section', 'conntrack: 5', 'conntrack 5: expected a mapping'],
    ['no duration', 'ipvs: {syncPeriod: 30}', 'ipvs.syncPeriod 30: expected a duration such as 30s or 1h30m'],
    ['no bit', 'iptables: {masqueradeBit: 32}', 'iptables.masqueradeBit 32: expected a whole number from 0 to 31'],
    ['an unknown mode', 'mode: ebpf', 'mode "ebpf": expected one of iptables, ipvs, nftables'],
    ['two CIDRs of one family', 'clusterCIDR: 10.0.0.0/8,10.1.0.0/16', 'clusterCIDR "10.0.0.0/8,10.1.0.0/16": expected a CIDR, or one of each family'],
    ['no CIDR', 'nodePortAddresses: [10.0.0.1]', 'nodePortAddresses "10.0.0.1": expected primary, or a comma-separated list of CIDRs'],
    ['primary among others', 'nodePortAddresses: [primary, 10.0.0.0/8]', 'nodePortAddresses "primary,10.0.0.0/8": expected primary, or'],
    ['no address', 'metricsBindAddress: localhost:1', 'metricsBindAddress "localhost:1": expected ADDRESS:PORT'],
    ['an unknown gate', 'featureGates: {NFTablesProxyMood: true}', 'featureGates "NFTablesProxyMood": expected a feature gate of Kubernetes 1.36'],
    ['a gate that is no flag', 'featureGates: {AllAlpha: 1}', 'featureGates {"AllAlpha":1}: expected a mapping of gates to true or false'],
  ])('%s is refused', async (_, content, message) => {
    await expect(options(content)).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining(`${path}: ${message}`) });
  });

  test.each([
    ['apiVersion: kubeproxy.config.k8s.io/v1beta1\nkind: KubeProxyConfiguration\n', `expected kubeproxy.config.k8s.io/v1alpha1, or neither`],
    ['apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeletConfiguration\n', 'expected KubeProxyConfiguration'],
    ['kind: KubeProxyConfiguration\n', 'apiVersion "": expected kubeproxy.config.k8s.io/v1alpha1'],
  ])('another kind is refused: %j', async (content, message) => {
    writeFileSync(path, content);
    await expect(readConfigFile(path)).rejects.toThrow(message);
  });
});

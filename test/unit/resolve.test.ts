import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { watchConfig } from '../../agent/agent/config-watch.ts';
import { withReserved } from '../../agent/agent/init-only.ts';
import { configText, resolveOptions } from '../../agent/config/resolve.ts';
import { createLog } from '../../agent/observe/log.ts';

const folder = mkdtempSync(join(tmpdir(), 'maglane-resolve-'));
const path = join(folder, 'config.yaml');
afterAll(() => rmSync(folder, { recursive: true }));

const KUBE_PROXY = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nhostnameOverride: from-file\nlogging: {verbosity: 2}\n';

describe('options in force', () => {
  test('come from flags, the file, and defaults, in this order', async () => {
    writeFileSync(path, 'nodeName: from-file\nmaxFlows: 4096\n');
    const { settings, options } = await resolveOptions({ config: path, nodeName: 'from-flag' });
    const froms = Object.fromEntries(settings.map(({ key, from }) => [key, from]));
    expect(froms).toMatchObject({ nodeName: '--node-name', maxFlows: `${path}: maxFlows`, source: 'default' });
    expect(options).toMatchObject({ nodeName: 'from-flag', maxFlows: 4096 });
  });

  test("kube-proxy's flags win over its file", async () => {
    writeFileSync(path, KUBE_PROXY);
    expect((await resolveOptions({ config: path })).options).toMatchObject({ nodeName: 'from-file', logLevel: 'info' });
    const { options } = await resolveOptions({ config: path, hostnameOverride: ' Node-1 ', v: '=4' });
    expect(options).toMatchObject({ nodeName: 'node-1', logLevel: 'debug' });
    expect((await resolveOptions({ hostnameOverride: 'a', nodeName: 'b' })).options.nodeName).toBe('b');
    await expect(resolveOptions({ v: 'high' })).rejects.toThrow('-v "high": expected a whole number from 0');
  });

  test('--ipvs-scheduler is honoured, and --algorithm wins over it', async () => {
    const { options, warnings } = await resolveOptions({ proxyMode: 'ipvs', ipvsScheduler: 'wlc' });
    expect(options.algorithm).toBe('least-connections');
    expect(warnings).toEqual(['--ipvs-scheduler "wlc" is --algorithm least-connections here: docs/balancing.md']);
    expect((await resolveOptions({ proxyMode: 'ipvs', ipvsScheduler: 'wlc', algorithm: 'random' })).options.algorithm).toBe('random');
    expect((await resolveOptions({ ipvsScheduler: 'wlc' })).options.algorithm).toBe('maglev');
  });

  test("kube-proxy's flags without a file set what its file would", async () => {
    const flags = {
      proxyMode: 'nftables',
      bindAddress: 'fd00::7',
      conntrackMaxPerCore: '0',
      conntrackMin: '1',
      master: 'https://x',
    } as const;
    const more = { featureGates: 'AllowServiceExternalIPs=false,AllAlpha=true', iptablesLocalhostNodeports: 'false', v: '6', loggingFormat: 'json' };
    const { options, settings, warnings, idle } = await resolveOptions({ ...flags, ...more, bootIdFile: '/x' });
    expect(options).toMatchObject({
      nodeIp: ['fd00::7'],
      master: 'https://x',
      healthzBindAddress: { host: '::', port: 10256 },
      metricsBindAddress: { host: '::1', port: 10249 },
      allowServiceExternalIps: false,
      localhostNodeports: false,
      logLevel: 'debug',
      logFormat: 'json',
    });
    expect(settings.find(({ key }) => key === 'localhostNodeports')?.from).toBe('--iptables-localhost-nodeports');
    expect(warnings).toEqual([]);
    expect([...idle].sort()).toEqual(['--boot-id-file', '--conntrack-min', '--feature-gates.AllAlpha', '--proxy-mode']);
    expect((await resolveOptions({ bindAddressHardFail: 'false', ipvsExcludeCidrs: '' })).warnings).toEqual([]);
  });

  test('what is no URL is no --master', async () => {
    await expect(resolveOptions({ master: '10.0.0.1:6443' })).rejects.toThrow('--master "10.0.0.1:6443": expected a URL such as https://10.0.0.1:6443');
  });

  test('--masquerade-all is taken as it is, whatever the mode, without a value too', async () => {
    for (const masqueradeAll of [true, 'true'] as const)
      expect((await resolveOptions({ proxyMode: 'nftables', masqueradeAll })).options.masqueradeAll).toBe(true);
    await expect(resolveOptions({ masqueradeAll: 'yes' })).rejects.toThrow('--masquerade-all "yes": expected true or false');
  });

  test('its deprecated ports are addresses; 0 is none', async () => {
    const { options } = await resolveOptions({ healthzPort: '0', metricsPort: '8080' });
    expect(options).toMatchObject({ healthzBindAddress: undefined, metricsBindAddress: { host: '127.0.0.1', port: 8080 } });
  });

  test.each([
    [{ proxyMode: 'userspace' }, '--proxy-mode "userspace": expected one of iptables, ipvs, nftables'],
    [{ conntrackMin: '' }, '--conntrack-min "": expected a whole number from 0'],
    [{ bindAddressHardFail: 'yes' }, '--bind-address-hard-fail "yes": expected true or false'],
    [{ ipvsSyncPeriod: '30' }, '--ipvs-sync-period "30": expected a duration such as 30s or 1h30m'],
    [{ featureGates: 'AllAlpha' }, '--feature-gates {}: expected a mapping of gates to true or false'],
    [{ featureGates: 'NoSuchGate=true' }, '--feature-gates "NoSuchGate": expected a feature gate of Kubernetes 1.36'],
    [{ healthzPort: 'x' }, '--healthz-port "0.0.0.0:x": expected ADDRESS:PORT'],
  ])('a bad value is refused under the name of its flag: %j', async (flags, message) => {
    await expect(resolveOptions(flags)).rejects.toThrow(message);
  });

  test('beside a file only those count that win over it, and each of the others is told', async () => {
    writeFileSync(path, KUBE_PROXY);
    const { options, warnings } = await resolveOptions({ config: path, bindAddress: '192.0.2.1', loggingFormat: 'json', hostnameOverride: 'flag' });
    expect(options).toMatchObject({ nodeIp: [], logFormat: 'json', nodeName: 'flag' });
    expect(warnings).toEqual(['--bind-address is passed over: --config stands']);
  });

  test('written to a file, they come to the same', async () => {
    const given = await resolveOptions({ nodeIp: '10.0.0.1,fd00::1', localhostNodeports: 'false', maxFlows: '4096', nodeName: 'a' });
    writeFileSync(path, configText(given.settings));
    expect((await resolveOptions({ config: path })).options).toEqual(given.options);
    writeFileSync(path, configText((await resolveOptions({})).settings));
    expect((await resolveOptions({ config: path })).options).toEqual((await resolveOptions({})).options);
  });
});

describe('a --config file that is rewritten', () => {
  async function rig() {
    const flags = { config: path };
    writeFileSync(path, 'nodeName: one\n');
    const log: string[] = [];
    const changed = vi.fn<(error: Error) => void>();
    const stop = new AbortController();
    onTestFinished(() => stop.abort());
    const again = () => resolveOptions(flags);
    watchConfig({ resolved: await again(), again, log: createLog('info', 'text', (line) => log.push(line)), changed }, stop.signal, 10);
    // The first look of a watcher is not of what stood before it.
    await new Promise((resolve) => setTimeout(resolve, 50));
    return { log, changed };
  }

  test('ends the agent when it asks for something else', async () => {
    const { changed } = await rig();
    writeFileSync(path, 'nodeName: other\n');
    await vi.waitFor(() => expect(changed).toHaveBeenCalled(), 5_000);
    expect(changed.mock.calls[0]?.[0]).toMatchObject({ message: `--config ${path} has been rewritten: a fresh start is due` });
  });

  test('does not when it comes to the same, or cannot be read', async () => {
    const { log, changed } = await rig();
    writeFileSync(path, 'nodeName: "one" # as before\n');
    await new Promise((resolve) => setTimeout(resolve, 100));
    writeFileSync(path, 'nodeName: [\n');
    await vi.waitFor(() => expect(log.join('')).toContain('the rewritten --config is not taken'), 5_000);
    expect(changed).not.toHaveBeenCalled();
  });
});

test.each([
  ['', '61000-65535'],
  ['8080,9148-9150', '8080,9148-9150,61000-65535'],
  ['60000-65535', '60000-65535'],
  ['61000', '61000,61000-65535'],
])('reserved ports %j become %j', (list, expected) => {
  expect(withReserved(list, { min: 61_000, max: 65_535 })).toBe(expected);
});

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

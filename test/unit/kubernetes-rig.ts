/** A source for each test, between an API server that misbehaves as asked and a sink that remembers. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, vi } from 'vitest';
import type { Log } from '../../agent/observe/log.ts';
import type { KubernetesSourceOptions } from '../../agent/source/kubernetes/kubernetes.ts';
import { KubernetesSource } from '../../agent/source/kubernetes/kubernetes.ts';
import { FakeApiServer } from '../support/fake-apiserver/fake-apiserver.ts';
import { Recorder } from '../support/fake-apiserver/recorder.ts';
import { Relay } from '../support/fake-apiserver/relay.ts';

vi.setConfig({ testTimeout: 20_000 });

export let api: FakeApiServer;
export let relay: Relay;
export let source: KubernetesSource;
export let sink: Recorder;
export let folder: string;
export let lines: string[];
export let observed: string[];
export let stop = new AbortController();
export let running = Promise.resolve();

beforeEach(async () => {
  api = await FakeApiServer.start();
  relay = await Relay.start(api.port);
  sink = new Recorder();
  folder = await mkdtemp(join(tmpdir(), 'maglane-source-'));
  lines = [];
  observed = [];
});

afterEach(async () => {
  stop.abort();
  await running;
  await relay.leave();
  await api.stop();
  await rm(folder, { recursive: true });
});

function log(): Log {
  const at = (level: string) => (message: string, fields?: Record<string, unknown>) => {
    if (level !== 'debug') lines.push(`${level} ${message} ${JSON.stringify(fields ?? {})}`);
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

export async function start(options: Partial<KubernetesSourceOptions> = {}): Promise<void> {
  const kubeconfig = join(folder, 'config');
  await writeFile(
    kubeconfig,
    JSON.stringify({
      'current-context': 'c',
      contexts: [{ name: 'c', context: { cluster: 'k', user: 'u' } }],
      clusters: [{ name: 'k', cluster: { server: `http://127.0.0.1:${relay.port}` } }],
      users: [{ name: 'u', user: { tokenFile: 'token' } }],
    }),
  );
  await writeFile(join(folder, 'token'), 'first\n');
  const observer = {
    connected: (kind: string) => observed.push(`connected ${kind}`),
    disconnected: (kind: string, reason: string) => observed.push(`disconnected ${kind} ${reason}`),
    relisted: (kind: string) => observed.push(`relisted ${kind}`),
    event: () => {},
  };
  stop = new AbortController();
  source = new KubernetesSource({ kubeconfig, nodeName: 'node-a', log: log(), observer, ...options });
  running = source.run(sink, stop.signal);
  running.catch(() => {});
}

/** How the source ends, where a test expects it to end by itself. */
export function takeEnd(): Promise<void> {
  const end = running;
  running = Promise.resolve();
  return end;
}

/** Waits until `condition` holds. */
export async function until(condition: () => boolean, timeout = 15_000): Promise<void> {
  await vi.waitFor(() => expect(condition(), `not so: ${condition}\n${sink.log.join('\n')}\n${lines.join('\n')}`).toBe(true), { timeout, interval: 5 });
}

export async function startSynced(options: Partial<KubernetesSourceOptions> = {}): Promise<void> {
  await start(options);
  await until(() => sink.syncs === 1 && api.watches === 4);
}

export const asked = (path: string): typeof api.asked => api.asked.filter((item) => item.path === path);

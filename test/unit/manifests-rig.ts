/** A folder of manifests for each test, and a source that follows it. */
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, onTestFinished, vi } from 'vitest';
import type { Change } from '../../agent/model/objects.ts';
import { formatProblem } from '../../agent/model/problem.ts';
import type { Problem } from '../../agent/model/problem.ts';
import { ManifestsSource } from '../../agent/source/manifests/manifests.ts';
import type { SourceSink } from '../../agent/source/source.ts';

/** Fast, but polling does not help: what a test sees was seen by the watches. */
export const TIMES = { settle: 20, patience: 200, poll: 600_000 };

export class Recorder implements SourceSink {
  readonly objects = new Map<string, Change['object']>();
  readonly standing = new Map<string, readonly Problem[]>();
  readonly calls: string[] = [];

  changes(changes: readonly Change[]): void {
    for (const { kind, key, object } of changes) {
      this.calls.push(`${object ? '' : '-'}${kind} ${key}`);
      if (object === undefined) this.objects.delete(`${kind} ${key}`);
      else this.objects.set(`${kind} ${key}`, object);
    }
  }

  synced(): void {
    this.calls.push('synced');
  }

  problems(object: string, problems: readonly Problem[]): void {
    if (problems.length === 0) this.standing.delete(object);
    else this.standing.set(object, problems);
  }

  get lines(): string[] {
    return [...this.standing.values()].flat().map(formatProblem);
  }

  get names(): string[] {
    return [...this.objects.keys()].sort();
  }
}

export let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'maglane-manifests-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

export const put = (name: string, text: string): Promise<void> => writeFile(join(folder, name), text);
/** As most editors save: a new file takes the place of the old one. */
export async function save(name: string, text: string): Promise<void> {
  await put('.scratch', text);
  await rename(join(folder, '.scratch'), join(folder, name));
}

/** Runs a source until the test ends; resolves once it is synced. */
export async function follow(path = folder, debug: (message: string) => void = () => undefined): Promise<Recorder> {
  const recorder = new Recorder();
  const abort = new AbortController();
  const running = new ManifestsSource(path, { times: TIMES, log: { debug } }).run(recorder, abort.signal);
  onTestFinished(async () => {
    abort.abort();
    await running;
  });
  await Promise.race([running, vi.waitFor(() => expect(recorder.calls).toContain('synced'))]);
  return recorder;
}

export const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 5000, interval: 10 });

export const service = (name: string, spec = 'clusterIP: 10.96.0.1, ports: [{ port: 80 }]'): string =>
  `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: { ${spec} } }\n`;
export const slice = (name: string, of: string, address = '10.0.0.1'): string =>
  `{ apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: { name: ${name}, labels: { kubernetes.io/service-name: ${of} } }, addressType: IPv4, ports: [{ port: 80 }], endpoints: [{ addresses: [${address}] }] }\n`;

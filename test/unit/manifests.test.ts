import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { Model } from '../../agent/model/model.ts';
import type { Change } from '../../agent/model/objects.ts';
import { formatProblem } from '../../agent/model/problem.ts';
import type { Problem } from '../../agent/model/problem.ts';
import { FolderWatch } from '../../agent/source/manifests/folder.ts';
import { ManifestsSource } from '../../agent/source/manifests/manifests.ts';
import type { SourceSink } from '../../agent/source/source.ts';
import { FACTS, addressesOf, frontendsOf } from './model-builders.ts';

/** Fast, but polling does not help: what a test sees was seen by the watches. */
const TIMES = { settle: 20, patience: 200, poll: 600_000 };

class Recorder implements SourceSink {
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

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'maglane-manifests-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const put = (name: string, text: string): Promise<void> => writeFile(join(folder, name), text);
/** As most editors save: a new file takes the place of the old one. */
async function save(name: string, text: string): Promise<void> {
  await put('.scratch', text);
  await rename(join(folder, '.scratch'), join(folder, name));
}

/** Runs a source until the test ends; resolves once it is synced. */
async function follow(path = folder, debug: (message: string) => void = () => undefined): Promise<Recorder> {
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

const eventually = (check: () => void): Promise<void> => vi.waitFor(check, { timeout: 5000, interval: 10 });

const service = (name: string, spec = 'clusterIP: 10.96.0.1, ports: [{ port: 80 }]'): string =>
  `{ apiVersion: v1, kind: Service, metadata: { name: ${name} }, spec: { ${spec} } }\n`;
const slice = (name: string, of: string, address = '10.0.0.1'): string =>
  `{ apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: { name: ${name}, labels: { kubernetes.io/service-name: ${of} } }, addressType: IPv4, ports: [{ port: 80 }], endpoints: [{ addresses: [${address}] }] }\n`;

describe('what is read', () => {
  test('a folder with subfolders: YAML and JSON, many documents, Lists; hidden and other files are not', async () => {
    await mkdir(join(folder, 'sub/deeper'), { recursive: true });
    await mkdir(join(folder, '.git'));
    await put('a.yaml', `# nothing\n---\n${service('a')}---\n\n---\n${service('b')}`);
    await put('sub/deeper/c.yml', service('c'));
    await put(
      'd.json',
      JSON.stringify({ apiVersion: 'v1', kind: 'List', items: [{ apiVersion: 'v1', kind: 'Service', metadata: { name: 'd', namespace: 'shop' } }] }),
    );
    await put('e.json', JSON.stringify({ apiVersion: 'v1', kind: 'ServiceList', items: [{ metadata: { name: 'e' } }] }));
    await put('f.txt', service('f'));
    await put('.g.yaml', service('g'));
    await put('.git/h.yaml', service('h'));
    await put('i.yaml~', service('i'));
    await put('j.yaml', '');
    const seen = await follow();
    expect(seen.names).toEqual(['Service default/a', 'Service default/b', 'Service default/c', 'Service default/e', 'Service shop/d']);
    expect(seen.calls.at(-1)).toBe('synced');
    expect(seen.lines).toEqual([]);
  });

  test('a single file, whatever its name', async () => {
    await put('shop', service('a'));
    await put('other.yaml', service('b'));
    expect((await follow(join(folder, 'shop'))).names).toEqual(['Service default/a']);
  });

  test('an empty folder: synced, with nothing', async () => {
    expect((await follow()).calls).toEqual(['synced']);
  });

  test('kinds of others: a debug note, no problem', async () => {
    await put(
      'a.yaml',
      `{ apiVersion: apps/v1, kind: Deployment, metadata: { name: web } }\n---\n{ apiVersion: serving.knative.dev/v1, kind: Service, metadata: { name: fn } }`,
    );
    const notes: string[] = [];
    const seen = await follow(folder, (message) => notes.push(message));
    expect([seen.names, seen.lines]).toEqual([[], []]);
    expect(notes).toEqual(['Deployment default/web in a.yaml is left alone', 'Service default/fn in a.yaml is left alone']);
  });

  test.each([
    ['nowhere', 'is not there'],
    ['file.yaml/below', 'is not there'],
  ])('a path that is not there (%s) rejects and says what would be right', async (name, why) => {
    await put('file.yaml', '');
    const path = join(folder, name);
    const run = new ManifestsSource(path).run(new Recorder(), new AbortController().signal);
    await expect(run).rejects.toThrow(`manifests "${path}" ${why}: a file or a folder of .yaml, .yml or .json files would be right`);
  });

  test('an abort ends it, before and after the first read', async () => {
    const early = new Recorder();
    await new ManifestsSource(folder).run(early, AbortSignal.abort());
    expect(early.calls).toEqual([]);
    const abort = new AbortController();
    const late = new Recorder();
    const running = new ManifestsSource(folder).run(late, abort.signal);
    await eventually(() => expect(late.calls).toEqual(['synced']));
    const watches = (): number => process.getActiveResourcesInfo().filter((name) => name === 'FSEventWrap').length;
    expect(watches()).toBeGreaterThan(0);
    abort.abort();
    await running;
    await eventually(() => expect(watches()).toBe(0));
  });

  test('what happened before a watch was set up, or between two waits, is looked for', async () => {
    const watch = new FolderWatch(TIMES);
    onTestFinished(() => watch.close());
    const never = new AbortController().signal;
    watch.follow([{ path: folder, id: '1', only: undefined }]);
    await watch.changed(never);
    await put('a.yaml', '');
    await watch.changed(never);
    const abort = new AbortController();
    const quiet = watch.changed(abort.signal).then(() => 'changed');
    const tenSettles = new Promise((resolve) => setTimeout(resolve, 10 * TIMES.settle, 'quiet'));
    expect(await Promise.race([quiet, tenSettles])).toBe('quiet');
    abort.abort();
    await quiet;
  });
});

describe('what is followed', () => {
  const only = (seen: Recorder, ...names: string[]): Promise<void> => eventually(() => expect(seen.names).toEqual(names));

  test('files that appear, change and go; only the difference is told', async () => {
    await put('a.yaml', `${service('a')}---\n${service('keep')}`);
    const seen = await follow();
    await put('b.yaml', service('b'));
    await only(seen, 'Service default/a', 'Service default/b', 'Service default/keep');
    seen.calls.length = 0;
    await save('a.yaml', `${service('a2')}---\n${service('keep')}`);
    await only(seen, 'Service default/a2', 'Service default/b', 'Service default/keep');
    await rm(join(folder, 'a.yaml'));
    await only(seen, 'Service default/b');
    expect(seen.calls).toEqual(['-Service default/a', 'Service default/a2', '-Service default/a2', '-Service default/keep']);
  });

  test('a file written in place, and again and again over the old one', async () => {
    await put('a.yaml', service('v0'));
    const seen = await follow();
    for (let i = 1; i <= 3; i++) {
      await (i % 2 === 0 ? put : save)('a.yaml', service(`v${i}`));
      await only(seen, `Service default/v${i}`);
    }
  });

  test('a single file, saved over and deleted for a while: what it held stays', async () => {
    await put('a.yaml', service('a'));
    const path = join(folder, 'a.yaml');
    const seen = await follow(path);
    await save('a.yaml', service('b'));
    await only(seen, 'Service default/b');
    await rm(path);
    await eventually(() => expect(seen.lines).toEqual([`file ${path}: is gone, so what was read before stays until it is back`]));
    expect(seen.names).toEqual(['Service default/b']);
    await put('a.yaml', service('c'));
    await only(seen, 'Service default/c');
    expect(seen.lines).toEqual([]);
  });

  test('subfolders that appear and go', async () => {
    const seen = await follow();
    await mkdir(join(folder, 'sub'));
    await put('sub/a.yaml', service('a'));
    await only(seen, 'Service default/a');
    await put('sub/b.yaml', service('b'));
    await only(seen, 'Service default/a', 'Service default/b');
    await rm(join(folder, 'sub'), { recursive: true });
    await only(seen);
  });

  test('the folder itself replaced, by a new one and by none for a while', async () => {
    const root = join(folder, 'root');
    const fill = async (path: string, name: string): Promise<void> => {
      await mkdir(path);
      await writeFile(join(path, 'a.yaml'), service(name));
    };
    await fill(root, 'v1');
    const seen = await follow(root);
    await fill(join(folder, 'next'), 'v2');
    await rename(root, join(folder, 'former'));
    await rename(join(folder, 'next'), root);
    await only(seen, 'Service default/v2');
    // Moved, not removed: between the end of its files and its own a folder is empty, and means it.
    await rename(root, join(folder, 'gone'));
    await eventually(() => expect(seen.lines).toHaveLength(1));
    expect(seen.names).toEqual(['Service default/v2']);
    await fill(root, 'v3');
    await only(seen, 'Service default/v3');
    await writeFile(join(root, 'b.yaml'), service('v4'));
    await only(seen, 'Service default/v3', 'Service default/v4');
    expect(seen.lines).toEqual([]);
  });

  test('a folder deleted and made anew in one go is still watched', async () => {
    const root = join(folder, 'root');
    await mkdir(root);
    const seen = await follow(root);
    for (const name of ['v1', 'v2', 'v3']) {
      await rm(root, { recursive: true });
      await mkdir(root);
      await writeFile(join(root, 'a.yaml'), service(name));
      await only(seen, `Service default/${name}`);
      await writeFile(join(root, 'a.yaml'), service(`${name}-later`));
      await only(seen, `Service default/${name}-later`);
    }
  });

  test('a mounted ConfigMap: ..data flips to a new version', async () => {
    const version = async (name: string): Promise<void> => {
      await mkdir(join(folder, `..${name}`));
      await put(`..${name}/a.yaml`, service(name));
      await symlink(`..${name}`, join(folder, '..next'));
      await rename(join(folder, '..next'), join(folder, '..data'));
    };
    await version('v1');
    await symlink('..data/a.yaml', join(folder, 'a.yaml'));
    const seen = await follow();
    expect(seen.names).toEqual(['Service default/v1']);
    for (const name of ['v2', 'v3']) {
      await version(name);
      await only(seen, `Service default/${name}`);
    }
  });

  test('links in a circle end', async () => {
    await put('a.yaml', service('a'));
    await symlink('.', join(folder, 'again'));
    expect((await follow()).names).toEqual(['Service default/a']);
  });

  test('where no watch reports, polling does', async () => {
    const elsewhere = await mkdtemp(join(tmpdir(), 'maglane-manifests-'));
    onTestFinished(() => rm(elsewhere, { recursive: true }));
    await writeFile(join(elsewhere, 'a.yaml'), service('v1'));
    await symlink(join(elsewhere, 'a.yaml'), join(folder, 'a.yaml'));
    const recorder = new Recorder();
    const abort = new AbortController();
    const running = new ManifestsSource(folder, { times: { ...TIMES, poll: 50 } }).run(recorder, abort.signal);
    await only(recorder, 'Service default/v1');
    await writeFile(join(elsewhere, 'a.yaml'), service('v2'));
    await only(recorder, 'Service default/v2');
    abort.abort();
    await running;
  });
});

describe('what is refused', () => {
  test('a file that does not parse: one line with its number, its objects stay, the rest goes on', async () => {
    await put('a.yaml', service('a'));
    await put('b.yaml', service('b'));
    const seen = await follow();
    await save('a.yaml', `${service('new')}---\nkind: Service\n  metadata: {}\n`);
    await save('b.yaml', service('b2'));
    await eventually(() => expect(seen.names).toEqual(['Service default/a', 'Service default/b2']));
    expect(seen.lines).toEqual([expect.stringMatching(/^file a\.yaml: line [34] does not parse, so what was read before stays: \S.*$/)]);
    await save('a.yaml', service('a'));
    await eventually(() => expect(seen.lines).toEqual([]));
    expect(seen.names).toEqual(['Service default/a', 'Service default/b2']);
  });

  test.each([
    ['JSON', 'a.json', '{\n  "kind": "Service",\n  "metadata": {\n', 'line '],
    [
      'a bomb of aliases',
      'a.yaml',
      `a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n`,
      'does not parse',
    ],
    ['text', 'a.yaml', 'hello', '"hello" is not an object'],
    ['no kind', 'a.yaml', 'metadata: { name: x }', 'kind is missing'],
  ])('%s is one line', async (_, name, text, said) => {
    await put(name, text);
    await put('z.yaml', service('z'));
    const seen = await follow();
    expect(seen.lines).toEqual([expect.stringContaining(`file ${name}: ${said}`)]);
    expect(seen.names).toEqual(['Service default/z']);
  });

  test('one object in two files: the first by path stays until it goes', async () => {
    await put('a.yaml', service('web', 'clusterIP: 10.96.0.1'));
    await put('b.yaml', service('web', 'clusterIP: 10.96.0.2'));
    const seen = await follow();
    expect(seen.objects.get('Service default/web')).toMatchObject({ clusterIPs: ['10.96.0.1'] });
    expect(seen.lines).toEqual(['Service default/web in b.yaml: is in a.yaml already, which stays: one of the two would be right']);
    await rm(join(folder, 'a.yaml'));
    await eventually(() => expect(seen.objects.get('Service default/web')).toMatchObject({ clusterIPs: ['10.96.0.2'] }));
    expect(seen.lines).toEqual([]);
  });

  test('a slice whose Service does not exist', async () => {
    await put('a.yaml', `${slice('a-1', 'a')}---\n${slice('b-1', 'b')}---\n${service('b')}---\n${slice('c-1', '""')}`);
    const seen = await follow();
    expect(seen.lines).toEqual([
      'EndpointSlice default/a-1 in a.yaml: belongs to Service default/a, which does not exist',
      'EndpointSlice default/c-1 in a.yaml: metadata.labels lack kubernetes.io/service-name, so no Service uses these endpoints',
    ]);
    await put('b.yaml', service('a'));
    await eventually(() => expect(seen.lines).toHaveLength(1));
  });

  test('shapes: one line each; what is in a list is refused alone, an object keeps what it was', async () => {
    await put('a.yaml', `${service('a')}---\n${service('b')}`);
    const seen = await follow();
    await put(
      'a.yaml',
      `${service('a', 'clusterIP: 10.96.0.9, ports: 80')}---\n${service('b', 'clusterIP: 10.96.0.2, ports: [{ port: "80" }, 5, { port: 81, name: A_B }, { port: 82, name: ok }], externalIPs: [7]')}`,
    );
    await eventually(() => expect(seen.lines).toHaveLength(5));
    expect(seen.lines).toEqual([
      'Service default/a in a.yaml: spec.ports "80" is not a list',
      'Service default/b in a.yaml: spec.externalIPs[0] "7" is not a string: quotes would make it one',
      'Service default/b in a.yaml: spec.ports[0].port "80" is not a number',
      'Service default/b in a.yaml: spec.ports[1] "5" is not an object: names with values would be right',
      'Service default/b in a.yaml: spec.ports[2].name "A_B" is not a name: at most 63 of a-z, 0-9 and - would be',
    ]);
    expect(seen.objects.get('Service default/a')).toMatchObject({ clusterIPs: ['10.96.0.1'], ports: [{ port: 80 }] });
    expect(seen.objects.get('Service default/b')).toMatchObject({ ports: [{ port: 82 }] });
  });

  test.each([
    [
      'spec: { sessionAffinity: Cookie }',
      'Service default/x in a.yaml: spec.sessionAffinity "Cookie" is unknown, so None stands: None or ClientIP would be right',
    ],
    ['apiVersion: v2', 'Service default/x in a.yaml: apiVersion "v2" is not supported: v1 would be right'],
    ['metadata: { namespace: x }', 'Service x/ in a.yaml: metadata.name is missing'],
    ['metadata: { name: Shop }', 'Service default/Shop in a.yaml: metadata.name "Shop" is not a name: at most 63 of a-z, 0-9 and - would be'],
    ['metadata: []', 'file a.yaml: metadata "[]" is not an object: names with values would be right'],
    ['spec: x', 'Service default/x in a.yaml: spec "x" is not an object: names with values would be right'],
  ])('a Service with %s', async (fields, line) => {
    const [name = ''] = fields.split(':');
    const base: Record<string, string> = { apiVersion: 'apiVersion: v1', metadata: 'metadata: { name: x }' };
    await put('a.yaml', ['kind: Service', ...Object.values({ ...base, [name]: fields })].join('\n'));
    expect((await follow()).lines).toEqual([line]);
  });
});

test('the examples: no problem, and what the demo counts on', async () => {
  const seen = await follow(join(import.meta.dirname, '../../examples'));
  expect(seen.lines).toEqual([]);
  const model = new Model(FACTS);
  for (const [id, object] of seen.objects) {
    const [kind, key] = id.split(' ') as [Change['kind'], string];
    model.apply([{ kind, key, object } as Change]);
  }
  const delta = model.takeChanged();
  expect(delta.problems.size).toBe(0);
  const services = new Map(delta.services.map(({ key, desired }) => [key, desired!]));
  expect([...services.keys()].sort()).toEqual([
    'shop/api:http/TCP/4',
    'shop/api:http/TCP/6',
    'shop/cache:redis/TCP/4',
    'shop/checkout:https/TCP/4',
    'shop/dns:dns-tcp/TCP/4',
    'shop/dns:dns/UDP/4',
    'shop/web:http/TCP/4',
  ]);
  const web = services.get('shop/web:http/TCP/4')!;
  expect(frontendsOf(web)).toContain('NodePort 172.30.0.11 30080');
  expect(web.cluster.map((backend) => backend.local)).toEqual([false, false, false]);
  expect(services.get('shop/cache:redis/TCP/4')?.affinitySeconds).toBe(300);
  expect(frontendsOf(services.get('shop/checkout:https/TCP/4')!)).toEqual(
    expect.arrayContaining(['LoadBalancer 203.0.113.10 443', 'ExternalIP 198.51.100.10 443']),
  );
  expect(addressesOf(services.get('shop/api:http/TCP/6')!.cluster)).toEqual(['fd00:244:1::20', 'fd00:244:2::20']);
  expect(services.get('shop/api:http/TCP/6')?.algorithm).toBe('maglev');
});

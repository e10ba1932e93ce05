import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Model } from '../../agent/model/model.ts';
import type { Change } from '../../agent/model/objects.ts';
import { FolderWatch } from '../../agent/source/manifests/folder.ts';
import { ManifestsSource } from '../../agent/source/manifests/manifests.ts';
import { FACTS, addressesOf, frontendsOf } from './model-builders.ts';
import { eventually, folder, follow, put, Recorder, save, service, slice, TIMES } from './manifests-rig.ts';

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

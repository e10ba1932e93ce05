import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ManifestsSource } from '../../agent/source/manifests/manifests.ts';
import { eventually, folder, follow, put, Recorder, save, service, TIMES } from './manifests-rig.ts';

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

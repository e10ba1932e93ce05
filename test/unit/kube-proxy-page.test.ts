/** docs/kube-proxy.md says what the code does: every field, flag, page and metric of it. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { pages } from '../../agent/agent/pages.ts';
import { ProxyMetrics } from '../../agent/agent/proxy-metrics.ts';
import { kubeProxyFlags, readKubeProxyFlags } from '../../agent/config/kube-proxy-flags.ts';
import { kubeProxyFields } from '../../agent/config/kube-proxy.ts';
import { flagOf, optionRows } from '../../agent/config/options.ts';
import { resolveOptions } from '../../agent/config/resolve.ts';
import { createLog } from '../../agent/observe/log.ts';
import { Metrics } from '../../agent/observe/metrics.ts';

const read = (name: string): string => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');
const page = read('kube-proxy.md');

/** Rows of the tables under a heading: the cells, without the heads. */
function rowsUnder(heading: string): string[][] {
  const section = page.split(/^(?=## )/m).find((part) => part.startsWith(`## ${heading}\n`)) ?? '';
  const rows = section.split('\n').filter((line) => line.startsWith('| '));
  return rows.map((row) => row.split(/(?<!\\)\|/).map((cell) => cell.trim())).map(([, ...cells]) => cells);
}

/** "`name`" -> "name"; undefined for a head. */
const nameIn = (cell = ''): string | undefined => /^`([^`]+)`/.exec(cell)?.[1];
const named = (heading: string): [string, string][] =>
  rowsUnder(heading).flatMap(([first, second = '']) => (nameIn(first) === undefined ? [] : [[nameIn(first) ?? '', second]]));

test('every field of KubeProxyConfiguration, with what becomes of it', () => {
  const fields = kubeProxyFields().map(({ path, option }) => [path, option === undefined ? 'no effect' : `\`${flagOf(option)}\``]);
  expect(named('Its configuration')).toEqual(fields.sort(([a = ''], [b = '']) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1)));
});

test('every flag, with the field that it sets', () => {
  const rows = named('Its flags');
  const told = new Map(rows);
  expect(rows.map(([flag]) => flag)).toEqual(rows.map(([flag]) => flag).toSorted((a, b) => (a.replace(/^-+/, '') < b.replace(/^-+/, '') ? -1 : 1)));
  for (const { flag, path } of kubeProxyFlags()) {
    if (path !== undefined) expect(told.get(flag), flag).toBe(`\`${path}\``);
    else expect(told.get(flag), flag).toBe('no effect');
    told.delete(flag);
  }
  // What is left has Maglane by the same name.
  const own = new Set(optionRows().map(({ flag }) => flag));
  for (const [flag, sets] of told) expect(own.has(flag), flag).toBe(sets === 'the same' && !['--config', '--help'].includes(flag));
});

test('which flags win over a file', async () => {
  for (const { flag, path } of kubeProxyFlags()) {
    if (path === undefined) continue;
    const cells = rowsUnder('Its flags').find(([first]) => nameIn(first) === flag);
    const name = flag.replace(/^-+/, '').replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
    // What wins is read, and this is no value of anything but a text.
    const isPassedOver = await readKubeProxyFlags({ [name]: 'no value' }, true).then(
      ({ warnings }) => warnings.includes(`${flag} is passed over: --config stands`),
      () => false,
    );
    expect(isPassedOver, flag).toBe(cells?.[2]?.includes('wins over the file') === false);
  }
});

test('every page of the metrics port', async () => {
  const told = named('Its pages').flatMap(([name, what]) => (name.startsWith(':10249') && !what.startsWith('not there') ? [name.slice(6)] : []));
  const served = pages({ resolved: await resolveOptions({ profiling: true }), started: 0, log: createLog('info', 'text') });
  expect(told.sort()).toEqual(['/metrics', ...Object.keys(served)].sort());
});

test("every metric of kube-proxy's name", () => {
  const metrics = new Metrics();
  expect(new ProxyMetrics(metrics, 0)).toBeDefined();
  const registered = [...metrics.render().matchAll(/^# TYPE (kubeproxy_\S+)/gm)].map(([, name]) => name);
  const told = named('Its metrics').flatMap(([name, what]) => (what.startsWith('same') ? [name] : []));
  expect(told.sort()).toEqual(registered.sort());
  // Those that it says are elsewhere do not come under their old name.
  for (const [name, what] of named('Its metrics')) if (what.startsWith('not there')) expect(registered).not.toContain(name);
});

test('links lead somewhere', () => {
  const anchors = (text: string): Set<string> =>
    new Set(
      [...text.matchAll(/^#+ (.*)$/gm)].map(([, head = '']) =>
        head
          .toLowerCase()
          .replaceAll(/[^\w\- ]/g, '')
          .replaceAll(' ', '-'),
      ),
    );
  const links = [...page.matchAll(/\]\(([\w-]*(?:\.md)?)#([^)]+)\)/g)];
  expect(links.length).toBeGreaterThan(10);
  for (const [link, file = '', anchor = ''] of links) expect(anchors(file === '' ? page : read(file)).has(anchor), link).toBe(true);
});

/** docs/benchmarks.md is made of a run's results, which stand beside it. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { benchmarkPages } from '../bench/report.ts';

const DOCS = join(import.meta.dirname, '../../docs');
const text = (path: string): string => readFileSync(join(DOCS, path), 'utf8');

test('the page and its charts are those of the results (else: node test/bench/report.ts docs/benchmarks/results.json)', () => {
  const pages = benchmarkPages(text('benchmarks/results.json'));
  const files = ['benchmarks.md', ...readdirSync(join(DOCS, 'benchmarks')).map((file) => `benchmarks/${file}`)];
  expect(files.sort()).toEqual([...pages.keys()].sort());
  for (const [path, page] of pages) expect(text(path), path).toBe(page);
});

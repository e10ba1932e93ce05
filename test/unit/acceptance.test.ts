import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { acceptancePage, acceptanceTests } from '../../tools/acceptance.ts';

test('every line of the acceptance list is a test, or says why it is none', () => {
  const tests = new Map([['serve a basic endpoint from pods', 'acceptance-services.test.ts']]);
  expect(() => acceptancePage(tests)).toThrow('no acceptance test is called "serve multiport endpoints from pods"');
});

test('the page of the acceptance list says what the tests are', { timeout: 60_000 }, () => {
  const page = readFileSync(new URL('../../docs/acceptance.md', import.meta.url), 'utf8');
  expect(page, 'node tools/acceptance.ts > docs/acceptance.md makes it anew').toBe(acceptancePage(acceptanceTests()));
});

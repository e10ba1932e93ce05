/** What others rely on in build/maglane.bpf.o: the agent's codecs are generated from its BTF. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
let btf = '';

beforeAll(() => {
  btf = execFileSync('bpftool', ['btf', 'dump', 'file', `${ROOT}build/maglane.bpf.o`], { encoding: 'utf8' });
});

it.each(['enum', 'struct'])('carries every %s of abi.h in its BTF', (kind) => {
  const header = readFileSync(`${ROOT}bpf/abi.h`, 'utf8');
  const names = [...header.matchAll(new RegExp(`^${kind} (\\w+) \\{`, 'gm'))].map((match) => match[1]);
  expect(names.length).toBeGreaterThan(5);
  expect(names.filter((name) => !btf.includes(`] ${kind.toUpperCase()} '${name}' `))).toEqual([]);
});

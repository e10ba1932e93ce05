/**
 * The stack of the programs: kernels before 6.8 count every function's share in steps of 32 bytes, newer ones in smaller ones. What
 * loads here may not load there, so it is counted as they do.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const MAX_STACK = 512;
const STEP = 32;

interface Code {
  /** Bytes of its own. */
  stack: number;
  readonly calls: Set<string>;
}

/** Functions by name, of an object's disassembly with relocations. */
function functionsOf(listing: string): ReadonlyMap<string, Code> {
  const lines = listing.split('\n');
  const named = lines.map((line) => /^([0-9a-f]+) <(?!LBB)(.+)>:$/.exec(line));
  const sections = new Map<string, string>();
  let section = '';
  lines.forEach((line, i) => {
    section = /^Disassembly of section (.+):$/.exec(line)?.[1] ?? section;
    const [, at, name] = named[i] ?? [];
    if (at !== undefined && name !== undefined) sections.set(`${section} ${parseInt(at, 16) / 8}`, name);
  });
  const functions = new Map<string, Code>();
  let [code, at]: [Code | undefined, number] = [undefined, 0];
  lines.forEach((line, i) => {
    section = /^Disassembly of section (.+):$/.exec(line)?.[1] ?? section;
    const name = named[i]?.[2];
    if (name !== undefined) functions.set(name, (code = { stack: 0, calls: new Set() }));
    if (code === undefined) return;
    for (const [, bytes] of line.matchAll(/(?:r10 - |r\d \+= -)(\d+)/g)) if (Number(bytes) <= MAX_STACK) code.stack = Math.max(code.stack, Number(bytes));
    const call = /^\s*(\d+):\t85 10 .*call (-?\d+)/.exec(line);
    if (call === null) return;
    at = Number(call[2]) + 1;
    // Across sections a relocation says where to: a function, or a place in a section.
    const target = /R_BPF_64_32\s+(\S+)/.exec(lines[i + 1] ?? '')?.[1];
    const callee = target === undefined ? sections.get(`${section} ${Number(call[1]) + at}`) : (sections.get(`${target} ${at}`) ?? target);
    if (callee !== undefined) code.calls.add(callee);
  });
  return functions;
}

/** The longest way down from a function. */
function deepest(functions: ReadonlyMap<string, Code>, name: string): { readonly bytes: number; readonly path: string } {
  const { stack, calls } = functions.get(name) ?? { stack: 0, calls: [] };
  const below = [...calls].map((callee) => deepest(functions, callee)).toSorted((a, b) => b.bytes - a.bytes)[0];
  const own = Math.ceil(Math.max(1, stack) / STEP) * STEP;
  return { bytes: own + (below?.bytes ?? 0), path: `${name} ${stack}${below === undefined ? '' : `, ${below.path}`}` };
}

test('every program has stack enough on the oldest kernel, whatever functions it calls', () => {
  const functions = functionsOf(
    execFileSync('llvm-objdump', ['-d', '-r', join(import.meta.dirname, '../../build/maglane.bpf.o')], { encoding: 'utf8', maxBuffer: 1 << 26 }),
  );
  const programs = [...functions.keys()].filter((name) => name.startsWith('mg_'));
  expect(programs).toContain('mg_tc_ingress');
  expect(functions.get('mg_tc_ingress')?.calls.size).toBeGreaterThan(5);
  for (const { bytes, path } of programs.map((name) => deepest(functions, name))) expect(bytes, path).toBeLessThanOrEqual(MAX_STACK);
});

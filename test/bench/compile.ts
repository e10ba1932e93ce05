/** Programs in C that measure, compiled into build/ when they are first used. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

const BUILD = join(import.meta.dirname, '../../build');
const compiled = new Set<string>();

/** `NAME.c` beside this file. @returns the path of the command. @throws Error with what the compiler says */
export function command(name: string): string {
  return once(join(BUILD, `bench-${name}`), (output) => {
    execFileSync('cc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', output, join(import.meta.dirname, `${name}.c`)]);
  });
}

/** `NAME.bpf.c` beside this file. @returns the path of the object. @throws Error with what the compiler says */
export function bpfObject(name: string): string {
  return once(join(BUILD, `bench-${name}.bpf.o`), (output) => {
    const include = execFileSync('cc', ['-print-multiarch'], { encoding: 'utf8' }).trim();
    const options = ['-O2', '-g', '-target', 'bpf', '-mcpu=v3', '-Wall', '-Werror', '-idirafter', `/usr/include/${include}`];
    execFileSync('clang', [...options, '-c', join(import.meta.dirname, `${name}.bpf.c`), '-o', output]);
  });
}

function once(output: string, compile: (output: string) => void): string {
  if (!compiled.has(output)) {
    mkdirSync(BUILD, { recursive: true });
    compile(output);
    compiled.add(output);
  }
  return output;
}

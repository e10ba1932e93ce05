import { defineConfig } from 'vitest/config';
import { COMPILED } from './test/support/compile-children.ts';

/** In a VM without KVM (tools/vm) everything takes its time. */
const patience = process.env['MAGLANE_VM'] === undefined ? 1 : 10;

/** Unit tests run in threads; the others share one kernel, so they run one file at a time. */
const onKernel = {
  pool: 'forks',
  fileParallelism: false,
  testTimeout: 60_000 * patience,
  hookTimeout: 120_000 * patience,
  globalSetup: './test/support/compile-children.ts',
  env: COMPILED,
} as const;

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], pool: 'threads' } },
      { test: { name: 'kernel', include: ['test/kernel/**/*.test.ts'], ...onKernel } },
      { test: { name: 'cluster', include: ['test/cluster/**/*.test.ts'], ...onKernel } },
      { test: { name: 'differential', include: ['test/differential/**/*.test.ts'], ...onKernel } },
    ],
  },
});

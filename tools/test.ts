/**
 * Runs the given vitest projects one after the other, each where it can run, and ends with one
 * plain line over all of them: `N passed, N failed, N skipped`. `node tools/test.ts unit kernel cluster differential`
 *
 * REQUIRE_KERNEL=1, REQUIRE_CLUSTER=1: what cannot run there is a failure. Without them the run
 * passes, and its last lines say what did not run, and why.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, join, relative } from 'node:path';

/** Exit code of tools/on-kernel and tools/components for "not on this machine". */
const UNAVAILABLE = 69;

/** The part of vitest's JSON report that is read. */
interface Report {
  readonly numPassedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  /** One for each file. */
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message: string;
    readonly assertionResults: readonly Assertion[];
  }[];
}

interface Assertion {
  readonly status: string;
  readonly fullName: string;
  readonly failureMessages: readonly string[];
}

interface Outcome {
  readonly passed: number;
  /** What failed, each with the first line of its message. */
  readonly failed: readonly string[];
  readonly skipped: number;
  /** Why the project did not run; "" when it did. */
  readonly absent: string;
}

const root = join(import.meta.dirname, '..');
/** Shared with the VM: what a guest writes there, the host reads. */
const results = join(root, 'build/vm');

mkdirSync(results, { recursive: true });
const outcomes = process.argv.slice(2).map((project) => ({ project, ...runProject(project) }));
const sum = (of: (outcome: Outcome) => number): number => outcomes.reduce((total, outcome) => total + of(outcome), 0);
const failed = outcomes.flatMap((outcome) => outcome.failed);

// Last, where whoever sees only the end of a long output finds it.
if (failed.length > 0) console.log(`\nFailed:\n  ${failed.join('\n  ')}`);
console.log(`\n${sum((o) => o.passed)} passed, ${failed.length} failed, ${sum((o) => o.skipped)} skipped`);
for (const { project, absent } of outcomes) if (absent !== '') console.log(`The ${project} tests did not run: ${absent}.`);
process.exitCode = failed.length > 0 || sum((o) => o.passed) === 0 ? 1 : 0;

function runProject(project: string): Outcome {
  console.log(`\n== ${project} tests`);
  if (project === 'unit') return vitest(project, []);
  if (project === 'kernel') return vitest(project, ['tools/on-kernel']);
  if (project !== 'cluster' && project !== 'differential') throw new Error(`no tests are called "${project}": unit, kernel, cluster or differential would be`);

  const components = spawnSync('tools/components', { cwd: root, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });
  const folder = components.stdout.trim();
  if (components.status === UNAVAILABLE && process.env['REQUIRE_CLUSTER'] !== '1') return absent(folder);
  if (components.status !== 0)
    return { passed: 0, failed: [`${project}: tools/components`], skipped: 0, absent: folder || 'their API server could not be built' };
  return vitest(project, ['env', `KUBEBUILDER_ASSETS=${folder}`, 'tools/on-kernel']);
}

/** Runs one project behind `prefix` and reads its report. */
function vitest(project: string, prefix: readonly string[]): Outcome {
  const report = join(results, `${project}.json`);
  rmSync(report, { force: true });
  const vitest = [process.execPath, join(root, 'node_modules/vitest/vitest.mjs'), 'run', '--project', project];
  const [command = '', ...args] = [...prefix, ...vitest, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { status } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (status === UNAVAILABLE && process.env['REQUIRE_KERNEL'] !== '1') return absent('neither this machine nor a VM on it can run BPF programs');
  const outcome = readReport(report);
  // Without a failed test, something around the tests went wrong: a leak, a crash, an unhandled rejection.
  return status !== 0 && outcome.failed.length === 0 ? { ...outcome, failed: [`${project}: vitest ended with ${status}`] } : outcome;
}

function absent(why: string): Outcome {
  return { passed: 0, failed: [], skipped: 0, absent: why };
}

/** A file that failed before its first test counts as one failed test; no report at all is a failure, too. */
function readReport(path: string): Outcome {
  let report: Report;
  try {
    report = JSON.parse(readFileSync(path, 'utf8')) as Report;
  } catch {
    return { passed: 0, failed: [`${basename(path, '.json')}: no report`], skipped: 0, absent: '' };
  }
  const failed = report.testResults.flatMap(({ name, status, message, assertionResults }) => {
    const file = relative(root, name);
    const tests = assertionResults.filter((test) => test.status === 'failed').map((test) => line(`${file}: ${test.fullName}`, test.failureMessages[0]));
    return tests.length > 0 || status !== 'failed' ? tests : [line(file, message)];
  });
  return { passed: report.numPassedTests, failed, skipped: report.numPendingTests + report.numTodoTests, absent: '' };
}

function line(what: string, message = ''): string {
  return `${what}: ${message.split('\n', 1)[0]}`;
}

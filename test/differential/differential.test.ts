/** kube-proxy v1.36.3 and Maglane follow one API server, and must do the same with every connection. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Rig } from './rig.ts';
import { run } from './run.ts';

const HISTORIES = Number(process.env['HISTORIES'] ?? 200);
const SEED = Number(process.env['SEED'] ?? 1);

let rig: Rig;

beforeAll(async () => {
  rig = await Rig.start();
});

afterAll(async () => rig?.[Symbol.asyncDispose]());

test(`${HISTORIES} histories from seed ${SEED} on`, { timeout: 0 }, async () => {
  const { totals, failures } = await run(rig, SEED, HISTORIES);
  const { steps, changes, refused, questions, tally } = totals;
  console.log(`${HISTORIES} histories: ${steps} steps, ${changes} changes (${refused} refused by the API server), ${questions} questions`);
  console.log([...tally].map(([name, count]) => `  ${count} times: ${name}`).join('\n'));
  expect(failures, failures.join('\n\n')).toEqual([]);
});

/** kube-proxy v1.36.3 and Maglane follow one API server, and must do the same with every connection. */
import { expect, test } from 'vitest';
import { Rig } from './rig.ts';
import { run } from './run.ts';
import { ROUND, setupOf } from './setups.ts';

const HISTORIES = Number(process.env['HISTORIES'] ?? ROUND);
const SEED = Number(process.env['SEED'] ?? 1);

const seeds = Array.from({ length: HISTORIES }, (_, i) => SEED + i);

test.each([...Map.groupBy(seeds, setupOf)].map(([setup, own]) => ({ setup, own, count: own.length, name: setup.name })))(
  '$count histories from seed $own.0 on, with $name',
  { timeout: 0 },
  async ({ setup, own }) => {
    await using rig = await Rig.start(setup);
    const { totals, failures } = await run(rig, own);
    const { steps, changes, refused, questions, tally } = totals;
    console.log(`${own.length} histories: ${steps} steps, ${changes} changes (${refused} refused by the API server), ${questions} questions`);
    console.log([...tally].map(([name, count]) => `  ${count} times: ${name}`).join('\n'));
    expect(failures, failures.join('\n\n')).toEqual([]);
    // A refused change ends its history: so few of them leave enough.
    expect(refused).toBeLessThanOrEqual(changes / 200);
  },
);

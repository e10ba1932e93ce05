/**
 * Throws packets at the programs and compares with the oracle. Run in a fresh network namespace, as root:
 * `unshare --net node test/oracle/run.ts PACKETS [SEED]`. Prints one line of JSON; exit code 1 and the story at a difference.
 */
import { Kernel, wire } from './kernel.ts';
import { Random } from '../support/random.ts';
import { Session } from './session.ts';

/** Packets for one world. */
const PER_WORLD = 2_000;

const packets = Number(process.argv[2] ?? 20_000);
const seed = Number(process.argv[3] ?? Date.now() % 2 ** 31);
wire();
const kernel = new Kernel();
const reasons = new Map<string, number>();
const started = performance.now();
let done = 0;
try {
  for (let world = 0; done < packets; world++) {
    const session = new Session(kernel, new Random(seed + world));
    for (let i = 0; i < PER_WORLD && done < packets; i++, done++) {
      const reason = session.step();
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
    }
    session.compareAll();
    if (world % 50 === 49) process.stderr.write(`${done} packets, ${Math.round(done / ((performance.now() - started) / 1000))} a second\n`);
  }
  console.log(
    JSON.stringify({ seed, packets: done, seconds: Math.round((performance.now() - started) / 1000), reasons: Object.fromEntries([...reasons].sort()) }),
  );
} catch (error) {
  console.log(`seed ${seed + Math.floor(done / PER_WORLD)}, packet ${done % PER_WORLD}: ${(error as Error).message}`);
  process.exitCode = 1;
} finally {
  kernel.close();
}

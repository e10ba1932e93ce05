/** Removes the labs of one process, which ends or has ended: `node reaper.ts PID`. */
import { sweep } from './remains.ts';

await sweep((pid) => pid === process.argv[2]);

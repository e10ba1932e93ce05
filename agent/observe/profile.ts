/** CPU profiles of the agent, by V8's own profiler: what kube-proxy has Go's pprof for. No port of the inspector is opened. */
import { setTimeout } from 'node:timers/promises';
import type { Answer, Page } from './server.ts';
import { text } from './server.ts';

/** Seconds that are profiled: as Go's pprof where none are asked for, and no more than this. */
const [DEFAULT, LONGEST] = [30, 60];

/** A page that profiles for `?seconds=N` and answers with a .cpuprofile, as browsers and editors open it. One at a time. */
export function cpuProfile(): Page {
  let isBusy = false;
  return async (query) => {
    const seconds = Number(query.get('seconds') ?? DEFAULT);
    if (!(seconds > 0 && seconds <= LONGEST)) return text(400, `seconds: expected a number above 0, at most ${LONGEST}\n`);
    if (isBusy) return text(503, 'another profile is being made\n');
    isBusy = true;
    try {
      return await profile(seconds);
    } finally {
      isBusy = false;
    }
  };
}

async function profile(seconds: number): Promise<Answer> {
  const { Session } = await import('node:inspector/promises');
  const session = new Session();
  session.connect();
  try {
    await session.post('Profiler.enable');
    await session.post('Profiler.start');
    // An agent that is to end does not wait for it.
    await setTimeout(seconds * 1000, undefined, { ref: false });
    const { profile: made } = await session.post('Profiler.stop');
    return { status: 200, type: 'application/json', body: JSON.stringify(made) };
  } finally {
    session.disconnect();
  }
}

/** kube-proxy's ipvs schedulers, for those who come from that mode. The reasons stand in docs/balancing.md. */
import type { Algorithm } from '../model/desired.ts';

/** Of all of ip_vs(4), what comes nearest: with one weight for all, as Kubernetes has it, the weighted ones are the plain ones. */
export const SCHEDULERS: Readonly<Record<string, Algorithm>> = {
  rr: 'round-robin',
  wrr: 'round-robin',
  lc: 'least-connections',
  wlc: 'least-connections',
  sed: 'least-connections',
  nq: 'least-connections',
  twos: 'least-connections',
  lblc: 'least-connections',
  lblcr: 'least-connections',
  sh: 'source-hash',
  mh: 'source-hash',
  dh: 'maglev',
  fo: 'maglev',
  ovf: 'maglev',
};

/** The algorithm in the place of a scheduler; undefined where kube-proxy has no use for one either, or there is no such scheduler. */
export function algorithmFor(scheduler: string, mode: unknown): Algorithm | undefined {
  return mode === 'ipvs' && Object.hasOwn(SCHEDULERS, scheduler) ? SCHEDULERS[scheduler] : undefined;
}

/** What the log says of a scheduler, behind its name; undefined: nothing. */
export function lineFor(scheduler: string, mode: unknown): string | undefined {
  if (mode !== 'ipvs' || scheduler === '') return undefined;
  const algorithm = algorithmFor(scheduler, mode);
  return algorithm === undefined
    ? 'is no scheduler of ipvs, and has no effect: docs/balancing.md has them all'
    : `is --algorithm ${algorithm} here: docs/balancing.md`;
}

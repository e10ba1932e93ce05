/** What to say when a map is full. */
import type { DesiredService } from '../model/desired.ts';
import type { Problem } from '../model/problem.ts';
import type { Capacity } from './held.ts';

/** What a service found no room in. */
export type Shortage = 'services' | 'frontends' | 'backends' | 'ring' | 'ranges';

/** Map, size and option. */
const OPTIONS = {
  services: ['services', 'services', '--max-services'],
  frontends: ['frontends', 'frontends', '--max-frontends'],
  backends: ['backends', 'backends', '--max-backends'],
  ring: ['ring', 'ringSlots', '--ring-slots'],
  ranges: ['source_ranges', 'sourceRanges', '--max-source-ranges'],
} as const;

/**
 * One line, equal as long as the cause is: `Service default/web: spec.ports "http/TCP/IPv4" does not fit into the map
 * backends, which has 262144 entries: a larger --max-backends would be right`.
 * @param isHeld it is served already, and goes on with what it has and still wants.
 */
export function shortageProblem(desired: DesiredService, short: Shortage, capacity: Capacity, isHeld: boolean): Problem {
  const [map, size, option] = OPTIONS[short];
  const unit = size === 'ringSlots' ? 'slots' : 'entries';
  const effect = isHeld ? 'has grown beyond' : 'does not fit into';
  const until = isHeld ? ' (it keeps what it has)' : '';
  const port = desired.portName === '' ? '' : `${desired.portName}/`;
  return {
    object: `Service ${desired.namespace}/${desired.name}`,
    field: 'spec.ports',
    value: `${port}${desired.protocol}/IPv${desired.family}`,
    message: `${effect} the map ${map}, which has ${capacity[size]} ${unit}: a larger ${option} would be right${until}`,
    reason: 'capacity',
  };
}

/** What stands in `Plan.problems` for all Maglev tables together: there may be thousands without room. */
export const TABLES_KEY = 'tables';

/** One line for all services that are served without their Maglev tables. */
export function tablesProblem({ ringSlots }: Capacity): Problem {
  const message =
    `has no room for all Maglev tables in its ${ringSlots} slots: a larger --ring-slots would be right ` +
    '(backends of the other services are chosen at random until then)';
  return { object: 'map ring', field: '', value: '', message, reason: 'capacity' };
}

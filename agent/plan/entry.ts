/** One service as the maps hold it. */
import type { HeldBackend, HeldService } from './held.ts';
import type { SetName } from './records.ts';

export interface Entry {
  service: HeldService;
  /** Keys of the frontends that point at it. */
  readonly frontends: Set<string>;
  /** Its slots by "address:port", retired ones included until they are reclaimed. */
  readonly backends: Map<string, HeldBackend>;
  readonly members: Record<SetName, Uint32Array>;
}

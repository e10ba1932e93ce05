/** Which Services a command is asked about. */

/** Whether a Service matches NAME or NAMESPACE/NAME; undefined matches all. */
export function matches(service: { readonly namespace: string; readonly name: string }, wanted: string | undefined): boolean {
  return wanted === undefined || wanted === service.name || wanted === `${service.namespace}/${service.name}`;
}

/**
 * The same list, or an error when something was asked for and nothing is there.
 * @throws Error naming what was asked for.
 */
export function found<T>(rows: readonly T[], wanted: string | undefined): readonly T[] {
  if (wanted !== undefined && rows.length === 0) throw new Error(`no Service ${JSON.stringify(wanted)} is programmed here: maglane services lists them`);
  return rows;
}

/** Which Services a command is asked about. */

/** Whether a Service matches NAME or NAMESPACE/NAME; undefined matches all. */
export function matches(service: { readonly namespace: string; readonly name: string }, wanted: string | undefined): boolean {
  return wanted === undefined || wanted === service.name || wanted === `${service.namespace}/${service.name}`;
}

/**
 * The rows of the Service that was asked for.
 * @param wanted as in `matches`.
 * @throws Error naming what was asked for when nothing of it is there.
 */
export function ofService<T extends { readonly namespace: string; readonly name: string }>(rows: readonly T[], wanted: string | undefined): readonly T[] {
  const rowsOfIt = rows.filter((row) => matches(row, wanted));
  if (wanted !== undefined && rowsOfIt.length === 0) throw new Error(`no Service ${JSON.stringify(wanted)} is programmed here: maglane services lists them`);
  return rowsOfIt;
}

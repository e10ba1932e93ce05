/** `maglane backends`: every backend slot, those on their way out included. */
import { openView } from '../dataplane/view.ts';
import type { View } from '../dataplane/view.ts';
import { formatEndpoint } from '../model/address.ts';
import type { Address } from '../model/address.ts';
import { ofService } from './filter.ts';
import type { OutputFormat } from './output.ts';
import { formatTable, print } from './output.ts';

interface BackendRow {
  readonly namespace: string;
  readonly name: string;
  readonly port: string;
  readonly protocol: string;
  readonly address: Address;
  readonly backendPort: number;
  readonly id: number;
  readonly state: 'serving' | 'terminating' | 'leaving';
  readonly local: boolean;
  /** The address of its node, to which packets from outside go as they are (DSR). */
  readonly host: Address | undefined;
  /** Flows and sockets that ever chose it. */
  readonly connections: number;
  /** Connected sockets of this node that have it now. */
  readonly open: number;
  /** Of the connections of its service port, 0 to 1. */
  readonly share: number;
}

/** Prints the table, or the rows as JSON or YAML. */
export async function backends(bpffs: string, format: OutputFormat, name: string | undefined): Promise<void> {
  using view = openView(bpffs);
  await print(format, ofService(readRows(view), name), table);
}

function readRows(view: View): BackendRow[] {
  const held = view.read();
  const services = new Map(held.services.map((service) => [service.id, service]));
  const totals = new Map<number, number>();
  for (const { id, service } of held.backends) totals.set(service, (totals.get(service) ?? 0) + view.connections(id));
  return held.backends
    .map((backend): BackendRow => {
      const service = services.get(backend.service);
      const connections = view.connections(backend.id);
      return {
        namespace: service?.namespace ?? '',
        name: service?.name ?? '',
        port: service?.portName ?? '',
        protocol: service?.protocol ?? '',
        address: backend.address,
        backendPort: backend.port,
        id: backend.id,
        state: !backend.serving ? 'leaving' : backend.terminating ? 'terminating' : 'serving',
        local: backend.local,
        host: backend.host,
        connections,
        open: view.openSockets(backend.id),
        share: connections / Math.max(1, totals.get(backend.service) ?? 0),
      };
    })
    .sort((a, b) => (sortKey(a) < sortKey(b) ? -1 : 1));
}

const sortKey = (row: BackendRow): string => [row.namespace, row.name, row.port, row.protocol, row.address, row.backendPort].join('\0');

function table(rows: readonly BackendRow[]): string {
  if (rows.length === 0) return 'no backends are programmed\n';
  const columns = [
    { title: 'SERVICE' },
    { title: 'PROTO' },
    { title: 'BACKEND' },
    { title: 'WHERE' },
    { title: 'STATE' },
    { title: 'CONNECTIONS', right: true },
    { title: 'OPEN', right: true },
    { title: 'SHARE', right: true },
  ];
  return formatTable(
    columns,
    rows.map((row) => [
      row.name === '' ? '(deleted)' : `${row.namespace}/${row.name}${row.port === '' ? '' : `:${row.port}`}`,
      row.protocol,
      formatEndpoint(row.address, row.backendPort),
      row.local ? 'here' : row.host === undefined ? 'elsewhere' : `at ${row.host} (dsr)`,
      row.state,
      String(row.connections),
      String(row.open),
      `${Math.round(row.share * 100)} %`,
    ]),
  );
}

/** `maglane flows`: the connections that pass through this node as packets. Sockets have none: they talk to their backend. */
import type { FlowReading } from '../dataplane/flows.ts';
import { openView } from '../dataplane/view.ts';
import { formatEndpoint } from '../model/address.ts';
import { matches, ofService } from './filter.ts';
import type { OutputFormat } from './output.ts';
import { formatTable, print } from './output.ts';

interface FlowRow extends Omit<FlowReading, 'proto'> {
  readonly namespace: string;
  readonly name: string;
  readonly port: string;
  readonly protocol: string;
}

const PROTOCOLS: Readonly<Record<number, string>> = { 6: 'TCP', 17: 'UDP', 132: 'SCTP' };

/** Prints the flows, of one Service if it is named, the busiest first. */
export async function flows(bpffs: string, format: OutputFormat, name: string | undefined): Promise<void> {
  using view = openView(bpffs);
  const services = new Map(view.read().services.map((service) => [service.id, service]));
  // A Service that is not there is an error, one without flows is not.
  ofService([...services.values()], name);
  const rows = view
    .flows()
    .map(({ proto, ...flow }): FlowRow => {
      const service = services.get(flow.service);
      const protocol = PROTOCOLS[proto] ?? String(proto);
      return { namespace: service?.namespace ?? '', name: service?.name ?? '', port: service?.portName ?? '', protocol, ...flow };
    })
    .filter((row) => matches(row, name))
    .sort((a, b) => a.idleSeconds - b.idleSeconds);
  await print(format, rows, table);
}

function table(rows: readonly FlowRow[]): string {
  if (rows.length === 0) return 'no flow passes through this node as packets\n';
  const columns = [
    { title: 'PROTO' },
    { title: 'CLIENT' },
    { title: 'FRONTEND' },
    { title: 'BACKEND' },
    { title: 'SENT FROM' },
    { title: 'SERVICE' },
    { title: 'STATE' },
    { title: 'IDLE', right: true },
  ];
  return formatTable(
    columns,
    rows.map(({ client, frontend, backend, source, host, ...row }) => [
      row.protocol,
      formatEndpoint(client.address, client.port),
      formatEndpoint(frontend.address, frontend.port),
      `${formatEndpoint(backend.address, backend.port)}${host === undefined ? '' : ` at ${host} (dsr)`}`,
      source.address === client.address && source.port === client.port ? 'client' : formatEndpoint(source.address, source.port),
      row.name === '' ? '(deleted)' : `${row.namespace}/${row.name}${row.port === '' ? '' : `:${row.port}`}`,
      row.half ? `${row.state}, half` : row.state,
      `${row.idleSeconds} s`,
    ]),
  );
}

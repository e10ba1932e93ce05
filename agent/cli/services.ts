/** `maglane services`: what every Service does, read from the pinned maps. */
import { openView } from '../dataplane/view.ts';
import type { View } from '../dataplane/view.ts';
import type { Address } from '../model/address.ts';
import { formatCidr, formatEndpoint } from '../model/address.ts';
import type { HeldBackend, HeldService, SetRegion } from '../plan/held.ts';
import { ofService } from './filter.ts';
import type { OutputFormat } from './output.ts';
import { formatTable, print } from './output.ts';

interface ServiceRow {
  readonly namespace: string;
  readonly name: string;
  readonly port: string;
  readonly protocol: string;
  readonly family: 4 | 6;
  readonly algorithm: string;
  readonly affinitySeconds: number;
  readonly internalTrafficPolicy: 'Cluster' | 'Local';
  readonly externalTrafficPolicy: 'Cluster' | 'Local';
  /** Whom the load balancer addresses let in; null: all. */
  readonly sourceRanges: readonly string[] | null;
  readonly frontends: readonly { readonly kind: string; readonly address: Address; readonly port: number; readonly hostOnly: boolean }[];
  readonly backends: readonly {
    readonly address: string;
    readonly port: number;
    readonly local: boolean;
    readonly terminating: boolean;
    readonly connections: number;
  }[];
}

/** Prints the table, or the rows as JSON or YAML. */
export async function services(bpffs: string, format: OutputFormat, name: string | undefined): Promise<void> {
  using view = openView(bpffs);
  await print(format, ofService(readRows(view), name), table);
}

function readRows(view: View): ServiceRow[] {
  const held = view.read();
  const backends = new Map(held.backends.map((backend) => [backend.id, backend]));
  const members = (service: HeldService): HeldBackend[] => {
    const ids = new Set([service.cluster, service.local].flatMap((region: SetRegion) => [...held.members(region)]));
    return [...ids].map((id) => backends.get(id)).filter((backend) => backend !== undefined);
  };
  const frontends = Map.groupBy(held.frontends, (frontend) => frontend.service);
  const ranges = Map.groupBy(held.sourceRanges, (range) => range.service);
  const sourceRanges = ({ id }: HeldService): string[] | null =>
    frontends.get(id)?.some((frontend) => frontend.sourceRanges) === true ? (ranges.get(id) ?? []).map(({ range }) => formatCidr(range)).sort() : null;
  return held.services
    .map((service) => ({
      namespace: service.namespace,
      name: service.name,
      port: service.portName,
      protocol: service.protocol,
      family: service.family,
      algorithm: service.algorithm,
      affinitySeconds: service.affinitySeconds,
      internalTrafficPolicy: policy(service.internalLocal),
      externalTrafficPolicy: policy(service.externalLocal),
      sourceRanges: sourceRanges(service),
      frontends: (frontends.get(service.id) ?? [])
        .map(({ kind, address, port, hostOnly }) => ({ kind, address, port, hostOnly }))
        .sort((a, b) => compare(`${KINDS.indexOf(a.kind)} ${a.address}`, `${KINDS.indexOf(b.kind)} ${b.address}`)),
      backends: members(service)
        .map(({ id, address, port, local, terminating }) => ({ address, port, local, terminating, connections: view.connections(id) }))
        .sort((a, b) => compare(formatEndpoint(a.address, a.port), formatEndpoint(b.address, b.port))),
    }))
    .sort((a, b) => compare(sortKey(a), sortKey(b)));
}

const KINDS = ['ClusterIP', 'NodePort', 'ExternalIP', 'LoadBalancer'];
const policy = (local: boolean): 'Cluster' | 'Local' => (local ? 'Local' : 'Cluster');
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
const sortKey = (row: ServiceRow): string => [row.namespace, row.name, row.port, row.protocol, row.family].join('\0');

/** One line a frontend; what belongs to the whole Service stands on its first line only. */
function table(rows: readonly ServiceRow[]): string {
  if (rows.length === 0) return 'no Services are programmed\n';
  const columns = [
    { title: 'SERVICE' },
    { title: 'KIND' },
    { title: 'FRONTEND' },
    { title: 'PROTO' },
    { title: 'CHOICE' },
    { title: 'BACKENDS' },
    { title: 'CONNECTIONS', right: true },
  ];
  return formatTable(
    columns,
    rows.flatMap((row) => {
      const service = `${row.namespace}/${row.name}${row.port === '' ? '' : `:${row.port}`}`;
      const lines = row.frontends.map((frontend) => [frontend.kind, frontendText(row, frontend), row.protocol]);
      if (lines.length === 0) lines.push(['-', '-', row.protocol]);
      const connections = String(row.backends.reduce((sum, backend) => sum + backend.connections, 0));
      return lines.map((line, i) => (i === 0 ? [service, ...line, choice(row), backendSummary(row), connections] : ['', ...line]));
    }),
  );
}

/** "203.0.113.1:443", "203.0.113.1:443 from 10.0.0.0/8 fd00::/8". */
function frontendText({ sourceRanges }: ServiceRow, { kind, address, port }: ServiceRow['frontends'][number]): string {
  const frontend = formatEndpoint(address, port);
  if (kind !== 'LoadBalancer' || sourceRanges === null) return frontend;
  return `${frontend} from ${sourceRanges.length === 0 ? 'nobody' : sourceRanges.join(' ')}`;
}

function choice(row: ServiceRow): string {
  return row.affinitySeconds === 0 ? row.algorithm : `${row.algorithm}, sticky ${row.affinitySeconds} s`;
}

/** "3", "3 (1 here)", "none". */
function backendSummary(row: ServiceRow): string {
  if (row.backends.length === 0) return 'none';
  const local = row.backends.filter((backend) => backend.local).length;
  const terminating = row.backends.filter((backend) => backend.terminating).length;
  const notes = [local > 0 ? `${local} here` : '', terminating > 0 ? `${terminating} terminating` : ''].filter((note) => note !== '');
  return notes.length === 0 ? String(row.backends.length) : `${row.backends.length} (${notes.join(', ')})`;
}

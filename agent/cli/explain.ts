/** `maglane explain`: what a new connection to an address would meet, and why, read from the pinned maps. */
import native from '../../native/index.js';
import { openView } from '../dataplane/view.ts';
import { UsageError } from '../config/usage-error.ts';
import type { Caller, Destination, Explanation } from '../explain/explain.ts';
import { Explainer, formatDestination } from '../explain/explain.ts';
import type { Address } from '../model/address.ts';
import { familyOf, formatEndpoint, parseAddress } from '../model/address.ts';
import type { Protocol } from '../model/desired.ts';
import type { OutputFormat } from './output.ts';
import { formatTable, print } from './output.ts';

interface Row {
  /** "node", "pod", "outside", or the address that was asked about. */
  readonly from: string;
  readonly way: Caller['way'];
  readonly verdict: Explanation['verdict'];
  readonly why: readonly string[];
  readonly frontend: string | undefined;
  /** "namespace/name:port". */
  readonly service: string | undefined;
  readonly set: string | undefined;
  readonly backends: readonly {
    readonly address: string;
    readonly port: number;
    readonly local: boolean;
    readonly terminating: boolean;
    readonly masquerade: boolean;
    /** The node that answers the caller itself (DSR). */
    readonly host: string | undefined;
  }[];
}

const CALLERS: readonly Caller[] = [
  { place: 'node', way: 'socket', source: undefined },
  { place: 'pod', way: 'socket', source: undefined },
  { place: 'outside', way: 'packet', source: undefined },
];

/**
 * Prints one part for each kind of caller, or the rows as JSON or YAML.
 * @param target "10.96.0.1:80", "[fd00::1]:53/udp"; TCP when it does not say.
 * @param from node, pod, outside, or the address that a packet comes from; undefined: each of the first three.
 * @throws UsageError for a target or a caller that cannot be read.
 */
export async function explain(bpffs: string, format: OutputFormat, target: string, from: string | undefined): Promise<void> {
  const to = readTarget(target);
  const own = ownAddresses();
  const callers = from === undefined ? CALLERS : [readCaller(from, to, own)];
  using view = openView(bpffs);
  const explainer = new Explainer(view.read(), (address) => own.has(address));
  const rows = callers.map((caller) => toRow(caller, explainer.explain(to, caller)));
  await print(format, rows, () => page(to, rows));
}

/** The addresses of this node's interfaces. */
function ownAddresses(): ReadonlySet<Address> {
  const cidrs = native.interfaces().flatMap(({ addresses }) => addresses);
  return new Set(cidrs.map((cidr) => parseAddress(cidr.split('/')[0] ?? '')).filter((address) => address !== undefined));
}

function readCaller(from: string, to: Destination, own: ReadonlySet<Address>): Caller {
  const known = CALLERS.find(({ place }) => place === from);
  if (known !== undefined) return known;
  const source = parseAddress(from);
  if (source === undefined || familyOf(source) !== familyOf(to.address))
    throw new UsageError('--from', from, `node, pod, outside, or an IPv${familyOf(to.address)} address`);
  return { place: own.has(source) ? 'node' : 'outside', way: 'packet', source };
}

function readTarget(text: string): Destination {
  const [, bracketed, bare, port, protocol = 'tcp'] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})(?:\/(\w+))?$/.exec(text) ?? [];
  const address = parseAddress(bracketed ?? bare ?? '');
  const upper = protocol.toUpperCase();
  const isProtocol = upper === 'TCP' || upper === 'UDP' || upper === 'SCTP';
  if (address === undefined || Number(port) < 1 || Number(port) > 65_535 || !isProtocol)
    throw new UsageError('what to explain', text, 'an address and port such as 10.96.0.1:80, [fd00::1]:80 or 10.96.0.10:53/udp');
  return { address, port: Number(port), protocol: upper satisfies Protocol };
}

function toRow({ place, way, source }: Caller, { verdict, why, frontend, service, set, targets }: Explanation): Row {
  return {
    from: source ?? place,
    way,
    verdict,
    why,
    frontend: frontend?.kind,
    service: service === undefined ? undefined : `${service.namespace}/${service.name}${service.portName === '' ? '' : `:${service.portName}`}`,
    set,
    backends: targets.map(({ backend: { address, port, local, terminating }, masquerade, host }) => ({ address, port, local, terminating, masquerade, host })),
  };
}

const FROM: Readonly<Record<string, string>> = { node: 'the node', pod: 'a pod of this node', outside: 'outside' };

const VERDICTS: Readonly<Record<Explanation['verdict'], string>> = {
  backend: 'goes to one of',
  reject: 'is rejected',
  drop: 'is dropped',
  pass: 'is left alone',
  broken: 'meets maps that contradict themselves',
};

function page(to: Destination, rows: readonly Row[]): string {
  const known = rows.find(({ service }) => service !== undefined);
  const head = `${formatDestination(to)}${known === undefined ? '' : `: ${known.frontend} of ${known.service}`}\n`;
  return head + rows.map(part).join('');
}

function part({ from, way, verdict, why, backends }: Row): string {
  const caller = `from ${FROM[from] ?? from}, ${way === 'socket' ? 'by socket' : 'as a packet'}`;
  const count = backends.length === 1 ? '1 backend' : `${backends.length} backends`;
  const lines = [`\n${caller}: ${VERDICTS[verdict]}${verdict === 'backend' ? ` ${count}` : ''}`, ...why.map((step) => `  ${step}`)];
  if (backends.length === 0) return `${lines.join('\n')}\n`;
  const cells = backends.map((backend) => [
    formatEndpoint(backend.address as never, backend.port),
    backend.local ? 'here' : backend.host === undefined ? 'elsewhere' : `at ${backend.host} (dsr)`,
    backend.terminating ? 'terminating' : 'ready',
    backend.masquerade ? 'this node' : 'the client',
  ]);
  const table = formatTable([{ title: 'BACKEND' }, { title: 'WHERE' }, { title: 'STATE' }, { title: 'SEES' }], cells);
  return `${lines.join('\n')}\n${table.replaceAll(/^(?=.)/gm, '  ')}`;
}

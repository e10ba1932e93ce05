/** `maglane explain`: what a new connection to an address would meet, and why, read from the pinned maps. */
import { openView } from '../dataplane/view.ts';
import { UsageError } from '../config/usage-error.ts';
import type { Caller, Destination, Explanation } from '../explain/explain.ts';
import { Explainer, formatDestination } from '../explain/explain.ts';
import { formatEndpoint, parseAddress } from '../model/address.ts';
import type { Protocol } from '../model/desired.ts';
import type { OutputFormat } from './output.ts';
import { formatTable, print } from './output.ts';

type From = Caller['place'];

interface Row {
  readonly from: From;
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
  }[];
}

const CALLERS: readonly Caller[] = [
  { place: 'node', way: 'socket' },
  { place: 'pod', way: 'socket' },
  { place: 'outside', way: 'packet' },
];

/**
 * Prints one part for each kind of caller, or the rows as JSON or YAML.
 * @param target "10.96.0.1:80", "[fd00::1]:53/udp"; TCP when it does not say.
 * @param from node, pod or outside; undefined: each of them.
 * @throws UsageError for a target or a caller that cannot be read.
 */
export async function explain(bpffs: string, format: OutputFormat, target: string, from: string | undefined): Promise<void> {
  const to = readTarget(target);
  const callers = CALLERS.filter(({ place }) => from === undefined || place === from);
  if (callers.length === 0) throw new UsageError('--from', from ?? '', 'node, pod or outside');
  const view = openView(bpffs);
  try {
    const explainer = new Explainer(view.read());
    await print(
      format,
      callers.map((caller) => toRow(caller, explainer.explain(to, caller))),
      (rows) => page(to, rows),
    );
  } finally {
    view.close();
  }
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

function toRow({ place, way }: Caller, { verdict, why, frontend, service, set, targets }: Explanation): Row {
  return {
    from: place,
    way,
    verdict,
    why,
    frontend: frontend?.kind,
    service: service === undefined ? undefined : `${service.namespace}/${service.name}${service.portName === '' ? '' : `:${service.portName}`}`,
    set,
    backends: targets.map(({ backend: { address, port, local, terminating }, masquerade }) => ({ address, port, local, terminating, masquerade })),
  };
}

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
  const caller = from === 'outside' ? 'from outside' : `from ${from === 'node' ? 'the node' : 'a pod of this node'}, by ${way}`;
  const count = backends.length === 1 ? '1 backend' : `${backends.length} backends`;
  const lines = [`\n${caller}: ${VERDICTS[verdict]}${verdict === 'backend' ? ` ${count}` : ''}`, ...why.map((step) => `  ${step}`)];
  if (backends.length === 0) return `${lines.join('\n')}\n`;
  const cells = backends.map((backend) => [
    formatEndpoint(backend.address as never, backend.port),
    backend.local ? 'here' : 'elsewhere',
    backend.terminating ? 'terminating' : 'ready',
    backend.masquerade ? 'this node' : 'the client',
  ]);
  const table = formatTable([{ title: 'BACKEND' }, { title: 'WHERE' }, { title: 'STATE' }, { title: 'SEES' }], cells);
  return `${lines.join('\n')}\n${table.replaceAll(/^(?=.)/gm, '  ')}`;
}

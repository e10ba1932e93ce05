/** `maglane status`: is it running, where is it attached, how full is it, what became of the packets. */
import { findKubeProxy } from '../dataplane/kube-proxy.ts';
import { openView } from '../dataplane/view.ts';
import type { View } from '../dataplane/view.ts';
import type { OutputFormat } from './output.ts';
import { formatTable, print } from './output.ts';

type Agent = ReturnType<View['agent']>;
type Device = ReturnType<View['devices']>[number];

interface Status {
  readonly bpffs: string;
  readonly agent: Agent;
  readonly services: number;
  readonly frontends: number;
  readonly backends: number;
  /** Addresses of other nodes, whose packets are taken as they are (DSR). */
  readonly peers: number;
  /** Signs of a kube-proxy, running or left over, in this network namespace. */
  readonly kubeProxy: readonly string[];
  readonly devices: readonly Device[];
  readonly maps: ReturnType<View['maps']>;
  readonly counters: ReturnType<View['counters']>;
}

/** Prints the status; works with the agent dead, and says that it is. */
export async function status(bpffs: string, format: OutputFormat): Promise<void> {
  using view = openView(bpffs);
  const { services, frontends, backends, peers } = view.read();
  const data = {
    bpffs,
    agent: view.agent(),
    services: services.length,
    frontends: frontends.length,
    backends: backends.length,
    peers: peers.length,
    kubeProxy: findKubeProxy().map(({ what }) => what),
    devices: view.devices(),
    maps: view.maps(),
    counters: view.counters(),
  };
  await print<Status>(format, data, page);
}

/** Why a device runs in its mode, for people. */
const WHY: Readonly<Record<string, string>> = {
  asked: 'as --xdp-mode says',
  native: 'the driver takes XDP',
  veth: 'a veth cannot vouch for checksums, nor for delivery of XDP_TX',
  tunnel: 'XDP cannot see inside a tunnel',
  refused: 'the driver refused XDP',
  pod: 'XDP is for what comes from outside',
};

function page(data: Status): string {
  return [agentLines(data), deviceTable(data.devices), mapTable(data), counterTable(data)].join('\n');
}

function agentLines({ agent, bpffs, services, frontends, backends, peers, kubeProxy }: Status): string {
  const state = agent.running
    ? `running, pid ${agent.pid}, since ${time(agent.started)}`
    : `not running (last: pid ${agent.pid}); the kernel goes on with what it has`;
  return [
    `node      ${agent.nodeName}`,
    `agent     ${state}, version ${agent.version}`,
    `source    ${agent.source}`,
    `written   ${agent.synced === 0 ? 'never' : time(agent.synced)}`,
    `pins      ${bpffs}`,
    `serving   ${services} service ports, ${frontends} frontends, ${backends} backends`,
    ...(peers === 0 ? [] : [`dsr       from and to ${peers} addresses of other nodes`]),
    ...kubeProxy.map((what) => `beside    kube-proxy: ${what} (maglane cleanup --kube-proxy removes what it left)`),
    '',
  ].join('\n');
}

function deviceTable(devices: readonly Device[]): string {
  if (devices.length === 0) return 'attached to no device: only sockets are served\n';
  const columns = [{ title: 'DEVICE' }, { title: 'MODE' }, { title: 'TC HOOK' }, { title: 'SENDS FROM' }, { title: 'WHY' }];
  const rows = devices.filter(({ pod }) => !pod).map((device) => deviceRow(device.name, device));
  // A node has hundreds of these, and they are all alike: `-o json` has them one by one.
  const pods = Map.groupBy(
    devices.filter(({ pod }) => pod),
    (device) => deviceRow('', device).join('\0'),
  );
  const podRows = [...pods.values()].map((alike) => deviceRow(`(${alike.length} to pods)`, alike[0] as Device));
  return formatTable(columns, [...rows, ...podRows]);
}

function deviceRow(name: string, { mode, hook, addr4, addr6, why }: Device): string[] {
  const sources = [addr4, addr6].filter((address) => address !== undefined).join(', ');
  return [name, mode, hook, sources === '' ? '-' : sources, WHY[why] ?? why];
}

function mapTable({ maps }: Status): string {
  const columns = [{ title: 'MAP' }, { title: 'ENTRIES', right: true }, { title: 'SIZE', right: true }, { title: 'FULL', right: true }];
  return formatTable(
    columns,
    maps.map(({ name, entries, maxEntries }) => [name, String(entries), String(maxEntries), `${Math.round((100 * entries) / maxEntries)} %`]),
  );
}

function counterTable({ counters }: Status): string {
  const seen = counters.filter(({ packets }) => packets > 0);
  if (seen.length === 0) return 'no packet and no socket has been seen yet\n';
  const columns = [{ title: 'VERDICT' }, { title: 'PACKETS', right: true }, { title: 'BYTES', right: true }];
  return formatTable(
    columns,
    seen.map(({ reason, packets, bytes }) => [reason, String(packets), String(bytes)]),
  );
}

const time = (ms: number): string => new Date(ms).toISOString();

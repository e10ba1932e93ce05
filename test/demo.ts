/**
 * `make demo`: the shop of examples/ on two nodes, and what a newcomer wants to see of it. Every line
 * that claims something has checked it; the first that does not hold ends the demo with exit code 1.
 */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host } from './support/lab/host.ts';
import { Lab } from './support/lab/lab.ts';
import type { LabNode } from './support/lab/node.ts';
import type { Answer } from './support/lab/protocol.ts';

const EXAMPLES = join(import.meta.dirname, '../examples');
const started = performance.now();

let lab: Lab | undefined;
try {
  try {
    lab = await raise();
    await show(lab);
  } finally {
    await lab?.destroy();
  }
  console.log(`\nAll of it held, and nothing is left behind (${Math.round((performance.now() - started) / 1000)} s).`);
} catch (error) {
  console.log(`\nFAILED: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}

/* ---- the stage ---- */

/** A copy of examples/, to be changed. */
function manifestsOf(stage: Lab): string {
  return join(stage.folder, 'examples');
}

async function raise(): Promise<Lab> {
  title('A cluster out of network namespaces: two nodes, their pods, a client outside');
  const made = await Lab.create();
  lab = made;
  const [a, b] = [made.node('node-a'), made.node('node-b')];
  const pods: [string, LabNode, number, { tcp?: number[]; udp?: number[] }][] = [
    ['web-1', b, 10, { tcp: [8080] }],
    ['web-2', b, 11, { tcp: [8080] }],
    ['web-3', b, 12, { tcp: [8080] }],
    ['api-a', a, 20, { tcp: [9090] }],
    ['api-b', b, 20, { tcp: [9090] }],
    ['dns-a', a, 53, { tcp: [5353], udp: [5353] }],
    ['dns-b', b, 53, { tcp: [5353], udp: [5353] }],
  ];
  for (const [name, node, number, servers] of pods) await (await made.addPod(name, node, number)).serve(servers);
  await made.addPod('shopper', a, 100);
  say(`node-a ${a.addresses.join(', ')}: api-a, dns-a, shopper`);
  say(`node-b ${b.addresses.join(', ')}: web-1, web-2, web-3, api-b, dns-b`);
  say(`client ${made.client.addresses.join(', ')}`);

  title('An agent on each, reading examples/ (no Kubernetes needed)');
  cpSync(EXAMPLES, manifestsOf(made), { recursive: true });
  await Promise.all(made.nodes.map((node) => node.startAgent({ manifests: manifestsOf(made) })));
  await print(a, ['services']);
  await print(a, ['status']);
  return made;
}

async function show(stage: Lab): Promise<void> {
  const a = stage.node('node-a');
  const shopper = stage.pod('shopper');
  const manifests = manifestsOf(stage);

  title('100 connections to the cluster IP of web, from a pod and from a node: the socket gets a backend at connect()');
  const before = performance.now();
  for (const host of [shopper, a] as Host[]) {
    const answers = await host.connect('10.96.0.10', 80, { count: 100 });
    spread(`${host.name} -> 10.96.0.10:80`, answers, ['web-1', 'web-2', 'web-3']);
  }

  // A tenth of what this machine can do, so that a VM without KVM has time for the rest as well.
  const perSecond = Math.min(500, Math.ceil(20_000 / (performance.now() - before)));

  title('The same over IPv6, and UDP: the answer comes from whom was asked');
  spread('shopper -> [fd00:96::20]:80', await shopper.connect('fd00:96::20', 80, { count: 100 }), ['api-a', 'api-b']);
  const datagrams = await shopper.send('10.96.0.53', 53, { count: 50 });
  spread('shopper -> 10.96.0.53:53/UDP', datagrams, ['dns-a', 'dns-b']);
  check(
    datagrams.every(({ replyFrom }) => replyFrom === '10.96.0.53:53'),
    'every datagram was answered by 10.96.0.53:53',
  );

  title('From outside, to the nodePort of node-a, which has no backend of web: forwarded in the kernel, answered through node-a');
  const outside = await stage.client.connect('172.30.0.11', 30080, { count: 100 });
  spread('client -> 172.30.0.11:30080', outside, ['web-1', 'web-2', 'web-3']);
  check(
    outside.every(({ from }) => from.startsWith('172.30.0.11:')),
    `the backends saw node-a: ${outside[0]?.from}`,
  );
  const local = await stage.client.connect('172.30.0.12', 30080, { count: 20 });
  check(
    local.every(({ error, from }) => error === undefined && from.startsWith('172.30.0.100:')),
    `through node-b, where they run, they see the client itself: ${local[0]?.from}`,
  );

  title(`A backend goes: web-3 leaves its EndpointSlice while ${perSecond} connections a second arrive`);
  const file = join(manifests, 'shop.yaml');
  const traffic = await shopper.traffic('10.96.0.10', 80, perSecond);
  await answersFrom(traffic, ['web-1', 'web-2', 'web-3']);
  writeFileSync(file, readFileSync(file, 'utf8').replace(/^.*addresses: \[10\.244\.2\.12\].*\n/m, ''));
  await until('web-3 is gone from the maps', async () => (await backendsOf(a)).length === 2);
  const after = await shopper.connect('10.96.0.10', 80, { count: 100 });
  spread('shopper -> 10.96.0.10:80', after, ['web-1', 'web-2']);
  const moved = await traffic.stop();
  check(Object.keys(moved.errors).length === 0, `${moved.answers} connections meanwhile, none failed`);

  title(`The agent of node-a is killed under ${2 * perSecond} connections a second: the kernel goes on; a new agent takes over what is pinned`);
  const held = await shopper.hold('10.96.0.10', 80);
  const steady = await shopper.traffic('10.96.0.10', 80, perSecond);
  const fromOutside = await stage.client.traffic('172.30.0.11', 30080, perSecond);
  await answersFrom(steady, ['web-1', 'web-2']);
  const pid = (await a.inspect<{ agent: { pid: number } }>('status')).agent.pid;
  process.kill(pid, 'SIGKILL');
  await until('the agent is dead', async () => !(await a.inspect<{ agent: { running: boolean } }>('status')).agent.running);
  spread('shopper -> 10.96.0.10:80, no agent', await shopper.connect('10.96.0.10', 80, { count: 100 }), ['web-1', 'web-2']);
  await a.startAgent({ manifests });
  spread('shopper -> 10.96.0.10:80, new agent', await shopper.connect('10.96.0.10', 80, { count: 100 }), ['web-1', 'web-2']);
  const [inside, outer] = await Promise.all([steady.stop(), fromOutside.stop()]);
  check(Object.keys({ ...inside.errors, ...outer.errors }).length === 0, `${inside.answers + outer.answers} connections meanwhile, none failed`);
  check((await held.echo()) === 'ok', 'a connection that was open before is open still');

  title('What the kernel holds: bpftool map dump of the Service');
  say(await dump(a));
  title('What became of it all: node-a');
  await print(a, ['backends', 'shop/web']);
  await print(a, ['status']);
}

/* ---- telling and checking ---- */

function title(text: string): void {
  const bold = process.stdout.isTTY ? ['\u001b[1m', '\u001b[0m'] : ['', ''];
  console.log(`\n${bold[0]}== ${text}${bold[1]}`);
}

function say(text: string): void {
  console.log(text.replaceAll(/^/gm, '   '));
}

/** Says what holds, or throws. */
function check(holds: boolean, claim: string): void {
  if (!holds) throw new Error(`it does not hold that ${claim}`);
  say(`ok  ${claim}`);
}

/** Says who answered how often: all of these and nobody else, without an error. */
function spread(what: string, answers: readonly Answer[], servers: readonly string[]): void {
  const counts = Map.groupBy(answers, ({ error, server }) => error ?? server);
  const told = [...counts].map(([who, list]) => `${who} ${list.length}`).sort();
  const expected = [...counts.keys()].sort().join() === [...servers].sort().join();
  if (!expected) throw new Error(`${what}: answered by ${told.join(', ')}; expected ${servers.join(', ')}`);
  say(`ok  ${what}: ${told.join(', ')}`);
}

async function print(node: LabNode, args: readonly string[]): Promise<void> {
  const output = await node.maglane(args);
  if (output.status !== 0) throw new Error(`maglane ${args.join(' ')}: ${output.stderr}`);
  say(`${node.name}$ maglane ${args.join(' ')}\n${output.stdout.trimEnd()}`);
}

/** Awaits a condition; less than a second is enough for each of these, but for a VM without KVM. */
async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await holds())) if (Date.now() > deadline) throw new Error(`waited 30 s in vain: ${what}`);
  say(`ok  ${what}`);
}

async function answersFrom(traffic: { tally(): Promise<{ servers: Readonly<Record<string, number>> }> }, servers: readonly string[]): Promise<void> {
  await until(`traffic reaches ${servers.join(', ')}`, async () => {
    const seen = Object.keys((await traffic.tally()).servers);
    return servers.every((server) => seen.includes(server));
  });
}

async function backendsOf(node: LabNode): Promise<unknown[]> {
  const services = await node.inspect<{ backends: unknown[] }[]>('services', 'shop/web');
  return services.flatMap(({ backends }) => backends);
}

/** The record of web in the map `services`, as bpftool prints it with the field names of bpf/abi.h. */
async function dump(node: LabNode): Promise<string> {
  const output = await node.run(['bpftool', 'map', 'dump', 'pinned', join(node.bpffs, 'maps/services')]);
  const records = output.stdout.split(/(?=\{\s*"key": )/);
  const record = records.find((text) => text.includes('"name": "web"'));
  if (record === undefined) throw new Error(`bpftool shows no record of web: ${output.stdout.slice(0, 400)}${output.stderr}`);
  return `node-a$ bpftool map dump pinned ${join(node.bpffs, 'maps/services')}   (one of ${records.length - 1} records)\n${record.trimEnd().replace(/,?\s*\]?$/, '')}`;
}

/** The lab by itself: its networks carry traffic without any agent, and nothing of it is ever left. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import { cgroup2 } from '../support/lab/kernel.ts';
import { Lab } from '../support/lab/lab.ts';
import { sweep } from '../support/lab/remains.ts';
import { run } from '../support/lab/shell.ts';
import { gatewayAddresses } from '../support/lab/topology.ts';
import { PATIENCE } from '../support/patience.ts';

const TCP = 8080;
const UDP = 5353;

/** `client` reaches `server` over both families and both protocols, and is seen as itself: by default under its first address of the family. */
async function reaches(client: Host, server: Host, seenAs: readonly string[] = client.addresses): Promise<void> {
  for (const [family, address] of server.addresses.entries()) {
    const answers = [...(await client.connect(address, TCP)), ...(await client.send(address, UDP)), ...(await client.send(address, UDP, { connected: true }))];
    const from = expect.stringContaining(seenAs[family]!);
    expect(answers, `${client.name} to ${address}`).toEqual(Array.from({ length: 3 }, () => expect.objectContaining({ server: server.name, from })));
  }
}

describe.each([
  { podNetwork: 'routed', podAttach: 'bridge' },
  { podNetwork: 'routed', podAttach: 'ptp' },
  { podNetwork: 'vxlan', podAttach: 'bridge' },
  { podNetwork: 'vxlan', podAttach: 'ptp' },
] as const)('$podNetwork pod network, pods on $podAttach', (options) => {
  test('pods, nodes and the client reach each other; then nothing is left', async () => {
    await using lab = await Lab.create(options);
    const [a, b] = [lab.node('node-a'), lab.node('node-b')];
    const [one, two, far] = await Promise.all([lab.addPod('one', a, 10), lab.addPod('two', a, 11), lab.addPod('far', b, 10)]);
    await Promise.all([one, two, far].map((host) => host.serve({ tcp: [TCP], udp: [UDP] })));
    // A node has many addresses: a UDP server on all of them would answer from another one than was asked.
    for (const address of a.addresses) await a.serve({ tcp: [TCP], udp: [UDP], address });

    await reaches(one, two);
    await reaches(one, far);
    await reaches(one, a);
    await reaches(a, one, gatewayAddresses(1));
    await reaches(lab.client, a);
    if (options.podNetwork === 'routed') await reaches(lab.client, far);
    expect(await one.connect('10.244.2.99', TCP, { timeoutMs: 200 })).toEqual([
      expect.objectContaining({ error: expect.stringMatching(/ETIMEDOUT|EHOSTUNREACH/) }),
    ]);

    await lab.removePod('far');
    expect((await one.connect('10.244.2.10', TCP, { timeoutMs: 200 }))[0]!.error).toMatch(/ETIMEDOUT|EHOSTUNREACH/);

    expect(lab.remains()).not.toEqual([]);
    await lab.destroy();
    expect(lab.remains()).toEqual([]);
  });
});

test('a connection is held until it is released, and says when its server is gone', async () => {
  await using lab = await Lab.create({ nodes: 1 });
  const [client, server] = await Promise.all([lab.addPod('one', lab.node('node-a'), 10), lab.addPod('two', lab.node('node-a'), 11)]);
  await server.serve({ tcp: [TCP] });
  const held = await client.hold('10.244.1.11', TCP);
  expect(held.answer.server).toBe('two');
  expect(await held.echo()).toBe('ok');
  await lab.removePod('two');
  expect(await held.echo(300)).not.toBe('ok');
});

test('steady traffic counts its answers and its errors', async () => {
  await using lab = await Lab.create({ nodes: 1 });
  const [client, server] = await Promise.all([lab.addPod('one', lab.node('node-a'), 10), lab.addPod('two', lab.node('node-a'), 11)]);
  await server.serve({ tcp: [TCP] });
  const [good, bad] = await Promise.all([client.traffic('10.244.1.11', TCP, 200), client.traffic('10.244.1.11', TCP + 1, 200)]);
  await vi.waitFor(async () => expect((await good.tally()).answers).toBeGreaterThan(100), { timeout: 10_000 });
  const [tally, failed] = await Promise.all([good.stop(), bad.stop()]);
  expect(tally).toEqual({ answers: tally.answers, servers: { two: tally.answers }, errors: {} });
  expect(failed).toEqual({ answers: 0, servers: {}, errors: { ECONNREFUSED: expect.any(Number) } });
});

test('a build that fails leaves nothing', async () => {
  // A machine without clang: everything works until the very last step.
  const folder = mkdtempSync(join(tmpdir(), 'maglane-lab-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  for (const command of ['ip', 'bridge', 'nsenter', 'sh']) symlinkSync((await run(['which', command])).trim(), join(folder, command));
  vi.stubEnv('PATH', folder);
  onTestFinished(() => void vi.unstubAllEnvs());
  await expect(Lab.create({ xdp: true })).rejects.toThrow(/clang/);
  expect(leftBy(`mg${process.pid}x`)).toEqual([]);
});

/** Starts a process with a lab, a pin, and a program that would run on. */
async function owner(): Promise<{ child: ChildProcess; prefix: string; sleeper: number }> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', OWNER, join(import.meta.dirname, '../support/lab/lab.ts')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const { value } = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
  return { child, ...(JSON.parse(value as string) as { prefix: string; sleeper: number }) };
}

test.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const)('a process ended by %s leaves nothing of its lab', async (signal) => {
  const { child, prefix, sleeper } = await owner();
  await sweep();
  expect(leftBy(prefix).length, 'a living process keeps its lab').toBeGreaterThan(5);
  expect(existsSync(`/proc/${sleeper}`)).toBe(true);

  child.kill(signal);
  await once(child, 'exit');
  // Asked to end, it has removed its lab before; else the guard is at it.
  if (signal !== 'SIGKILL') expect(leftBy(prefix)).toEqual([]);
  await vi.waitFor(() => expect(leftBy(prefix)).toEqual([]), { timeout: 10_000 * PATIENCE });
  await vi.waitFor(() => expect(existsSync(`/proc/${sleeper}`)).toBe(false), { timeout: 10_000 * PATIENCE });
});

test('what a process and its guard left is swept', async () => {
  const { child, prefix, sleeper } = await owner();
  for (const pid of readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ').map(Number))
    if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('reaper.ts')) process.kill(pid, 'SIGKILL');
  child.kill('SIGKILL');
  await once(child, 'exit');
  expect(existsSync(`/proc/${sleeper}`)).toBe(true);
  await sweep();
  expect(leftBy(prefix)).toEqual([]);
  await vi.waitFor(() => expect(existsSync(`/proc/${sleeper}`)).toBe(false), { timeout: 5_000 });
});

const OWNER = `
  const { Lab } = await import(process.argv[1]);
  const lab = await Lab.create({ xdp: true });
  const node = lab.node('node-a');
  await lab.addPod('one', node, 10);
  void node.run(['sleep', '600']);
  const { readFileSync } = await import('node:fs');
  let sleeper = '';
  while (sleeper === '' || !readFileSync('/proc/' + sleeper + '/cmdline', 'utf8').startsWith('sleep')) {
    sleeper = readFileSync(node.cgroup + '/cgroup.procs', 'utf8').split('\\n')[0];
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  console.log(JSON.stringify({ prefix: lab.prefix, sleeper: Number(sleeper) }));
  await new Promise(() => setInterval(() => undefined, 1e6));
`;

/** Namespaces, cgroups and folders of labs with such a prefix. */
function leftBy(prefix: string): string[] {
  const folders = ['/run/netns', '/sys/fs/bpf', cgroup2(), tmpdir()].filter((folder) => existsSync(folder));
  return folders.flatMap((folder) => readdirSync(folder)).filter((name) => name.startsWith(prefix));
}

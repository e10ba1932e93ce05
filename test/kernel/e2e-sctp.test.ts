/**
 * SCTP between real sockets, through a Service's addresses: from outside and from pods, whose sockets no hook turns.
 *
 * It needs a kernel with SCTP, as a module or built in; Debian's have it (`KERNEL=6.1 tools/on-kernel ...`). Where the kernel has none, these tests
 * are skipped, and one that is not says so. Packets of SCTP made by hand are in packet-sctp.test.ts, on every kernel.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import { addressesOf, Cluster, SCTP } from './e2e-cluster.ts';

const CLUSTER_IPS = ['10.96.0.10', 'fd00:96::10'] as const;
const NODE_PORT = 30_090;
const BYTES = 200_000;

const folder = mkdtempSync(join(tmpdir(), 'mg-sctp-'));
const peer = join(folder, 'sctp-peer');
execFileSync('cc', ['-O2', '-Wall', '-Wextra', '-Werror', '-o', peer, fileURLToPath(new URL('./fixtures/sctp-peer.c', import.meta.url))]);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const probe = spawnSync(peer, ['probe'], { encoding: 'utf8' });
const hasSctp = probe.status === 0;

test(`SCTP sockets on Linux ${release()}: ${hasSctp ? 'there are' : 'there are none, so they are tested where there are (KERNEL=6.1)'}`, () => {
  if (hasSctp) return;
  console.warn(
    `Linux ${release()} has no SCTP sockets (${probe.stderr.trim()}): the other tests of this file are skipped. KERNEL=6.1 or KERNEL=6.12 has them.`,
  );
  // It is for this reason and no other; and Debian's kernels have it.
  expect(probe.stderr).toContain('socket: Protocol not supported');
  expect(process.env['MAGLANE_VM']).toBeUndefined();
});

describe.runIf(hasSctp)('an association', () => {
  let cluster: Cluster;

  beforeAll(async () => {
    cluster = await Cluster.start({ pods: ['a1', 'a2', 'b1'] });
    for (const cidr of ['10.96.0.0/16', 'fd00:96::/112']) await cluster.lab.routeThrough(cidr, cluster.nodeA);
    for (const name of ['a1', 'a2', 'b1']) for (const address of cluster.pod(name).addresses) await serve(cluster.pod(name), address);
  });
  afterAll(() => cluster?.destroy());

  /** It goes with the pod. */
  async function serve(pod: Host, address: string): Promise<void> {
    const [file = '', ...args] = pod.command([peer, 'serve', pod.name, address, String(SCTP)]);
    const server = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const [said] = (await Promise.race([once(server.stdout, 'data'), once(server, 'exit')])) as [unknown];
    if (String(said) !== 'ready\n') throw new Error(`no SCTP server on ${pod.name}: ${String(said)}`);
  }

  const given = (...endpoints: readonly Host[]): Promise<void> =>
    cluster.apply('web', { ips: CLUSTER_IPS, sctp: 80, nodePort: NODE_PORT, endpoints: addressesOf(...endpoints) });

  /** Who answers and whom it sees, without the port, when all bytes have come back as they were sent; else what went wrong. */
  async function ask(from: Host, address: string, port: number): Promise<string> {
    const { status, stdout, stderr } = await from.run([peer, 'ask', address, String(port), String(BYTES)]);
    return status === 0 ? stdout.replace(/:\d+\n$/, '') : stderr;
  }

  const nodePorts = (): readonly (readonly [string, number])[] => cluster.nodeA.addresses.map((address) => [address, NODE_PORT]);
  const clusterIps: readonly (readonly [string, number])[] = CLUSTER_IPS.map((address) => [address, 80]);
  const seen = ({ addresses }: Pick<Host, 'addresses'>, family: number): string => (family === 0 ? addresses[0]! : `[${addresses[1]}]`);

  test('from outside reaches a pod here, which sees the client', async () => {
    await given(cluster.pod('a1'));
    for (const at of [nodePorts(), clusterIps])
      for (const [family, [address, port]] of at.entries()) expect(await ask(cluster.client, address, port)).toBe(`a1 ${seen(cluster.client, family)}`);
  });

  test('from outside reaches a pod of another node, which sees this node', async () => {
    await given(cluster.pod('b1'));
    for (const at of [nodePorts(), clusterIps])
      for (const [family, [address, port]] of at.entries()) expect(await ask(cluster.client, address, port)).toBe(`b1 ${seen(cluster.nodeA, family)}`);
  });

  test.each(['a1', 'b1'])('from a pod reaches %s, which sees the pod', async (name) => {
    await given(cluster.pod(name));
    for (const [family, [address, port]] of clusterIps.entries())
      expect(await ask(cluster.pod('a2'), address, port)).toBe(`${name} ${seen(cluster.pod('a2'), family)}`);
  });

  test('from a pod reaches itself, as the node', async () => {
    await given(cluster.pod('a1'));
    for (const [family, [address, port]] of clusterIps.entries()) expect(await ask(cluster.pod('a1'), address, port)).toBe(`a1 ${seen(cluster.nodeA, family)}`);
  });
});

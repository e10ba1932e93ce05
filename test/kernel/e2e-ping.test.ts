/** `ping`, the program, of a Service's addresses: from outside, from pods and from a node. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Host } from '../support/lab/host.ts';
import { PATIENCE } from '../support/patience.ts';
import type { ServiceInit } from './e2e-cluster.ts';
import { addressesOf, Cluster } from './e2e-cluster.ts';

const CLUSTER_IPS = ['10.96.0.10', 'fd00:96::10'] as const;
const BALANCERS = ['203.0.113.10', 'fd00:203::10'] as const;

interface Pinged {
  readonly received: number;
  /** What came instead of answers, each kind once: ping's own words. */
  readonly errors: readonly string[];
}

/** Sends three echo requests and tells what comes back. @param size bytes of data in each */
async function ping(host: Host, address: string, size = 56): Promise<Pinged> {
  const wait = String(Math.ceil(PATIENCE));
  const { stdout, stderr } = await host.run(['ping', '-n', '-c', '3', '-i', '0.2', '-W', wait, '-s', String(size), address]);
  const counts = /^3 packets transmitted, (\d+) received(, \+\d+ duplicates)?/m.exec(stdout);
  if (counts === null || counts[2] !== undefined) throw new Error(`ping says: ${stdout}${stderr}`);
  const answers = [...stdout.matchAll(/^(\d+) bytes from (\S+): icmp_seq=(\d+) ttl=\d+/gm)].map(([, bytes, from, seq]) => `${bytes} ${from} ${seq}`);
  const received = Number(counts[1]);
  // Each is of the address that was asked, and as long as what was sent.
  expect(answers).toEqual([1, 2, 3].slice(0, received).map((seq) => `${size + 8} ${address} ${seq}`));
  const errors = [...stdout.matchAll(/^From \S+ icmp_seq=\d+ (.*)$/gm)].map(([, words]) => words!);
  return { received, errors: [...new Set(errors)] };
}

const ANSWERED: Pinged = { received: 3, errors: [] };

describe.each([
  { podAttach: 'bridge', args: [] },
  { podAttach: 'ptp', args: [] },
  { podAttach: 'bridge', args: ['--vip-ping=false'] },
] as const)('pods on $podAttach, $args', ({ podAttach, args }) => {
  const answers = args.length === 0;
  let cluster: Cluster;

  const callers = (): readonly Host[] => [cluster.client, cluster.pod('a1'), cluster.pod('b1'), cluster.nodeA];

  beforeAll(async () => {
    cluster = await Cluster.start({ podAttach, args, pods: ['a1', 'b1'] });
    for (const cidr of ['203.0.113.0/24', '10.96.0.0/16', 'fd00:203::/64', 'fd00:96::/112']) await cluster.lab.routeThrough(cidr, cluster.nodeA);
  });
  afterAll(() => cluster?.destroy());
  const given = (endpoints: readonly string[], more: Partial<ServiceInit> = {}): Promise<void> =>
    cluster.apply('web', { ips: CLUSTER_IPS, tcp: 80, nodePort: 30_080, ingress: BALANCERS, endpoints, ...more });

  describe('a Service with endpoints', () => {
    beforeAll(() => given(addressesOf(cluster.pod('b1'))));

    test.each([...CLUSTER_IPS, ...BALANCERS])(`${answers ? 'answers' : 'does not answer'} at %s, whoever asks`, async (address) => {
      const wanted = answers ? ANSWERED : { received: 0 };
      expect(await Promise.all(callers().map((host) => ping(host, address)))).toMatchObject(callers().map(() => wanted));
      if (answers) expect(await Promise.all(callers().map((host) => ping(host, address, 1_400)))).toEqual(callers().map(() => ANSWERED));
    });

    test('does not answer for others: pods and nodes do so themselves, and nobody for addresses without a Service', async () => {
      for (const address of addressesOf(cluster.pod('b1'), cluster.nodeB)) expect(await ping(cluster.pod('a1'), address)).toEqual(ANSWERED);
      for (const address of ['10.96.0.99', 'fd00:96::99', '203.0.113.99', 'fd00:203::99'])
        expect((await Promise.all(callers().map((host) => ping(host, address)))).map(({ received }) => received)).toEqual(callers().map(() => 0));
    });
  });

  test('a Service without endpoints does not answer, and its cluster IP says so; it answers as soon as it has some', async () => {
    await given([]);
    for (const address of [...CLUSTER_IPS, ...BALANCERS]) {
      const all = await Promise.all(callers().map((host) => ping(host, address)));
      expect(all.map(({ received }) => received)).toEqual(callers().map(() => 0));
      if (CLUSTER_IPS.includes(address as never)) for (const { errors } of all) expect(errors).toEqual([expect.stringMatching(/port unreachable/i)]);
    }
    await given(addressesOf(cluster.pod('a1')));
    for (const address of CLUSTER_IPS) expect((await ping(cluster.client, address)).received).toBe(answers ? 3 : 0);
  });
});

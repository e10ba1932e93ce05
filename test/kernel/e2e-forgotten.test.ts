/**
 * All that is remembered of flows is lost, again and again: no connection ends, and none meets another backend, or the same one from
 * another port.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import native from '../../native/index.js';
import { Host } from '../support/lab/host.ts';
import type { LabNode } from '../support/lab/node.ts';
import { PATIENCE } from '../support/patience.ts';
import { addressesOf, Cluster, until } from './e2e-cluster.ts';

/** With backends on the other node, and with backends on the node that is asked. */
const FAR = { ips: ['10.96.0.10', 'fd00:96::10'], nodePort: 30_080 };
const NEAR = { ips: ['10.96.0.20', 'fd00:96::20'], nodePort: 30_081 };
/** Whatever old entries give way in. Sockets keep the peer of a connection in themselves, where nothing can take it. */
const FORGETFUL = ['flows', 'udp_peers', 'affinity', 'fragments'];
const TIMES = 20;
/** So many reserved ports that no two flows want the same: who comes first after a loss has it, and the other one another. */
const PORTS = ['--snat-ports', '11000-29999'];

/** @returns how many entries. */
function forget(node: LabNode): number {
  let entries = 0;
  for (const map of FORGETFUL) {
    const fd = native.openPin(join(node.bpffs, 'maps', map));
    if (fd === undefined) throw new Error(`${node.name} has no map ${map}`);
    const { keys, count } = native.mapEntries(fd);
    entries += native.mapDeleteBatch(fd, keys, count);
    native.close(fd);
  }
  return entries;
}

/** One that stays. */
interface Flow {
  readonly name: string;
  readonly server: string;
  /** "ok" when an answer comes; "late" when none does in time; else what went wrong. */
  ask(): Promise<string>;
}

async function tcp(host: Host, address: string, port: number): Promise<Flow> {
  const held = await host.hold(address, port);
  const { server, from } = held.answer;
  return {
    name: `TCP ${from} ${address}`,
    server,
    ask: async () => {
      const result = await held.echo(500 * PATIENCE);
      // Once one has been late, each is the answer to a request before.
      if (result.startsWith('another text')) return 'ok';
      return result === 'ETIMEDOUT' ? 'late' : result;
    },
  };
}

async function udp(host: Host, address: string, port: number, connected: boolean): Promise<Flow> {
  const held = await host.holdUdp(address, port, connected);
  const { server, from, error } = await held.ask();
  expect(error).toBeUndefined();
  return {
    name: `UDP ${from} ${address}`,
    server,
    ask: async () => {
      const answer = await held.ask(500 * PATIENCE);
      if (answer.error === 'ETIMEDOUT') return 'late';
      return answer.error ?? (answer.server === server && answer.from === from ? 'ok' : `answered by ${answer.server}, which sees ${answer.from}`);
    },
  };
}

/** Asks all the time; what comes is counted, and what must not come is named. */
async function load(
  flows: readonly Flow[],
  whileThis: () => Promise<void>,
): Promise<{ readonly ok: number; readonly late: number; readonly wrong: readonly string[] }> {
  const [seen, wrong] = [{ ok: 0, late: 0 }, new Set<string>()];
  const ended = new AbortController();
  const asking = flows.map(async ({ name, ask }) => {
    while (!ended.signal.aborted) {
      const result = await ask();
      if (result === 'ok' || result === 'late') seen[result]++;
      else wrong.add(`${name}: ${result}`);
    }
  });
  await whileThis();
  ended.abort();
  await Promise.all(asking);
  return { ...seen, wrong: [...wrong] };
}

describe.each([
  { at: 'tc', xdp: false, args: [] },
  { at: 'XDP', xdp: true, args: ['--xdp-mode', 'native'] },
] as const)('with programs at $at', ({ xdp, args }) => {
  let cluster: Cluster;
  /** In a pod's network, but no socket of the agent's cgroup: its device serves it. */
  let bare: Host;

  beforeAll(async () => {
    cluster = await Cluster.start({ podAttach: 'ptp', xdp, args: [...PORTS, ...args], pods: ['a1', 'a2', 'a3', 'b1', 'b2'] });
    await cluster.apply('far', { ...FAR, tcp: 80, udp: 80, endpoints: addressesOf(cluster.pod('b1'), cluster.pod('b2')) });
    await cluster.apply('near', { ...NEAR, tcp: 80, udp: 80, endpoints: addressesOf(cluster.pod('a1'), cluster.pod('a2')) });
    const { name, netns, addresses } = cluster.pod('a3');
    bare = new Host(name, netns, cluster.client.cgroup, addresses);
  });
  afterAll(async () => {
    bare?.close();
    await cluster?.destroy();
  });

  const forgetAll = (): number => forget(cluster.nodeA) + forget(cluster.nodeB);

  /** Three connections and three UDP sockets of a client for each IP: through node-a, or to cluster IPs. */
  function open(from: Host, { ips, nodePort }: typeof FAR, to: 'nodes' | 'cluster IPs'): Promise<Flow[]> {
    const [addresses, port] = to === 'nodes' ? [cluster.nodeA.addresses, nodePort] : [ips, 80];
    return Promise.all(
      addresses.flatMap((address) => [true, true, false].flatMap((connected) => [tcp(from, address, port), udp(from, address, port, connected)])),
    );
  }

  test('masqueraded flows from outside, and those of sockets, survive the loss of their entries under load', async () => {
    const far = await open(cluster.client, FAR, 'nodes');
    for (const { name, server } of far) expect(server, name).toMatch(/^b/);
    const ofPod = [...(await open(cluster.pod('a3'), FAR, 'cluster IPs')), ...(await open(cluster.pod('a3'), NEAR, 'cluster IPs'))];
    const flows = [...far, ...ofPod];
    let forgotten = 0;
    const { ok, late, wrong } = await load(flows, async () => {
      for (let i = 0; i < TIMES; i++) {
        forgotten += forgetAll();
        await sleep(50);
      }
    });
    console.info(`${forgotten} entries forgotten in ${TIMES} times; ${ok} answers, ${late} late`);
    expect(wrong).toEqual([]);
    expect(forgotten).toBeGreaterThan(TIMES * far.length);
    expect(late).toBeLessThan(ok);
    // All at once: as long as a client is silent, a backend repeats an answer in vain, and more and more seldom.
    await Promise.all(flows.map(({ name, ask }) => until(`${name} is answered`, async () => (await ask()) === 'ok')));
  });

  test('flows whose backend sees the client survive it while no answer is on its way', async () => {
    const flows = [...(await open(cluster.client, NEAR, 'nodes')), ...(await open(bare, FAR, 'cluster IPs')), ...(await open(bare, NEAR, 'cluster IPs'))];
    for (let i = 0; i < TIMES; i++) {
      // ACKs of the last answers have time to arrive.
      await sleep(60);
      expect(forgetAll()).toBeGreaterThan(0);
      const results = await Promise.all(flows.map(async ({ name, ask }) => `${name}: ${await ask()}`));
      expect(results.filter((result) => !result.endsWith(': ok'))).toEqual([]);
    }
  });
});

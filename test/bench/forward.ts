/**
 * What forwarding costs the node that a client outside comes to: CPU time for a packet of an established flow through a node port to a pod
 * elsewhere. Small packets come as fast as one CPU makes them (BPF_F_TEST_XDP_LIVE_FRAMES).
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { buildPacket, joinEndpoint } from '../support/packet.ts';
import { run } from '../support/lab/shell.ts';
import { bpfObject } from './compile.ts';
import type { Job } from './forward-child.ts';
import { UDP } from './rig.ts';
import type { Rig, Side } from './rig.ts';

const inside = (netns: string, command: readonly string[]): Promise<string> => run(['nsenter', `--net=/run/netns/${netns}`, ...command]);
const bytes = (address: string): number[] => address.split('.').map(Number);

/**
 * One run on one side.
 * @returns ns of CPU time a packet. @throws Error when packets are lost.
 */
export async function forwardCost({ lab }: Rig, { front, server, outside }: Side, seconds: number): Promise<number> {
  const [client = '', backend = ''] = [lab.client.addresses[0], server.addresses[0]];
  const cpu = availableParallelism() - 1;
  const macs = { source: await mac(lab.client.netns), destination: await mac(front.netns) };
  const packet = {
    proto: 'udp',
    from: joinEndpoint(client, 0),
    to: joinEndpoint(outside.host, outside.ports.udp),
    macs,
    payload: Array<number>(22).fill(0x61),
  } as const;
  const job: Job = {
    object: bpfObject('forward'),
    device: front.name,
    frame: [...buildPacket(packet)],
    backend: bytes(backend),
    client: bytes(client),
    backendPort: UDP,
    frontendPort: outside.ports.udp,
    cpu,
    seconds,
  };
  await likeACard(front.netns);
  try {
    const child = ['taskset', '-c', String(cpu), process.execPath, join(import.meta.dirname, 'forward-child.ts'), JSON.stringify(job)];
    return Number(await inside(lab.fabric, child));
  } finally {
    await inside(front.netns, ['ethtool', '-K', 'eth0', 'gro', 'off']);
  }
}

/**
 * In favour of the kernel's own path: it takes packets in batches (NAPI), as from a network card, does not compute checksums, which a card
 * has, and tells nobody of a shorter way.
 */
async function likeACard(netns: string): Promise<void> {
  const settings = ['net/ipv4/conf/all/send_redirects', 'net/ipv4/conf/eth0/send_redirects', 'net/netfilter/nf_conntrack_checksum'];
  const writes = settings.map((setting) => `if [ -e /proc/sys/${setting} ]; then echo 0 > /proc/sys/${setting}; fi`);
  await inside(netns, ['sh', '-ec', ['ethtool -K eth0 gro on', ...writes].join('\n')]);
}

/** Of the device towards the switch. */
async function mac(netns: string): Promise<string> {
  return /link\/ether ([\da-f:]+)/.exec(await inside(netns, ['ip', 'link', 'show', 'eth0']))?.[1] ?? '';
}

/** Echo requests: those to an address with FRONTEND_PING are answered by the programs, and no others. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FrontendFlag, FrontendKind } from '../../agent/dataplane/generated/abi.ts';
import { buildPacket, joinEndpoint } from '../support/packet.ts';
import type { PacketSpec } from '../support/packet.ts';
import { IP, startBench } from './packet-bench.ts';
import type { Bench } from './packet-bench.ts';

let bench: Bench;

beforeAll(async () => {
  bench = await startBench('ping');
});
beforeEach(() => bench.reset());
afterAll(() => bench?.lab.close());

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const ip = IP[family];
  const [request, reply] = family === 4 ? [8, 0] : [128, 129];
  const own = (): PacketSpec['macs'] => ({ source: bench.toRouter.destination, destination: bench.toRouter.source });
  const ping = (more: Partial<PacketSpec> = {}): PacketSpec => ({
    proto: 'icmp',
    from: joinEndpoint(ip.client, 0),
    to: joinEndpoint(ip.vip, 0),
    icmp: { type: request, rest: [0xbe, 0xef, 0, 3] },
    payload: 'some data',
    macs: own()!,
    ...more,
  });
  const answerTo = (spec: PacketSpec): Uint8Array =>
    buildPacket({
      ...spec,
      from: spec.to,
      to: spec.from,
      icmp: { ...spec.icmp!, type: reply },
      ttl: 64,
      macs: { source: spec.macs!.destination, destination: spec.macs!.source },
    });
  /** What stands for the address as a whole. */
  const address = (flags: number): void => bench.lab.frontend(0, joinEndpoint(ip.vip, 0), 0, { kind: FrontendKind.ADDRESS, flags });

  it.each(['tc', 'egress', 'passing', 'pod'] as const)('a virtual IP answers at %s: identifier, number and data as they came', async (hook) => {
    address(FrontendFlag.PING);
    for (const more of [{}, { ttl: 1 }, { ttl: 255, payload: 'x'.repeat(1400) }, { payload: '' }, { payload: 'odd' }, { vlans: [5] }]) {
      const sent = ping(more);
      expect(await bench.run(hook, sent)).toMatchObject({ action: 'redirect', reason: 'ECHO', data: answerTo(sent) });
    }
    expect(bench.lab.flows()).toEqual([]);
  });

  it('behind options or extension headers, too', async () => {
    address(FrontendFlag.PING | FrontendFlag.OWNED);
    const sent = ping(family === 4 ? { options: [1, 1, 1, 0] } : { extensions: [{ type: 60, body: [1, 4, 0, 0, 0, 0] }] });
    expect(await bench.run('tc', sent)).toMatchObject({ action: 'redirect', reason: 'ECHO', data: answerTo(sent) });
  });

  it('XDP leaves it to tc, and on the way into a pod it is that pod’s', async () => {
    address(FrontendFlag.PING);
    expect(await bench.run('xdp', ping())).toMatchObject({ action: 'pass', reason: 'TO_TC', data: buildPacket(ping()) });
    expect(await bench.run('topod', ping())).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(ping()) });
  });

  it('is refused where the address is ours without endpoints, and passes where it is not ours', async () => {
    expect(await bench.run('tc', ping())).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(ping()) });
    address(0);
    expect(await bench.run('tc', ping())).toMatchObject({ action: 'pass', reason: 'FOREIGN', data: buildPacket(ping()) });
    address(FrontendFlag.OWNED);
    const range = family === 4 ? '192.0.2.0/24' : '2001:db8::/64';
    bench.lab.node({ serviceCidrs: [range] });
    expect(await bench.run('tc', ping())).toMatchObject({ action: 'redirect', reason: 'REJECT_UNKNOWN_PORT' });
  });

  it('only requests are answered: no replies, no other types, no fragments', async () => {
    address(FrontendFlag.PING);
    const others: PacketSpec[] = [
      ping({ icmp: { type: reply } }),
      ping({ icmp: { type: family === 4 ? 13 : 130 } }),
      family === 4 ? ping({ fragment: { offset: 0, more: true } }) : ping({ extensions: [{ type: 44, body: [0, 1, 0, 0, 0, 9] }] }),
    ];
    for (const other of others) expect(await bench.run('tc', other)).toMatchObject({ action: 'pass', data: buildPacket(other) });
  });

  it('only a single host is answered, and only what was sent to this device', async () => {
    address(FrontendFlag.PING);
    const nobody = family === 4 ? ['224.0.0.1', '0.0.0.0', '255.255.255.255'] : ['ff02::1', '::'];
    const strangers = [...nobody.map((from) => ping({ from: joinEndpoint(from, 0) })), ping({ macs: { ...own()!, destination: '02:00:00:00:00:99' } })];
    for (const stranger of strangers) expect(await bench.run('tc', stranger)).toMatchObject({ action: 'pass', data: buildPacket(stranger) });
  });
});

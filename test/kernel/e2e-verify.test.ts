/** `maglane verify` on a node: quiet while the maps are sound, one line and exit code 1 once somebody has damaged them. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { frontendCodec, frontendKeyCodec, FrontendKind } from '../../agent/dataplane/generated/abi.ts';
import type { Address } from '../../agent/model/address.ts';
import native from '../../native/index.js';
import { addressesOf, Cluster } from './e2e-cluster.ts';

let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start({ nodes: 1, pods: ['a1', 'a2'] });
  await cluster.apply('web', {
    ips: ['10.96.0.10', 'fd00:96::10'],
    tcp: 80,
    udp: 53,
    endpoints: addressesOf(cluster.pod('a1'), cluster.pod('a2')),
    algorithm: 'maglev',
  });
});
afterAll(() => cluster?.destroy());

test('verify', async () => {
  const sound = await cluster.nodeA.maglane(['verify']);
  expect(sound).toMatchObject({ status: 0, stdout: expect.stringMatching(/^the maps hold together: 4 service ports, \d+ frontends, 8 backends\n$/) });

  const frontends = native.openPin(`${cluster.nodeA.bpffs}/maps/frontends`)!;
  const [key, value] = [new Uint8Array(frontendKeyCodec.size), new Uint8Array(frontendCodec.size)];
  frontendKeyCodec.write({ addr: '10.96.0.66' as Address, port: 80, proto: 6 }, key);
  frontendCodec.write({ service: 4_000, kind: FrontendKind.CLUSTER_IP, flags: 0 }, value);
  native.mapUpdate(frontends, key, value);
  native.close(frontends);

  const damaged = await cluster.nodeA.maglane(['verify', '-o', 'json']);
  expect(damaged.status).toBe(1);
  expect(JSON.parse(damaged.stdout)).toMatchObject({
    wrong: ['frontend 10.96.0.66:80/TCP leads to service 4000, which is not there: its packets are dropped'],
  });
});

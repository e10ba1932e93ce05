/** What `maglane verify` finds in maps that somebody has damaged, and that it finds nothing in sound ones. */
import { describe, expect, test } from 'vitest';
import { Planner } from '../../agent/plan/planner.ts';
import { verifyMaps } from '../../agent/plan/verify.ts';
import { backend, changes, frontend, Maps, service } from './plan-maps.ts';

/** Two services, one of two Maglev backends, as a planner writes them. */
function written(): Maps {
  const maps = new Maps({ services: 16, frontends: 16, backends: 64, ringSlots: 4096 });
  const pods = [backend('10.1.0.1'), backend('10.1.0.2')];
  const web = service('web', { algorithm: 'maglev', frontends: [frontend('10.96.0.1')], cluster: pods });
  const dns = service('dns', { frontends: [frontend('10.96.0.2')], cluster: [backend('10.1.0.3')] });
  for (const write of new Planner(maps.snapshot()).planAll(changes([web, dns])).writes) maps.execute(write);
  return maps;
}

describe('verify', () => {
  test('says nothing of sound maps', () => {
    expect(verifyMaps(written().snapshot())).toEqual([]);
  });

  test('names the frontend that leads nowhere', () => {
    const maps = written();
    const dns = [...maps.services.values()].find(({ name }) => name === 'dns')!;
    maps.services.delete(dns.id);
    expect(verifyMaps(maps.snapshot())).toEqual([`frontend 10.96.0.2:80/TCP leads to service ${dns.id}, which is not there: its packets are dropped`]);
  });

  test('names a chosen backend that is gone, not serving, or another service’s', () => {
    const maps = written();
    const [first, second, third] = [...maps.backends.values()];
    maps.backends.delete(first!.id);
    maps.backends.set(second!.id, { ...second!, serving: false });
    maps.backends.set(third!.id, { ...third!, service: 99 });
    expect(verifyMaps(maps.snapshot())).toEqual([
      expect.stringMatching(/^service default\/web:http\/TCP\/4, cluster set: backend \d+ is not there/),
      expect.stringMatching(/cluster set: backend \d+, 10\.1\.0\.2:8080, is chosen but does not serve$/),
      expect.stringMatching(/^service default\/dns.*backend \d+, 10\.1\.0\.3:8080, belongs to service 99/),
    ]);
  });

  test('finds a Maglev table that other nodes would not build', () => {
    const maps = written();
    const { base, count } = [...maps.services.values()].find(({ name }) => name === 'web')!.cluster;
    const [a, b] = [maps.ring[base]!, maps.ring[base + 1]!];
    const slot = base + count + 7;
    maps.ring[slot] = maps.ring[slot] === a ? b : a;
    expect(verifyMaps(maps.snapshot())).toEqual([expect.stringMatching(/: 1 of 251 slots of its Maglev table/)]);
  });

  test('finds sets that share slots, or lie beyond the ring', () => {
    const maps = written();
    const [web, dns] = [...maps.services.values()];
    maps.services.set(dns!.id, { ...dns!, cluster: web!.cluster });
    expect(verifyMaps(maps.snapshot())).toContainEqual(expect.stringMatching(/and service default\/.* share slots of the ring$/));
    maps.services.set(dns!.id, { ...dns!, cluster: { base: 4090, count: 20, table: 0 } });
    expect(verifyMaps(maps.snapshot())).toEqual([expect.stringMatching(/its region ends at slot 4110 of a ring of 4096$/)]);
  });
});

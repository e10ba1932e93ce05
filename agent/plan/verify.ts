/**
 * Whether the maps keep their promise: whatever a packet can reach points at complete, valid data. Pure: it judges a
 * snapshot. One taken while an agent writes may show a plan half done; the next one does not.
 */
import { formatEndpoint } from '../model/address.ts';
import type { Held, HeldBackend, HeldService } from './held.ts';
import { buildTable } from './maglev.ts';
import { endpointOf, regionOf, SETS } from './records.ts';
import type { SetName } from './records.ts';

/** What is wrong, one line each, with what it means for packets. Empty: nothing is. */
export function verifyMaps(held: Held): string[] {
  const services = new Map(held.services.map((service) => [service.id, service]));
  const backends = new Map(held.backends.map((backend) => [backend.id, backend]));
  return [
    ...held.frontends
      .filter(({ service }) => service !== 0 && !services.has(service))
      .map(
        ({ address, port, protocol, service }) =>
          `frontend ${formatEndpoint(address, port)}/${protocol} leads to service ${service}, which is not there: its packets are dropped`,
      ),
    ...held.services.flatMap((service) => SETS.flatMap((set) => verifySet(held, service, set, backends))),
    ...verifyRegions(held),
  ];
}

function verifySet(held: Held, service: HeldService, set: SetName, backends: ReadonlyMap<number, HeldBackend>): string[] {
  const { base, count, table } = service[set];
  const name = `service ${service.key}, ${set} set`;
  const end = base + count + table;
  if (end > held.capacity.ringSlots) return [`${name}: its region ends at slot ${end} of a ring of ${held.capacity.ringSlots}`];
  const members = [...held.members({ base, count, table: 0 })];
  const wrong = members.flatMap((id) => {
    const backend = backends.get(id);
    if (backend === undefined) return [`${name}: backend ${id} is not there: what chooses it is dropped`];
    if (backend.service !== service.id)
      return [`${name}: backend ${id}, ${endpointOf(backend)}, belongs to service ${backend.service}: what chooses it is dropped`];
    return backend.serving ? [] : [`${name}: backend ${id}, ${endpointOf(backend)}, is chosen but does not serve`];
  });
  if (wrong.length > 0 || table === 0) return wrong;
  // Every node builds the same table of the same members: so can we.
  const identities = members.map((id) => endpointOf(backends.get(id) as HeldBackend));
  const built = buildTable(identities, table);
  const written = held.members({ base: base + count, count: table, table: 0 });
  const differing = built.reduce((sum, member, slot) => sum + (members[member] === written[slot] ? 0 : 1), 0);
  return differing === 0 ? [] : [`${name}: ${differing} of ${table} slots of its Maglev table are not what its members give: nodes may disagree about flows`];
}

/** No slot of the ring may be two sets': to change one would change the other. */
function verifyRegions({ services }: Held): string[] {
  const regions = services
    .flatMap((service) => SETS.map((set) => ({ name: `service ${service.key}, ${set} set`, ...regionOf(service[set]) })))
    .filter(({ length }) => length > 0)
    .sort((a, b) => a.base - b.base);
  return regions.flatMap((region, i) => {
    const next = regions[i + 1];
    return next !== undefined && region.base + region.length > next.base ? [`${region.name} and ${next.name} share slots of the ring`] : [];
  });
}

/**
 * Tells when a proxy has everything that was written: a Service and its slices that are written last, and
 * show up last, since each kind comes by a watch of its own, in order; and one that shows the Node's zone.
 */
import type { Address } from '../../agent/model/address.ts';
import { familyOf } from '../../agent/model/address.ts';
import type { Family } from '../../agent/model/desired.ts';
import type { Api } from '../support/controlplane/api.ts';
import type { Answer, Question } from './answer.ts';
import { namespaceOf } from './history.ts';
import { sourcesOf, ZONES } from './world.ts';

const SERVICES = `/api/v1/namespaces/${namespaceOf(0)}/services`;
const SLICES = `/apis/discovery.k8s.io/v1/namespaces/${namespaceOf(0)}/endpointslices`;
const TURN_VIPS = ['10.96.200.1', 'fd00:96::c801'] as readonly string[] as readonly Address[];
const ZONE_VIPS = ['10.96.200.2', 'fd00:96::c802'] as readonly string[] as readonly Address[];

export class Sentinel {
  readonly #api: Api;
  /** Port of the Service and of its endpoints. */
  #turn = 1000;

  constructor(api: Api) {
    this.#api = api;
  }

  async create(): Promise<void> {
    await this.#api.create(SERVICES, service('turn', TURN_VIPS, this.#turn));
    await this.#api.create(SERVICES, service('zone', ZONE_VIPS, 80));
    for (const family of [4, 6] as const) {
      await this.#api.create(SLICES, slice('turn', family, this.#turn, [{ addresses: [endpoint(family, 9)] }]));
      const zones = ZONES.map((name, i) => ({ addresses: [endpoint(family, i)], hints: { forZones: [{ name }] } }));
      await this.#api.create(SLICES, slice('zone', family, 80, zones));
    }
  }

  /** Writes it anew, after everything else. */
  async move(): Promise<void> {
    this.#turn = this.#turn === 60_000 ? 1000 : this.#turn + 1;
    await this.#api.replace(`${SERVICES}/turn`, service('turn', TURN_VIPS, this.#turn));
    const slices = [4, 6] as const;
    await Promise.all(
      slices.map((family) => this.#api.replace(`${SLICES}/turn-v${family}`, slice('turn', family, this.#turn, [{ addresses: [endpoint(family, 9)] }]))),
    );
  }

  /** The name of a side, if its answers are not those of now. */
  late(name: string, side: { ask(question: Question): Answer }, family: Family, zone: string): string[] {
    const asked = (vips: readonly Address[], port: number): string => {
      const address = vips[family === 4 ? 0 : 1] as Address;
      const { targets } = side.ask({ address, port, protocol: 'TCP', source: sourcesOf(address)[0]! });
      return targets.map((target) => `${target.address} ${target.port}`).join();
    };
    const zones = ZONES.flatMap((known, i) => (zone === '' || known === zone ? [`${endpoint(family, i)} 80`] : []));
    return asked(TURN_VIPS, this.#turn) === `${endpoint(family, 9)} ${this.#turn}` && asked(ZONE_VIPS, 80) === zones.join() ? [] : [name];
  }
}

const endpoint = (family: Family, number: number): string => (family === 4 ? `10.244.9.${number + 1}` : `fd00:244:9::${number + 1}`);

function service(name: string, clusterIPs: readonly Address[], port: number): object {
  return {
    metadata: { name },
    spec: {
      clusterIPs,
      clusterIP: clusterIPs[0],
      ipFamilies: clusterIPs.map((ip) => `IPv${familyOf(ip)}`),
      ipFamilyPolicy: 'RequireDualStack',
      ports: [{ port }],
    },
  };
}

function slice(service: string, family: Family, port: number, endpoints: readonly object[]): object {
  return {
    metadata: { name: `${service}-v${family}`, labels: { 'kubernetes.io/service-name': service } },
    addressType: `IPv${family}`,
    ports: [{ port }],
    endpoints,
  };
}

/** What both sides are asked after a step: every frontend that the history has ever had, and what lies beside. */
import type { Address } from '../../agent/model/address.ts';
import { parseAddress } from '../../agent/model/address.ts';
import type { Protocol } from '../../agent/model/desired.ts';
import type { Question } from './answer.ts';
import type { History, ServiceSpec } from './history.ts';
import { nodePortIn, vipsOf } from './history.ts';
import { FURTHER, HELD, inRegion, NODE_ADDRESSES, sourcesOf } from './world.ts';

/** Never a Service's port. */
const UNKNOWN_PORT = 7;
/** Never a Service's address, inside the ServiceCIDRs. */
const UNALLOCATED = ['10.96.$.99', 'fd00:96::$99'];

/** Where a nodePort may be served. */
const NODE = [...NODE_ADDRESSES, ...FURTHER, '127.0.0.1', '::1'];

/** All questions about a history so far, in a region: each of every source of its family. */
export function questionsOf(history: History, region: number): Question[] {
  const asked = new Map<string, Omit<Question, 'source'>>();
  const ask = (text: string, port: number, protocol: Protocol): void => {
    const address = parseAddress(inRegion(text, region));
    if (address !== undefined) asked.set(`${address} ${port} ${protocol}`, { address, port, protocol });
  };
  for (const text of [...UNALLOCATED, ...HELD]) ask(text, 80, 'TCP');
  for (const { changes } of history) {
    for (const { object } of changes) {
      if (object?.kind !== 'Service') continue;
      const vips = vipsOf(object);
      for (const vip of vips) for (const protocol of ['TCP', 'UDP'] as const) ask(vip, UNKNOWN_PORT, protocol);
      for (const { port, protocol, nodePort } of (object.spec as ServiceSpec).ports ?? []) {
        for (const vip of vips) ask(vip, port, protocol as Protocol);
        if (nodePort !== undefined) for (const address of NODE) ask(address, nodePortIn(region, nodePort), protocol as Protocol);
      }
    }
  }
  return [...asked.values()].flatMap((to) => sourcesOf(to.address as Address).map((source) => ({ ...to, source })));
}

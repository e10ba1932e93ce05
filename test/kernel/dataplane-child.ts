/**
 * An agent's dataplane in a process of its own, so that it can live in a network namespace and be killed.
 * One request a line on stdin, one answer a line on stdout.
 */
import { createInterface } from 'node:readline';
import native from '../../native/index.js';
import { cleanup } from '../../agent/dataplane/cleanup.ts';
import type { DataplaneOptions } from '../../agent/dataplane/dataplane.ts';
import { Dataplane } from '../../agent/dataplane/dataplane.ts';
import { chooseDevices } from '../../agent/dataplane/devices.ts';
import type { DeviceChoice } from '../../agent/dataplane/devices.ts';
import type { Address } from '../../agent/model/address.ts';
import type { DesiredAddress, DesiredNode, DesiredService } from '../../agent/model/desired.ts';
import { formatProblem } from '../../agent/model/problem.ts';
import type { Retired } from '../../agent/plan/planner.ts';
import { Planner } from '../../agent/plan/planner.ts';

/** A desired state, as JSON can say it. */
export interface Everything {
  readonly services: readonly DesiredService[];
  readonly addresses: readonly DesiredAddress[];
  readonly node: DesiredNode | undefined;
  /** Addresses of the other nodes. */
  readonly peers?: readonly Address[];
}

let dataplane: Dataplane | undefined;
let planner: Planner | undefined;
const retired: Retired[] = [];

const opened = (): Dataplane => {
  if (dataplane === undefined) throw new Error('not open');
  return dataplane;
};

const requests = {
  /** Returns what was logged. */
  async open(options: DataplaneOptions): Promise<string[]> {
    const logged: string[] = [];
    const note = (message: string, fields?: object): void => void logged.push(`${message} ${JSON.stringify(fields)}`);
    dataplane = await Dataplane.open(options, { info: note, warn: note });
    dataplane.describe({ nodeName: 'node-1', version: '1.2.3', source: 'a test', started: 1000 });
    planner = new Planner(dataplane.read());
    return logged;
  },
  /** Plans and executes the whole desired state; returns the kinds of writes. */
  sync(desired: DesiredService[]): string[] {
    return requests.syncAll({ services: desired, addresses: [], node: undefined });
  },
  /** With addresses and the node. */
  syncAll({ services, addresses, node, peers = [] }: Everything): string[] {
    const plan = planner!.planAll({
      services: services.map((one) => ({ key: one.key, desired: one })),
      addresses: new Map(addresses.map((one) => [one.address, one])),
      node,
      peers: new Map(peers.map((address) => [address, true])),
    });
    opened().execute(plan.writes);
    if (plan.retired !== undefined) retired.push(plan.retired);
    opened().synced(2000);
    return plan.writes.map(({ op }) => op);
  },
  reclaim(): string[] {
    const writes = retired.splice(0).flatMap((one) => planner!.reclaim(one).writes);
    opened().execute(writes);
    return writes.map(({ op }) => op);
  },
  /** Executes without a planner in between. */
  execute(writes: Parameters<Dataplane['execute']>[0]): void {
    opened().execute(writes);
  },
  attach(names: string[]): unknown {
    return opened().attach(chooseDevices(native.interfaces(), { names, nodeIps: [], podDevices: 'none' }).wanted, []).devices;
  },
  /** Attaches to the devices of pods besides, all of them. */
  attachPods({ recheck = true, ...choice }: DeviceChoice & { recheck?: boolean }): unknown {
    const started = performance.now();
    let again = recheck;
    for (;;) {
      const { devices, problems, pending } = opened().attach(chooseDevices(native.interfaces(), choice).wanted, choice.nodeIps, again);
      if (pending === 0) return { devices, problems: problems.map(formatProblem), ms: performance.now() - started };
      again = false;
    }
  },
  close(): void {
    opened().close();
  },
  cleanup(bpffs: string): readonly string[] {
    return cleanup(bpffs);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { name, argument } = JSON.parse(line) as { name: keyof typeof requests; argument: never };
  try {
    process.stdout.write(`${JSON.stringify({ result: (await requests[name](argument)) ?? null })}\n`);
  } catch (error) {
    const { message, code, subject } = error as Error & { code?: string; subject?: string };
    process.stdout.write(`${JSON.stringify({ error: { message, code, subject } })}\n`);
  }
}

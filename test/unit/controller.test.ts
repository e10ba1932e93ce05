import { afterEach, describe, expect, test, vi } from 'vitest';
import { Controller } from '../../agent/agent/controller.ts';
import { Problems } from '../../agent/agent/problems.ts';
import { Model } from '../../agent/model/model.ts';
import type { Held, Write } from '../../agent/plan/held.ts';
import { createLog } from '../../agent/observe/log.ts';
import { Metrics } from '../../agent/observe/metrics.ts';
import { FACTS, put, remove, service, slice } from './model-builders.ts';
import { Maps } from './plan-maps.ts';

/** Maps that refuse the next writes as the kernel would. */
class FaultyMaps {
  readonly maps = new Maps({ services: 16, frontends: 16, backends: 64, ringSlots: 65_536 });
  faults = 0;
  reads = 0;
  writes = 0;

  read(): Held {
    this.reads++;
    return this.maps.snapshot();
  }

  execute(writes: readonly Write[]): void {
    for (const write of writes) {
      // The fault comes in the middle: the first write of a plan has been done.
      if (this.faults > 0 && write !== writes[0]) {
        this.faults--;
        throw new Error('map_update services: ENOMEM');
      }
      this.maps.execute(write);
      this.maps.check();
      this.writes++;
    }
  }

  openSockets(): number {
    return 0;
  }
}

function rig(retryMs: [number, number] = [1, 4]) {
  const log: string[] = [];
  const maps = new FaultyMaps();
  const metrics = new Metrics();
  const model = new Model(FACTS);
  const logger = createLog('info', 'text', (line) => log.push(line));
  const controller = new Controller({
    model,
    maps,
    problems: new Problems(logger, metrics),
    log: logger,
    onChanges: () => undefined,
    onDelta: () => undefined,
    onWrites: () => undefined,
    onSync: () => undefined,
    onFailure: () => undefined,
    graceMs: 1,
    retryMs,
  });
  running.push(controller);
  return { controller, maps, log, metrics };
}

const running: Controller[] = [];
afterEach(() => {
  for (const controller of running.splice(0)) controller.stop();
});

const WEB = service();
const SLICE = slice([{ address: '10.244.1.10' }, { address: '10.244.2.10' }]);

describe('the controller', () => {
  test('writes nothing before it is told that all is listed', async () => {
    const { controller, maps } = rig();
    controller.changes([put(WEB), put(SLICE)]);
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    expect(maps.writes).toBe(0);
    controller.synced();
    await controller.listed;
    controller.start();
    await controller.firstSync;
    expect(maps.maps.services.size).toBe(1);
    expect(maps.maps.frontends.size).toBe(1);
  });

  test('a failed write is read back and planned anew until it holds', async () => {
    const { controller, maps, log } = rig();
    maps.faults = 3;
    controller.changes([put(WEB), put(SLICE)]);
    controller.start();
    await controller.firstSync;
    expect(maps.reads).toBe(4);
    // What the broken plans left behind goes like anything that was retired.
    await vi.waitFor(() => expect(maps.maps.backends.size).toBe(2));
    expect(log.filter((line) => line.includes('ENOMEM'))).toHaveLength(3);
    expect(log.at(-1)).toContain('the maps are written again failures=3');
    expect(controller.failing).toBe(false);
  });

  test('changes that come while writes fail are not lost', async () => {
    const { controller, maps } = rig([20, 20]);
    maps.faults = 1;
    controller.changes([put(WEB), put(SLICE)]);
    controller.start();
    while (!controller.failing) await new Promise(setImmediate);
    controller.changes([remove(WEB), put(service({ name: 'other', clusterIPs: ['10.96.0.99'] }))]);
    await controller.firstSync;
    await vi.waitFor(() => expect([...maps.maps.services.values()].map(({ name }) => name)).toEqual(['other']));
  });

  test('what was retired is cleared after the grace period', async () => {
    const { controller, maps } = rig();
    controller.changes([put(WEB), put(SLICE)]);
    controller.start();
    await controller.firstSync;
    controller.changes([remove(SLICE)]);
    await vi.waitFor(() => expect(maps.maps.backends.size).toBe(0));
    expect(maps.maps.services.size).toBe(1);
  });
});

describe('problems', () => {
  test('each is one line, once, and counted while it stands', () => {
    const { controller, log, metrics } = rig();
    const problem = { object: 'file a.yaml', field: '', value: 'x\ny', message: 'is not YAML', reason: 'unreadable' } as const;
    controller.problems('file a.yaml', [problem]);
    controller.problems('file a.yaml', [problem]);
    expect(log).toHaveLength(1);
    expect(log[0]).toMatch(/warn {2}file a\.yaml: "x\\ny" is not YAML\n$/);
    expect(metrics.render()).toContain('maglane_problems{reason="unreadable"} 1\n');
    controller.problems('file a.yaml', []);
    expect(metrics.render()).not.toContain('maglane_problems{reason="unreadable"}');
    expect(metrics.render()).toContain('maglane_refused_total{reason="unreadable"} 1\n');
  });
});

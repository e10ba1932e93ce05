import { afterEach, describe, expect, test, vi } from 'vitest';
import { Events } from '../../agent/agent/events.ts';
import type { Problem } from '../../agent/model/problem.ts';
import { createLog } from '../../agent/observe/log.ts';
import { Metrics } from '../../agent/observe/metrics.ts';

interface Sent {
  readonly path: string;
  readonly event: Readonly<Record<string, unknown>> & { readonly metadata: { readonly name: string; readonly namespace: string }; readonly note: string };
}

const stops: AbortController[] = [];
afterEach(() => {
  for (const stop of stops.splice(0)) stop.abort();
});

/** An API server that has `answers` for the first events, and then takes all it has not. */
function rig({ answers = [] as (number | Error)[], nodeName = 'node-a', names = new Set<string>() } = {}) {
  const sent: Sent[] = [];
  const metrics = new Metrics();
  const stop = new AbortController();
  stops.push(stop);
  const create = (path: string, object: object): Promise<number> => {
    const event = object as Sent['event'];
    const answer = answers.shift() ?? (names.has(event.metadata.name) ? 409 : 201);
    if (answer instanceof Error) return Promise.reject(answer);
    if (answer === 201) {
      names.add(event.metadata.name);
      sent.push({ path, event });
    }
    return Promise.resolve(answer);
  };
  const log = createLog('error', 'text', () => undefined);
  const events = new Events({ writer: { create }, nodeName, uidOf: (service) => `uid of ${service}`, log, metrics, spreadMs: 0, retryMs: 1 });
  void events.run(stop.signal);
  const count = (result: string): string | undefined => new RegExp(`^maglane_events_total\\{result="${result}"\\} (\\d+)$`, 'm').exec(metrics.render())?.[1];
  return { events, sent, count, names };
}

const problem = (fields: Partial<Problem> = {}): Problem => ({
  object: 'Service default/web',
  field: 'spec.ports[0].port',
  value: '0',
  message: 'is not a port',
  reason: 'invalid_port',
  ...fields,
});

describe('events', () => {
  test('a problem is a warning on its Service', async () => {
    const { events, sent } = rig();
    events.problem(problem());
    await vi.waitFor(() => expect(sent).toHaveLength(1));
    expect(sent[0]).toEqual({
      path: '/apis/events.k8s.io/v1/namespaces/default/events',
      event: {
        apiVersion: 'events.k8s.io/v1',
        kind: 'Event',
        metadata: { name: expect.stringMatching(/^web\.[0-9a-f]{16}$/), namespace: 'default' },
        eventTime: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
        regarding: { apiVersion: 'v1', kind: 'Service', namespace: 'default', name: 'web', uid: 'uid of default/web' },
        type: 'Warning',
        reason: 'InvalidPort',
        action: 'Program',
        note: 'Service default/web: spec.ports[0].port "0" is not a port',
        reportingController: 'maglane',
        reportingInstance: 'node-a',
      },
    });
  });

  test('a problem is told once, by this node and by all', async () => {
    const { events, sent, names } = rig();
    for (let i = 0; i < 3; i++) events.problem(problem());
    events.problem(problem({ value: '70000' }));
    await vi.waitFor(() => expect(sent).toHaveLength(2));
    const other = rig({ nodeName: 'node-b', names });
    other.events.problem(problem());
    other.events.problem(problem({ reason: 'capacity' }));
    await vi.waitFor(() => expect(other.sent).toHaveLength(1));
    expect([other.count('known'), other.sent[0]?.event.note]).toEqual(['1', expect.stringContaining('node node-b: Service default/web:')]);
  });

  test('one that cannot be listened on has the name that kube-proxy gives it; of files and devices none is told', async () => {
    const { events, sent } = rig();
    events.problem(problem({ object: 'file web.yaml' }));
    events.problem(problem({ object: 'device eth0' }));
    events.problem(problem({ object: 'EndpointSlice default/web-1' }));
    events.problem(problem({ reason: 'health_check' }));
    events.started('1.0');
    await vi.waitFor(() => expect(sent).toHaveLength(3));
    expect(sent.map(({ event }) => [event['reason'], event['regarding']])).toMatchObject([
      ['InvalidPort', { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', name: 'web-1' }],
      ['FailedToStartServiceHealthcheck', { kind: 'Service' }],
      ['Starting', { kind: 'Node', name: 'node-a', uid: 'node-a' }],
    ]);
    expect(sent[2]?.path).toBe('/apis/events.k8s.io/v1/namespaces/default/events');
  });

  test('what fails is tried again, what is refused is not', async () => {
    const { events, sent, count } = rig({ answers: [new Error('gone'), 503, 429, 201, 403] });
    events.problem(problem());
    events.problem(problem({ value: '2' }));
    events.problem(problem({ value: '3' }));
    await vi.waitFor(() => expect(sent).toHaveLength(2));
    expect([count('sent'), count('failed')]).toEqual(['2', '1']);
  });

  test('a flood is bounded, and after a burst slow', async () => {
    const { events, sent, count } = rig();
    for (let i = 0; i < 10_000; i++) events.problem(problem({ value: String(i), message: 'x'.repeat(2_000) }));
    await vi.waitFor(() => expect(sent).toHaveLength(20));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(sent.length).toBeLessThanOrEqual(21);
    expect(count('dropped')).toBe(String(10_000 - 256));
    // The latest are what is left.
    expect(sent[0]?.event.note).toContain(String(10_000 - 256));
    expect(sent[0]?.event.note.length).toBeLessThanOrEqual(1_000);
  });
});

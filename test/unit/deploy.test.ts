/** deploy/ grants what the agent asks for, and nothing else. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { Events } from '../../agent/agent/events.ts';
import { createLog } from '../../agent/observe/log.ts';
import { Metrics } from '../../agent/observe/metrics.ts';
import { watchedKinds } from '../../agent/source/kubernetes/kinds.ts';

interface Rule {
  readonly apiGroups: string[];
  readonly resources: string[];
  readonly verbs: string[];
}

/** "group/resource verb" of a path of the API: "/api/v1/services" is of the group "". */
function asked(path: string, verb: string): string {
  const match = /^\/(?:api|apis\/([^/]+))\/[^/]+\/(?:namespaces\/[^/]+\/)?([^/?]+)$/.exec(path);
  expect(match, path).not.toBeNull();
  return `${match?.[1] ?? ''}/${match?.[2]} ${verb}`;
}

/** Where an event is sent to. */
async function pathOfEvents(): Promise<string> {
  const stop = new AbortController();
  const { promise, resolve } = Promise.withResolvers<string>();
  const writer = { create: async (path: string) => (resolve(path), 201) };
  const log = createLog('error', 'text', () => undefined);
  const events = new Events({ writer, nodeName: 'node-a', uidOf: () => '', log, metrics: new Metrics(), spreadMs: 0 });
  events.started('0');
  void events.run(stop.signal);
  return promise.finally(() => stop.abort());
}

test('the ClusterRole: list and watch of what is followed, and events', async () => {
  const objects = parseAllDocuments(readFileSync(new URL('../../deploy/rbac.yaml', import.meta.url), 'utf8')).map(
    (document) => document.toJS() as { kind: string; rules?: Rule[] },
  );
  const rules = objects.find(({ kind }) => kind === 'ClusterRole')?.rules ?? [];
  const granted = rules.flatMap(({ apiGroups, resources, verbs }) =>
    apiGroups.flatMap((group) => resources.flatMap((resource) => verbs.map((verb) => `${group}/${resource} ${verb}`))),
  );
  const watched = watchedKinds('node-a').flatMap(({ path }) => ['list', 'watch'].map((verb) => asked(path, verb)));
  expect(granted.sort()).toEqual([...watched, asked(await pathOfEvents(), 'create')].sort());
});

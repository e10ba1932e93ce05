import { expect, test } from 'vitest';
import type { Change } from '../../agent/model/objects.ts';
import { Gate } from '../../agent/source/gate.ts';
import type { SourceSink } from '../../agent/source/source.ts';

const change = (key: string): Change => ({ kind: 'Service', key, object: undefined });

function listener(): { sink: SourceSink; heard: string[] } {
  const heard: string[] = [];
  const sink: SourceSink = {
    changes: (changes) => heard.push(...changes.map(({ key }) => key)),
    synced: () => heard.push('synced'),
    problems: (object, problems) => heard.push(`${object}: ${problems.length}`),
  };
  return { sink, heard };
}

test('what is said before somebody listens is heard then, in order and once', () => {
  const gate = new Gate();
  const { sink, heard } = listener();
  gate.changes([change('a/b'), change('a/c')]);
  gate.problems('Service a/c', []);
  gate.synced();
  expect(heard).toEqual([]);
  gate.open(sink);
  expect(heard).toEqual(['a/b', 'a/c', 'Service a/c: 0', 'synced']);
  gate.changes([change('a/d')]);
  expect(heard.slice(4)).toEqual(['a/d']);
});

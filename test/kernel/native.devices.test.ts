/** What the addon tells of a network namespace as it changes. */
import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { run } from './fixtures/native.ts';

const name = `mg-native-dev-${process.pid}`;
let child: ChildProcess | undefined;
beforeEach(() => void run('ip', 'netns', 'add', name));
afterEach(() => {
  child?.kill('SIGKILL');
  run('ip', 'netns', 'del', name);
});

const native = JSON.stringify(new URL('../../native/index.js', import.meta.url).href);
const command = (body: string): string[] => [
  `--net=/run/netns/${name}`,
  process.execPath,
  '--input-type=module',
  '-e',
  `import native from ${native}; ${body}`,
];
const ip = (...args: string[]): string => run('ip', '-n', name, ...args);

/** What a script inside prints, line by line. */
function listen(body: string): () => Promise<string> {
  child = spawn('nsenter', command(body), { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return async () => String((await lines.next()).value);
}

test('each change of devices and addresses is told; of a burst the end is seen; no more once it is stopped', async () => {
  const next = listen(`
    const keep = setInterval(() => {}, 1000);
    const names = () => native.interfaces().map(({ name, addresses }) => name + addresses.join('')).sort().join(' ');
    let before = names();
    const stop = native.watchInterfaces(() => {
      const now = names();
      if (now !== before) console.log(now);
      before = now;
      if (now.includes('last')) { stop(); console.log('stopped'); native.watchInterfaces(() => { console.log('second'); clearInterval(keep); process.exit(); }); }
    });
    console.log('ready');`);
  expect(await next()).toBe('ready');
  ip('link', 'add', 'br0', 'type', 'bridge');
  expect(await next()).toBe('br0 lo');
  ip('addr', 'add', '192.0.2.1/24', 'dev', 'br0');
  expect(await next()).toBe('br0192.0.2.1/24 lo');
  ip('link', 'del', 'br0');
  expect(await next()).toBe('lo');
  const burst = Array.from({ length: 2_000 }, (_, i) => `addr add 10.0.${i >> 8}.${i & 255}/32 dev lo`).join('\n');
  execFileSync('ip', ['-n', name, '-batch', '-'], { input: `${burst}\nlink add last type bridge\n` });
  for (let line = ''; !line.includes('last');) line = await next();
  expect(await next()).toBe('stopped');
  ip('link', 'del', 'last');
  expect(await next()).toBe('second');
});

test('watching does not keep the process alive', () => {
  execFileSync('nsenter', command('native.watchInterfaces(() => {});'), { timeout: 20_000 });
});

test("the chains of nftables are told, iptables' among them", () => {
  const chains = (): unknown => JSON.parse(execFileSync('nsenter', command('console.log(JSON.stringify(native.nftChains()))'), { encoding: 'utf8' }));
  expect(chains()).toEqual([]);
  const inside = (...args: string[]): string => run('nsenter', `--net=/run/netns/${name}`, ...args);
  inside('nft', 'add table inet mine; add chain inet mine one; add table ip6 other; add chain ip6 other two');
  inside('iptables-nft', '-t', 'nat', '-N', 'THREE');
  expect(chains()).toEqual(
    expect.arrayContaining([
      { family: 'inet', table: 'mine', name: 'one' },
      { family: 'ip6', table: 'other', name: 'two' },
      { family: 'ip', table: 'nat', name: 'THREE' },
    ]),
  );
});

/** Bad input: one line on the log and a number for each, and everything else unaffected. Bad usage: one line and an exit code. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Host, Traffic } from '../support/lab/host.ts';
import { Lab } from '../support/lab/lab.ts';
import type { Agent, LabNode } from '../support/lab/node.ts';
import { MAGLANE } from '../support/lab/node.ts';
import type { ServiceInit } from './e2e-cluster.ts';
import { Manifests, metric, service, TCP, UDP, until } from './e2e-cluster.ts';

const GOOD = '10.96.0.1';
const SERVER = '10.244.1.11';

let lab: Lab;
let node: LabNode;
let pod: Host;
let server: Host;

beforeAll(async () => {
  lab = await Lab.create({ nodes: 1 });
  node = lab.node('node-a');
  pod = await lab.addPod('pod', node, 10);
  server = await lab.addPod('server', node, 11);
  await server.serve({ tcp: [TCP], udp: [UDP] });
});
afterAll(() => lab?.destroy());

const answerOf = async (vip: string, port = 80): Promise<string> =>
  (await pod.connect(vip, port, { timeoutMs: 500 })).map(({ server, error }) => error ?? server).join();

/** A Service that is right, but for what is said. */
const likeGood = (name: string, ip: string, other: Partial<ServiceInit> = {}): object[] => service(name, { ips: [ip], tcp: 80, endpoints: [SERVER], ...other });

/** Changes one place in objects: `at(objects, 'spec.ports.0.port', 0)` in those that have it. */
function at(objects: object[], path: string, value: unknown): object[] {
  const keys = path.split('.');
  const last = keys.pop()!;
  for (const object of objects) {
    const holder = keys.reduce<unknown>((inner, key) => (inner as Record<string, unknown> | undefined)?.[key], object) as Record<string, unknown> | undefined;
    if (holder?.[last] !== undefined) holder[last] = value;
  }
  return objects;
}

describe('an item that is wrong', () => {
  let manifests: Manifests;
  let agent: Agent;
  let traffic: Traffic;

  beforeAll(async () => {
    manifests = new Manifests(lab);
    manifests.put('good.json', likeGood('good', GOOD));
    agent = await node.startAgent({ manifests: manifests.folder });
    traffic = await pod.traffic(GOOD, 80, 50);
  });
  afterAll(async () => {
    const { errors, answers } = await traffic.stop();
    expect(errors).toEqual({});
    expect(answers).toBeGreaterThan(50);
    await agent.stop();
    await node.maglane(['cleanup']);
  });

  const orphan = at(at(likeGood('orphan', '10.96.1.7').slice(1, 2), 'metadata.name', 'orphan-1'), 'metadata.labels', {
    'kubernetes.io/service-name': 'nobody',
  });

  const cases: { what: string; content: object[] | string; reason: string; line: RegExp; others?: Record<string, string> }[] = [
    { what: 'YAML that does not parse', content: 'kind: Service\n  metadata: [', reason: 'unreadable', line: /bad\.yaml/ },
    {
      what: 'an invalid cluster IP',
      content: at(likeGood('bad', '10.96.1.1'), 'spec.clusterIPs', ['10.96.1.300']),
      reason: 'invalid_address',
      line: /Service e2e\/bad: spec\.clusterIPs\[0\] "10\.96\.1\.300" is not an IP address/,
    },
    {
      what: 'port 0',
      content: at(likeGood('bad', '10.96.1.2', { udp: 53 }), 'spec.ports.0.port', 0),
      reason: 'invalid_port',
      line: /Service e2e\/bad: spec\.ports\[0\]\.port "0" is not a port: 1 to 65535 would be/,
    },
    {
      what: 'port 70000',
      content: at(likeGood('bad', '10.96.1.3'), 'spec.ports.0.port', 70_000),
      reason: 'invalid_port',
      line: /Service e2e\/bad: spec\.ports\[0\]\.port "70000" is not a port/,
    },
    {
      what: 'a loopback endpoint beside a good one',
      content: likeGood('bad', '10.96.1.4', { endpoints: ['127.0.0.1', SERVER] }),
      reason: 'unsafe_address',
      line: /EndpointSlice e2e\/bad-ipv4: endpoints\[0\]\.addresses\[0\] "127\.0\.0\.1" is loopback/,
      others: { '10.96.1.4': 'server' },
    },
    {
      what: 'an unknown protocol',
      content: at(likeGood('bad', '10.96.1.5'), 'spec.ports.0.protocol', 'TPC'),
      reason: 'invalid_protocol',
      line: /Service e2e\/bad: spec\.ports\[0\]\.protocol "TPC" is not a protocol: TCP, UDP or SCTP would be/,
    },
    {
      what: 'a slice of a Service that is not there',
      content: orphan,
      reason: 'no_service',
      line: /EndpointSlice e2e\/orphan-1 .*belongs to Service e2e\/nobody, which does not exist/,
    },
    {
      what: 'the address and port of another Service',
      content: likeGood('thief', GOOD, { endpoints: [] }),
      reason: 'conflict',
      line: /Service e2e\/thief: .*10\.96\.0\.1.*e2e\/good/,
    },
  ];

  test.each(cases)('$what: one line, one number, no harm', async ({ content, reason, line, others }) => {
    const [seen, refused, standing] = [agent.log.length, `maglane_refused_total{reason="${reason}"}`, `maglane_problems{reason="${reason}"}`];
    const before = await metric(node, refused);
    manifests.put('bad.yaml', content);
    onTestFinished(() => rmSync(join(manifests.folder, 'bad.yaml'), { force: true }));
    await until('the agent has complained', () => agent.log.length > seen);

    const lines = agent.log.slice(seen);
    expect(lines).toEqual([expect.stringMatching(line)]);
    expect(await metric(node, refused)).toBe(before + 1);
    expect(await metric(node, standing)).toBe(1);
    expect(await answerOf(GOOD)).toBe('server');
    for (const [vip, answer] of Object.entries(others ?? {})) expect(await answerOf(vip)).toBe(answer);

    // Other changes are taken all the same, and the complaint is not repeated.
    manifests.put('other.json', likeGood('other', '10.96.0.2'));
    await until('the other Service serves', async () => (await answerOf('10.96.0.2')) === 'server');
    manifests.remove('other.json');
    manifests.remove('bad.yaml');
    await until('the problem is gone', async () => (await metric(node, standing)) === 0);
    expect(agent.log.slice(seen)).toEqual(lines);
  });

  test('a file that breaks keeps what it gave until it is right again', async () => {
    manifests.put('file.json', likeGood('file', '10.96.0.3'));
    await until('it serves', async () => (await answerOf('10.96.0.3')) === 'server');
    const seen = agent.log.length;
    manifests.put('file.json', '{ "kind": "Service", ');
    await until('the agent has complained', () => agent.log.length > seen);
    expect(agent.log.slice(seen)).toEqual([expect.stringContaining('file.json')]);
    expect(await answerOf('10.96.0.3')).toBe('server');
    manifests.put('file.json', likeGood('file', '10.96.0.4'));
    await until('it serves at its new address', async () => (await answerOf('10.96.0.4')) === 'server');
    expect(await answerOf('10.96.0.3')).not.toBe('server');
    manifests.remove('file.json');
  });
});

describe.each([
  { map: 'services', option: '--max-services', size: 16 },
  { map: 'frontends', option: '--max-frontends', size: 16 },
  { map: 'backends', option: '--max-backends', size: 16 },
])('a full map of $map', ({ map, option, size }) => {
  test('what fits is served, what does not is told once, and room that comes free is used', async () => {
    const manifests = new Manifests(lab);
    const names = Array.from({ length: size + 2 }, (_, i) => `s${String(i).padStart(2, '0')}`);
    const vip = (name: string): string => `10.96.2.${Number(name.slice(1))}`;
    for (const name of names) manifests.put(`${name}.json`, likeGood(name, vip(name)));
    const agent = await node.startAgent({ manifests: manifests.folder, args: [option, String(size)] });
    onTestFinished(async () => {
      await agent.stop();
      await node.maglane(['cleanup']);
    });
    const serving = async (): Promise<string[]> => {
      const answers = await Promise.all(names.map(async (name) => [name, await answerOf(vip(name))]));
      return answers.filter(([, answer]) => answer === 'server').map(([name]) => name!);
    };
    const fit = await serving();
    expect(fit.length).toBeGreaterThanOrEqual(size - 1);
    expect(fit.length).toBeLessThan(names.length);
    const left = names.filter((name) => !fit.includes(name));
    const lines = agent.log.filter((line) => line.includes(`map ${map}`));
    // The addresses of Services, which unknown ports are rejected by, come last into the map of frontends, and are no object of their own.
    const unowned = map === 'frontends' ? [expect.stringMatching(new RegExp(`no room for all addresses of Services .*${option} would be right`))] : [];
    expect(lines).toEqual([
      ...left.map((name) => expect.stringMatching(new RegExp(`Service e2e/${name}: .* does not fit .*${option} would be right`))),
      ...unowned,
    ]);
    expect(await metric(node, 'maglane_refused_total{reason="capacity"}')).toBe(lines.length);
    expect(await metric(node, 'maglane_problems{reason="capacity"}')).toBe(lines.length);

    for (const name of fit.slice(0, 4)) manifests.remove(`${name}.json`);
    const wanted = [...fit.slice(4), ...left].sort();
    await until('all that is left fits', async () => (await serving()).join() === wanted.join());
    await until('no problem of a Service stands', async () => (await metric(node, 'maglane_problems{reason="capacity"}')) === unowned.length);
    expect(agent.log.filter((line) => line.includes(`map ${map}`))).toEqual(lines);
  });
});

describe('bad usage ends with exit code 2 and one line that says what would be right', () => {
  test.each([
    [['--xdp-mode', 'fast'], '--xdp-mode "fast": expected auto, native, generic or off'],
    [['--source', 'etcd'], '--source "etcd": expected kubernetes or manifests'],
    [['--source', 'manifests'], '--manifests "": expected a file or folder'],
    [['--node-ip', '10.0.0.300'], '--node-ip "10.0.0.300": expected a comma-separated list, each an IP address'],
    [['--max-services', 'many'], '--max-services "many": expected a whole number from 16 to'],
    [['--snat-ports', '5-6'], '--snat-ports "5-6": expected MIN-MAX such as 61000-65535'],
    [['--nodeport-addresses', 'all'], '--nodeport-addresses "all": expected primary, or a comma-separated list of CIDRs'],
    [['--metrics-bind-address', '10249'], '--metrics-bind-address "10249": expected ADDRESS:PORT'],
    [['--config', '/nowhere.yaml'], '--config "/nowhere.yaml": expected a readable file'],
    [['--xpd-mode', 'auto'], "unknown option '--xpd-mode' (Did you mean --xdp-mode?)"],
    [['leftover'], 'too many arguments'],
  ])('agent %j', async (args, line) => {
    expect(await node.run([MAGLANE, 'agent', ...args])).toEqual({ status: 2, stdout: '', stderr: oneLine(line) });
  });

  test.each([
    [['services', '-o', 'xml'], 'expected table, json or yaml'],
    [['servces'], "unknown command 'servces' (Did you mean services?)"],
    [['status', '--bfpfs', '/x'], "unknown option '--bfpfs'"],
  ])('%j', async (args, line) => {
    expect(await node.run([MAGLANE, ...args])).toEqual({ status: 2, stdout: '', stderr: oneLine(line) });
  });

  test('a field of the configuration file', async () => {
    const folder = temporary();
    writeFileSync(join(folder, 'maglane.yaml'), 'xdpMode: fast\n');
    const config = join(folder, 'maglane.yaml');
    expect(await node.run([MAGLANE, 'agent', '--config', config])).toEqual({ status: 2, stdout: '', stderr: oneLine('xdpMode "fast": expected auto, native') });
  });
});

describe('a host that cannot ends with exit code 1 and one line', () => {
  const here = (): string[] => ['--source', 'manifests', '--manifests', temporary(), '--node-name', 'node-a', '--node-ip', '172.30.0.11'];
  const places = (): string[] => ['--bpffs', node.bpffs, '--cgroup', node.agentCgroup];

  test.each([
    ['bpf,-perfmon,-sys_admin', 'CAP_BPF, CAP_PERFMON'],
    ['net_admin', 'CAP_NET_ADMIN'],
  ])('without the capabilities %s', async (capabilities, names) => {
    const output = await node.run(['setpriv', `--bounding-set=-${capabilities}`, MAGLANE, 'agent', ...here(), ...places()]);
    expect(output).toEqual({ status: 1, stdout: '', stderr: oneLine(`missing privilege: ${names}`) });
  });

  test('pins where no bpffs is', async () => {
    const folder = temporary();
    const output = await node.run([MAGLANE, 'agent', ...here(), '--bpffs', folder, '--cgroup', node.agentCgroup]);
    expect(output).toEqual({ status: 1, stdout: '', stderr: oneLine(`--bpffs ${folder} is not on a bpffs: mount -t bpf`) });
  });

  test.each(['/nowhere', '/proc/self'])('the cgroup %s', async (cgroup) => {
    const output = await node.run([MAGLANE, 'agent', ...here(), '--bpffs', node.bpffs, '--cgroup', cgroup]);
    expect(output).toEqual({ status: 1, stdout: '', stderr: oneLine(`--cgroup ${cgroup} `) });
  });

  test('manifests that are not there', async () => {
    const output = await node.run([MAGLANE, 'agent', '--source', 'manifests', '--manifests', '/nowhere', ...here().slice(4), ...places()]);
    const lines = output.stderr.trimEnd().split('\n');
    expect({ status: output.status, last: lines.at(-1) }).toEqual({ status: 1, last: expect.stringMatching(/^maglane: .*"\/nowhere" is not there/) });
    expect(lines.filter((line) => line.includes('/nowhere" is not there'))).toHaveLength(1);
  });

  test('an address for /metrics that is taken', async () => {
    await node.serve({ tcp: [10_249], address: '127.0.0.1' });
    const output = await node.run([MAGLANE, 'agent', ...here(), ...places()]);
    expect(output.status).toBe(1);
    expect(output.stderr.trimEnd().split('\n').at(-1)).toMatch(/^maglane: --metrics-bind-address 127\.0\.0\.1:10249.*EADDRINUSE/);
  });
});

const oneLine = (text: string): unknown => expect.stringMatching(new RegExp(`^maglane: .*${RegExp.escape(text)}.*\\n$`));

const temporary = (): string => mkdtempSync(join(lab.folder, 'temporary-'));

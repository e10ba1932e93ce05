import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { readConfigFile } from '../../agent/config/file.ts';
import type { Given, OptionKey } from '../../agent/config/options.ts';
import { dsrPortOf, flagOf, optionRows, readOptions } from '../../agent/config/options.ts';
import { optionsPage } from '../../agent/config/reference.ts';
import type { Address } from '../../agent/model/address.ts';
import { inRanges } from '../../agent/model/address.ts';

/** Reads options as a command line would give them. */
function read(flags: Partial<Record<OptionKey, string>>) {
  return readOptions(new Map(Object.entries(flags).map(([key, value]) => [key as OptionKey, { from: flagOf(key), value }])));
}

describe('options', () => {
  test('the contract names every one of these flags', () => {
    const flags = optionRows().map(({ flag }) => flag);
    const contract =
      '--source --kubeconfig --manifests --node-name --node-ip --devices --pod-devices --cluster-cidr --nodeport-addresses --localhost-nodeports ' +
      '--xdp-mode --forwarding --cgroup --bpffs --healthz-bind-address --metrics-bind-address --log-level --log-format';
    expect(flags).toEqual(expect.arrayContaining(contract.split(' ')));
  });

  test('defaults are readable by their own readers', () => {
    const options = read({});
    expect(options).toMatchObject({
      source: 'kubernetes',
      nodeportAddresses: 'primary',
      localhostNodeports: true,
      xdpMode: 'auto',
      bpffs: '/sys/fs/bpf/maglane',
    });
    expect(options.metricsBindAddress).toEqual({ host: '127.0.0.1', port: 10249 });
  });

  test('lists, addresses and ranges are read', () => {
    const options = read({
      nodeIp: '10.0.0.1, fd00:0:0::1',
      nodeportAddresses: '10.0.0.0/8,fd00::/16',
      devices: 'eth0,eth1',
      snatPorts: '50000-50999',
      healthzBindAddress: '[::1]:0',
    });
    expect(options.nodeIp).toEqual(['10.0.0.1', 'fd00::1']);
    expect(options.nodeportAddresses).toEqual([
      { base: '10.0.0.0', prefix: 8 },
      { base: 'fd00::', prefix: 16 },
    ]);
    expect(options.devices).toEqual(['eth0', 'eth1']);
    expect(options.snatPorts).toEqual({ min: 50000, max: 50999 });
    expect(options.healthzBindAddress).toEqual({ host: '::1', port: 0 });
    expect(read({ metricsBindAddress: 'off' }).metricsBindAddress).toBeUndefined();
    expect(read({ metricsBindAddress: '::', healthzBindAddress: '192.0.2.1' })).toMatchObject({
      metricsBindAddress: { host: '::', port: 10249 },
      healthzBindAddress: { host: '192.0.2.1', port: 10256 },
    });
  });

  test.each<[OptionKey, string, string]>([
    ['source', 'etcd', '--source "etcd": expected kubernetes or manifests'],
    ['xdpMode', 'hw', '--xdp-mode "hw": expected auto, native, generic or off'],
    ['nodeIp', '10.0.0.256', '--node-ip "10.0.0.256": expected a comma-separated list, each an IP address'],
    ['nodeportAddresses', '10.0.0.0/33', '--nodeport-addresses "10.0.0.0/33": expected primary, or a comma-separated list of CIDRs'],
    ['localhostNodeports', 'yes', '--localhost-nodeports "yes": expected true or false'],
    ['metricsBindAddress', 'localhost:1', '--metrics-bind-address "localhost:1": expected ADDRESS:PORT such as 127.0.0.1:10249 or [::1]:10249, or off'],
    ['snatPorts', '1-100', '--snat-ports "1-100": expected MIN-MAX such as 61000-65535, at least 256 ports between 1024 and 65535'],
    ['maxFlows', '1e6', '--max-flows "1e6": expected a whole number from 1024 to 16777216'],
    ['forwarding', 'ipip', '--forwarding "ipip": expected snat or dsr'],
    ['dsrPort', '0', '--dsr-port "0": expected a port, 1 to 65535, or off'],
    ['nodeName', 'Node-A', '--node-name "Node-A": expected lower case, as Node names are'],
  ])('--%s=%s is refused in one line', (key, value, message) => {
    expect(() => read({ [key]: value })).toThrow(message);
  });

  test('the reference page says what the table says', () => {
    expect(readFileSync(new URL('../../docs/reference/options.md', import.meta.url), 'utf8')).toBe(optionsPage());
  });

  test('dsr has a port, of its own or by default, and snat none unless it is asked for', () => {
    expect([read({}), read({ forwarding: 'dsr' }), read({ dsrPort: '7000' }), read({ forwarding: 'dsr', dsrPort: '7000' })].map(dsrPortOf)).toEqual([
      0, 6091, 7000, 7000,
    ]);
    expect(() => read({ forwarding: 'dsr', dsrPort: 'off' })).toThrow('--dsr-port "off": expected a port, as --forwarding is dsr');
  });

  test('manifests need a path', () => {
    expect(() => read({ source: 'manifests' })).toThrow('--manifests "": expected a file or folder, as --source is manifests');
  });
});

describe('ranges', () => {
  test('families do not match each other', () => {
    const ranges = [{ base: '10.0.0.0' as Address, prefix: 8 }];
    expect(inRanges(ranges, '10.255.0.1' as Address)).toBe(true);
    expect(inRanges(ranges, '11.0.0.1' as Address)).toBe(false);
    expect(inRanges(ranges, 'fd00::1' as Address)).toBe(false);
  });
});

describe('--config', () => {
  const folder = mkdtempSync(join(tmpdir(), 'maglane-config-'));
  const path = join(folder, 'config.yaml');
  afterEach(() => rmSync(path, { force: true }));
  afterAll(() => rmSync(folder, { recursive: true }));
  const load = async (content: string): Promise<ReadonlyMap<OptionKey, Given>> => {
    writeFileSync(path, content);
    return (await readConfigFile(path)).given;
  };

  test('gives options by name, lists as lists', async () => {
    const options = readOptions(
      await load('source: manifests\nmanifests: /etc/maglane\nnodeIp: [10.0.0.1, fd00::1]\nlocalhostNodeports: false\nmaxFlows: 4096\n'),
    );
    expect(options).toMatchObject({
      source: 'manifests',
      manifests: '/etc/maglane',
      nodeIp: ['10.0.0.1', 'fd00::1'],
      localhostNodeports: false,
      maxFlows: 4096,
    });
  });

  test('a wrong value names file and field', async () => {
    const given = await load('xdpMode: fast\n');
    expect(() => readOptions(given)).toThrow(`${path}: xdpMode "fast": expected auto, native, generic or off`);
  });

  test.each([
    ['an unknown key', 'xdpmode: auto\n', /"xdpmode": expected one of source, /],
    ['no mapping', '- a\n', /a mapping of options at the top/],
    ['no YAML', 'a: [\n', /expected YAML: .* at line 2/],
    ['a key given twice', 'xdpMode: off\nxdpMode: auto\n', /expected YAML: Map keys must be unique at line 2/],
    ['a nested mapping', 'devices: {a: b}\n', /expected a value or a list of values/],
  ])('%s is refused', async (_, content, message) => {
    await expect(load(content)).rejects.toThrow(message);
  });

  test('a missing file is refused', async () => {
    await expect(readConfigFile(join(folder, 'none.yaml'))).rejects.toThrow('none.yaml": expected a readable file (ENOENT)');
  });
});

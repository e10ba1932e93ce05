import { expect, test } from 'vitest';
import type { Settings } from '../../agent/dataplane/settings.ts';
import { shortcomings, snatPortsObstacle } from '../../agent/dataplane/settings.ts';

const snat = { min: 61_000, max: 65_535 };
const fine: Settings = { forwarding4: '1', forwarding6: '1', localPorts: '32768\t60999', reservedPorts: '', jit: '1' };

test('a host as it should be has nothing to say', () => {
  expect(snatPortsObstacle(snat, fine)).toBeUndefined();
  expect(shortcomings(snat, [4, 6], fine)).toEqual([]);
});

test.each([
  ['1024\t65535', ''],
  ['32768\t61000', ''],
  ['1024\t65535', '61000-65534'],
  ['1024\t65535', '8080,61000-62000,62002-65535'],
])('ports that sockets may get (%s, reserved %s) are an obstacle', (localPorts, reservedPorts) => {
  expect(snatPortsObstacle(snat, { ...fine, localPorts, reservedPorts })).toMatch(
    /^--snat-ports 61000-65535 lie in net\.ipv4\.ip_local_port_range \(\d+ to \d+\), from which the kernel gives ports to sockets: other ports, or sysctl -w net\.ipv4\.ip_local_reserved_ports=(\S+,)?61000-65535, would be right$/,
  );
});

test.each(['61000-65535', '8080,60000-65535', '62001-65535,61000-62000', '61000-63000,62000-65535'])('reserved as %s they are not', (reservedPorts) => {
  expect(snatPortsObstacle(snat, { ...fine, localPorts: '1024\t65535', reservedPorts })).toBeUndefined();
});

test('what is reserved already stays so in the remedy', () => {
  expect(snatPortsObstacle(snat, { ...fine, localPorts: '1024\t65535', reservedPorts: '8080' })).toContain('reserved_ports=8080,61000-65535,');
});

test('forwarding matters for the families that the node has, the JIT always, nodePorts when they could be ours', () => {
  const off: Settings = { ...fine, forwarding4: '0', forwarding6: '0', jit: '0' };
  const about = (families: (4 | 6)[]): string[] => shortcomings(snat, families, off).map((line) => line.split(' ')[0]!);
  expect(about([4])).toEqual(['net.ipv4.ip_forward', 'net.core.bpf_jit_enable']);
  expect(about([6])).toEqual(['net.ipv6.conf.all.forwarding', 'net.core.bpf_jit_enable']);
  expect(about([4, 6])).toHaveLength(3);
  expect(shortcomings({ min: 32_767, max: 40_000 }, [4], fine)).toEqual([
    '--snat-ports 32767-40000 overlap the usual nodePorts (30000 to 32767): ports beyond those would be right',
  ]);
  expect(shortcomings({ min: 32_768, max: 40_000 }, [4], fine)).toEqual([]);
  const unknown: Settings = { forwarding4: undefined, forwarding6: undefined, localPorts: undefined, reservedPorts: undefined, jit: undefined };
  expect([snatPortsObstacle(snat, unknown), ...shortcomings(snat, [4, 6], unknown)]).toEqual([undefined]);
});

import { expect, test } from 'vitest';
import type { HostFacts } from '../../agent/dataplane/preflight.ts';
import { findCgroup, limitations, obstacles } from '../../agent/dataplane/preflight.ts';

const bit = (...bits: number[]): bigint => bits.reduce((all, one) => all | (1n << BigInt(one)), 0n);
const fine: HostFacts = {
  capabilities: bit(12, 38, 39),
  kernel: '6.1.0-18-amd64',
  hasBtf: true,
  bpffs: '/sys/fs/bpf/maglane',
  bpffsType: 0xcafe4a11,
  cgroup: '/sys/fs/cgroup',
  cgroupType: 0x63677270,
};

test('nothing stands in the way of a host that has all', () => {
  expect(obstacles(fine)).toEqual([]);
  expect(obstacles({ ...fine, capabilities: bit(12, 21) })).toEqual([]); // CAP_SYS_ADMIN stands for the newer two
  expect(obstacles({ ...fine, kernel: '7.0.1' })).toEqual([]);
});

test.each<[Partial<HostFacts>, string]>([
  [{ capabilities: 0n }, 'missing privilege: CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON: root, or a container with these capabilities, would be right'],
  [{ capabilities: bit(21) }, 'missing privilege: CAP_NET_ADMIN: root, or a container with these capabilities, would be right'],
  [{ kernel: '5.15.0-91-generic' }, 'kernel 5.15.0-91-generic is too old: 6.1 or later would be right'],
  [{ hasBtf: false }, 'the kernel has no BTF (/sys/kernel/btf/vmlinux): one built with CONFIG_DEBUG_INFO_BTF=y would be right'],
  [{ bpffs: '/tmp/x', bpffsType: 0x01021994 }, '--bpffs /tmp/x is not on a bpffs: mount -t bpf bpf /sys/fs/bpf'],
  [{ cgroup: '', cgroupType: 0 }, 'no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup, or say where with --cgroup'],
  [{ cgroup: '/nowhere', cgroupType: 0 }, '--cgroup /nowhere does not exist: a folder on a cgroup2 would be right'],
  [{ cgroup: '/tmp', cgroupType: 0x01021994 }, '--cgroup /tmp is not on a cgroup2: a folder on one would be right'],
])('%o is said in one line', (facts, line) => {
  expect(obstacles({ ...fine, ...facts })).toEqual([line]);
});

test('the cgroup2 mount is found, blanks in its path included', () => {
  expect(findCgroup('cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup\\040two cgroup2 rw 0 0\n')).toBe('/sys/fs/cgroup two');
  expect(findCgroup('tmpfs / tmpfs rw 0 0\n')).toBeUndefined();
});

test('what the agent goes without is said, with what is lost', () => {
  expect(limitations('CapEff:\t000001ffffffffff\n')).toEqual([]);
  expect(limitations('CapEff:\t000000c000001000\n')).toEqual([expect.stringMatching(/CAP_SYS_ADMIN.*connected UDP sockets/)]);
});

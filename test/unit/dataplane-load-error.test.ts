import { expect, test } from 'vitest';
import { explainLoadError } from '../../agent/dataplane/load-error.ts';

const error = (code: string, log: string): Error => Object.assign(new Error(`object_load maglane: ${code}`), { code, log });

/** Ends of logs as libbpf 1.1 and kernels 6.1 and 6.18 write them. */
test.each([
  [
    'EACCES',
    "; if (now == svc) @ affinity.h:131\n307: (1d) if r3 == r7 goto pc+7\nR7 pointer comparison prohibited\nprocessed 229 insns (limit 1000000)\n-- END PROG LOAD LOG --\nlibbpf: prog 'mg_connect4': failed to load: -13\nlibbpf: failed to load object 'x.o'\n",
    'the verifier refuses mg_connect4: R7 pointer comparison prohibited',
  ],
  [
    'E2BIG',
    "7: (7b) *(u64 *)(r10 -8) = r5\nBPF program is too large. Processed 1000001 insn\nprocessed 1000001 insns (limit 1000000) max_states_per_insn 4\n-- END PROG LOAD LOG --\nlibbpf: prog 'mg_tc_ingress': failed to load: -7\n",
    'the verifier refuses mg_tc_ingress: BPF program is too large. Processed 1000001 insn',
  ],
  [
    'EPERM',
    "libbpf: prog 'mg_tc_ingress': BPF program load failed: Operation not permitted\nlibbpf: prog 'mg_tc_ingress': failed to load: -1\n",
    'the kernel refuses mg_tc_ingress and says no more: CAP_BPF or CAP_PERFMON is missing, or a seccomp filter, an LSM or lockdown forbids it',
  ],
  [
    'E2BIG',
    "libbpf: Error in bpf_create_map_xattr(flows):Argument list too long(-7). Retrying without BTF.\nlibbpf: map 'flows': failed to create: Argument list too long(-7)\n",
    'the kernel refuses the map flows: it is larger than the kernel, or the memory left, allows: a smaller --max-flows would be right',
  ],
  [
    'EPERM',
    "libbpf: map 'ring': failed to create: Operation not permitted(-1)\n",
    'the kernel refuses the map ring: CAP_BPF or CAP_PERFMON is missing, or a seccomp filter, an LSM or lockdown forbids it',
  ],
  ['EBUSY', "libbpf: map 'counters': failed to create: Device or resource busy(-16)\n", 'the kernel refuses the map counters'],
  [
    'EPERM',
    "libbpf: Error in bpf_object__probe_loading():Operation not permitted(1). Couldn't load trivial BPF program. Make sure your kernel supports BPF\n",
    'no program at all may be loaded: CAP_BPF or CAP_PERFMON is missing, or a seccomp filter, an LSM or lockdown forbids it',
  ],
])('%s: %j', (code, log, cause) => {
  expect(explainLoadError(error(code, log)).message).toBe(`object_load maglane: ${code}: ${cause}`);
});

test('any other error stays what it is', () => {
  const other = new Error('pin: EEXIST');
  expect(explainLoadError(other)).toBe(other);
});

/**
 * Makes the far end of a veth fit for native XDP on the near one: XDP_TX is delivered only to an end
 * that has an XDP program itself, and XDP cannot see a checksum that is yet to be finished.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './shell.ts';

const PASS = `
#include <linux/bpf.h>
__attribute__((section("xdp"), used)) int pass(struct xdp_md *ctx) { return XDP_PASS; }
char _license[] __attribute__((section("license"), used)) = "Dual BSD/GPL";
`;

/** Prepares devices of a namespace. @param pin where the program is pinned, on a bpffs. */
export async function answerXdp(netns: string, devices: readonly string[], pin: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'maglane-xdp-'));
  try {
    writeFileSync(join(folder, 'pass.c'), PASS);
    const object = join(folder, 'pass.o');
    await run([
      'clang',
      '-O2',
      '-target',
      'bpf',
      `-I/usr/include/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu`,
      '-c',
      join(folder, 'pass.c'),
      '-o',
      object,
    ]);
    await run(['bpftool', 'prog', 'load', object, pin, 'type', 'xdp']);
    for (const device of devices) {
      const inside = ['nsenter', `--net=/run/netns/${netns}`];
      await run([...inside, 'bpftool', 'net', 'attach', 'xdpdrv', 'pinned', pin, 'dev', device]);
      await run([...inside, 'ethtool', '-K', device, 'tx', 'off']);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

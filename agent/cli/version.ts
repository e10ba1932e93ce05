/** What this build is. */
import { ABI_VERSION } from '../dataplane/generated/abi.ts';

/** Set by the bundler from package.json. */
declare const MAGLANE_VERSION: string | undefined;

export interface Version {
  readonly version: string;
  readonly node: string;
  /** ABI_VERSION of bpf/abi.h: maps of another one are not adopted. */
  readonly abi: number;
}

/** In one line, for people. */
export function versionLine({ version: own, node, abi }: Version = version()): string {
  return `maglane ${own} (node ${node}, abi ${abi})\n`;
}

export function version(): Version {
  return { version: typeof MAGLANE_VERSION === 'string' ? MAGLANE_VERSION : 'unbuilt', node: process.versions.node, abi: ABI_VERSION };
}

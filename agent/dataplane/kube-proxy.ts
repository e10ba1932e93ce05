/** Finds a kube-proxy that runs on this node, or what one has left in the kernel. Its rules would decide beside ours. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import native from '../../native/index.js';
import type { RuleSet } from './iptables.ts';
import { hasLegacyTables, isKubeProxyChain, removal, save } from './iptables.ts';

export type SignKind = 'process' | 'port' | 'nftables' | 'iptables' | 'ipvs';

/** A sign of kube-proxy. */
export interface Sign {
  readonly kind: SignKind;
  /** "nftables table ip kube-proxy". */
  readonly what: string;
}

const FAMILIES = ['ip', 'ip6'] as const;

/** The nftables table of its mode nftables, and the device that holds the VIPs in its mode ipvs. */
export const TABLE = 'kube-proxy';
export const IPVS_DEVICE = 'kube-ipvs0';

/** Where it serves /healthz. */
const HEALTH_PORT = 10_256;

/** All signs but that of the port, in the calling process's network namespace. A process is seen only where /proc shows it. */
export function findKubeProxy(): Sign[] {
  return [
    ...kubeProxyProcesses().map((pid) => ({ kind: 'process' as const, what: `a running kube-proxy, pid ${pid}` })),
    ...kubeProxyTables().map((family) => ({ kind: 'nftables' as const, what: `nftables table ${family} ${TABLE}` })),
    ...kubeProxyRuleSets().map((set) => ({ kind: 'iptables' as const, what: describeRuleSet(set) })),
    ...(ipvsDevice() === undefined ? [] : [{ kind: 'ipvs' as const, what: `ipvs device ${IPVS_DEVICE}` }]),
  ];
}

/** "KUBE-* chains of iptables (nft)". */
export function describeRuleSet({ family, backend }: RuleSet): string {
  return `KUBE-* chains of ${family}tables (${backend})`;
}

/** Whether somebody has kube-proxy's health port. To be asked before this agent listens there itself. */
export function portSign(files: readonly string[] = ['/proc/net/tcp', '/proc/net/tcp6'].map(readText)): Sign[] {
  // "  0: 00000000:2810 00000000:0000 0A ...": the local address, and 0A for LISTEN.
  const port = HEALTH_PORT.toString(16).toUpperCase().padStart(4, '0');
  const listening = new RegExp(`^\\s*\\d+: [0-9A-F]+:${port} [0-9A-F]+:0000 0A `, 'm');
  return files.some((text) => listening.test(text)) ? [{ kind: 'port', what: `port ${HEALTH_PORT}, where kube-proxy serves /healthz, in use` }] : [];
}

/** Pids of kube-proxies in this network namespace. */
export function kubeProxyProcesses(): number[] {
  const own = readlinkSync('/proc/self/ns/net');
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && readText(`/proc/${name}/comm`) === 'kube-proxy\n')
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/ns/net`) === own;
      } catch {
        return false; // it has ended, or is none of ours to look at
      }
    })
    .map(Number);
}

/** Families of its nftables tables. */
export function kubeProxyTables(): string[] {
  return [...new Set(native.nftChains().flatMap(({ family, table }) => (table === TABLE ? [family] : [])))];
}

/**
 * Rule sets of iptables that hold chains of its.
 * @param onUnreadable called for those in use that cannot be read: the older tables need a program, and CAP_NET_RAW.
 */
export function kubeProxyRuleSets(onUnreadable: (set: RuleSet, error: unknown) => void = () => undefined): RuleSet[] {
  const chains = native.nftChains();
  const inNft = FAMILIES.filter((family) => chains.some((chain) => chain.family === family && isKubeProxyChain(chain.table, chain.name)));
  const inLegacy = FAMILIES.filter(hasLegacyTables).filter((family) => {
    const set = { family, backend: 'legacy' } as const;
    try {
      const { chains: own, kept } = removal(save(set));
      return own.length + kept.length > 0;
    } catch (error) {
      onUnreadable(set, error);
      return false;
    }
  });
  return [...inNft.map((family) => ({ family, backend: 'nft' as const })), ...inLegacy.map((family) => ({ family, backend: 'legacy' as const }))];
}

/** Index of the device that its mode ipvs leaves. */
export function ipvsDevice(): number | undefined {
  return native.interfaces().find(({ name }) => name === IPVS_DEVICE)?.index;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

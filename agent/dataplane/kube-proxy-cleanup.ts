/** Takes out of the kernel what kube-proxy left there, and nothing else. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import native from '../../native/index.js';
import type { RuleSet } from './iptables.ts';
import { removal, restore, save } from './iptables.ts';
import { describeRuleSet, IPVS_DEVICE, ipvsDevice, kubeProxyProcesses, kubeProxyRuleSets, kubeProxyTables, TABLE } from './kube-proxy.ts';

export interface KubeProxyCleanup {
  /** One line each. */
  readonly removed: readonly string[];
  /** What could not be removed, one line each, with the reason and what would be right. */
  readonly left: readonly string[];
}

/**
 * Removes kube-proxy's nftables tables, its chains of iptables with the jumps to them, and its ipvs device, in the calling
 * process's network namespace. What fails does not keep the rest from going. Doing it twice is no failure.
 * @throws Error with one line while a kube-proxy runs: it would put everything back.
 */
export function cleanupKubeProxy(): KubeProxyCleanup {
  const [pid] = kubeProxyProcesses();
  if (pid !== undefined) throw new Error(`kube-proxy runs here, pid ${pid}, and would put its rules back: delete its DaemonSet, or stop it, first`);
  const removed: string[] = [];
  const left: string[] = [];
  const attempt = (what: string, remove: () => void): void => {
    try {
      remove();
    } catch (error) {
      left.push(`${what}: ${reasonOf(error)}`);
    }
  };
  for (const family of kubeProxyTables()) {
    const what = `nftables table ${family} ${TABLE}`;
    attempt(what, () => {
      execFileSync('nft', ['delete', 'table', family, TABLE], { stdio: ['ignore', 'ignore', 'pipe'] });
      removed.push(what);
    });
  }
  const unreadable = (set: RuleSet, error: unknown): void => void left.push(`${describeRuleSet(set)}, if any: ${reasonOf(error)}`);
  for (const set of kubeProxyRuleSets(unreadable)) attempt(describeRuleSet(set), () => removeChains(set, removed, left));
  const device = ipvsDevice();
  if (device !== undefined) {
    attempt(`ipvs device ${IPVS_DEVICE}`, () => {
      native.deleteInterface(device);
      removed.push(`ipvs device ${IPVS_DEVICE}`);
    });
  }
  left.push(...ipvsServices());
  return { removed, left };
}

function removeChains(set: RuleSet, removed: string[], left: string[]): void {
  const { script, chains, jumps, kept } = removal(save(set));
  if (script !== '') restore(set, script);
  const where = `${set.family}tables (${set.backend})`;
  removed.push(...chains.map(({ table, name }) => `chain ${name} of ${where} ${table}`));
  if (jumps > 0) removed.push(`${jumps} jumps to them of ${where}`);
  left.push(...kept.map(({ table, name }) => `chain ${name} of ${where} ${table}: rules of others use it: remove those first`));
}

/** IPVS has no owners: kube-proxy itself removes all of them, and takes those of others along. */
function ipvsServices(): string[] {
  let text = '';
  try {
    text = readFileSync('/proc/net/ip_vs', 'utf8');
  } catch {
    return []; // no ipvs in this kernel
  }
  const services = text.split('\n').filter((line) => /^(TCP|UDP|SCTP|FWM)\s/.test(line)).length;
  return services === 0 ? [] : [`${services} virtual servers of ipvs: whose they are cannot be told: ipvsadm --clear removes all`];
}

/** What a program said first, or the message. */
function reasonOf(error: unknown): string {
  const { stderr, message, code, path } = error as NodeJS.ErrnoException & { readonly stderr?: Buffer | string };
  if (code === 'ENOENT' && path !== undefined) return `there is no ${path} here: install it`;
  const said = String(stderr ?? '').split('\n');
  return said.find((line) => line.trim() !== '') ?? message;
}

/** kube-proxy's chains among those of iptables: what is its own, and how to take that away without touching anybody else's. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export type Backend = 'nft' | 'legacy';

/** One of the rule sets that iptables keeps: of a family, in nftables or in the kernel's older tables. */
export interface RuleSet {
  readonly family: 'ip' | 'ip6';
  readonly backend: Backend;
}

/** A chain in a table: "nat KUBE-SERVICES". */
export interface Chain {
  readonly table: string;
  readonly name: string;
}

/** What `removal` works out. */
export interface Removal {
  /** Input of `iptables-restore --noflush`; "": there is nothing to do. */
  readonly script: string;
  readonly chains: readonly Chain[];
  /** How many rules of built-in chains jump to those. */
  readonly jumps: number;
  /** Chains of kube-proxy's that stay, since rules of others use them. */
  readonly kept: readonly Chain[];
}

/**
 * Chains of kube-proxy's modes iptables and ipvs, of this version and of earlier ones. KUBE-FIREWALL of the table filter,
 * KUBE-MARK-DROP, KUBE-KUBELET-CANARY and KUBE-IPTABLES-HINT are kubelet's, KUBE-ROUTER-* and KUBE-NWPLCY-* other programs'.
 */
const CHAINS: Readonly<Record<string, RegExp>> = {
  nat: /^KUBE-(SERVICES|NODEPORTS|NODE-PORT|POSTROUTING|LOAD-BALANCER|MARK-MASQ|FIREWALL|PROXY-CANARY|(SVC|SVL|SEP|EXT|FW|XLB)-[A-Z2-7]{16})$/,
  filter: /^KUBE-(SERVICES|EXTERNAL-SERVICES|NODEPORTS|NODE-PORT|FORWARD|PROXY-FIREWALL|SOURCE-RANGES-FIREWALL|IPVS-FILTER|IPVS-OUT-FILTER|PROXY-CANARY)$/,
  mangle: /^KUBE-PROXY-CANARY$/,
};

/** Whether a chain is kube-proxy's. */
export function isKubeProxyChain(table: string, name: string): boolean {
  return CHAINS[table]?.test(name) ?? false;
}

/** Whether the kernel's older tables are in use: asking iptables-legacy otherwise would put them there. */
export function hasLegacyTables(family: RuleSet['family']): boolean {
  try {
    return readFileSync(`/proc/net/${family}_tables_names`, 'utf8').trim() !== '';
  } catch {
    return false;
  }
}

/**
 * Prints a rule set as iptables-save does.
 * @throws Error with what the program said, or that there is none.
 */
export function save(set: RuleSet): string {
  return execFileSync(find(set, 'save'), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 2 ** 30 });
}

/**
 * Carries a script out, each table at once and whole.
 * @throws Error with what the program said, or that there is none.
 */
export function restore(set: RuleSet, script: string): void {
  execFileSync(find(set, 'restore'), ['--noflush', '--wait'], { input: script, stdio: ['pipe', 'ignore', 'pipe'] });
}

/**
 * Works out how to take kube-proxy's chains away: the jumps to them out of built-in chains first. A chain that a rule of
 * somebody else's uses stays, with all that it uses itself.
 * @param saved as iptables-save prints it.
 */
export function removal(saved: string): Removal {
  const tables = parse(saved).map((table) => plan(table));
  return {
    script: tables.map(({ script }) => script).join(''),
    chains: tables.flatMap(({ chains }) => chains),
    jumps: tables.reduce((sum, { jumps }) => sum + jumps, 0),
    kept: tables.flatMap(({ kept }) => kept),
  };
}

interface Rule {
  readonly chain: string;
  /** Without "-A CHAIN". */
  readonly rest: string;
  /** Chain or verdict; "" when it has none. */
  readonly target: string;
}

interface Table {
  readonly name: string;
  readonly builtIn: ReadonlySet<string>;
  readonly chains: readonly string[];
  readonly rules: readonly Rule[];
}

function parse(saved: string): Table[] {
  return saved
    .split(/^\*/m)
    .slice(1)
    .map((text) => {
      const lines = text.split('\n');
      // ":INPUT ACCEPT [0:0]"; a chain of somebody's own has "-" for its policy.
      const chains = lines.filter((line) => line.startsWith(':')).map((line) => line.slice(1).split(' '));
      const rules = lines
        .map((line) => /^(?:\[\d+:\d+\] )?-A (\S+) (.*)$/.exec(line))
        .filter((match) => match !== null)
        .map(([, chain = '', rest = '']) => ({ chain, rest, target: /(?:^| )-[jg] (\S+)/.exec(rest.replaceAll(/"(?:\\.|[^"\\])*"/g, '""'))?.[1] ?? '' }));
      return {
        name: lines[0]?.trim() ?? '',
        builtIn: new Set(chains.filter(([, policy]) => policy !== '-').map(([name = '']) => name)),
        chains: chains.map(([name = '']) => name),
        rules,
      };
    });
}

function plan({ name: table, builtIn, chains, rules }: Table): Removal {
  const isOwn = (chain: string): boolean => isKubeProxyChain(table, chain);
  const used = new Set(rules.filter(({ chain, target }) => isOwn(target) && !isOwn(chain) && !builtIn.has(chain)).map(({ target }) => target));
  // What a chain that stays uses stays, too: a Set takes what is added while it is gone through.
  for (const chain of used) for (const rule of rules) if (rule.chain === chain && isOwn(rule.target)) used.add(rule.target);
  const gone = chains.filter((chain) => isOwn(chain) && !used.has(chain));
  const goes = new Set(gone);
  const jumps = rules.filter(({ chain, target }) => builtIn.has(chain) && goes.has(target));
  const named = (list: Iterable<string>): Chain[] => [...list].map((name) => ({ table, name }));
  if (gone.length === 0) return { script: '', chains: [], jumps: 0, kept: named(used) };
  const lines = [
    `*${table}`,
    ...gone.map((chain) => `:${chain} - [0:0]`), // empties it
    ...jumps.map(({ chain, rest }) => `-D ${chain} ${rest}`),
    ...gone.map((chain) => `-X ${chain}`),
    'COMMIT',
  ];
  return { script: `${lines.join('\n')}\n`, chains: named(gone), jumps: jumps.length, kept: named(used) };
}

/** The program of a rule set by its own name, else the one without it when that is what it is: the older has "iptables v1.4.21" alone. */
function find({ family, backend }: RuleSet, verb: 'save' | 'restore'): string {
  const short = family === 'ip' ? 'iptables' : 'ip6tables';
  const version = (program: string): string | undefined => {
    try {
      return execFileSync(program, ['-V'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    } catch {
      return undefined;
    }
  };
  const named = `${short}-${backend}-${verb}`;
  if (version(named) !== undefined) return named;
  const plain = `${short}-${verb}`;
  const text = version(plain);
  if (text !== undefined && text.includes('nf_tables') === (backend === 'nft')) return plain;
  throw new Error(`there is no ${named} here: install iptables`);
}

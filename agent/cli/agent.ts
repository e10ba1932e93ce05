/** `maglane agent` and its flags, with those that kube-proxy's DaemonSets carry. */
import { writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { Option } from 'commander';
import { kubeProxyFlags } from '../config/kube-proxy-flags.ts';
import { optionRows } from '../config/options.ts';
import type { Flags, Resolved } from '../config/resolve.ts';
import { configText, resolveOptions } from '../config/resolve.ts';
import { UsageError } from '../config/usage-error.ts';
import { versionLine } from './version.ts';

/** Adds the flags that say how the agent runs: --config, every option, and kube-proxy's own flags. */
export function addOptionFlags(command: Command): Command {
  command.option('--config <FILE>', 'the same options in YAML, by their names in camel case; or a KubeProxyConfiguration');
  for (const row of optionRows()) {
    const boolean = row.value === 'true|false';
    const help = row.default === '' ? row.help : `${row.help} (default: ${row.default})`;
    command.addOption(new Option(`${row.flag} ${boolean ? `[${row.value}]` : `<${row.value}>`}`, help));
  }
  for (const { flag, kind } of kubeProxyFlags()) {
    const flags = `${flag === '-v' ? '-v, --v' : flag} ${kind === 'bool' ? '[true|false]' : '<VALUE>'}`;
    command.addOption(new Option(flags).hideHelp());
  }
  return command.addHelpText('after', "\nkube-proxy's own flags are taken, too: docs/kube-proxy.md says what each does here.").allowExcessArguments(false);
}

/** Adds what `maglane agent` does besides running. */
export function addModeFlags(command: Command): Command {
  return command
    .option('--cleanup [true|false]', 'detach everything, remove the pins, and exit')
    .option('--init-only [true|false]', 'reserve --snat-ports, check the host, make the folder of pins, and exit')
    .option('--version [true|false]', 'say what this is, and exit')
    .option('--write-config-to <FILE>', 'write what is not the default as a --config file, and exit');
}

/** Does what the flags say. @throws UsageError, or Error with one line. */
export async function agent(flags: Flags): Promise<void> {
  // kube-proxy's own takes "raw", too.
  if (asked(flags, 'version') || flags['version'] === 'raw') return void process.stdout.write(versionLine());
  const resolved = await resolveOptions(flags);
  const { options } = resolved;
  if (typeof flags['writeConfigTo'] === 'string') return writeConfig(flags['writeConfigTo'], resolved);
  if (asked(flags, 'cleanup')) return (await import('./cleanup.ts')).cleanup(options.bpffs, 'table');
  if (asked(flags, 'initOnly')) return (await import('../agent/init-only.ts')).initOnly(options);
  await (await import('../agent/agent.ts')).runAgent(resolved, () => resolveOptions(flags));
}

function asked(flags: Flags, name: string): boolean {
  return flags[name] === true || flags[name] === 'true';
}

function writeConfig(path: string, { settings }: Resolved): void {
  try {
    writeFileSync(path, configText(settings));
  } catch (error) {
    throw new UsageError('--write-config-to', path, `a file that can be written (${(error as NodeJS.ErrnoException).code})`);
  }
}

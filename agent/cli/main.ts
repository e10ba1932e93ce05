/**
 * The maglane command. Each subcommand's code is imported when it runs: `maglane version` should
 * not pay for the agent. Exit codes: 0 done, 1 failed, 2 bad usage or configuration.
 */
import { Command, CommanderError } from 'commander';
import type { Flags } from '../config/resolve.ts';
import { UsageError } from '../config/usage-error.ts';
import { addModeFlags, addOptionFlags, agent } from './agent.ts';
import { outputFormat, print } from './output.ts';
import { version, versionLine } from './version.ts';

interface Inspect {
  readonly bpffs: string;
  readonly output: string;
}

const program = new Command('maglane')
  .description('A service load balancer for Kubernetes nodes, in eBPF. Replaces kube-proxy.')
  .exitOverride()
  .configureOutput({ outputError: () => undefined })
  .showSuggestionAfterError();

addModeFlags(addOptionFlags(program.command('agent')))
  .description('run on a node: watch, program the kernel, stay out of the way')
  .action(agent);

inspector('services', 'what every Service does: its frontends, its backends, how it chooses')
  .argument('[name]', 'only this Service: NAME or NAMESPACE/NAME')
  .action(async (name: string | undefined, options: Inspect) => (await import('./services.ts')).services(options.bpffs, outputFormat(options.output), name));

inspector('backends', 'every backend: where it is, whether it serves, what it was given')
  .argument('[name]', 'only those of this Service: NAME or NAMESPACE/NAME')
  .action(async (name: string | undefined, options: Inspect) => (await import('./backends.ts')).backends(options.bpffs, outputFormat(options.output), name));

inspector('flows', 'the connections that pass through this node as packets')
  .argument('[name]', 'only those of this Service: NAME or NAMESPACE/NAME')
  .action(async (name: string | undefined, options: Inspect) => (await import('./flows.ts')).flows(options.bpffs, outputFormat(options.output), name));

inspector('explain', 'what a new connection to an address would meet, and why')
  .argument('<address:port[/protocol]>', 'where it goes: 10.96.0.1:80, [fd00::1]:53/udp')
  .option('--from <CALLER>', 'node, pod, outside, or the address that a packet comes from; each of the first three when not given')
  .action(async (target: string, options: Inspect & { readonly from?: string }) =>
    (await import('./explain.ts')).explain(options.bpffs, outputFormat(options.output), target, options.from),
  );

inspector('status', 'the agent, its devices, how full the maps are, what became of the packets').action(async (options: Inspect) =>
  (await import('./status.ts')).status(options.bpffs, outputFormat(options.output)),
);

inspector('verify', 'whether the maps hold together; exit code 1 when they do not').action(async (options: Inspect) =>
  (await import('./verify.ts')).verify(options.bpffs, outputFormat(options.output)),
);

inspector('cleanup', 'detach everything and remove the pins: Services stop working on this node')
  .option('--kube-proxy', "remove what kube-proxy left instead: its nftables tables, its chains of iptables, its ipvs device; Maglane's own stays")
  .action(async ({ bpffs, output, kubeProxy }: Inspect & { readonly kubeProxy?: true }) => {
    const { cleanup, cleanupOfKubeProxy } = await import('./cleanup.ts');
    await (kubeProxy === true ? cleanupOfKubeProxy(outputFormat(output)) : cleanup(bpffs, outputFormat(output)));
  });

addOptionFlags(program.command('config'))
  .description('the options that the agent would run with under these flags, and where each comes from')
  .option('-o, --output <FORMAT>', 'table, json or yaml', 'table')
  .action(async (flags: Flags) => (await import('./config.ts')).config(flags));

inspector('version', 'what this is').action(async (options: Inspect) => print(outputFormat(options.output), version(), versionLine));

await run();

/** A subcommand with the options that all of them share. */
function inspector(name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option('--bpffs <PATH>', 'folder of the pinned maps', '/sys/fs/bpf/maglane')
    .option('-o, --output <FORMAT>', 'table, json or yaml', 'table')
    .allowExcessArguments(false);
}

/** Parses, runs, and turns every failure into one line and an exit code. */
async function run(): Promise<void> {
  try {
    if (process.argv.length <= 2) program.outputHelp();
    else await program.parseAsync();
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return;
    const usage = error instanceof UsageError || error instanceof CommanderError;
    const text = error instanceof Error ? error.message : String(error);
    const line = text.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ');
    const command = program.commands.find((known) => known.name() === process.argv[2]) === undefined ? '' : `${process.argv[2]} `;
    process.stderr.write(`maglane: ${line}${usage ? `; see maglane ${command}--help` : ''}\n`);
    process.exitCode = usage ? 2 : 1;
  }
}

/** `maglane config`: the options in force under these flags, and where each comes from. */
import type { Flags, Setting } from '../config/resolve.ts';
import { resolveOptions } from '../config/resolve.ts';
import { formatTable, outputFormat, print } from './output.ts';

/**
 * Prints every option. What kube-proxy's file and flags hold and has no effect goes to standard error.
 * @throws UsageError, as the agent would.
 */
export async function config(flags: Flags): Promise<void> {
  const format = outputFormat(String(flags['output']));
  const { settings, warnings, idle } = await resolveOptions(flags);
  for (const warning of warnings) process.stderr.write(`${warning}\n`);
  for (const name of idle) process.stderr.write(`${name} means nothing to eBPF\n`);
  const data = settings.map(({ key, flag, value, from }) => ({ option: key, flag, value, from }));
  await print(format, data, () => table(settings));
}

function table(settings: readonly Setting[]): string {
  const columns = [{ title: 'OPTION' }, { title: 'VALUE' }, { title: 'FROM' }];
  return formatTable(
    columns,
    settings.map(({ flag, value, from }) => [flag, value === '' ? '-' : value, from]),
  );
}

/** Access by a kubeconfig that names a program or a login flow: @kubernetes/client-node runs those. */
import type { RequestOptions } from 'node:https';
import type { KubeConfig } from '@kubernetes/client-node';
import type { Access, TlsOptions } from './access.ts';
import { AccessError } from './failure.ts';

/**
 * @param file the kubeconfig.
 * @param server of its current context.
 * @throws AccessError when the library cannot read it.
 */
export async function pluginAccess(file: string, server: URL): Promise<Access> {
  // Imported here, not above: a bundler would otherwise load it at start, for everybody.
  const library = await import('@kubernetes/client-node');
  const load = (): KubeConfig => loadFrom(file, new library.KubeConfig());
  let config = load();
  const applied = async (): Promise<RequestOptions> => {
    const options: RequestOptions = { headers: {} };
    await config.applyToHTTPSOptions(options);
    return options;
  };
  return {
    server,
    async tls(): Promise<TlsOptions> {
      const { ca, cert, key, servername, rejectUnauthorized } = await applied();
      return {
        ...(ca !== undefined && { ca }),
        ...(cert !== undefined && { cert }),
        ...(key !== undefined && { key }),
        ...(servername !== undefined && { servername }),
        ...(rejectUnauthorized !== undefined && { rejectUnauthorized }),
      };
    },
    async authorization() {
      const headers = new Headers((await applied()).headers as Record<string, string>);
      return headers.get('authorization') ?? undefined;
    },
    // A new KubeConfig has nothing cached: the program runs again.
    refused: () => (config = load()),
  };
}

function loadFrom(file: string, config: KubeConfig): KubeConfig {
  try {
    config.loadFromFile(file);
  } catch (error) {
    throw new AccessError(`kubeconfig ${file}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  return config;
}

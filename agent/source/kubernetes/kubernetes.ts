/** Services, EndpointSlices, ServiceCIDRs and Nodes, this node's or all, from the API server of a cluster. */
import type { Log } from '../../observe/log.ts';
import type { ObjectWriter, Source, SourceSink } from '../source.ts';
import type { Access } from './access.ts';
import { accessAt, inClusterAccess } from './access.ts';
import type { ClientOptions } from './client.ts';
import { Client } from './client.ts';
import { Connection } from './connection.ts';
import type { Failure } from './failure.ts';
import type { KindName } from './kinds.ts';
import { watchedKinds } from './kinds.ts';
import { kubeconfigAccess } from './kubeconfig.ts';
import type { ReflectorEvents, ReflectorOptions } from './reflector.ts';
import { Reflector } from './reflector.ts';

/** For metrics: what happens to the watches. */
export interface SourceObserver {
  /** A watch of `kind` stands. */
  connected(kind: KindName): void;
  /** A watch of `kind` broke or could not be had; `reason` is a Failure's code, one of few. */
  disconnected(kind: KindName, reason: string): void;
  /** `kind` has been listed again, after the first time. */
  relisted(kind: KindName): void;
  /** One watch event of `kind`, bookmarks included. */
  event(kind: KindName): void;
}

export interface KubernetesSourceOptions {
  /** A kubeconfig file; "" is none. @default in cluster: the service account of the pod */
  readonly kubeconfig?: string;
  /** URL of the API server, in place of the kubeconfig's; "" is none. */
  readonly master?: string;
  /** The Node to watch. */
  readonly nodeName: string;
  /** All others, too. @default false */
  readonly allNodes?: boolean;
  readonly log: Log;
  readonly observer?: SourceObserver;
  readonly client?: ClientOptions;
  readonly reflector?: ReflectorOptions;
}

export class KubernetesSource implements Source {
  readonly #options: KubernetesSourceOptions;
  #name: string;
  /** Resolves once `run` has one. */
  readonly #client = Promise.withResolvers<Client>();
  /** Shares the connection of the watches, and waits for it. */
  readonly writer: ObjectWriter = {
    create: async (path, object, signal) => {
      const client = await this.#client.promise;
      const headers = { 'content-type': 'application/json', accept: 'application/json' };
      return (await client.request({ method: 'POST', path, headers, body: Buffer.from(JSON.stringify(object)), signal })).status;
    },
  };

  constructor(options: KubernetesSourceOptions) {
    this.#options = options;
    this.#name = `kubernetes ${options.master || options.kubeconfig || 'in cluster'}`;
  }

  /** "kubernetes https://10.0.0.1:6443"; before `run` has read that, where it will read it. */
  get name(): string {
    return this.#name;
  }

  /**
   * An API server that is away is waited for.
   * @throws AccessError at once, for a kubeconfig or a pod's environment that names none.
   */
  async run(sink: SourceSink, signal: AbortSignal): Promise<void> {
    const { kubeconfig, master, nodeName, allNodes = false, client: clientOptions, reflector: reflectorOptions } = this.#options;
    const given = kubeconfig ? await kubeconfigAccess(kubeconfig) : undefined;
    const access = master ? accessAt(master, given) : (given ?? inClusterAccess());
    this.#name = `kubernetes ${access.server.href.replace(/\/$/, '')}`;
    const client = new Client(access, clientOptions);
    this.#client.resolve(client);
    const kinds = watchedKinds(allNodes ? undefined : nodeName);
    const events = this.#events(access, sink, new Set(kinds.map((kind) => kind.kind)));
    const failed = new AbortController();
    const either = AbortSignal.any([signal, failed.signal]);
    const running = kinds.map((kind) => new Reflector(client, kind, sink, events, reflectorOptions).run(either));
    try {
      await Promise.all(running);
    } finally {
      failed.abort();
      await Promise.allSettled(running);
      await client.close();
    }
  }

  #events(access: Access, sink: SourceSink, unlisted: Set<KindName>): ReflectorEvents {
    const { log, observer } = this.#options;
    const connection = new Connection(log, access.server.host);
    const absent = new Set<KindName>();
    let synced = false;
    const known = (kind: KindName): void => {
      unlisted.delete(kind);
      if (unlisted.size > 0 || synced) return;
      synced = true;
      sink.synced();
    };
    return {
      connected(kind) {
        connection.up(kind);
        observer?.connected(kind);
      },
      disconnected(kind, failure: Failure) {
        log.debug('a watch failed', { kind, code: failure.code, reason: failure.message });
        connection.down(kind, failure);
        observer?.disconnected(kind, failure.code);
      },
      absent(kind, { message }) {
        connection.up(kind);
        if (!absent.has(kind)) log.warn(`no ${kind}s to be had: going on without, and asking again from time to time`, { reason: message });
        absent.add(kind);
        known(kind);
      },
      listed(kind) {
        if (!absent.delete(kind) && !unlisted.has(kind)) {
          log.info(`${kind}s listed anew`);
          observer?.relisted(kind);
        }
        known(kind);
      },
      event(kind) {
        observer?.event(kind);
      },
    };
  }
}

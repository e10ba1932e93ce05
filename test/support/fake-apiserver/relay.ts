/** A TCP relay between a client and a server that can fall silent, cut its connections, or go away. */
import { once } from 'node:events';
import type { AddressInfo, Server, Socket } from 'node:net';
import { connect, createServer } from 'node:net';

export class Relay {
  readonly #target: number;
  readonly #pairs = new Set<readonly [client: Socket, server: Socket]>();
  #server: Server | undefined;
  #port = 0;
  #frozen = false;

  private constructor(target: number) {
    this.#target = target;
  }

  /** @param target port on 127.0.0.1 to relay to. */
  static async start(target: number): Promise<Relay> {
    const relay = new Relay(target);
    await relay.listen();
    return relay;
  }

  /** On 127.0.0.1; the same after `leave` and `listen`. */
  get port(): number {
    return this.#port;
  }

  /** Connections that stand. */
  get connections(): number {
    return this.#pairs.size;
  }

  async listen(): Promise<void> {
    this.#server = createServer((client) => this.#relay(client)).listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  /** Half-open: connections stand, and nothing comes through them any more. New ones work. */
  freeze(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.unpipe().pause();
  }

  /** As `freeze`, new connections included, until `thaw`. */
  freezeAll(): void {
    this.#frozen = true;
    this.freeze();
  }

  thaw(): void {
    this.#frozen = false;
    this.cut();
  }

  /** Resets every connection. */
  cut(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.resetAndDestroy();
  }

  /** Nobody listens any more; connections are refused. */
  async leave(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    server.close();
    this.cut();
    await once(server, 'close');
  }

  #relay(client: Socket): void {
    const server = connect(this.#target, '127.0.0.1');
    const pair = [client, server] as const;
    this.#pairs.add(pair);
    for (const [from, to] of [pair, [server, client] as const]) {
      if (!this.#frozen) from.pipe(to);
      from.on('error', () => {});
      from.on('close', () => {
        to.destroy();
        this.#pairs.delete(pair);
      });
    }
  }
}

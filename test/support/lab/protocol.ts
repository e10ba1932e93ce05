/** What a lab asks of its probers, and what they answer: one JSON object a line. */

/** One answer of a server, or the errno that came instead. */
export interface Answer {
  /** Who answered; "" with an error. */
  readonly server: string;
  /** The client's address as the server saw it: "10.244.1.10:40000". */
  readonly from: string;
  /** Unconnected UDP: from where the answer came. */
  readonly replyFrom?: string;
  /** "ECONNREFUSED", "ETIMEDOUT"...; undefined when there was an answer. */
  readonly error?: string;
}

/** What steady traffic has met. */
export interface Tally {
  readonly answers: number;
  /** Answers by server. */
  readonly servers: Readonly<Record<string, number>>;
  /** Failures by errno. */
  readonly errors: Readonly<Record<string, number>>;
}

export interface Target {
  readonly host: string;
  readonly port: number;
}

/** About a connected UDP socket that stays. */
export type UdpRequest =
  | { readonly op: 'udp.hold'; readonly target: Target; readonly connected: boolean }
  | { readonly op: 'udp.ask' | 'udp.error'; readonly held: number; readonly timeoutMs: number }
  | { readonly op: 'udp.connect'; readonly held: number; readonly target: Target }
  | { readonly op: 'udp.release'; readonly held: number };

export type Request =
  | { readonly op: 'serve'; readonly name: string; readonly tcp?: readonly number[]; readonly udp?: readonly number[]; readonly address?: string }
  | { readonly op: 'connect'; readonly target: Target; readonly count: number; readonly parallel: number; readonly timeoutMs: number }
  | {
      readonly op: 'send';
      readonly target: Target;
      readonly count: number;
      readonly connected: boolean;
      readonly oneSocket: boolean;
      readonly bytes: number;
      readonly timeoutMs: number;
    }
  | { readonly op: 'hold'; readonly target: Target }
  | { readonly op: 'echo'; readonly held: number; readonly timeoutMs: number }
  | { readonly op: 'bulk'; readonly held: number; readonly bytes: number; readonly timeoutMs: number }
  | { readonly op: 'release'; readonly held: number }
  | UdpRequest
  | { readonly op: 'traffic'; readonly target: Target; readonly perSecond: number; readonly timeoutMs: number }
  | { readonly op: 'tally'; readonly traffic: number; readonly stop: boolean }
  | { readonly op: 'get'; readonly url: string; readonly timeoutMs: number };

export type Reply = { readonly id: number; readonly result: unknown } | { readonly id: number; readonly failed: string };

/** As answers write it: "10.0.0.1:80", "[fd00::1]:80"; a v4-mapped address as the IPv4 address it is. */
export function endpoint(address = '', port = 0): string {
  const plain = address.replace(/^::ffff:/, '');
  return plain.includes(':') ? `[${plain}]:${port}` : `${plain}:${port}`;
}

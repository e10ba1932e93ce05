/** What can go wrong between the agent and the API server, in the one shape that retrying needs. */

/** An exchange with the API server that did not succeed. Retrying may. */
export class Failure extends Error {
  /** "ECONNREFUSED", "HTTP 503", "PING": stable, for metrics and for telling one failure from the next. */
  readonly code: string;
  /** HTTP status, or the code of an ERROR event; 0 when the server did not answer. */
  readonly status: number;
  /** What the server asked to wait, in ms; 0 when it did not. */
  readonly retryAfter: number;

  constructor(message: string, code: string, answer: { status: number; retryAfter: number } = { status: 0, retryAfter: 0 }) {
    super(message);
    this.name = 'Failure';
    this.code = code;
    this.status = answer.status;
    this.retryAfter = answer.retryAfter;
  }

  /** An error of node:http2, node:tls or node:fs, with its code; a Failure stays as it is. */
  static from(error: unknown): Failure {
    if (error instanceof Failure) return error;
    if (!(error instanceof Error)) return new Failure(String(error), 'UNKNOWN');
    // A host name with several addresses, none of which answers, is one error without words of its own.
    const told = error instanceof AggregateError && error.errors[0] instanceof Error ? error.errors[0] : error;
    const code = 'code' in told && typeof told.code === 'string' ? told.code : told.name;
    return new Failure(told.message, code);
  }
}

/** A kubeconfig, or the environment of a pod, from which no API server can be made out: retrying is of no use. */
export class AccessError extends Error {
  readonly code = 'KUBERNETES_ACCESS';
}

/** Bad usage or configuration: exit code 2. */
export class UsageError extends Error {
  readonly code = 'USAGE';

  /**
   * @param what the flag, field or argument: "--xdp-mode", "config.yaml: xdpMode".
   * @param value what was given.
   * @param right what would be right: "auto, native, generic or off".
   */
  constructor(what: string, value: unknown, right: string) {
    const shown = typeof value === 'string' ? JSON.stringify(value) : (JSON.stringify(value) ?? String(value));
    super(`${what} ${shown}: expected ${right}`);
    this.name = 'UsageError';
  }
}

/** The log: one line an entry on standard error, for eyes or as JSON. */

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/** A log whose level may change while it is written. */
export interface AdjustableLog extends Log {
  /** The least that is written. */
  level: LogLevel;
}

const LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

/** Longest line written: objects from the API end up in messages. */
const LONGEST = 4096;

/**
 * A log that writes through `write` what is at least of `level`. Control characters are escaped, so
 * that one entry is one line whatever an object's name holds.
 */
export function createLog(level: LogLevel, format: 'text' | 'json', write: (line: string) => void = (line) => process.stderr.write(line)): AdjustableLog {
  const at =
    (own: LogLevel) =>
    (message: string, fields: Record<string, unknown> = {}) => {
      if (LEVELS.indexOf(own) < LEVELS.indexOf(log.level)) return;
      const time = new Date().toISOString();
      const line = format === 'json' ? JSON.stringify({ time, level: own, message, ...fields }) : `${time} ${own.padEnd(5)} ${message}${inText(fields)}`;
      write(`${escapeControls(line).slice(0, LONGEST)}\n`);
    };
  const log: AdjustableLog = { level, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
  return log;
}

function inText(fields: Record<string, unknown>): string {
  return Object.entries(fields)
    .map(([name, value]) => ` ${name}=${typeof value === 'string' && /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value)}`)
    .join('');
}

function escapeControls(line: string): string {
  return line.replaceAll(/\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** The text of a manifest file, to JSON. */

/** `line` counts from 1; 0 when unknown. */
export interface ParseError {
  readonly line: number;
  readonly message: string;
}

/**
 * All documents of a YAML or JSON text, without empty ones.
 * @returns undefined documents and the first error when any of them does not parse: half a file is no file.
 */
export async function parseDocuments(text: string): Promise<{ documents: unknown[]; error?: never } | { documents?: never; error: ParseError }> {
  // JSON is YAML too, but JSON.parse is far faster, and spares the parser's memory where all files are JSON.
  if (text.startsWith('{')) {
    try {
      return { documents: [JSON.parse(text)] };
    } catch {
      // The YAML parser says on which line.
    }
  }
  const { parseAllDocuments } = await import('yaml');
  try {
    const documents = [...parseAllDocuments(text)];
    const error = documents.flatMap((document) => document.errors)[0];
    if (error !== undefined) return { error: { line: error.linePos?.[0].line ?? 0, message: firstLine(error.message) } };
    return { documents: documents.map((document) => document.toJS() as unknown).filter((value) => value !== null && value !== undefined) };
  } catch (error) {
    // An alias that names nothing, or a bomb of aliases.
    return { error: { line: 0, message: firstLine(String(error)) } };
  }
}

/** The parser's own message, without its picture of the place: the line is told apart. */
function firstLine(message: string): string {
  return (message.split('\n')[0] ?? '').replace(/ at line \d+, column \d+:?$/, '');
}

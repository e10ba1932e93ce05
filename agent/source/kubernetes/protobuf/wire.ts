/**
 * Reading protobuf without intermediate objects: the decoders beside this file are loops over
 * `reader.tag()` with upstream's field numbers (generated.proto of k8s.io/api and
 * k8s.io/apimachinery, v0.36), which proto2's rules keep stable. A `case` is a whole tag, field
 * number and wire type, so a field of another type than expected is skipped like an unknown one.
 */
import protobuf from 'protobufjs/minimal.js';
import type { Reader } from 'protobufjs/minimal.js';

export type { Reader };

/** Wire types of a tag: `case (1 << 3) | BYTES:` is field 1, length-delimited. */
export const VARINT = 0;
export const BYTES = 2;

/** A reader over `bytes`, which must be a Buffer: its `string()` is one native call then. */
export function readerOf(bytes: Buffer): Reader {
  return protobuf.Reader.create(bytes);
}

/**
 * Reads a nested message: `read` sees a reader that ends where the message does.
 * @param into handed on, which spares a function for each message.
 * @throws RangeError when the message claims to be longer than what holds it.
 */
export function nested<T>(reader: Reader, read: (reader: Reader) => T): T;
export function nested<T, I>(reader: Reader, read: (reader: Reader, into: I) => T, into: I): T;
export function nested<T, I>(reader: Reader, read: (reader: Reader, into: I | undefined) => T, into?: I): T {
  const size = reader.size();
  const end = reader.pos + size;
  const outer = reader.len;
  if (end > outer) throw new RangeError(`a message of ${size} bytes where ${outer - reader.pos} are left`);
  reader.len = end;
  const value = read(reader, into);
  reader.len = outer;
  return value;
}

/**
 * Skips the field whose tag was just read.
 * @throws Error for field number 0, for groups (Kubernetes has none; they nest without bound) and for unknown wire types.
 */
export function skip(reader: Reader, tag: number): void {
  const wireType = tag & 7;
  if (wireType === 3 || wireType === 4) throw new Error('a group, which Kubernetes does not use');
  reader.skipType(wireType, 0, tag >>> 3);
}

/**
 * Reads an entry of a map<string, string> into `into`, where `wanted` asks for its key; what is not
 * wanted (the annotation of kubectl apply can be 256 KiB) never becomes a string.
 */
export function readMapEntry(reader: Reader, into: Record<string, string>, wanted: (key: string) => boolean): void {
  let key = '';
  let value: Uint8Array | undefined;
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (1 << 3) | BYTES:
        key = reader.string();
        break;
      case (2 << 3) | BYTES:
        value = reader.bytes();
        break;
      default:
        skip(reader, tag);
    }
  }
  if (wanted(key)) into[key] = value === undefined ? '' : (value as Buffer).toString('utf8');
}

/** Reads a Time: ms since the epoch. An unsigned second fits 32 bits until 2106. */
export function readTime(reader: Reader): number {
  let seconds = 0;
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | VARINT)) seconds = reader.uint32();
    else skip(reader, tag);
  }
  return seconds * 1000;
}

/** Reads a message whose field 1 is the only one of interest, a string: ForZone, ForNode, Taint's key. */
export function readFirstString(reader: Reader): string {
  let text = '';
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) text = reader.string();
    else skip(reader, tag);
  }
  return text;
}

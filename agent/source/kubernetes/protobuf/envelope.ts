/**
 * What wraps objects on the way from the API server: `k8s\0` + runtime.Unknown around every body,
 * WatchEvent in a watch, a List's metadata and items, Status where something went wrong.
 */
import { BYTES, nested, readerOf, skip, VARINT } from './wire.ts';
import type { Reader } from './wire.ts';

/** Every protobuf body begins so: k8s.io/apimachinery, runtime/serializer/protobuf. */
const MAGIC = Buffer.from('k8s\0', 'latin1');

/** An object still encoded, and what the envelope says it is. */
export interface Enveloped {
  readonly apiVersion: string;
  readonly kind: string;
  readonly raw: Buffer;
}

/**
 * Opens `k8s\0` + runtime.Unknown { typeMeta 1, raw 2, contentEncoding 3 }.
 * @throws Error when it is none, or compressed.
 */
export function openEnvelope(bytes: Buffer): Enveloped {
  if (!bytes.subarray(0, 4).equals(MAGIC)) throw new Error('no protobuf envelope (k8s\\0)');
  const reader = readerOf(bytes.subarray(4));
  let type = { apiVersion: '', kind: '' };
  let raw: Buffer = Buffer.alloc(0);
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (1 << 3) | BYTES:
        type = nested(reader, readTypeMeta);
        break;
      case (2 << 3) | BYTES:
        raw = reader.bytes() as Buffer;
        break;
      case (3 << 3) | BYTES:
        if (reader.string() !== '') throw new Error('an encoded envelope, which was not asked for');
        break;
      default:
        skip(reader, tag);
    }
  }
  return { ...type, raw };
}

/** TypeMeta { apiVersion 1, kind 2 }. */
function readTypeMeta(reader: Reader): { apiVersion: string; kind: string } {
  const type = { apiVersion: '', kind: '' };
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) type.apiVersion = reader.string();
    else if (tag === ((2 << 3) | BYTES)) type.kind = reader.string();
    else skip(reader, tag);
  }
  return type;
}

/** A frame of a watch. */
export interface WatchEvent {
  /** ADDED, MODIFIED, DELETED, BOOKMARK or ERROR. */
  readonly type: string;
  /** Enveloped. */
  readonly object: Buffer;
}

/**
 * Reads WatchEvent { type 1, object 2: RawExtension { raw 1 } }.
 * @throws Error when it is none.
 */
export function readWatchEvent(bytes: Buffer): WatchEvent {
  const reader = readerOf(bytes);
  let type = '';
  let object: Buffer = Buffer.alloc(0);
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) type = reader.string();
    else if (tag === ((2 << 3) | BYTES)) object = nested(reader, readRawExtension);
    else skip(reader, tag);
  }
  return { type, object };
}

function readRawExtension(reader: Reader): Buffer {
  let raw: Buffer = Buffer.alloc(0);
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) raw = reader.bytes() as Buffer;
    else skip(reader, tag);
  }
  return raw;
}

/** A page of a list, its items still encoded: one that does not decode harms no other. */
export interface ListPage {
  readonly resourceVersion: string;
  /** Where the next page begins; "" on the last. */
  readonly continue: string;
  readonly items: readonly Buffer[];
}

/**
 * Reads any *List { metadata 1: ListMeta { resourceVersion 2, continue 3 }, items 2 }, out of its envelope.
 * @throws Error when it is none.
 */
export function readList(raw: Buffer): ListPage {
  const reader = readerOf(raw);
  let meta = { resourceVersion: '', continue: '' };
  const items: Buffer[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) meta = nested(reader, readListMeta);
    else if (tag === ((2 << 3) | BYTES)) items.push(reader.bytes() as Buffer);
    else skip(reader, tag);
  }
  return { ...meta, items };
}

function readListMeta(reader: Reader): { resourceVersion: string; continue: string } {
  const meta = { resourceVersion: '', continue: '' };
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((2 << 3) | BYTES)) meta.resourceVersion = reader.string();
    else if (tag === ((3 << 3) | BYTES)) meta.continue = reader.string();
    else skip(reader, tag);
  }
  return meta;
}

/** What a metav1.Status says. */
export interface Status {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
  /** Seconds; 0 when the server does not say. */
  readonly retryAfter: number;
}

/**
 * Reads Status { message 3, reason 4, details 5: { retryAfterSeconds 5 }, code 6 }, out of its envelope.
 * @throws Error when it is none.
 */
export function readStatus(raw: Buffer): Status {
  const reader = readerOf(raw);
  const status = { code: 0, reason: '', message: '', retryAfter: 0 };
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (3 << 3) | BYTES:
        status.message = reader.string();
        break;
      case (4 << 3) | BYTES:
        status.reason = reader.string();
        break;
      case (5 << 3) | BYTES:
        status.retryAfter = nested(reader, readRetryAfter);
        break;
      case (6 << 3) | VARINT:
        status.code = reader.int32();
        break;
      default:
        skip(reader, tag);
    }
  }
  return status;
}

function readRetryAfter(reader: Reader): number {
  let seconds = 0;
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((5 << 3) | VARINT)) seconds = reader.int32();
    else skip(reader, tag);
  }
  return seconds;
}

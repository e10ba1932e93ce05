/** ObjectMeta, read before the rest of an object, so that one that does not decode still has a name. */
import { BYTES, nested, readerOf, readMapEntry, readTime, skip } from './wire.ts';
import type { Reader } from './wire.ts';

/** Marks the bookmark that ends the initial events of a watch (KEP-3157). */
export const INITIAL_EVENTS_END = 'k8s.io/initial-events-end';
/** Set by the EndpointSlice controller: when what caused the change happened, RFC 3339. */
export const TRIGGER_TIME = 'endpoints.kubernetes.io/last-change-trigger-time';
/** Ours begin so. */
export const OWN_ANNOTATIONS = 'maglane.io/';

export interface Meta {
  /** "" for what has none. */
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** ms since the epoch; 0 when unknown. */
  readonly created: number;
  /** A deletion timestamp is set. */
  readonly deleting: boolean;
  readonly labels: Readonly<Record<string, string>>;
  /** Only the annotations that the agent reads: those named above. */
  readonly annotations: Readonly<Record<string, string>>;
}

/**
 * Reads field 1, `metadata`, which every object has in common and comes first: what follows need not decode.
 * @throws Error when it does not decode.
 */
export function readMeta(raw: Buffer): Meta {
  const reader = readerOf(raw);
  const meta = { namespace: '', name: '', uid: '', resourceVersion: '', created: 0, deleting: false, labels: {}, annotations: {} };
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) {
      nested(reader, (inner) => readObjectMeta(inner, meta));
      return meta;
    }
    skip(reader, tag);
  }
  return meta;
}

/**
 * ObjectMeta { name 1, namespace 3, uid 5, resourceVersion 6, creationTimestamp 8, deletionTimestamp 9,
 * labels 11, annotations 12 }.
 */
function readObjectMeta(reader: Reader, meta: { -readonly [K in keyof Meta]: Meta[K] }): void {
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (1 << 3) | BYTES:
        meta.name = reader.string();
        break;
      case (3 << 3) | BYTES:
        meta.namespace = reader.string();
        break;
      case (5 << 3) | BYTES:
        meta.uid = reader.string();
        break;
      case (6 << 3) | BYTES:
        meta.resourceVersion = reader.string();
        break;
      case (8 << 3) | BYTES:
        meta.created = nested(reader, readTime);
        break;
      case (9 << 3) | BYTES:
        reader.skip(reader.size());
        meta.deleting = true;
        break;
      case (11 << 3) | BYTES:
        nested(reader, (entry) => readMapEntry(entry, meta.labels, () => true));
        break;
      case (12 << 3) | BYTES:
        nested(reader, (entry) => readMapEntry(entry, meta.annotations, isRead));
        break;
      default:
        skip(reader, tag);
    }
  }
}

function isRead(annotation: string): boolean {
  return annotation === TRIGGER_TIME || annotation === INITIAL_EVENTS_END || annotation.startsWith(OWN_ANNOTATIONS);
}

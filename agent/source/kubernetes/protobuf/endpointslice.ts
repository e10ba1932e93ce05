/** discovery.k8s.io/v1 EndpointSlice, straight into columns. */
import type { EndpointSlice, SlicePort } from '../../../model/objects.ts';
import { READY, SERVING, TERMINATING } from '../../../model/objects.ts';
import type { Meta } from './meta.ts';
import { TRIGGER_TIME } from './meta.ts';
import { BYTES, nested, readerOf, readFirstString, skip, VARINT } from './wire.ts';
import type { Reader } from './wire.ts';

/** Distinct strings kept before the table starts anew: node and zone names, even of a cluster that changes for years. */
const MOST_INTERNED = 65_536;

/** Node names and zones are few and repeated by every endpoint: one string each. */
const interned = new Map<string, string>();

function intern(text: string): string {
  const known = interned.get(text);
  if (known !== undefined) return known;
  if (interned.size >= MOST_INTERNED) interned.clear();
  interned.set(text, text);
  return text;
}

interface Columns {
  readonly addresses: string[];
  readonly states: number[];
  readonly nodeNames: string[];
  readonly hints: (Hints | undefined)[];
}

interface Hints {
  zones: readonly string[];
  nodes: readonly string[];
}

/**
 * Reads EndpointSlice { endpoints 2, ports 3, addressType 4 }.
 * @throws Error when it does not decode.
 */
export function readEndpointSlice(meta: Meta, raw: Buffer): EndpointSlice {
  const reader = readerOf(raw);
  let addressType = '';
  const ports: SlicePort[] = [];
  const columns: Columns = { addresses: [], states: [], nodeNames: [], hints: [] };
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (2 << 3) | BYTES:
        nested(reader, readEndpoint, columns);
        break;
      case (3 << 3) | BYTES:
        ports.push(nested(reader, readPort));
        break;
      case (4 << 3) | BYTES:
        addressType = reader.string();
        break;
      default:
        skip(reader, tag);
    }
  }
  return {
    namespace: meta.namespace,
    name: meta.name,
    service: meta.labels['kubernetes.io/service-name'] ?? '',
    addressType,
    ports,
    addresses: columns.addresses,
    states: new Uint8Array(columns.states),
    nodeNames: columns.nodeNames,
    zoneHints: whereAny(columns.hints, 'zones'),
    nodeHints: whereAny(columns.hints, 'nodes'),
    triggered: Date.parse(meta.annotations[TRIGGER_TIME] ?? '') || 0,
  };
}

const NO_HINTS: readonly string[] = [];

function whereAny(hints: readonly (Hints | undefined)[], kind: 'zones' | 'nodes'): readonly (readonly string[])[] | undefined {
  const any = hints.some((hint) => hint !== undefined && hint[kind] !== NO_HINTS);
  return any ? hints.map((hint) => hint?.[kind] ?? NO_HINTS) : undefined;
}

/** Endpoint { addresses 1, conditions 2, nodeName 6, hints 8: { forZones 1, forNodes 2 } }: one more row of `columns`. */
function readEndpoint(reader: Reader, columns: Columns): void {
  let address: string | undefined;
  let state = READY | SERVING;
  let nodeName = '';
  let hints: Hints | undefined;
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (1 << 3) | BYTES:
        if (address === undefined) address = reader.string();
        else reader.skip(reader.size());
        break;
      case (2 << 3) | BYTES:
        state = nested(reader, readConditions);
        break;
      case (6 << 3) | BYTES:
        nodeName = intern(reader.string());
        break;
      case (8 << 3) | BYTES:
        hints ??= { zones: NO_HINTS, nodes: NO_HINTS };
        nested(reader, readHints, hints);
        break;
      default:
        skip(reader, tag);
    }
  }
  columns.addresses.push(address ?? '');
  columns.states.push(state);
  columns.nodeNames.push(nodeName);
  columns.hints.push(hints);
}

/** EndpointConditions { ready 1, serving 2, terminating 3 }; what is not there: ready and serving, not terminating. */
function readConditions(reader: Reader): number {
  let state = READY | SERVING;
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | VARINT)) state = withBit(state, READY, reader.bool());
    else if (tag === ((2 << 3) | VARINT)) state = withBit(state, SERVING, reader.bool());
    else if (tag === ((3 << 3) | VARINT)) state = withBit(state, TERMINATING, reader.bool());
    else skip(reader, tag);
  }
  return state;
}

function withBit(state: number, bit: number, on: boolean): number {
  return on ? state | bit : state & ~bit;
}

function readHints(reader: Reader, hints: Hints): void {
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) hints.zones = [...hints.zones, intern(nested(reader, readFirstString))];
    else if (tag === ((2 << 3) | BYTES)) hints.nodes = [...hints.nodes, intern(nested(reader, readFirstString))];
    else skip(reader, tag);
  }
}

/** EndpointPort { name 1, protocol 2, port 3 }: a pointer each upstream, so absent differs from empty. */
function readPort(reader: Reader): SlicePort {
  const read: { name: string | undefined; protocol: string; port: number } = { name: undefined, protocol: 'TCP', port: 0 };
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (1 << 3) | BYTES:
        read.name = reader.string();
        break;
      case (2 << 3) | BYTES:
        read.protocol = reader.string() || read.protocol;
        break;
      case (3 << 3) | VARINT:
        read.port = reader.int32();
        break;
      default:
        skip(reader, tag);
    }
  }
  return read;
}

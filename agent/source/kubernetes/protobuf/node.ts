/** core/v1 Node, straight into the model's type. */
import type { Node } from '../../../model/objects.ts';
import type { Meta } from './meta.ts';
import { BYTES, nested, readerOf, readFirstString, skip } from './wire.ts';
import type { Reader } from './wire.ts';

interface NodeAddress {
  readonly type: string;
  readonly address: string;
}

/**
 * Reads Node { spec 2, status 3: { addresses 5 } }.
 * @throws Error when it does not decode.
 */
export function readNode(meta: Meta, raw: Buffer): Node {
  const reader = readerOf(raw);
  let spec = { podCIDRs: [] as string[], taints: [] as string[] };
  let addresses: readonly NodeAddress[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((2 << 3) | BYTES)) spec = nested(reader, readSpec);
    else if (tag === ((3 << 3) | BYTES)) addresses = nested(reader, readStatus);
    else skip(reader, tag);
  }
  const ofType = (type: string): string[] => addresses.filter((item) => item.type === type).map((item) => item.address);
  return {
    name: meta.name,
    labels: meta.labels,
    addresses: [...ofType('InternalIP'), ...ofType('ExternalIP')],
    ...spec,
    deleting: meta.deleting,
  };
}

/** NodeSpec { podCIDR 1, taints 5: { key 1 }, podCIDRs 7 }; taints as their keys. */
function readSpec(reader: Reader): { podCIDRs: string[]; taints: string[] } {
  let podCIDR = '';
  const podCIDRs: string[] = [];
  const taints: string[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    switch (tag) {
      case (1 << 3) | BYTES:
        podCIDR = reader.string();
        break;
      case (5 << 3) | BYTES:
        taints.push(nested(reader, readFirstString));
        break;
      case (7 << 3) | BYTES:
        podCIDRs.push(reader.string());
        break;
      default:
        skip(reader, tag);
    }
  }
  return { podCIDRs: podCIDRs.length === 0 && podCIDR !== '' ? [podCIDR] : podCIDRs, taints };
}

function readStatus(reader: Reader): readonly NodeAddress[] {
  const addresses: NodeAddress[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((5 << 3) | BYTES)) addresses.push(nested(reader, readAddress));
    else skip(reader, tag);
  }
  return addresses;
}

/** NodeAddress { type 1, address 2 }. */
function readAddress(reader: Reader): NodeAddress {
  const read = { type: '', address: '' };
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) read.type = reader.string();
    else if (tag === ((2 << 3) | BYTES)) read.address = reader.string();
    else skip(reader, tag);
  }
  return read;
}

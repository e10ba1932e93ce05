/** networking.k8s.io/v1 ServiceCIDR, straight into the model's type. */
import type { ServiceCidr } from '../../../model/objects.ts';
import type { Meta } from './meta.ts';
import { BYTES, nested, readerOf, skip } from './wire.ts';
import type { Reader } from './wire.ts';

/**
 * Reads ServiceCIDR { spec 2: { cidrs 1 } }.
 * @throws Error when it does not decode.
 */
export function readServiceCidr(meta: Meta, raw: Buffer): ServiceCidr {
  const reader = readerOf(raw);
  let cidrs: readonly string[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((2 << 3) | BYTES)) cidrs = nested(reader, readSpec);
    else skip(reader, tag);
  }
  return { name: meta.name, cidrs };
}

function readSpec(reader: Reader): readonly string[] {
  const cidrs: string[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.tag();
    if (tag === ((1 << 3) | BYTES)) cidrs.push(reader.string());
    else skip(reader, tag);
  }
  return cidrs;
}

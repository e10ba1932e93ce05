/** Executes a plan's writes: neighbours of one kind as one batch, or straight into mapped memory. */
import native from '../../native/index.js';
import type { HeldFrontend, HeldService, Write } from '../plan/held.ts';
import type { Codec } from './generated/abi.ts';
import { backendCodec, frontendCodec, frontendKeyCodec, serviceCodec } from './generated/abi.ts';
import type { Maps } from './maps.ts';
import { backendFlags, toBackend, toFrontend, toFrontendKey, toService } from './records.ts';

/**
 * Runs the writes in order; those of one kind that follow each other go together, as their order
 * among themselves does not matter.
 * @throws BpfError, naming the map; the maps are consistent then, and what was not written is unknown.
 */
export function executeWrites(maps: Maps, writes: readonly Write[]): void {
  for (let start = 0; start < writes.length;) {
    const op = writes[start]?.op;
    let end = start + 1;
    while (writes[end]?.op === op) end++;
    executeRun(maps, writes.slice(start, end));
    start = end;
  }
}

function executeRun(maps: Maps, run: readonly Write[]): void {
  const all = <Op extends Write['op']>(op: Op) => run.filter((write): write is Extract<Write, { op: Op }> => write.op === op);
  switch (run[0]?.op) {
    case 'frontend.delete':
      return deleteFrontends(maps, all('frontend.delete'));
    case 'frontend.put':
      return putFrontends(
        maps,
        all('frontend.put').map(({ frontend }) => frontend),
      );
    case 'service.put':
      return putServices(
        maps,
        all('service.put').map(({ service }) => service),
      );
    case 'service.delete': {
      const ids = all('service.delete').map(({ id }) => id);
      native.mapDeleteBatch(maps.fd('services'), bytesOf(ids), ids.length);
      return;
    }
    case 'backend.put':
      for (const { backend } of all('backend.put')) backendCodec.write(toBackend(backend), maps.memory('backends'), backend.id * backendCodec.size);
      return;
    case 'backend.flags':
      // One byte: the kernel counts connections in the same slot meanwhile.
      for (const { backend } of all('backend.flags'))
        maps.memory('backends')[backend.id * backendCodec.size + backendCodec.offsets.flags] = backendFlags(backend);
      return;
    case 'backend.clear':
      for (const { id } of all('backend.clear')) maps.memory('backends').fill(0, id * backendCodec.size, (id + 1) * backendCodec.size);
      return;
    case 'ring.write':
      for (const { base, slots } of all('ring.write')) maps.ring.set(slots, base);
  }
}

function deleteFrontends(maps: Maps, deletes: readonly Extract<Write, { op: 'frontend.delete' }>[]): void {
  native.mapDeleteBatch(maps.fd('frontends'), encode(frontendKeyCodec, deletes.map(toFrontendKey)), deletes.length);
}

function putFrontends(maps: Maps, frontends: readonly HeldFrontend[]): void {
  native.mapUpdateBatch(
    maps.fd('frontends'),
    encode(frontendKeyCodec, frontends.map(toFrontendKey)),
    encode(frontendCodec, frontends.map(toFrontend)),
    frontends.length,
  );
}

function putServices(maps: Maps, services: readonly HeldService[]): void {
  native.mapUpdateBatch(maps.fd('services'), bytesOf(services.map(({ id }) => id)), encode(serviceCodec, services.map(toService)), services.length);
}

/** Records back to back. */
function encode<T>(codec: Codec<T>, records: readonly T[]): Uint8Array {
  const bytes = new Uint8Array(codec.size * records.length);
  records.forEach((record, i) => codec.write(record, bytes, codec.size * i));
  return bytes;
}

function bytesOf(words: readonly number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(words).buffer);
}

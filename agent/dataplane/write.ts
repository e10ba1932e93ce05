/** Executes a plan's writes: neighbours of one kind as one batch, or straight into mapped memory. */
import native from '../../native/index.js';
import type { Address } from '../model/address.ts';
import { writeAddress } from '../model/address.ts';
import type { DesiredAddress } from '../model/desired.ts';
import type { HeldBackend, HeldFrontend, HeldService, Write } from '../plan/held.ts';
import { noteFrontends } from './ends.ts';
import type { Codec, Node } from './generated/abi.ts';
import {
  backendCodec,
  BackendFlag,
  cidrCodec,
  frontendCodec,
  frontendKeyCodec,
  nodeCodec,
  NodeFlag,
  serviceCodec,
  sourceRangeKeyCodec,
} from './generated/abi.ts';
import type { Maps } from './maps.ts';
import { wordsOf } from './maps.ts';
import { forgetSockets } from './recount.ts';
import { backendFlags, toAddress, toAddressKey, toBackend, toFrontend, toFrontendKey, toNode, toService, toSourceRange } from './records.ts';

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
      return putBackends(
        maps,
        all('backend.put').map(({ backend }) => backend),
      );
    case 'backend.flags':
      for (const { backend } of all('backend.flags')) {
        putHost(maps, backend);
        // One byte: the kernel counts connections in the same slot meanwhile.
        maps.from('backends', backend.id * backendCodec.size)[backendCodec.offsets.flags] = backendFlags(backend);
      }
      return;
    case 'backend.clear':
      for (const { id } of all('backend.clear')) {
        maps.from('backends', id * backendCodec.size).fill(0, 0, backendCodec.size);
        forgetSockets(maps, id);
      }
      return;
    case 'ring.write':
      for (const { base, slots } of all('ring.write')) maps.writeRing(base, slots);
      return;
    case 'address.put':
      return putAddresses(
        maps,
        all('address.put').map(({ address }) => address),
      );
    case 'address.delete': {
      const keys = all('address.delete').map(({ address }) => toAddressKey(address));
      native.mapDeleteBatch(maps.fd('frontends'), encode(frontendKeyCodec, keys), keys.length);
      return;
    }
    case 'range.put': {
      const keys = all('range.put').map(({ range }) => toSourceRange(range));
      // That there is an entry says it all: its value is no one's.
      native.mapUpdateBatch(maps.fd('source_ranges'), encode(sourceRangeKeyCodec, keys), bytesOf(keys.map(() => 1)), keys.length);
      return;
    }
    case 'range.delete': {
      const keys = all('range.delete').map(({ range }) => toSourceRange(range));
      native.mapDeleteBatch(maps.fd('source_ranges'), encode(sourceRangeKeyCodec, keys), keys.length);
      return;
    }
    case 'peer.put': {
      const keys = addressBytes(all('peer.put').map(({ address }) => address));
      native.mapUpdateBatch(maps.fd('peers'), keys, bytesOf(run.map(() => 1)), run.length);
      return;
    }
    case 'peer.delete':
      native.mapDeleteBatch(maps.fd('peers'), addressBytes(all('peer.delete').map(({ address }) => address)), run.length);
      return;
    case 'node.put':
      for (const { node } of all('node.put')) putNode(maps, toNode(node));
  }
}

/**
 * Programs read the record while it is written, so what speaks of a range is taken back before that range changes and said
 * again after: no count beyond what is complete, no detector over half an address.
 */
function putNode(maps: Maps, node: Node): void {
  const memory = maps.memory('node');
  const { flags, serviceCidrCount, addr, pods, serviceCidrs } = nodeCodec.offsets;
  const words = wordsOf(memory);
  const record = new Uint8Array(nodeCodec.size);
  nodeCodec.write(node, record);
  const differs = (from: number, to: number): boolean => Buffer.compare(memory.subarray(from, to), record.subarray(from, to)) !== 0;
  if (differs(serviceCidrs, nodeCodec.size)) words[serviceCidrCount / 4] = 0;
  const takeBack = (flag: number, at: number, size: number): void => {
    if (differs(at, at + size)) words[flags / 4] = (words[flags / 4] ?? 0) & ~flag;
  };
  [NodeFlag.DETECTS_V4, NodeFlag.DETECTS_V6].forEach((flag, i) => takeBack(flag, pods + i * cidrCodec.size, cidrCodec.size));
  [NodeFlag.ADDRESS_V4, NodeFlag.ADDRESS_V6].forEach((flag, i) => takeBack(flag, addr + i * 16, 16));
  memory.set(record.subarray(pods), pods);
  words[serviceCidrCount / 4] = node.serviceCidrCount;
  words[flags / 4] = node.flags;
}

/**
 * Where packets for a backend are sent as they are: said before its flags speak of it. While it changes under packets that
 * read it, the flags do not.
 */
function putHost(maps: Maps, { id, host }: HeldBackend): void {
  if (host === undefined) return;
  const record = addressBytes([host]);
  const bytes = maps.from('hosts', id * record.length);
  if (Buffer.compare(bytes.subarray(0, record.length), record) === 0) return;
  const slot = maps.from('backends', id * backendCodec.size);
  const { flags } = backendCodec.offsets;
  slot[flags] = (slot[flags] ?? 0) & ~BackendFlag.HOSTED;
  bytes.set(record);
}

function addressBytes(addresses: readonly Address[]): Uint8Array {
  const bytes = new Uint8Array(16 * addresses.length);
  addresses.forEach((address, i) => writeAddress(address, bytes, 16 * i));
  return bytes;
}

/** What is seen through the window of one serves for those behind it. */
function putBackends(maps: Maps, backends: readonly HeldBackend[]): void {
  let start = 0;
  let memory: Uint8Array = new Uint8Array();
  for (const backend of backends) {
    putHost(maps, backend);
    const offset = backend.id * backendCodec.size;
    if (offset < start || offset + backendCodec.size > start + memory.length) {
      start = offset;
      memory = maps.from('backends', offset);
    }
    backendCodec.write(toBackend(backend), memory, offset - start);
  }
}

function putAddresses(maps: Maps, addresses: readonly DesiredAddress[]): void {
  native.mapUpdateBatch(
    maps.fd('frontends'),
    encode(
      frontendKeyCodec,
      addresses.map(({ address }) => toAddressKey(address)),
    ),
    encode(frontendCodec, addresses.map(toAddress)),
    addresses.length,
  );
}

function deleteFrontends(maps: Maps, deletes: readonly Extract<Write, { op: 'frontend.delete' }>[]): void {
  native.mapDeleteBatch(maps.fd('frontends'), encode(frontendKeyCodec, deletes.map(toFrontendKey)), deletes.length);
}

function putFrontends(maps: Maps, frontends: readonly HeldFrontend[]): void {
  const keys = encode(frontendKeyCodec, frontends.map(toFrontendKey));
  noteFrontends(maps.memory('ends'), keys);
  native.mapUpdateBatch(maps.fd('frontends'), keys, encode(frontendCodec, frontends.map(toFrontend)), frontends.length);
}

/** Round-robin begins anywhere: were it always the first backend, it would be busier than the others, and that on all nodes at once. */
function putServices(maps: Maps, services: readonly HeldService[]): void {
  const records = services.map((service) => toService(service, Math.floor(Math.random() * 2 ** 32)));
  native.mapUpdateBatch(maps.fd('services'), bytesOf(services.map(({ id }) => id)), encode(serviceCodec, records), services.length);
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

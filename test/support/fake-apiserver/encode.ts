/** Encodes what an API server sends, by kubernetes.proto and protobufjs: another way than the agent's decoders go. */
import { readFileSync } from 'node:fs';
import protobuf from 'protobufjs';

const { root } = protobuf.parse(readFileSync(new URL('./kubernetes.proto', import.meta.url), 'utf8'), { keepCase: true });

/** A plain object in the shape of the API's JSON. */
export type Fields = Readonly<Record<string, unknown>>;

/** The message `type` of kubernetes.proto, bare. */
export function encode(type: string, fields: Fields): Buffer {
  const message = root.lookupType(type);
  return Buffer.from(message.encode(message.fromObject(fields)).finish());
}

/** As in a body: `k8s\0` + Unknown. */
export function enveloped(apiVersion: string, kind: string, raw: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from('k8s\0'), encode('Unknown', { typeMeta: { apiVersion, kind }, raw })]);
}

/** As on a watch: length + WatchEvent. */
export function frame(type: string, object: Uint8Array): Buffer {
  const event = encode('WatchEvent', { type, object: { raw: object } });
  const length = Buffer.alloc(4);
  length.writeUInt32BE(event.length);
  return Buffer.concat([length, event]);
}

/** A metav1.Status in its envelope. */
export function status(code: number, reason: string, message: string, retryAfterSeconds?: number): Buffer {
  const details = retryAfterSeconds === undefined ? {} : { details: { retryAfterSeconds } };
  return enveloped('v1', 'Status', encode('Status', { status: 'Failure', code, reason, message, ...details }));
}

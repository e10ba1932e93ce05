/** Readers of option values: text in, typed value out, or what would have been right. */
import { isIP } from 'node:net';
import type { Address, Cidr } from '../model/address.ts';
import { parseAddress, parseCidr } from '../model/address.ts';

/** What a reader returns for text it cannot take: `right` completes "expected ...". */
export class Expected {
  readonly right: string;

  constructor(right: string) {
    this.right = right;
  }
}

/** Reads one value of an option. */
export type Reader<T> = (text: string) => T | Expected;

/** Any non-empty text. */
export function text(what: string): Reader<string> {
  return (value) => (value === '' ? new Expected(what) : value);
}

/** One of a few words. */
export function oneOf<const T extends string>(...words: readonly T[]): Reader<T> {
  const right = `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
  return (value) => words.find((word) => word === value) ?? new Expected(right);
}

/** true or false. */
export const bool: Reader<boolean> = (value) => (value === 'true' ? true : value === 'false' ? false : new Expected('true or false'));

/** A whole number within bounds, both included. */
export function integer(min: number, max: number): Reader<number> {
  return (value) => {
    const number = Number(value);
    return /^\d+$/.test(value) && number >= min && number <= max ? number : new Expected(`a whole number from ${min} to ${max}`);
  };
}

/** A comma-separated list; empty items are refused, an empty text is the empty list. */
export function list<T>(item: Reader<T>): Reader<readonly T[]> {
  return (value) => {
    const items = value === '' ? [] : value.split(',').map((part) => item(part.trim()));
    const bad = items.find((read) => read instanceof Expected);
    return bad instanceof Expected ? new Expected(`a comma-separated list, each ${bad.right}`) : (items as T[]);
  };
}

export const address: Reader<Address> = (value) => parseAddress(value) ?? new Expected('an IP address');

/** An address range; host bits are allowed and ignored. */
export const cidr: Reader<Cidr> = (value) => parseCidr(value) ?? new Expected('a CIDR such as 10.0.0.0/8 or fd00::/64');

/** An http or https URL, or none. */
export const url: Reader<string> = (value) =>
  value === '' || (URL.canParse(value) && /^https?:/.test(value)) ? value : new Expected('a URL such as https://10.0.0.1:6443');

/** Where a server listens. */
export interface BindAddress {
  readonly host: string;
  readonly port: number;
}

/** "127.0.0.1:10249", "[::1]:10249"; an address alone is at `standard`, as in kube-proxy; "" or "off" for no server. */
export function bindAddress(standard: number): Reader<BindAddress | undefined> {
  return (value) => {
    if (value === '' || value === 'off') return undefined;
    if (isIP(value) !== 0) return { host: value, port: standard };
    const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(value);
    const host = match?.[1] ?? match?.[2] ?? '';
    const port = Number(match?.[3]);
    if (match === null || isIP(host) === 0 || port > 65535) return new Expected('ADDRESS:PORT such as 127.0.0.1:10249 or [::1]:10249, or off');
    return { host, port };
  };
}

/** A range of ports, both ends included. */
export interface PortRange {
  readonly min: number;
  readonly max: number;
}

/** "61000-65535", at least 256 ports. */
export const portRange: Reader<PortRange> = (value) => {
  const match = /^(\d{1,5})-(\d{1,5})$/.exec(value);
  const [min, max] = [Number(match?.[1]), Number(match?.[2])];
  const right = 'MIN-MAX such as 61000-65535, at least 256 ports between 1024 and 65535';
  return match === null || min < 1024 || max > 65535 || max - min < 255 ? new Expected(right) : { min, max };
};

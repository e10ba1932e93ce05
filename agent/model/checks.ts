/** The judgements on single values that Services and EndpointSlices share. */
import { familyOf, parseAddress, parseCidr } from './address.ts';
import type { Address, Cidr } from './address.ts';
import type { Family, Protocol } from './desired.ts';
import type { Problem, ProblemReason } from './problem.ts';

/** An address of this family that a Checker would find nothing wrong with; what this refuses is for the Checker to explain. */
export function soundAddress(family: Family, text: string): Address | undefined {
  const address = parseAddress(text);
  return address !== undefined && familyOf(address) === family && dangerOf(address) === undefined ? address : undefined;
}

/** Collects the problems of one object; a check that fails adds one and returns undefined. */
export class Checker {
  readonly problems: Problem[] = [];
  readonly #object: string;

  /** @param object what the problems are about: "Service default/web". */
  constructor(object: string) {
    this.#object = object;
  }

  /** Adds a problem. */
  refuse(field: string, value: string | number, message: string, reason: ProblemReason): undefined {
    this.problems.push({ object: this.#object, field, value: String(value), message, reason });
    return undefined;
  }

  /** An address that may stand in a map: it parses, and no harm comes from taking its traffic over. */
  address(field: string, text: string): Address | undefined {
    const address = parseAddress(text);
    if (address === undefined) return this.refuse(field, text, 'is not an IP address: one such as 10.0.0.1 or fd00::1 would be', 'invalid_address');
    const danger = dangerOf(address);
    if (danger !== undefined) return this.refuse(field, text, `is ${danger}: an address that is routed between machines would be right`, 'unsafe_address');
    return address;
  }

  /** An `address` of this family. */
  addressOf(family: Family, field: string, text: string): Address | undefined {
    const address = this.address(field, text);
    if (address === undefined || familyOf(address) === family) return address;
    return this.refuse(field, text, `is not an IPv${family} address`, 'invalid_address');
  }

  /** An address range, in which Services or clients may lie. */
  cidr(field: string, text: string): Cidr | undefined {
    return parseCidr(text) ?? this.refuse(field, text, 'is not an address range: one such as 10.0.0.0/8 or fd00::/8 would be', 'invalid_address');
  }

  port(field: string, value: number): number | undefined {
    if (Number.isInteger(value) && value >= 1 && value <= 65535) return value;
    return this.refuse(field, value, 'is not a port: 1 to 65535 would be', 'invalid_port');
  }

  protocol(field: string, value: string): Protocol | undefined {
    if (value === 'TCP' || value === 'UDP' || value === 'SCTP') return value;
    return this.refuse(field, value, 'is not a protocol: TCP, UDP or SCTP would be', 'invalid_protocol');
  }

  /** One of `choices`; anything else is a problem, and the first of them. */
  choice<T extends string>(field: string, value: string, choices: readonly [T, ...T[]]): T {
    const found = choices.find((choice) => choice === value);
    if (found !== undefined) return found;
    this.refuse(field, value, `is unknown, so ${choices[0]} stands: one of ${choices.join(', ')} would be right`, 'invalid_value');
    return choices[0];
  }
}

/**
 * Why an address must not be a virtual IP or an endpoint: it belongs to this machine or this link
 * alone, or to many at once. The API refuses most of these (not in status, and not in old objects).
 */
function dangerOf(address: Address): string | undefined {
  if (familyOf(address) === 4) {
    if (address === '0.0.0.0') return 'unspecified';
    if (address.startsWith('127.')) return 'loopback';
    if (address.startsWith('169.254.')) return 'link-local';
    const first = parseInt(address, 10);
    return first >= 224 && first <= 239 ? 'multicast' : undefined;
  }
  if (address === '::') return 'unspecified';
  if (address === '::1') return 'loopback';
  // fe80::/10 and ff00::/8: canonical text spells a first group this large in four digits.
  if (/^fe[89ab][0-9a-f]:/.test(address)) return 'link-local';
  return /^ff[0-9a-f]{2}:/.test(address) ? 'multicast' : undefined;
}

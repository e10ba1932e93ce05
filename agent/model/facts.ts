import type { Address } from './address.ts';
import type { Algorithm } from './desired.ts';

/** What the model must know of its node that no Service or EndpointSlice says. */
export interface NodeFacts {
  /** The Node's name, as `nodeName` of endpoints and node hints spell it. */
  readonly name: string;
  /** The zone, while this node's own Node object has not been seen; "" when unknown. */
  readonly zone: string;
  /** Addresses of both families that serve nodePorts, resolved; loopback is not among them. */
  readonly nodePortAddresses: readonly Address[];
  /** NodePorts also on 127.0.0.1 and ::1, for the node's own processes alone. */
  readonly localhostNodePorts: boolean;
  /** For Services without the annotation `maglane.io/algorithm`. */
  readonly defaultAlgorithm: Algorithm;
}

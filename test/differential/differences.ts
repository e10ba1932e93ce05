/**
 * Where Maglane means to differ from kube-proxy: all of it, and nowhere else. docs/differences.md gives the
 * reasons for people, under the same names.
 */
import { familyOf } from '../../agent/model/address.ts';
import type { Question } from './answer.ts';
import type { Difference } from './compare.ts';
import { endpointsOf, isClusterIp, isNodes } from './world.ts';

export interface Deliberate {
  /** As docs/differences.md heads it. */
  readonly name: string;
  /** Whether a difference is this one; undefined: this test cannot see it, others do. */
  readonly explains?: (difference: Difference) => boolean;
}

const isFromHere = ({ question }: Difference): boolean => question.source.name === 'node' || question.source.name === 'pod here';
const isLoopback = ({ address }: Question): boolean => address === '::1' || address.startsWith('127.');
/** Whether the target is where this node's endpoints are. */
const isHere = ({ target }: Difference): boolean => target !== undefined && endpointsOf(familyOf(target.address)).here.includes(target.address);
/** Whether --masquerade-all asks for a masquerade, and there is a packet to a cluster IP. */
const isToHide = ({ setup, question, way }: Difference): boolean =>
  setup.maglane.includes('--masquerade-all') && way === 'packet' && isClusterIp(question.address);
/** In a masquerade: which side masquerades. */
const keeps = (difference: Difference): boolean => difference.in === 'masquerade' && difference.target?.masquerade === false && !isToHide(difference);
const masquerades = ({ in: what, target }: Difference): boolean => what === 'masquerade' && target?.masquerade === true;

export const DIFFERENCES: readonly Deliberate[] = [
  { name: 'A caller on this node keeps its own source', explains: (difference) => keeps(difference) && isFromHere(difference) },
  { name: 'An endpoint on this node sees the client', explains: (difference) => keeps(difference) && !isFromHere(difference) && isHere(difference) },
  { name: 'What is sent on to another node is always masqueraded', explains: (difference) => masquerades(difference) && !isFromHere(difference) },
  {
    name: "The node's own packets leave with the address of the device that they take",
    explains: (difference) => masquerades(difference) && difference.question.source.name === 'node',
  },
  {
    name: 'A pod that meets itself is masqueraded wherever its endpoint is said to be',
    explains: (difference) => masquerades(difference) && difference.question.source.address === difference.target?.address,
  },
  { name: 'What is dropped or rejected is refused at once to a socket' },
  { name: 'A ping of a virtual IP is answered' },
  {
    name: 'Node ports on 127.0.0.1 and ::1',
    explains: ({ question, way, theirs }) => isLoopback(question) && question.source.name === 'node' && way === 'socket' && theirs.verdict === 'nothing',
  },
  { name: 'No node ports on link-local addresses' },
  {
    name: 'A load balancer IP that is loopback is refused',
    explains: ({ question, ours }) => isLoopback(question) && ours.verdict === 'nothing',
  },
  {
    name: 'An address that the node holds answers for itself',
    explains: ({ question, theirs, ours }) =>
      question.source.name === 'node' && isNodes(question.address) && ours.verdict === 'nothing' && ['drop', 'reject'].includes(theirs.verdict),
  },
  {
    name: 'Load balancer and external IPs are rejected as a whole where that is asked for',
    explains: ({ setup, question: { address }, theirs, ours }) =>
      setup.maglane.includes('--own-lb-ips') && theirs.verdict === 'nothing' && ours.verdict === 'reject' && !isNodes(address) && !isClusterIp(address),
  },
  { name: 'Of two Services with one address and port the older one has it' },
  { name: 'Slices that disagree about an endpoint are read in the order of their names' },
  { name: 'ServiceCIDRs count at once' },
  { name: "A health check node port answers on the node's other family" },
  { name: 'A node is healthy only when it serves' },
  { name: 'An endpoint port out of range is refused alone' },
  { name: 'A long name does no harm' },
  { name: 'A list of source ranges that cannot be read lets nobody in' },
  { name: 'A UDP flow leaves its backend whenever that stops serving it' },
];

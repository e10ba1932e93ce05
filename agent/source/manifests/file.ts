/** One manifest file: what it holds, and what is wrong with it. */
import type { EndpointSlice, Node, Service, ServiceCidr } from '../../model/objects.ts';
import type { Problem } from '../../model/problem.ts';
import { readEndpoints, readEndpointSlice, readNode, readService, readServiceCidr } from './convert.ts';
import { FieldError, Fields } from './fields.ts';
import { parseDocuments } from './parse.ts';

/** A Change of something that is there. */
export type Present =
  | { readonly kind: 'Service'; readonly key: string; readonly object: Service }
  | { readonly kind: 'EndpointSlice'; readonly key: string; readonly object: EndpointSlice }
  | { readonly kind: 'Node'; readonly key: string; readonly object: Node }
  | { readonly kind: 'ServiceCIDR'; readonly key: string; readonly object: ServiceCidr };

/** One object as it was written, and what the model gets of it: an Endpoints becomes several slices. */
export interface Manifest {
  /** "Service default/web": two with one id are the same object. */
  readonly id: string;
  readonly objects: readonly Present[];
}

export interface FileContent {
  readonly manifests: readonly Manifest[];
  /** Ids of objects that stand in the file but cannot be used. */
  readonly refused: ReadonlySet<string>;
  readonly problems: readonly Problem[];
}

/** Says what was left aside and why, for the debug log. */
export type Note = (message: string) => void;

type Kind = 'Service' | 'EndpointSlice' | 'Endpoints' | 'Node' | 'ServiceCIDR';

/** Kinds whose objects are in no namespace. */
const CLUSTER_WIDE = new Set(['Node', 'ServiceCIDR']);

const VERSIONS: Readonly<Record<Kind, string>> = {
  Service: 'v1',
  EndpointSlice: 'discovery.k8s.io/v1',
  Endpoints: 'v1',
  Node: 'v1',
  ServiceCIDR: 'networking.k8s.io/v1',
};

/** Slices of headless Services: the Kubernetes source does not list them, so they are left alone here too. */
const HEADLESS = 'service.kubernetes.io/headless';

/** The problem of a whole file that cannot be read. */
export function unreadable(file: string, field: string, message: string): Problem {
  return { object: `file ${file}`, field, value: '', message, reason: 'unreadable' };
}

/**
 * Reads a file's text.
 * @param file its name, for messages.
 * @returns a problem in place of the content when it does not parse.
 */
export async function readManifests(file: string, text: string, note: Note): Promise<FileContent | Problem> {
  const { documents, error } = await parseDocuments(text.replace(/^\uFEFF/, ''));
  if (error !== undefined)
    return unreadable(file, error.line > 0 ? `line ${error.line}` : '', `does not parse, so what was read before stays: ${error.message}`);
  const manifests: Manifest[] = [];
  const refused = new Set<string>();
  const problems: Problem[] = [];
  for (const document of documents) {
    for (const value of objectsIn(document)) {
      let name = `file ${file}`;
      let id = '';
      const refuse = ({ field, value: what, message, reason }: FieldError): void => void problems.push({ object: name, field, value: what, message, reason });
      try {
        const object = new Fields(value, '', refuse);
        id = idOf(object);
        name = `${id} in ${file}`;
        const kind = kindOf(object);
        if (kind === undefined || object.fields('metadata').fields('labels').has(HEADLESS)) note(`${name} is left alone`);
        else manifests.push({ id, objects: convert(kind, object) });
      } catch (thrown) {
        if (!(thrown instanceof FieldError)) throw thrown;
        refuse(thrown);
        if (id !== '') refused.add(id);
      }
    }
  }
  return { manifests, refused, problems };
}

/** The objects of a document, which may be a List of them; a typed list ("ServiceList") names the kind of its items. */
function* objectsIn(document: unknown): Generator<unknown> {
  const { kind, apiVersion, items } = (document ?? {}) as { kind?: unknown; apiVersion?: unknown; items?: unknown };
  if (typeof kind !== 'string' || !kind.endsWith('List') || !Array.isArray(items)) {
    yield document;
    return;
  }
  const typed = kind === 'List' ? {} : { kind: kind.slice(0, -'List'.length), apiVersion };
  for (const item of items as unknown[]) yield* objectsIn(typeof item === 'object' && item !== null && !Array.isArray(item) ? { ...typed, ...item } : item);
}

/** The kind, if it is one of ours; undefined for those of others. */
function kindOf(object: Fields): Kind | undefined {
  const kind = object.text('kind');
  const version = object.text('apiVersion');
  if (!Object.hasOwn(VERSIONS, kind)) return undefined;
  const right = VERSIONS[kind as Kind];
  if (version === right) return kind as Kind;
  // A Service of Knative's is no Service; an old version, or none, of our own group is a mistake.
  const groupOf = (text: string): string => text.slice(0, Math.max(0, text.indexOf('/')));
  if (groupOf(version) !== groupOf(right)) return undefined;
  throw new FieldError('apiVersion', version, `is not supported: ${right} would be right`, 'invalid_value');
}

function idOf(object: Fields): string {
  if (!object.has('kind')) throw new FieldError('kind', undefined, 'is missing: a Kubernetes object would be right');
  const kind = object.text('kind');
  const metadata = object.fields('metadata');
  return CLUSTER_WIDE.has(kind) ? `${kind} ${metadata.text('name')}` : `${kind} ${metadata.text('namespace', 'default')}/${metadata.text('name')}`;
}

function convert(kind: Kind, object: Fields): Present[] {
  const named = <T extends { namespace: string; name: string }>(one: T): { key: string; object: T } => ({ key: `${one.namespace}/${one.name}`, object: one });
  switch (kind) {
    case 'Service':
      return [{ kind, ...named(readService(object)) }];
    case 'EndpointSlice':
      return [{ kind, ...named(readEndpointSlice(object)) }];
    case 'Endpoints':
      return readEndpoints(object).map((slice) => ({ kind: 'EndpointSlice', ...named(slice) }));
    case 'Node': {
      const node = readNode(object);
      return [{ kind, key: node.name, object: node }];
    }
    case 'ServiceCIDR': {
      const range = readServiceCidr(object);
      return [{ kind, key: range.name, object: range }];
    }
  }
}

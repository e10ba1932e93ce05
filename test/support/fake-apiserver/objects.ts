/** Objects to put into the fake API server. */
import type { Fields } from './encode.ts';

export function service(name: string, spec: Fields = {}, metadata: Fields = {}): Fields {
  return {
    metadata: { namespace: 'default', name, uid: `uid-${name}`, ...metadata },
    spec: { type: 'ClusterIP', clusterIP: '10.96.0.10', clusterIPs: ['10.96.0.10'], ports: [{ name: 'http', protocol: 'TCP', port: 80 }], ...spec },
  };
}

export function slice(name: string, addresses: readonly string[], fields: Fields = {}): Fields {
  return {
    metadata: { namespace: 'default', name, labels: { 'kubernetes.io/service-name': 'web' } },
    addressType: 'IPv4',
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true, serving: true, terminating: false }, nodeName: 'node-a' })),
    ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
    ...fields,
  };
}

export function node(name: string, labels: Fields = {}): Fields {
  return { metadata: { name, labels }, spec: { podCIDRs: ['10.244.0.0/24'] }, status: { addresses: [{ type: 'InternalIP', address: '192.0.2.1' }] } };
}

export function serviceCidr(name: string, cidrs: readonly string[]): Fields {
  return { metadata: { name }, spec: { cidrs }, status: { conditions: [{ type: 'Ready', status: 'True' }] } };
}

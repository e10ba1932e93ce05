/**
 * Something refused, item by item, while the rest goes on. Printed as one line
 * (`formatProblem`), counted in a metric by `reason`, and told to Kubernetes as an event.
 */
export interface Problem {
  /** "Service default/web", "EndpointSlice default/web-x1", "file web.yaml". */
  readonly object: string;
  /** The field, as a path: "spec.ports[0].port". "" when it is the object itself. */
  readonly field: string;
  /** What stands there. */
  readonly value: string;
  /** What was wrong, and what would be right: "is not a port: 1 to 65535 would be". */
  readonly message: string;
  /** Label of the metric. */
  readonly reason: ProblemReason;
}

export type ProblemReason =
  | 'unreadable' // a file, document or API object that does not parse
  | 'invalid_address'
  | 'unsafe_address' // loopback, link-local, unspecified, multicast
  | 'invalid_port'
  | 'invalid_protocol'
  | 'invalid_value'
  | 'conflict' // another Service owns the frontend
  | 'no_service' // a slice whose Service does not exist (manifests only: a race in Kubernetes)
  | 'capacity' // a map is full
  | 'health_check' // a healthCheckNodePort that cannot be listened on
  | 'device'; // a device that is not there or cannot be served

/**
 * One line for the log: `Service default/web: spec.ports[0].port "70000" is not a port: 1 to 65535 would be`.
 */
export function formatProblem(problem: Problem): string {
  const where = problem.field === '' ? '' : ` ${problem.field}`;
  const value = problem.value === '' ? '' : ` ${JSON.stringify(problem.value)}`;
  return `${problem.object}:${where}${value} ${problem.message}`;
}

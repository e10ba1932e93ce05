/**
 * Metrics in the Prometheus text format 0.0.4, as small as it gets: a client library would add
 * 9 MB to the agent's memory for three kinds of numbers (docs/decisions/dependencies.md).
 */

export type Labels = Readonly<Record<string, string>>;

interface Family {
  readonly name: string;
  render(): string;
}

/** A set of metric families, rendered in the order they were made. */
export class Metrics {
  readonly #families: Family[] = [];

  /** A number that only goes up. */
  counter(name: string, help: string): Counter {
    return this.#add(new Counter(name, help));
  }

  /** Numbers read when the page is: `read` gives every series anew. */
  gauge(name: string, help: string, read: () => Iterable<readonly [Labels, number]>, type: 'gauge' | 'counter' = 'gauge'): void {
    this.#add({ name, render: () => header(name, help, type) + [...read()].map(([labels, value]) => sample(name, labels, value)).join('') });
  }

  /** Durations in seconds, in buckets with these upper bounds. */
  histogram(name: string, help: string, bounds: readonly number[]): Histogram {
    return this.#add(new Histogram(name, help, bounds));
  }

  /** The whole page. */
  render(): string {
    return this.#families.map((family) => family.render()).join('');
  }

  #add<F extends Family>(family: F): F {
    if (this.#families.some(({ name }) => name === family.name)) throw new Error(`metric ${family.name} exists`);
    this.#families.push(family);
    return family;
  }
}

class Counter implements Family {
  readonly name: string;
  readonly #help: string;
  readonly #series = new Map<string, { labels: Labels; value: number }>();

  constructor(name: string, help: string) {
    this.name = name;
    this.#help = help;
  }

  /** Labels must come from a fixed set of values: each combination is a series for good. */
  add(labels: Labels = {}, by = 1): void {
    const key = JSON.stringify(labels);
    const series = this.#series.get(key);
    if (series === undefined) this.#series.set(key, { labels, value: by });
    else series.value += by;
  }

  render(): string {
    return header(this.name, this.#help, 'counter') + [...this.#series.values()].map(({ labels, value }) => sample(this.name, labels, value)).join('');
  }
}

/** One series of a histogram; counts are cumulative, as they are written. */
interface Buckets {
  readonly labels: Labels;
  readonly counts: number[];
  sum: number;
  count: number;
}

class Histogram implements Family {
  readonly name: string;
  readonly #help: string;
  readonly #bounds: readonly number[];
  readonly #series = new Map<string, Buckets>();

  constructor(name: string, help: string, bounds: readonly number[]) {
    this.name = name;
    this.#help = help;
    this.#bounds = bounds;
  }

  /** Labels must come from a fixed set of values: each combination is a series for good. */
  observe(seconds: number, labels: Labels = {}): void {
    const key = JSON.stringify(labels);
    let series = this.#series.get(key);
    if (series === undefined) {
      series = { labels, counts: this.#bounds.map(() => 0), sum: 0, count: 0 };
      this.#series.set(key, series);
    }
    for (const [i, bound] of this.#bounds.entries()) if (seconds <= bound) series.counts[i] = (series.counts[i] ?? 0) + 1;
    series.sum += seconds;
    series.count++;
  }

  render(): string {
    return header(this.name, this.#help, 'histogram') + [...this.#series.values()].map((series) => this.#renderSeries(series)).join('');
  }

  #renderSeries({ labels, counts, sum, count }: Buckets): string {
    return [
      ...this.#bounds.map((bound, i) => sample(`${this.name}_bucket`, { ...labels, le: String(bound) }, counts[i] ?? 0)),
      sample(`${this.name}_bucket`, { ...labels, le: '+Inf' }, count),
      sample(`${this.name}_sum`, labels, sum),
      sample(`${this.name}_count`, labels, count),
    ].join('');
  }
}

export type { Counter, Histogram };

function header(name: string, help: string, type: string): string {
  return `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}\n# TYPE ${name} ${type}\n`;
}

function sample(name: string, labels: Labels, value: number): string {
  const written = Object.entries(labels).map(([key, text]) => `${key}="${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`);
  return `${name}${written.length === 0 ? '' : `{${written.join(',')}}`} ${value}\n`;
}

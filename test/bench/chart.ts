/** Bars as SVG: ratios to direct, with the line at 1 that nobody can be expected to pass. */

export interface Group {
  readonly label: string;
  readonly bars: readonly { readonly label: string; readonly value: number; readonly spread: number }[];
}

const COLOURS = ['#0b6e4f', '#b0b7bf', '#6b7785'] as const;
const [LEFT, WIDTH, BAR, GAP, TOP] = [190, 420, 18, 26, 44];

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/** One bar a peer, grouped; values around 1. */
export function chart(title: string, groups: readonly Group[]): string {
  const most = Math.max(1.1, ...groups.flatMap(({ bars }) => bars.map(({ value, spread }) => value + spread)));
  const x = (value: number): number => LEFT + (value / most) * WIDTH;
  const lines: string[] = [];
  let y = TOP;
  for (const { label, bars } of groups) {
    lines.push(`<text x="8" y="${y + 12}" font-weight="bold">${escape(label)}</text>`);
    y += 20;
    bars.forEach((bar, i) => {
      const middle = y + BAR / 2;
      lines.push(`<text x="${LEFT - 8}" y="${middle + 4}" text-anchor="end">${escape(bar.label)}</text>`);
      lines.push(`<rect x="${LEFT}" y="${y}" width="${(x(bar.value) - LEFT).toFixed(1)}" height="${BAR - 3}" fill="${COLOURS[i % COLOURS.length]}"/>`);
      lines.push(`<path d="M${x(bar.value - bar.spread).toFixed(1)} ${middle - 1}H${x(bar.value + bar.spread).toFixed(1)}" stroke="#222"/>`);
      lines.push(`<text x="${(x(bar.value + bar.spread) + 6).toFixed(1)}" y="${middle + 4}">${bar.value.toFixed(2)}</text>`);
      y += BAR;
    });
    y += GAP - BAR + 8;
  }
  const one = x(1).toFixed(1);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${LEFT + WIDTH + 60}" height="${y + 8}" font-family="sans-serif" font-size="12">`,
    '<rect width="100%" height="100%" fill="white"/>',
    `<text x="8" y="20" font-size="14">${escape(title)}: ratio to direct</text>`,
    ...lines,
    `<path d="M${one} ${TOP - 12}V${y}" stroke="#222" stroke-dasharray="3 3"/>`,
    '</svg>',
    '',
  ].join('\n');
}

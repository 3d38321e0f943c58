// Exact fractions of the canvas: the layout's coordinates are "0", "1", "0.5", "2/3". No floats are kept.

const gcd = (a, b) => (b ? gcd(b, a % b) : Math.abs(a));

/** [numerator, denominator] in lowest terms, or null when `text` is no rational number from 0 to 1. */
export function parse(text) {
  const [, whole, part, below] = /^\s*(\d{1,6})(?:\.(\d{1,6})|\s*\/\s*(\d{1,6}))?\s*$/.exec(text) ?? [];
  if (whole === undefined) return null;
  const scale = 10 ** (part?.length ?? 0);
  const top = part ? Number(whole) * scale + Number(part) : Number(whole);
  const bottom = below ? Number(below) : scale;
  if (!bottom || top > bottom) return null;
  const common = gcd(top, bottom) || 1;
  return [top / common, bottom / common];
}

export const value = (text) => { const parsed = parse(text); return parsed ? parsed[0] / parsed[1] : NaN; };

/** The fraction `count`/`steps` as text: 8 of 12 is "2/3". */
export function fraction(count, steps) {
  const common = gcd(count, steps) || 1;
  return steps / common === 1 ? String(count / common) : `${count / common}/${steps / common}`;
}

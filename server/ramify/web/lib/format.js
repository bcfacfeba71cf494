// Figures as people read them.

const WHOLE = new Intl.NumberFormat("en");
const SHORT_DATE = new Intl.DateTimeFormat("en", { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const LONG_DATE = new Intl.DateTimeFormat("en", { dateStyle: "long", timeStyle: "medium", hourCycle: "h23" });

export const NONE = "–";

export const whole = (n) => (n === null || n === undefined ? NONE : WHOLE.format(n));

export function unit(x, digits = 3) {
  return x === null || x === undefined || Number.isNaN(x) ? NONE : x.toFixed(digits);
}

export function percent(x, digits = 1) {
  return x === null || x === undefined ? NONE : `${(100 * x).toFixed(digits)} %`;
}

export function seconds(s) {
  if (s === null || s === undefined) return NONE;
  return s < 10 ? `${s.toFixed(2)} s` : s < 120 ? `${s.toFixed(1)} s` : `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}

export const when = (unix) => SHORT_DATE.format(new Date(unix * 1000));
export const exactly = (unix) => LONG_DATE.format(new Date(unix * 1000));

/** One line of a text, its line breaks shown; the end of an answer that adds no text is shown too. */
export function oneLine(text, longest = 60) {
  const line = text.replace(/\n+$/, "").replace(/\s*\n\s*/g, " ⏎ ").trim();
  return line.length > longest ? `${line.slice(0, longest - 1)}…` : line;
}

export const shortId = (id) => id.replace(/^(tree|srch)_/, "").slice(-8);

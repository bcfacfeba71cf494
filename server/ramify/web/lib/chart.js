// A line chart in plain SVG: shares in [0, 1] over rounds.

import { svg } from "./dom.js";

const SIZE = { width: 1000, height: 320 };
const BOX = { left: 52, right: 170, top: 18, bottom: 40 };
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2];

/** rounds: [{label, served}]; series: [{name, points: [{round, mean, low, high}]}]; rollbacks: indexes into rounds. */
export function chart(rounds, series, rollbacks) {
  const values = series.flatMap(({ points }) => points.flatMap(({ mean, low, high }) => [mean, low ?? mean, high ?? mean]));
  const step = STEPS.find((size) => (Math.max(...values) - Math.min(...values)) / size <= 5) ?? 0.25;
  const low = Math.max(0, Math.floor(Math.min(...values) / step - 0.5) * step);
  const high = Math.min(1, Math.ceil(Math.max(...values) / step + 0.5) * step);
  const x = (round) => BOX.left + ((SIZE.width - BOX.left - BOX.right) * round) / Math.max(1, rounds.length - 1);
  const y = (value) => SIZE.height - BOX.bottom - ((SIZE.height - BOX.top - BOX.bottom) * (value - low)) / Math.max(1e-9, high - low);
  return svg("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", "aria-label": describe(rounds, series) },
    levels(low, high, step).map((value) => [
      svg("line", { class: "grid", x1: BOX.left, x2: SIZE.width - BOX.right, y1: y(value), y2: y(value) }),
      svg("text", { x: BOX.left - 8, y: y(value) + 4, "text-anchor": "end" }, `${Math.round(100 * value)} %`),
    ]),
    rounds.map(({ label }, i) => (i % Math.ceil(rounds.length / 10) === 0 || i === rounds.length - 1) && svg("text", { x: x(i), y: SIZE.height - 14, "text-anchor": "middle" }, label)),
    rollbacks.map((i) => svg("line", { class: "rolled", x1: x(i), x2: x(i), y1: BOX.top, y2: SIZE.height - BOX.bottom })),
    series.map(({ points }, i) => line(points, i, rounds, x, y)),
    names(series, y).map(({ name, at, i }) => svg("g", { class: `s${i}` }, svg("text", { class: "name", x: SIZE.width - BOX.right + 14, y: at }, name))));
}

function levels(low, high, step) {
  return Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => low + i * step);
}

function line(points, i, rounds, x, y) {
  const banded = points.filter(({ low, high }) => low !== null && high !== null);
  const edge = (side) => banded.map((point) => `${x(point.round)} ${y(point[side])}`);
  return [
    banded.length > 1 && svg("path", { class: `band s${i}`, d: `M${[...edge("high"), ...edge("low").reverse()].join("L")}Z` }),
    svg("path", { class: `series s${i}`, d: `M${points.map(({ round, mean }) => `${x(round)} ${y(mean)}`).join("L")}` }),
    points.map(({ round, mean }) => svg("circle", { class: `point s${i} ${rounds[round].served ? "served" : ""}`, cx: x(round), cy: y(mean), r: rounds[round].served ? 5.5 : 4 },
      svg("title", {}, `${rounds[round].label}: ${(100 * mean).toFixed(1)} %`))),
  ];
}

/** Each line's name at its end, moved down if names would overlap. */
function names(series, y) {
  const placed = series.map(({ name, points }, i) => ({ name: name.length > 24 ? `${name.slice(0, 23)}…` : name, i, at: y(points.at(-1).mean) + 4 })).sort((a, b) => a.at - b.at);
  placed.forEach((name, i) => {
    if (i) name.at = Math.max(name.at, placed[i - 1].at + 16);
  });
  return placed;
}

function describe(rounds, series) {
  const ends = series.map(({ name, points }) => `${name}: ${(100 * points[0].mean).toFixed(1)} to ${(100 * points.at(-1).mean).toFixed(1)} percent`);
  return `Accuracy over ${rounds.length} releases. ${ends.join("; ")}.`;
}

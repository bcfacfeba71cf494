// The meaning of colours, shapes and widths; only shapes that the tree has.

import { el, replace, svg } from "../lib/dom.js";
import { KINDS, kindOf } from "./model.js";
import { policyFigure } from "./paint.js";
import { SHAPES } from "./shapes.js";

const NAMES = { value: "Model value v", mean: "Mean value Q", prior: "Prior P" };

export function drawLegend(element, model, palette, colour) {
  const present = new Set(model.nodes.map(kindOf));
  replace(element,
    colour === "policy"
      ? model.policies.map((name) => el("span", {}, shape("inner", palette, policyFigure(model, name)), name))
      : el("span", {}, NAMES[colour], " 0", ramp(palette), "1"),
    Object.keys(KINDS).filter((kind) => present.has(kind)).map((kind) => el("span", {}, shape(kind, palette), KINDS[kind])),
    el("span", {}, line(palette.edge, [1, 3, 6]), "width: visits"),
    model.chosen.size > 0 && el("span", {}, line(palette.chosen, [3]), "chosen path"));
}

function ramp(palette) {
  const colours = palette.colours.filter((_, i) => i % 4 === 0);
  return svg("svg", { width: 91, height: 10, role: "img", "aria-label": "from 0 to 1" }, colours.map((fill, i) => svg("rect", { x: i * 7, width: 7.5, height: 10, fill })));
}

function shape(kind, palette, value = 0.65) {
  const { outline, filled, sign, rim, dashed } = SHAPES[kind];
  return svg("svg", { width: 16, height: 16, viewBox: "-1.35 -1.35 2.7 2.7", "aria-hidden": "true" },
    svg("path", { d: outline, fill: filled ? palette.of(value) : palette.canvas, stroke: palette[rim ?? "muted"], "stroke-width": 0.25, "stroke-dasharray": dashed ? "0.36 0.28" : null }),
    sign && svg("path", { d: sign, fill: "none", stroke: filled ? palette.onValue(value) : palette.muted, "stroke-width": 0.28 }));
}

function line(colour, widths) {
  return svg("svg", { width: widths.length * 14, height: 10, "aria-hidden": "true" }, widths.map((width, i) =>
    svg("line", { x1: i * 14 + 1, x2: i * 14 + 12, y1: 5, y2: 5, stroke: colour, "stroke-width": width })));
}

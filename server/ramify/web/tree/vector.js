// The tree as an SVG file: everything that is shown, at its own size, in the colours of the page.

import { svg } from "../lib/dom.js";
import { kindOf } from "./model.js";
import { edgePoints, edgeWidth, figureOf, figuresLine, shortened } from "./paint.js";
import { SHAPES } from "./shapes.js";

const MARGIN = 24;
const round = (x) => Math.round(x * 10) / 10;

export function vector(scene) {
  const { laid, palette } = scene;
  const { top, bottom, width } = laid.bounds;
  const size = [width + 2 * MARGIN, bottom - top + 2 * MARGIN].map(Math.ceil);
  const shown = laid.placed.filter((at) => scene.born[at.node.id] <= scene.time);
  const drawing = svg("svg", { viewBox: `${-MARGIN} ${Math.floor(top - MARGIN)} ${size[0]} ${size[1]}`, width: size[0], height: size[1] },
    svg("rect", { x: -MARGIN, y: Math.floor(top - MARGIN), width: size[0], height: size[1], fill: palette.canvas }),
    svg("g", { fill: "none" }, [...shown].sort((a, b) => scene.model.chosen.has(a.node.id) - scene.model.chosen.has(b.node.id)).map((at) => edge(scene, at))),
    svg("g", { "font-family": palette.mono, "font-size": 12.5 }, shown.map((at) => glyph(scene, at))));
  return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(drawing)}\n`;
}

function edge(scene, at) {
  if (at.node.parent === null) return null;
  const same = (v) => round(v);
  const { x0, x1, y0, x2, y2 } = edgePoints(scene.laid, scene.laid.by.get(at.node.parent), at, same, same);
  const middle = round((x1 + x2) / 2);
  const chosen = scene.model.chosen.has(at.node.id);
  return svg("path", {
    d: `M${x0} ${y0}H${x1}C${middle} ${y0} ${middle} ${y2} ${x2} ${y2}`,
    stroke: chosen ? scene.palette.chosen : scene.palette.edge,
    "stroke-width": chosen ? 3.4 : edgeWidth(scene, at.node),
  });
}

function glyph(scene, at) {
  const { palette, model } = scene;
  const kind = kindOf(at.node);
  const shape = SHAPES[kind];
  const figure = figureOf(scene, at.node);
  const chosen = model.chosen.has(at.node.id);
  const room = Math.floor((scene.laid.columns[at.depth].label - 16) / 7.55);
  const text = shortened(model.label(at.node), room).replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd]/g, "\ufffd");
  return svg("g", { transform: `translate(${round(at.x)} ${round(at.y)})` },
    svg("path", {
      d: shape.outline, transform: "scale(7)", fill: (shape.filled && palette.of(figure)) || palette.canvas,
      stroke: chosen ? palette.chosen : shape.rim ? palette[shape.rim] : palette.muted, "stroke-width": chosen ? 0.34 : 0.23,
      "stroke-dasharray": shape.dashed ? "0.36 0.28" : null,
    }),
    shape.sign && svg("path", { d: shape.sign, transform: "scale(7)", fill: "none", stroke: shape.filled ? palette.onValue(figure) : palette.muted, "stroke-width": 0.26 }),
    svg("text", { x: 13, y: -2, fill: palette.text, "font-weight": chosen ? 700 : null }, text),
    svg("text", { x: 13, y: 12, fill: palette.muted, "font-size": 11 }, at.hidden ? `+${at.hidden} hidden` : figuresLine(scene, at.node)));
}

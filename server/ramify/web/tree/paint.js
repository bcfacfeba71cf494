// One frame of the tree on a canvas. What lies outside is not drawn; edges of a kind are one path; nodes become bars
// if shapes would not fit. A label is drawn if no label of more visits is in its way, without its figures if only those
// are in the way, and shortened if it would reach the next column.

import { unit, whole } from "../lib/format.js";
import { kindOf, meanOf } from "./model.js";
import { BAR, SHAPES, path2d } from "./shapes.js";

const WIDTHS = [1, 1.5, 2.2, 3, 4, 5.2, 6.6, 8];
const FONT = 12.5;
const SMALL = 11;
const CELL = 4;

/** scene: {model, laid, camera, palette, colour, born, time, visits, selected, hits, hit}; returns the labels
 * and their places, for pointing at: [{placed, x, y, width, height}]. */
export function paint(context, scene) {
  const { camera, palette } = scene;
  context.fillStyle = palette.canvas;
  context.fillRect(0, 0, camera.width, camera.height);
  const shown = visible(scene);
  edges(context, scene);
  const labels = placeLabels(scene, shown);
  drawLabels(context, scene, labels);
  glyphs(context, scene, shown);
  return labels;
}

const exists = (scene, node) => scene.born[node.id] <= scene.time;

function visible(scene) {
  const { camera, laid } = scene;
  const found = [];
  for (const at of laid.placed) {
    if (!exists(scene, at.node)) continue;
    const y = camera.y(at.y);
    if (y < -30 || y > camera.height + 30) continue;
    const x = camera.x(at.x);
    if (x > camera.width + 30 || x + laid.columns[at.depth].label * camera.across < -30) continue;
    found.push({ at, x, y });
  }
  return found;
}

export function visitsOf(scene, node) {
  return scene.visits ? scene.visits[node.id] : node.visits;
}

/** Stroke width in pixels of the edge into a node: the square root of its share of the visits. */
export function edgeWidth(scene, node) {
  const all = Math.max(1, visitsOf(scene, scene.model.nodes[0]));
  const share = Math.sqrt(visitsOf(scene, node) / all);
  return WIDTHS[Math.min(WIDTHS.length - 1, Math.floor(share * WIDTHS.length))];
}

export function edgePoints(laid, parent, child, x, y) {
  const column = laid.columns[parent.depth];
  const from = parent.x + column.label;
  return { x0: x(parent.x), x1: x(from), y0: y(parent.y), x2: x(child.x), y2: y(child.y) };
}

function edges(context, scene) {
  const { camera, laid, model, palette } = scene;
  const plain = WIDTHS.map(() => new Path2D());
  const chosen = new Path2D();
  const scale = Math.min(1, Math.max(0.4, camera.k * 1.6));
  for (const at of laid.placed) {
    const { node } = at;
    if (node.parent === null || !exists(scene, node)) continue;
    const points = edgePoints(laid, laid.by.get(node.parent), at, (v) => camera.x(v), (v) => camera.y(v));
    const { x0, x1, y0, x2, y2 } = points;
    if (Math.max(y0, y2) < -10 || Math.min(y0, y2) > camera.height + 10 || x0 > camera.width || x2 < 0) continue;
    const bold = model.chosen.has(node.id);
    const path = bold ? chosen : plain[WIDTHS.indexOf(edgeWidth(scene, node))];
    path.moveTo(x0, y0);
    if (camera.k > 0.2) path.lineTo(x1, y0);
    const from = camera.k > 0.2 ? x1 : x0;
    const middle = (from + x2) / 2;
    path.bezierCurveTo(middle, y0, middle, y2, x2, y2);
  }
  context.strokeStyle = palette.edge;
  context.globalAlpha = camera.k < 0.2 ? 0.8 : 0.9;
  plain.forEach((path, i) => {
    context.lineWidth = Math.max(0.6, WIDTHS[i] * scale);
    context.stroke(path);
  });
  context.globalAlpha = 1;
  context.strokeStyle = palette.chosen;
  context.lineWidth = Math.max(2, 3.4 * Math.min(1, Math.max(0.6, camera.k)));
  context.stroke(chosen);
}

/** The colour of a policy, as a figure in [0, 1]. */
export function policyFigure({ policies }, name) {
  const at = policies.indexOf(name);
  return at < 0 ? null : at / Math.max(1, policies.length - 1);
}

/** The colour of a node: the chosen figure, as it was at this time if that is known. */
export function figureOf(scene, node) {
  if (scene.colour === "policy") return policyFigure(scene.model, node.policy);
  if (scene.colour === "prior") return node.parent === null ? null : (node.prior ?? null);
  return scene.colour === "mean" ? meanOf(node) : (node.value ?? node.outcome);
}

function glyphs(context, scene, shown) {
  const { camera, palette, model } = scene;
  if (camera.k * 38 < 9) {
    bars(context, scene, shown);
    return;
  }
  const radius = Math.min(8, Math.max(4.2, 7 * camera.k));
  for (const { at, x, y } of shown) {
    const kind = kindOf(at.node);
    const shape = SHAPES[kind];
    const figure = figureOf(scene, at.node);
    context.save();
    context.translate(x, y);
    halo(context, scene, at, radius);
    context.scale(radius, radius);
    const outline = path2d(shape.outline);
    const fill = shape.filled ? palette.of(figure) : null;
    context.fillStyle = fill ?? palette.canvas;
    context.fill(outline);
    context.lineWidth = (model.chosen.has(at.node.id) ? 2.4 : 1.6) / radius;
    context.strokeStyle = model.chosen.has(at.node.id) ? palette.chosen : shape.rim ? palette[shape.rim] : (fill ? palette.muted : (palette.of(figure) ?? palette.muted));
    if (shape.dashed) context.setLineDash([2.5 / radius, 2 / radius]);
    context.stroke(outline);
    context.setLineDash([]);
    if (shape.sign) {
      context.lineWidth = Math.min(1.8, radius * 0.3) / radius;
      context.strokeStyle = fill ? palette.onValue(figure) : palette.muted;
      context.stroke(path2d(shape.sign));
    }
    context.restore();
  }
}

function halo(context, scene, at, radius) {
  const { palette } = scene;
  const selected = scene.selected === at.node.id;
  const hit = scene.hits.has(at.node.id);
  if (!selected && !hit) return;
  context.beginPath();
  context.arc(0, 0, radius + 5, 0, 2 * Math.PI);
  context.strokeStyle = selected ? palette.accent : palette.warn;
  context.lineWidth = selected ? 3 : 2;
  context.stroke();
}

function bars(context, scene, shown) {
  const { camera, palette, model } = scene;
  const height = Math.max(1, Math.min(8, camera.k * 30));
  for (const { at, x, y } of shown) {
    const { node } = at;
    const width = BAR[kindOf(node)];
    context.fillStyle = palette.of(figureOf(scene, node)) ?? palette.muted;
    context.fillRect(x - 3, y - height / 2, width, height);
    if (model.chosen.has(node.id) || scene.hits.has(node.id) || scene.selected === node.id) {
      context.strokeStyle = scene.selected === node.id ? palette.accent : scene.hits.has(node.id) ? palette.warn : palette.chosen;
      context.lineWidth = 2;
      context.strokeRect(x - 5, y - height / 2 - 2.5, width + 4, height + 5);
    }
  }
}

function placeLabels(scene, shown) {
  const { camera, laid, model } = scene;
  const taken = laid.columns.map(() => new Uint8Array(Math.ceil(camera.height / CELL) + 20));
  const scale = Math.min(1.5, Math.max(1, camera.k * 0.9));
  const size = FONT * scale;
  const heights = camera.k >= 0.86 ? [32 * scale, 16 * scale] : [16];
  const rank = (node) => (node.id === scene.selected ? 4e9 : 0) + (scene.hits.has(node.id) ? 2e9 : 0) + (laid.by.get(node.id).hidden ? 1.5e9 : 0) + (model.chosen.has(node.id) ? 1e9 : 0) + visitsOf(scene, node);
  const ordered = shown.map((item) => [rank(item.at.node), item]).sort((a, b) => b[0] - a[0] || a[1].at.node.id - b[1].at.node.id);
  const found = [];
  for (const [, item] of ordered) {
    const next = laid.columns[item.at.depth + 1];
    const room = (next ? camera.x(next.x) - 14 : camera.width - 6) - (item.x + 16);
    const fits = Math.floor(room / (size * 0.602));
    const characters = item.at.hidden ? Math.max(fits, hiddenLine(item.at).length) : fits; // nothing is drawn below it
    if (characters < 4) continue;
    const height = heights.find((one) => take(taken[item.at.depth], item.y, one));
    if (height) found.push({ placed: item.at, x: item.x + 16, y: item.y, width: Math.max(room, characters * size * 0.602) + 2, height, characters, size, two: height > 16 * scale });
  }
  return found;
}

/** Take the rows that a label of this height needs around y if all of them are free, and return whether they were. */
function take(rows, y, height) {
  const from = Math.max(0, Math.floor((y - height / 2) / CELL) + 8);
  const to = Math.floor((y + height / 2) / CELL) + 8;
  if (to >= rows.length || rows.subarray(from, to + 1).includes(1)) return false;
  rows.fill(1, from, to + 1);
  return true;
}

export function shortened(text, characters) {
  return text.length > characters ? `${text.slice(0, Math.max(1, characters - 1))}…` : text;
}

const hiddenLine = (at) => `+${whole(at.hidden)} hidden`;

/** A label in one line. For a collapsed node, the count of hidden nodes comes before its text. */
function oneLineLabel(scene, { placed, characters }) {
  const text = scene.model.label(placed.node);
  if (!placed.hidden) return shortened(text, characters);
  const rest = characters - hiddenLine(placed).length - 2;
  return rest < 4 ? hiddenLine(placed) : `${shortened(text, rest)}  ${hiddenLine(placed)}`;
}

export function figuresLine(scene, node) {
  const q = meanOf(node);
  return `N ${whole(visitsOf(scene, node))}${q === null || q === undefined ? "" : `  Q ${unit(q, 2)}`}`;
}

function drawLabels(context, scene, labels) {
  const { palette, model } = scene;
  context.textBaseline = "middle";
  for (const label of labels) {
    const { node, hidden } = label.placed;
    const bold = model.chosen.has(node.id) || node.id === scene.selected;
    const text = label.two ? shortened(model.label(node), label.characters) : oneLineLabel(scene, label);
    const extra = hidden ? hiddenLine(label.placed) : label.two ? figuresLine(scene, node) : "";
    context.font = `${bold ? 700 : 400} ${label.size}px ${palette.mono}`;
    const width = Math.min(label.width, Math.max(text.length * label.size * 0.602, label.two ? extra.length * SMALL * 0.62 : 0) + 6);
    context.fillStyle = palette.canvas;
    context.fillRect(label.x - 3, label.y - label.height / 2 + 1, width + 3, label.height - 2);
    context.fillStyle = palette.text;
    const up = label.two ? label.size * 0.58 : 0;
    context.fillText(text, label.x, label.y - up);
    if (label.two) {
      context.font = `400 ${label.size * 0.86}px ${palette.mono}`;
      context.fillStyle = palette.muted;
      context.fillText(shortened(extra, Math.floor(label.width / (label.size * 0.86 * 0.602))), label.x, label.y + label.size * 0.66);
    }
  }
}

// The interactive drawing: pan, zoom, point, walk by keys, collapse, replay.

import { select } from "../vendor/d3-selection.js";
import { zoom, zoomIdentity } from "../vendor/d3-zoom.js";
import { el } from "../lib/dom.js";
import { Camera } from "./camera.js";
import { palette } from "./colours.js";
import { layout } from "./layout.js";
import { paint } from "./paint.js";

export class TreeView {
  /** onSelect(id) when a node is chosen here, onChange() when what is shown has changed, say(text) for the ear. */
  constructor(container, { onSelect = () => {}, onChange = () => {}, say = () => {} } = {}) {
    Object.assign(this, { container, onSelect, onChange, say });
    this.canvas = el("canvas", { tabindex: 0, role: "application", "aria-label": "The tree" });
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.camera = new Camera();
    this.collapsed = new Set();
    this.scene = { camera: this.camera, palette: palette(), colour: "value", time: Infinity, visits: null, born: [], selected: null, hits: new Set() };
    this.labels = [];
    this.touched = false;
    container.replaceChildren(this.canvas);
    this.#listen();
  }

  #listen() {
    this.gesture = zoom().scaleExtent(this.camera.extent).filter((event) => !event.button && event.type !== "dblclick").clickDistance(4)
      .on("zoom", (event) => this.#zoomed(event));
    select(this.canvas).call(this.gesture).on("dblclick.zoom", null);
    this.canvas.addEventListener("click", (event) => this.#point(event));
    this.canvas.addEventListener("dblclick", () => this.toggle(this.scene.selected));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("themechange", () => {
      this.scene.palette = palette();
      this.draw();
    });
    new ResizeObserver(() => this.#resize()).observe(this.container);
  }

  /** Show a tree. keep: the camera stays where it is, unless nobody has moved it yet. */
  show(model, { replay = null, keep = false } = {}) {
    this.model = model;
    this.scene.model = model;
    this.scene.born = replay ? replay.born : model.nodes.map(() => 0);
    this.canvas.setAttribute("aria-label", `Tree of ${model.nodes.length} nodes. Arrow keys walk from node to node.`);
    this.#lay();
    if (!keep || !this.touched) this.fit();
    this.draw();
  }

  #lay() {
    this.scene.laid = layout(this.model, this.collapsed);
    this.camera.bounds = this.scene.laid.bounds;
  }

  #resize() {
    const { clientWidth, clientHeight } = this.container;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    this.ratio = ratio;
    Object.assign(this.camera, { width: clientWidth, height: clientHeight });
    if (this.model && !this.touched) this.fit();
    this.#paint();
  }

  /** Draw before the next frame, once. */
  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      this.#paint();
    });
  }

  #paint() {
    if (!this.model) return;
    this.context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.labels = paint(this.context, this.scene);
  }

  // Only differences of d3's transform count: the camera scales across and down by different amounts.
  #zoomed({ transform, sourceEvent }) {
    const before = this.transform ?? zoomIdentity;
    this.transform = transform;
    if (!sourceEvent) return;
    this.touched = true;
    if (transform.k !== before.k) {
      const box = this.canvas.getBoundingClientRect();
      const at = sourceEvent.touches?.[0] ?? sourceEvent;
      this.camera.zoom(this.camera.k * (transform.k / before.k), at.clientX - box.left, at.clientY - box.top);
    } else {
      this.camera.left += transform.x - before.x;
      this.camera.top += transform.y - before.y;
    }
    this.draw();
  }

  #synchronise() {
    this.transform = zoomIdentity.translate(this.camera.left, this.camera.top).scale(this.camera.k);
    select(this.canvas).property("__zoom", this.transform);
    this.draw();
  }

  zoomBy(factor) {
    this.touched = true;
    this.camera.zoom(this.camera.k * factor);
    this.#synchronise();
  }

  fit() {
    this.camera.fit();
    this.#synchronise();
  }

  focus(id, k) {
    this.#open(id);
    const at = this.scene.laid.by.get(id);
    this.touched = true;
    this.camera.centre(at.x, at.y, k);
    this.#synchronise();
  }

  /** Select a node, or none; told to the ear, and shown if it is out of sight. */
  select(id, { quiet = false } = {}) {
    this.scene.selected = id;
    if (id !== null) {
      this.#open(id);
      const at = this.scene.laid.by.get(id);
      this.camera.reveal(at.x, at.y);
      this.#synchronise();
      this.say(this.model.describe(this.model.nodes[id]));
    }
    this.draw();
    if (!quiet) this.onSelect(id);
  }

  /** Undo every collapse that hides a node. */
  #open(id) {
    const hiding = this.model.lineage(id).slice(0, -1).filter((node) => this.collapsed.has(node.id));
    if (!hiding.length) return;
    for (const node of hiding) this.collapsed.delete(node.id);
    this.#lay();
    this.onChange();
  }

  toggle(id) {
    if (id === null || !this.model.nodes[id].children.length) return;
    const before = this.scene.laid.by.get(id);
    const [x, y] = [this.camera.x(before.x), this.camera.y(before.y)];
    if (!this.collapsed.delete(id)) this.collapsed.add(id);
    this.#lay();
    const after = this.scene.laid.by.get(id);
    this.camera.left += x - this.camera.x(after.x);
    this.camera.top += y - this.camera.y(after.y);
    this.touched = true;
    this.#synchronise();
    this.say(this.collapsed.has(id) ? "collapsed" : "expanded");
    this.onChange();
  }

  /** Collapse everything off the chosen path, or show everything. */
  collapseAll(collapse) {
    this.collapsed = new Set(collapse ? this.model.nodes.filter((node) => node.children.length && !this.model.chosen.has(node.id)).map((node) => node.id) : []);
    this.#lay();
    this.fit();
    this.onChange();
  }

  setColour(colour) {
    this.scene.colour = colour;
    this.draw();
  }

  setHits(ids) {
    this.scene.hits = new Set(ids);
    this.draw();
  }

  setTime(time, visits) {
    Object.assign(this.scene, { time, visits });
    this.draw();
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const label = this.labels.find((l) => x >= l.x - 4 && x <= l.x + l.width && Math.abs(y - l.y) <= l.height / 2);
    const near = this.#nearest(x, y);
    const found = near ?? label?.placed ?? null;
    if (found) this.select(found.node.id);
  }

  #nearest(x, y) {
    let best = null;
    let least = 14 ** 2;
    for (const at of this.scene.laid.placed) {
      if (this.scene.born[at.node.id] > this.scene.time) continue;
      const distance = (this.camera.x(at.x) - x) ** 2 + (this.camera.y(at.y) - y) ** 2;
      if (distance < least) [best, least] = [at, distance];
    }
    return best;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.model) return;
    const step = this.#step(event.key);
    if (step !== undefined) this.select(step);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1.3);
    else if (event.key === "-") this.zoomBy(1 / 1.3);
    else if (event.key === "0") this.fit();
    else if (event.key === "Enter" || event.key === " ") this.toggle(this.scene.selected);
    else return;
    event.preventDefault();
  }

  /** The node that a key leads to; undefined if it leads nowhere. */
  #step(key) {
    const { by, placed } = this.scene.laid;
    const selected = this.scene.selected;
    if (!["ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Home", "End"].includes(key)) return undefined;
    const there = (at) => this.scene.born[at.node.id] <= this.scene.time;
    if (key === "End") return this.model.answer ?? undefined;
    if (selected === null || key === "Home") return 0;
    const at = by.get(selected);
    if (key === "ArrowLeft") return at.node.parent ?? undefined;
    if (key === "ArrowRight") return this.model.children(at.node).map((child) => by.get(child.id)).find((child) => child && there(child))?.node.id;
    const column = placed.filter((other) => other.depth === at.depth && there(other)).sort((a, b) => a.y - b.y);
    return column[column.indexOf(at) + (key === "ArrowDown" ? 1 : -1)]?.node.id;
  }
}

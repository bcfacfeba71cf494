// From the layout's coordinates to the screen. Down the page the tree scales with the zoom; across it scales no smaller
// than what still fits, so that a tree of a thousand leaves and five levels does not shrink to a thread.

const LEAST = 0.004;
const MOST = 3;
const MARGIN = { left: 28, right: 20, top: 20, bottom: 20 };

export class Camera {
  width = 1;
  height = 1;
  k = 1;
  left = MARGIN.left;
  top = 0;
  bounds = { top: 0, bottom: 1, width: 1 };

  get extent() {
    return [LEAST, MOST];
  }

  /** Scale across. */
  get across() {
    const fitting = (this.width - MARGIN.left - MARGIN.right) / this.bounds.width;
    return Math.min(MOST, Math.max(this.k, Math.min(1.5, fitting)));
  }

  x(x) {
    return this.left + x * this.across;
  }

  y(y) {
    return this.top + y * this.k;
  }

  /** Zoom to k about a point of the screen. */
  zoom(k, px = this.width / 2, py = this.height / 2) {
    const x = (px - this.left) / this.across;
    const y = (py - this.top) / this.k;
    this.k = Math.min(MOST, Math.max(LEAST, k));
    this.left = px - x * this.across;
    this.top = py - y * this.k;
  }

  /** Show all of it, no larger than its own size. */
  fit() {
    const { top, bottom, width } = this.bounds;
    const high = (this.height - MARGIN.top - MARGIN.bottom) / (bottom - top);
    const wide = (this.width - MARGIN.left - MARGIN.right) / width;
    this.k = Math.max(LEAST, Math.min(1.15, high, Math.max(wide, Math.min(high, 0.62))));
    const spare = this.width - MARGIN.left - MARGIN.right - width * this.across;
    this.left = MARGIN.left + Math.max(0, Math.min(spare / 2, 80));
    this.top = this.height / 2 - ((top + bottom) / 2) * this.k;
  }

  /** Move as little as shows a point with some room around it. */
  reveal(x, y, room = 60) {
    const px = this.x(x);
    const py = this.y(y);
    const wide = Math.min(220, this.width / 3);
    if (px < room) this.left += room - px;
    else if (px > this.width - wide) this.left += this.width - wide - px;
    if (py < room) this.top += room - py;
    else if (py > this.height - room) this.top += this.height - room - py;
  }

  /** Put a point into the middle, large enough to read. */
  centre(x, y, k = Math.max(this.k, 0.8)) {
    this.k = Math.min(MOST, k);
    this.left = Math.min(MARGIN.left, this.width / 2.4 - x * this.across);
    this.top = this.height / 2 - y * this.k;
  }
}

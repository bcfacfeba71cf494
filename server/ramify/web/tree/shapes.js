// The shape of a node by its kind, so that nothing depends on colour alone. One description for canvas and SVG: a path
// around (0, 0) of radius 1, whether it is filled, and the sign drawn over it.

const SQUARE = "M-.9-.9H.9V.9H-.9Z";
const CIRCLE = "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1-1 0Z";

export const SHAPES = {
  inner: { outline: CIRCLE, filled: true },
  open: { outline: CIRCLE, filled: false },
  done: { outline: SQUARE, filled: true },
  right: { outline: SQUARE, filled: true, sign: "M-.5.05L-.12.42L.52-.4", rim: "good" },
  wrong: { outline: SQUARE, filled: true, sign: "M-.42-.42L.42.42M.42-.42L-.42.42", rim: "bad" },
  truncated: { outline: "M-.9-1L1 0L-.9 1Z", filled: true, rim: "warn" },
  pruned: { outline: CIRCLE, filled: false, sign: "M-.7.7L.7-.7", dashed: true },
};

/** Bars stand for nodes too small for a shape; their width tells some of them apart. */
export const BAR = { inner: 7, open: 4, done: 7, right: 13, wrong: 5, truncated: 3, pruned: 3 };

const paths = new Map();

export function path2d(description) {
  if (!paths.has(description)) paths.set(description, new Path2D(description));
  return paths.get(description);
}

// What one text has that another has not, word by word: for an answer beside the one that it betters.

const MOST_CELLS = 4_000_000;

/** List the parts of both texts in order: [kind, text] with kind "same", "gone" (of the old) or "new". */
export function difference(before, after) {
  const old = words(before), young = words(after);
  let head = 0;
  while (head < old.length && head < young.length && old[head] === young[head]) head++;
  let tail = 0;
  while (tail < old.length - head && tail < young.length - head && old.at(-1 - tail) === young.at(-1 - tail)) tail++;
  const middle = between(old.slice(head, old.length - tail), young.slice(head, young.length - tail));
  return joined([...same(young.slice(0, head)), ...middle, ...same(young.slice(young.length - tail))]);
}

/** Words and the blanks between them, so that the parts joined are the text. */
const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

const same = (some) => some.map((word) => ["same", word]);

/** By the longest common subsequence; texts that are too long for that differ as a whole. */
function between(old, young) {
  if (old.length * young.length > MOST_CELLS) return [...old.map((word) => ["gone", word]), ...young.map((word) => ["new", word])];
  const width = young.length + 1;
  const longest = new Uint32Array((old.length + 1) * width);
  for (let i = old.length - 1; i >= 0; i--) {
    for (let j = young.length - 1; j >= 0; j--) {
      const at = i * width + j;
      longest[at] = old[i] === young[j] ? longest[at + width + 1] + 1 : Math.max(longest[at + width], longest[at + 1]);
    }
  }
  const parts = [];
  let i = 0, j = 0;
  while (i < old.length || j < young.length) {
    if (i < old.length && j < young.length && old[i] === young[j]) {
      parts.push(["same", young[j++]]);
      i++;
    } else if (j === young.length || (i < old.length && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
      parts.push(["gone", old[i++]]);
    } else {
      parts.push(["new", young[j++]]);
    }
  }
  return parts;
}

/** Neighbours of one kind as one part. */
function joined(parts) {
  const runs = [];
  for (const [kind, word] of parts) {
    const last = runs.at(-1);
    if (last && last[0] === kind) last[1] += word;
    else runs.push([kind, word]);
  }
  return runs;
}

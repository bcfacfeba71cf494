// Accuracies among a release's figures, whatever its gate called them.

const ACCURACY = /greedy|mean_at|mean@|pass_at|pass@|accuracy|searched/i;
const COMPARED = /against|margin/i; // differences are not accuracies
const inUnit = (x) => typeof x === "number" && x >= 0 && x <= 1;

/** [{name, mean, low, high}] of every accuracy in [0, 1]; low and high are null if no interval was given. */
export function accuracies(figures, path = []) {
  const found = [];
  for (const [name, value] of Object.entries(figures ?? {})) {
    const here = [...path, name];
    if (COMPARED.test(name)) continue;
    if (inUnit(value) && ACCURACY.test(here.join(" "))) found.push({ name: title(here), mean: value, low: null, high: null });
    else if (value && typeof value === "object" && inUnit(value.mean)) {
      if (ACCURACY.test(here.join(" "))) found.push({ name: title(here), mean: value.mean, low: value.low ?? null, high: value.high ?? null });
    } else if (value && typeof value === "object" && !Array.isArray(value)) found.push(...accuracies(value, here));
  }
  return found;
}

const title = (path) => path.join(" ").replaceAll("_", " ");

/** [name, value] of every single figure, nested names joined by dots. */
export function flat(figures, path = "") {
  return Object.entries(figures ?? {}).flatMap(([name, value]) =>
    value && typeof value === "object" ? flat(value, `${path}${name}.`) : [[`${path}${name}`, value]]);
}

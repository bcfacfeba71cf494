// Accuracies among a release's figures, whatever its gate called them; and what its training said.

const ACCURACY = /greedy|mean_at|mean@|pass_at|pass@|accuracy|searched/i;
const COMPARED = /against|margin/i; // differences are not accuracies
const inUnit = (x) => typeof x === "number" && x >= 0 && x <= 1;

/** [{name, mean, low, high}] of every accuracy in [0, 1]; low and high are null if no interval was given. */
export function accuracies(figures, path = []) {
  const found = [];
  for (const [name, value] of Object.entries(figures ?? {})) {
    const here = [...path, name];
    if (COMPARED.test(name) || name === "training") continue;
    if (inUnit(value) && ACCURACY.test(here.join(" "))) found.push({ name: title(here), mean: value, low: null, high: null });
    else if (value && typeof value === "object" && inUnit(value.mean)) {
      if (ACCURACY.test(here.join(" "))) found.push({ name: title(here), mean: value.mean, low: value.low ?? null, high: value.high ?? null });
    } else if (value && typeof value === "object" && !Array.isArray(value)) found.push(...accuracies(value, here));
  }
  return found;
}

// What tells of trouble in training before an accuracy does: [name of the figure, what it is called, how it is written].
const WATCHED = [
  ["policy/entropy", "Policy entropy, nats", "number"],
  ["draws/entropy", "Draws' entropy, nats", "number"],
  ["policy/log_ratio_squared", "Mean squared log-ratio", "number"],
  ["draws/pass_at_1", "pass@1 of the draws", "share"],
  ["draws/pass_at_8", "pass@8 of the draws", "share"],
  ["lessons/dropped_share", "Trees without signal", "share"],
  ["lessons/right_answers", "Right answers", "count"],
];

/** [{title, kind, values}] of the watched figures that any release has, one value or null for each of the releases. */
export function watched(releases) {
  const said = releases.map((release) => release.figures?.training ?? {});
  return WATCHED.map(([name, title, kind]) => ({ title, kind, values: said.map((own) => own[name] ?? null) }))
    .filter(({ values }) => values.some((value) => value !== null));
}

const title = (path) => path.join(" ").replaceAll("_", " ");

/** [name, value] of every single figure, nested names joined by dots. */
export function flat(figures, path = "") {
  return Object.entries(figures ?? {}).flatMap(([name, value]) =>
    value && typeof value === "object" ? flat(value, `${path}${name}.`) : [[`${path}${name}`, value]]);
}

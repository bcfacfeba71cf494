// The tree as it was after a simulation.
//
// The log has the simulation that made each node, and the one that drew each complete answer. Visits over time are not
// logged. They follow from the answers if every backup ended at one (`expand: path`, best-of-n), or from the expansions
// if each simulation expanded one node (`expand: step`). This is not assumed of a tree: the counts at the end are
// compared with the logged visits of every node, and are shown as visits only if all agree.

/** {last, exact, visits(t): array by node id or null, made(t): array of booleans}. Time is a simulation's number;
 * `last` + 1 is the end, when a final rollout (simulation 0) is there too. */
export function replayOf(model) {
  const last = model.lastSimulation;
  const born = model.nodes.map((node) => (node.id === 0 ? 0 : node.simulation || last + 1));
  const backups = backupsOf(model);
  const exact = backups !== null && agrees(model, count(model, backups, Infinity));
  return {
    last,
    exact,
    end: born.some((time) => time === last + 1) ? last + 1 : last,
    born,
    visits: (time) => (exact ? count(model, backups, time) : null),
  };
}

function backupsOf(model) {
  if (model.params === null) return null;
  return model.params.expand === "path" ? fromAnswers(model) : fromExpansions(model);
}

function fromAnswers(model) {
  const ends = model.completions.map(({ node, simulation }) => ({ node, simulation }));
  const cut = model.nodes.filter((node) => node.terminal === "truncated").map((node) => ({ node: node.id, simulation: node.simulation }));
  return [...ends, ...cut].filter((backup) => backup.simulation > 0);
}

function fromExpansions(model) {
  const seen = new Set();
  const found = [];
  for (const node of model.nodes) {
    const expansion = `${node.parent}/${node.simulation}`;
    if (node.parent === null || !node.simulation || seen.has(expansion)) continue;
    seen.add(expansion);
    found.push({ node: node.parent, simulation: node.simulation });
  }
  return found;
}

function count(model, backups, time) {
  const visits = new Int32Array(model.nodes.length);
  for (const { node, simulation } of backups) if (simulation <= time) visits[node]++;
  for (let id = visits.length - 1; id > 0; id--) visits[model.nodes[id].parent] += visits[id];
  return visits;
}

const agrees = (model, visits) => model.nodes.every((node) => node.visits === visits[node.id]);

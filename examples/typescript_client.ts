/**
 * Ramify's own TypeScript client: a search, the same while it runs, a verdict on it, and the log.
 *
 *     (cd clients/typescript && npm ci && npm pack)
 *     npm install --no-save clients/typescript/ramify-client-0.1.0.tgz
 *     ramify serve &
 *     node examples/typescript_client.ts [URL of the server]      # Node 22.18 or newer; a key in RAMIFY_API_KEY
 */

import { BadRequest, Client, type ClientOptions } from "ramify-client";

const options: ClientOptions = process.argv[2] ? { baseUrl: process.argv[2] } : {};
const ramify = new Client(options);
const prompt = "3 5 7 8 to 24";

/** Tell whether the steps are right and lead from the numbers, each used once, to 24. */
function solved(text: string): boolean {
  const left = [3, 5, 7, 8];
  for (const line of text.trim().split("\n")) {
    const step = /^(\d+) ([-+*/]) (\d+) = (\d+)$/.exec(line.trim());
    if (!step) return false;
    const [a, b, result] = [Number(step[1]), Number(step[3]), Number(step[4])];
    const made = { "+": a + b, "-": a - b, "*": a * b, "/": a / b }[step[2] as "+" | "-" | "*" | "/"];
    if (made !== result) return false;
    for (const used of [a, b]) {
      const at = left.indexOf(used);
      if (at < 0) return false;
      left.splice(at, 1);
    }
    left.push(result);
  }
  return left.length === 1 && left[0] === 24;
}

console.log("served:", (await ramify.version()).model);
const result = await ramify.search({ prompt, search: { algorithm: "mcts", budget: { tokens: 1000 } }, n: 2 });
for (const { final, value, visits } of result.candidates) console.log(`${final}: value ${value}, ${visits} visits`);
console.log("tokens of the whole search:", result.usage.completion_tokens);

console.log("as it runs:");
for await (const event of await ramify.stream({ prompt, search: { budget: { tokens: 1000 } } })) {
  if (event.kind === "progress") console.log(event.kind, event.tokens, event.answer?.final ?? "");
  if (event.kind === "completed") console.log(event.kind, event.result.status);
}

if (result.answer) {
  // A trainer may learn from this verdict: say only what was checked.
  const outcome = solved(result.answer.text) ? 1 : 0;
  await ramify.trees.feedback(result.tree.id, { outcome, source: "verifier", comment: "its arithmetic was recomputed" });
}
const tree = await ramify.trees.get(result.tree.id);
console.log("verdicts:", tree.feedback.map((verdict) => verdict.outcome));
for await (const record of ramify.trees.read({ after: tree.seq - 1 })) {
  console.log("in the log:", record.seq, record.kind, record.tree_id);
}

try {
  await ramify.search({ prompt, search: { width: 0 } });
} catch (error) {
  if (!(error instanceof BadRequest)) throw error;
  console.log("refused:", error.param, "-", error.message);
}

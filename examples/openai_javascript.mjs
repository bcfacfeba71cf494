/**
 * OpenAI's JavaScript SDK pointed at Ramify: the policy alone, then the best answers of a tree, whole and streamed.
 *
 *     npm install --no-save openai
 *     ramify serve &
 *     node examples/openai_javascript.mjs [URL of the server]      # a key, if it wants one, in RAMIFY_API_KEY
 */

import OpenAI from "openai";

const url = process.argv[2] ?? "http://127.0.0.1:8000";
const client = new OpenAI({
  baseURL: `${url}/v1`,
  apiKey: process.env.RAMIFY_API_KEY ?? "none",
  timeout: 320_000, // longer than the server lets a search run (300 s), so that no search is asked for twice
});
const question = { model: "countdown-tiny", messages: [{ role: "user", content: "3 5 7 8 to 24" }] };
const search = { algorithm: "mcts", budget: { tokens: 1000 } };

async function show(stream) {
  for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? "");
}

console.log("the policy alone, as it writes:");
await show(await client.chat.completions.create({ ...question, temperature: 0, stream: true }));

console.log("the best answers of a tree:");
const answer = await client.chat.completions.create({ ...question, n: 3, search });
for (const { index, message } of answer.choices) console.log(index, message.content.trim().split("\n"));
console.log("tokens of the whole search:", answer.usage.completion_tokens);
console.log("its tree:", answer.ramify.tree.url);

console.log("a tree's best answer, streamed:");
await show(await client.chat.completions.create({ ...question, search, stream: true }));

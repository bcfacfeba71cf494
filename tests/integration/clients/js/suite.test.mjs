// The official JavaScript SDK against a running server: RAMIFY_URL and RAMIFY_KEY say which.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.RAMIFY_URL}/v1`,
  apiKey: process.env.RAMIFY_KEY,
  maxRetries: 0,
  timeout: 60_000,
});
const model = "countdown-tiny";
const prompt = "3 5 7 8 to 24\n";
const messages = [{ role: "user", content: "3 5 7 8 to 24" }];
const search = { budget: { tokens: 500 } };

test("a completion has its text, usage and log-probs", async () => {
  const answer = await client.completions.create({ model, prompt, max_tokens: 5, logprobs: 2, n: 2, seed: 1 });
  assert.equal(answer.object, "text_completion");
  assert.deepEqual(answer.choices.map((c) => c.index), [0, 1]);
  assert.equal(answer.choices[0].logprobs.tokens.join(""), answer.choices[0].text);
  assert.equal(answer.usage.total_tokens, 18);
  assert.ok(answer._request_id);
});

test("token ids, echo and stop strings", async () => {
  const tokens = await client.completions.create({ model, prompt: [1, 5, 6], max_tokens: 2 });
  assert.equal(tokens.usage.prompt_tokens, 3);
  const echoed = await client.completions.create({ model, prompt, max_tokens: 0, echo: true });
  assert.equal(echoed.choices[0].text, prompt);
  const stopped = await client.completions.create({ model, prompt, stop: "=", max_tokens: 20 });
  assert.equal(stopped.choices[0].finish_reason, "stop");
  assert.ok(!stopped.choices[0].text.includes("="));
});

test("a chat is answered and its stream says the same", async () => {
  const whole = await client.chat.completions.create({ model, messages, seed: 3, logprobs: true, top_logprobs: 1 });
  assert.equal(whole.choices[0].message.role, "assistant");
  assert.ok(whole.choices[0].logprobs.content.length > 3);
  const stream = await client.chat.completions.create({
    model,
    messages,
    seed: 3,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let last;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    last = chunk;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(last.choices, []);
  assert.ok(last.usage.completion_tokens > 3);
});

test("with search the choices are a tree's answers", async () => {
  const answer = await client.chat.completions.create({ model, messages, n: 2, search });
  assert.ok(answer.choices.length >= 1);
  assert.match(answer.ramify.tree.id, /^tree_/);
  assert.ok(answer.usage.completion_tokens > 100);
});

test("a streamed search comes in proper chunks", async () => {
  const stream = await client.completions.create({ model, prompt, stream: true, search });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  assert.equal(chunks.length, 2);
  assert.ok(chunks[0].choices[0].text.includes("="));
  assert.equal(chunks[1].choices[0].finish_reason, "stop");
});

test("errors are the SDK's own exceptions", async () => {
  await assert.rejects(client.completions.create({ model, prompt, temperature: 3 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.param, error.code], ["temperature", "invalid_value"]);
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(client.completions.create({ model: "gpt-4", prompt }), OpenAI.NotFoundError);
  await assert.rejects(client.withOptions({ apiKey: "wrong" }).models.list(), OpenAI.AuthenticationError);
  await assert.rejects(client.completions.create({ model, prompt, search: { widht: 1 } }), OpenAI.BadRequestError);
});

test("a client's timeout is its own, and an abandoned stream ends", async () => {
  const endless = { algorithm: "best_of_n", budget: { simulations: 10_000, tokens: 200_000 } };
  await assert.rejects(
    client.completions.create({ model, prompt, search: endless }, { timeout: 300 }),
    OpenAI.APIConnectionTimeoutError,
  );
  const stream = await client.completions.create({ model, prompt, n: 16, max_tokens: 100, stream: true, ignore_eos: true });
  for await (const _ of stream) break;
});

test("models are listed and found", async () => {
  const models = [];
  for await (const one of client.models.list()) models.push(one.id);
  assert.equal(models[0], model);
  assert.ok(models.includes(`${model}:mcts`));
  assert.equal((await client.models.retrieve(model)).id, model);
});

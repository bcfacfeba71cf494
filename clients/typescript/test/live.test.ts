/** Against a running Ramify: RAMIFY_BASE_URL and RAMIFY_API_KEY (with every scope) say which; without them, not run. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  Admin,
  BadRequest,
  Client,
  Conflict,
  NotFound,
  type SearchEvent,
  type SearchStream,
  Unauthorized,
} from "ramify-client";

const skip = process.env.RAMIFY_BASE_URL ? false : "RAMIFY_BASE_URL is not set";
const prompt = process.env.RAMIFY_PROMPT ?? "3 5 7 8 to 24";
const few = { budget: { simulations: 4 } };
const endless = { algorithm: "best_of_n", budget: { simulations: 10_000, tokens: 200_000 } } as const;
const live = { skip, timeout: 60_000 };

const ramify = () => new Client({ timeoutMs: 50_000 });
const collect = async (events: SearchStream) => {
  const found: SearchEvent[] = [];
  for await (const event of events) found.push(event);
  return found;
};

/** The search's answer once it has ended. */
async function ended(client: Client, id: string) {
  const giveUp = performance.now() + 20_000;
  for (;;) {
    const found = await client.getSearch(id);
    if (found.status !== "running") return found;
    assert.ok(performance.now() < giveUp, `${id} still runs`);
  }
}

test("a search, its tree and its feedback", live, async () => {
  const client = ramify();
  const found = await client.search({ prompt, search: few, seed: 1, n: 2 });
  assert.equal(found.status, "complete");
  assert.equal(found.usage.simulations, 4);
  assert.deepEqual((await client.getSearch(found.id)).answer, found.answer);
  const tree = await client.trees.get(found.tree.id);
  assert.equal(tree.tree.id, found.tree.id);
  assert.match(await client.trees.dot(found.tree.id), /^digraph/);
  const said = await client.trees.feedback(found.tree.id, { outcome: 0.5, node: 0, comment: "checked" });
  assert.deepEqual([said.outcome, said.node, said.comment, said.source], [0.5, 0, "checked", "human"]);
  const [listed] = (await client.trees.list({ limit: 1, algorithm: "mcts" })).data;
  assert.equal(listed?.id, found.tree.id);
  const kinds: string[] = [];
  for await (const record of client.trees.read({ after: tree.seq - 1 })) kinds.push(record.kind);
  assert.deepEqual(kinds, ["tree", "outcome"]);
  await client.trees.delete(found.tree.id);
  await assert.rejects(client.trees.get(found.tree.id), NotFound);
});

test("prompts share a budget, whole and streamed", live, async () => {
  const client = ramify();
  const asked = { prompts: [{ prompt }, { prompt }], budget: { tokens: 200 }, seed: 1 };
  const found = await client.searchBatch(asked);
  assert.deepEqual(found.results.map((one) => one.index), [0, 1]);
  assert.ok(found.usage.completion_tokens <= 200);
  const answered: number[] = [];
  const kinds = new Set<string>();
  for await (const event of await client.streamBatch(asked)) {
    kinds.add(event.kind);
    if (event.kind === "answered") answered.push(event.index);
  }
  assert.deepEqual(answered.sort(), [0, 1]);
  assert.ok(kinds.has("started") && kinds.has("completed"));
  await assert.rejects(client.cancelBatch(found.id), NotFound);
});

test("a batch is cancelled as one", live, async () => {
  const prompts = [{ prompt }, { prompt }];
  const budget = { tokens: 200_000, least_gain: 0 };
  const events = await ramify().streamBatch({ prompts, budget, search: { algorithm: "best_of_n" } });
  const statuses: string[] = [];
  for await (const event of events) {
    if (event.kind === "started") await events.cancel();
    if (event.kind === "answered") statuses.push(event.result.status);
  }
  assert.deepEqual(statuses, ["cancelled", "cancelled"]);
});

test("a stream gives started, progress with what has grown, and completed", live, async () => {
  const asked = { prompt, search: { budget: { simulations: 64 } }, stream_options: { nodes: true } };
  const seen = await collect(await ramify().stream(asked));
  const [first, last] = [seen[0], seen.at(-1)];
  assert.ok(first?.kind === "started" && last?.kind === "completed");
  assert.equal(last.result.status, "complete");
  assert.ok(seen.slice(1, -1).every((event) => event.kind === "progress" && event.id === last.id));
});

test("the same key and body bring the same search, another body is refused", live, async () => {
  const [client, idempotencyKey] = [ramify(), `live-${crypto.randomUUID()}`];
  const [one, two] = [
    await client.search({ prompt, search: few }, { idempotencyKey }),
    await client.search({ prompt, search: few }, { idempotencyKey }),
  ];
  assert.equal(one.id, two.id);
  await assert.rejects(client.search({ prompt, search: few, n: 2 }, { idempotencyKey }), { status: 422 });
});

test("leaving a stream ends the search on the server", live, async () => {
  const client = ramify();
  const events = await client.stream({ prompt, search: endless });
  for await (const event of events) if (event.kind === "started") break;
  assert.ok(events.id);
  const { status, stop_reason } = await ended(client, events.id);
  assert.deepEqual([status, stop_reason], ["cancelled", "disconnect"]);
});

test("a caller's signal ends the search behind it", live, async () => {
  const [client, leaving] = [ramify(), new AbortController()];
  const events = await client.stream({ prompt, search: endless }, { signal: leaving.signal });
  await assert.rejects(
    async () => {
      for await (const event of events) if (event.kind === "started") leaving.abort(new Error("enough"));
    },
    /enough/,
  );
  assert.equal((await ended(client, events.id as string)).status, "cancelled");
});

test("a stream that is cancelled still brings its answer", live, async () => {
  const events = await ramify().stream({ prompt, search: endless });
  const seen: SearchEvent[] = [];
  for await (const event of events) {
    seen.push(event);
    if (event.kind === "progress" && event.answer && !seen.some((e) => e.kind === "completed")) await events.cancel();
  }
  const last = seen.at(-1);
  assert.ok(last?.kind === "completed");
  assert.deepEqual([last.result.status, last.result.stop_reason], ["cancelled", "client"]);
  assert.ok(last.result.answer);
});

test("a search is followed by its id, goes on when a follower leaves, and ends when one cancels it", live, async () => {
  const client = ramify();
  const events = await client.stream({ prompt, search: endless });
  for await (const event of events) {
    if (event.kind !== "started") continue;
    for await (const { kind } of await client.follow(event.id)) if (kind === "started") break;
    const following = await client.follow(event.id);
    assert.equal(following.id, event.id);
    assert.equal((await following.cancel())?.status, "cancelled");
    assert.equal((await collect(following)).at(-1)?.kind, "completed");
  }
  const kinds = (await collect(await client.follow(events.id as string))).map(({ kind }) => kind);
  assert.deepEqual(kinds, ["started", "completed"]);
  await assert.rejects(client.follow("srch_nowhere"), NotFound);
});

test("a tree is branched and streamed from a node", live, async () => {
  const client = ramify();
  const found = await client.search({ prompt, search: few });
  const branched = await client.trees.branch(found.tree.id, 0, { search: few });
  assert.equal((await client.trees.get(branched.tree.id)).tree.parent_tree, found.tree.id);
  const seen = await collect(await client.trees.streamBranch(found.tree.id, 0, { search: few }));
  assert.equal(seen.at(-1)?.kind, "completed");
});

test("a reader moves its cursor, and a stale version is a conflict", live, async () => {
  const [client, name] = [ramify(), `reader-${crypto.randomUUID()}`];
  await client.search({ prompt, search: few });
  const first = await client.consumers.put(name, { cursor: 0 });
  const moved = await client.consumers.put(name, { version: first.version, cursor: 1, owner: "me", lease_seconds: 60 });
  assert.deepEqual([moved.cursor, moved.owner], [1, "me"]);
  await assert.rejects(client.consumers.put(name, { version: first.version, cursor: 1 }), (error: Error) => {
    return error instanceof Conflict && error.code === "stale_version";
  });
  assert.equal((await client.consumers.get(name)).version, moved.version);
});

test("models, version, releases, readiness and values", live, async () => {
  const client = ramify();
  const [model] = (await client.models()).data;
  assert.deepEqual(await client.model(model?.id as string), model);
  const { release, model: served } = await client.version();
  assert.deepEqual([served, release], [model?.id, model?.root]);
  assert.equal((await client.releases()).active, release);
  assert.equal(await client.ready(), true);
  const { values } = await client.value({ prompt, continuations: ["1", [1, 2]] });
  assert.ok(values.length === 2 && values.every((value) => value >= 0 && value <= 1));
});

test("errors name the field and the request, and are those of the family", live, async () => {
  await assert.rejects(ramify().search({ prompt, search: { width: 0 } }), (error: Error) => {
    assert.ok(error instanceof BadRequest);
    assert.deepEqual([error.status, error.param, error.code], [400, "search.width", "invalid_value"]);
    assert.ok(error.requestId);
    return true;
  });
  await assert.rejects(new Client({ apiKey: "wrong" }).models(), Unauthorized);
  await assert.rejects(ramify().model("gpt-4"), NotFound);
});

const administered = { ...live, skip: skip || !process.env.RAMIFY_ADMIN_URL };

test("an operator activates, records, goes back and drains", administered, async () => {
  const admin = new Admin();
  const { active } = await admin.releases();
  assert.equal((await admin.record("v000003", { state: "rejected", figures: { greedy: 0.4 } })).state, "rejected");
  await assert.rejects(admin.activate("v000003"), { name: Conflict.name, code: "release_rejected" });
  const done = await admin.activate("v000002", { note: "after the gate" });
  assert.deepEqual([done.release, done.previous], ["v000002", active]);
  assert.equal((await admin.rollback()).release, active);
  await assert.rejects(new Admin({ key: "wrong" }).releases(), Unauthorized);
  assert.equal((await admin.drain(1)).drained, true);
  assert.equal(await ramify().ready(), false);
});

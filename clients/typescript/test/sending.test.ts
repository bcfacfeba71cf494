/** How calls are sent, against a server whose every answer is prepared. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { inspect } from "node:util";

import {
  BadRequest,
  Client,
  type ClientOptions,
  ConnectionFailed,
  InvalidAnswer,
  RequestTimeout,
  ResponseError,
  ServerError,
  Unauthorized,
} from "ramify-client";

import { answering, breaksOff, type Canned, refuses, says } from "./canned.ts";

const MODELS = says('{"object": "list", "data": []}');
const RECORD = '{"seq": 1, "kind": "tree", "tree_id": "tree_a", "tree": {"text": "a\u2028b\u0085c"}}\n';

const client = ({ url }: Canned, options: ClientOptions = {}) => new Client({ baseUrl: url, ...options });
const keys = ({ seen }: Canned) => seen.map((request) => request.headers["idempotency-key"]);
const collect = async <T>(items: AsyncIterable<T>) => {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
};

test("the key is sent and is in no error", async (t) => {
  const server = await answering(t, refuses(401));
  await assert.rejects(client(server, { apiKey: "secret-secret" }).models(), (error: Error) => {
    assert.ok(error instanceof Unauthorized);
    assert.doesNotMatch(`${error.stack} ${JSON.stringify(error)}`, /secret/);
    return true;
  });
  assert.equal(server.seen[0]?.headers.authorization, "Bearer secret-secret");
});

test("a refused search is sent again under the same key after the time that the server names", async (t) => {
  const now = { "retry-after": "0" };
  const server = await answering(t, refuses(503, now), refuses(429, now), refuses(400));
  await assert.rejects(client(server).search({ prompt: "x" }), BadRequest);
  assert.equal(server.seen.length, 3);
  assert.equal(new Set(keys(server)).size, 1);
  assert.match(keys(server)[0] as string, /^ramify-client-[0-9a-f]{32}$/);
});

test("a refused stream is asked for again under the caller's key", async (t) => {
  const server = await answering(t, refuses(503, { "retry-after": "0" }), refuses(400));
  await assert.rejects(client(server).stream({ prompt: "x" }, { idempotencyKey: "mine" }), BadRequest);
  assert.deepEqual(keys(server), ["mine", "mine"]);
});

test("two searches have two keys", async (t) => {
  const server = await answering(t, refuses(400), refuses(400));
  for (const prompt of ["x", "y"]) await assert.rejects(client(server).search({ prompt }), BadRequest);
  assert.equal(new Set(keys(server)).size, 2);
});

test("a wait beyond the deadline is not begun", async (t) => {
  const server = await answering(t, refuses(503, { "retry-after": "60" }));
  await assert.rejects(client(server, { timeoutMs: 5000 }).models(), (error: Error) => {
    assert.ok(error instanceof ServerError);
    assert.deepEqual([error.retryAfter, error.requestId, error.param], [60, "req-1", "p"]);
    return true;
  });
  assert.equal(server.seen.length, 1);
});

for (const status of [409, 429, 500, 503]) {
  test(`what may have been done is not done again: ${status}`, async (t) => {
    const server = await answering(t, ...Array(5).fill(refuses(status, { "retry-after": "0" })));
    const ramify = client(server);
    await assert.rejects(ramify.trees.feedback("tree_x", { outcome: 1, source: "human", comment: "" }), ResponseError);
    await assert.rejects(ramify.trees.delete("tree_x"), ResponseError);
    await assert.rejects(ramify.consumers.put("reader", { cursor: 1 }), ResponseError);
    assert.equal(server.seen.length, 3);
  });
}

test("the server can forbid another try", async (t) => {
  const server = await answering(t, refuses(503, { "x-should-retry": "false" }));
  await assert.rejects(client(server).models(), ServerError);
  assert.equal(server.seen.length, 1);
});

test("a stale version is no reason to ask again, a search that still runs is", async (t) => {
  const now = { "retry-after": "0" };
  const server = await answering(t, refuses(409, now, "conflict"), refuses(409, now, "stale_version"));
  await assert.rejects(client(server).search({ prompt: "x" }), { name: "Conflict", code: "stale_version" });
  assert.equal(server.seen.length, 2);
});

test("a connection that fails is tried again, and then told without a foreign error", async (t) => {
  const server = await answering(t, breaksOff('{"data": '), MODELS);
  assert.deepEqual((await client(server, { timeoutMs: 20_000 }).models()).data, []);
  const closed = createServer().listen(0, "127.0.0.1");
  await once(closed, "listening");
  const { port } = closed.address() as AddressInfo;
  await once(closed.close(), "close");
  const nobody = new Client({ baseUrl: `http://127.0.0.1:${port}`, apiKey: "secret-secret", maxRetries: 0 });
  await assert.rejects(nobody.models(), (error: Error) => {
    assert.ok(error instanceof ConnectionFailed);
    assert.match(error.message, /ECONNREFUSED/);
    assert.doesNotMatch(inspect(error, { depth: 9, showHidden: true }), /secret/);
    return true;
  });
  assert.equal(await nobody.ready(), false);
});

test("an answer that comes too slowly is a timeout", async (t) => {
  const server = await answering(t, (response) => {
    response.writeHead(200, { "Content-Length": "100000" });
    const dribble = setInterval(() => response.write(" "), 5);
    response.on("close", () => clearInterval(dribble));
  });
  await assert.rejects(client(server).models({ timeoutMs: 100 }), { name: "RequestTimeout", message: /100 ms/ });
});

test("a server that says nothing is a timeout, and is not asked again", async (t) => {
  const server = await answering(t, () => undefined, MODELS);
  await assert.rejects(client(server, { timeoutMs: 100 }).models(), RequestTimeout);
  assert.ok(server.seen.length <= 1); // none if a busy machine has not brought it there in time
});

test("a caller's signal ends a call, and its reason is what the call fails with", async (t) => {
  const reason = new Error("enough");
  const leaving = new AbortController();
  const server = await answering(t, () => leaving.abort(reason));
  await assert.rejects(client(server).models({ signal: leaving.signal }), reason);
  await assert.rejects(client(server).models({ signal: leaving.signal }), reason);
  assert.equal(server.seen.length, 1);
});

test("a caller's signal ends the wait before another try", async (t) => {
  const leaving = new AbortController();
  const server = await answering(t, (response, request) => {
    response.on("close", () => setImmediate(() => leaving.abort(new Error("enough"))));
    refuses(503, { "retry-after": "300" })(response, request);
  });
  await assert.rejects(client(server).models({ signal: leaving.signal }), /enough/);
});

test("a redirect is not followed, and the error names the other address", async (t) => {
  const server = await answering(t, says("", 307, { location: "https://elsewhere/" }));
  const named = { status: 307, message: /https:\/\/elsewhere\// };
  await assert.rejects(client(server, { apiKey: "secret" }).models(), named);
  assert.equal(server.seen.length, 1);
});

test("an answer of another shape is an invalid answer", async (t) => {
  const server = await answering(t, says("<html>"), says("[]"), says('{"models": []}'), says("\xff", 200));
  const ramify = client(server);
  for (const message of [/not valid JSON/, /not a JSON object/, /data is missing/, /not valid JSON/]) {
    await assert.rejects(ramify.models(), { name: InvalidAnswer.name, message });
  }
});

test("an argument that no request can be made of is told as it is, and nothing is sent", async (t) => {
  const server = await answering(t);
  await assert.rejects(client(server).search({ prompt: "x" }, { idempotencyKey: "line\nbreak" }), TypeError);
  assert.equal(server.seen.length, 0);
});

test("an id is one segment of a path, whatever it holds", async (t) => {
  const server = await answering(t, refuses(404));
  await assert.rejects(client(server).getSearch("a/b?c"), { status: 404 });
  assert.equal(server.seen[0]?.url, "/v1/search/a%2Fb%3Fc");
});

test("reading the log goes on after the last whole record", async (t) => {
  const rest = '{"seq": 2, "kind": "outcome", "tree_id": "tree_a", "outcome": 1}\n';
  const server = await answering(t, breaksOff(`${RECORD}{"seq": 2, "ki`), says(rest));
  const records = await collect(client(server).trees.read({ limit: 5 }));
  assert.deepEqual(records.map((record) => record.seq), [1, 2]);
  const [first] = records;
  assert.deepEqual(first?.kind === "tree" && first.tree, { text: "a\u2028b\u0085c" });
  const asked = server.seen.map((request) => request.url);
  assert.deepEqual(asked, ["/v1/trees?after=0&limit=5", "/v1/trees?after=1&limit=4"]);
});

test("a log that ends inside a record is a failed connection", async (t) => {
  const server = await answering(t, says('{"seq": 1'));
  await assert.rejects(collect(client(server, { maxRetries: 0 }).trees.read()), ConnectionFailed);
});

test("while the caller has a record of the log no time runs, while the server is waited for it does", async (t) => {
  const server = await answering(t, (response) => response.writeHead(200).write(RECORD));
  const records = client(server, { timeoutMs: 1000 }).trees.read();
  assert.equal((await records.next()).value?.seq, 1);
  await new Promise((resolve) => setTimeout(resolve, 1300)); // the caller is busy for longer than the server may be
  const waiting = performance.now();
  await assert.rejects(records.next(), RequestTimeout);
  assert.ok(performance.now() - waiting > 500);
});

test("a stream that ends too soon or breaks off is a failed connection, and is not tried again", async (t) => {
  const server = await answering(t, says(": ping\n\n"), breaksOff(": ping\n\n"));
  for (let i = 1; i <= 2; i++) {
    await assert.rejects(collect(await client(server).stream({ prompt: "x" })), ConnectionFailed);
    assert.equal(server.seen.length, i);
  }
});

test("a stream that is cancelled before its first event is closed", async (t) => {
  let gone: Promise<unknown> | undefined;
  const server = await answering(t, (response) => {
    gone = once(response, "close");
    response.writeHead(200).write(": ping\n\n");
  });
  const events = await client(server).stream({ prompt: "x" });
  assert.equal(await events.cancel(), null);
  assert.ok(gone);
  await gone;
  await assert.rejects(collect(events), ConnectionFailed);
});

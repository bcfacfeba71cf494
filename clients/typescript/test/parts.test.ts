/** The parts that do no I/O. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";

import * as ramify from "ramify-client";
import { Admin, Client } from "ramify-client";

import { configured, configuredAdmin } from "../dist/configuration.js";
import { errorOf } from "../dist/errors.js";
import { EventReader, searchEvent } from "../dist/events.js";
import { Lines } from "../dist/lines.js";
import { waitAfter } from "../dist/retries.js";

const KINDS = [
  [400, ramify.BadRequest],
  [401, ramify.Unauthorized],
  [403, ramify.ResponseError],
  [404, ramify.NotFound],
  [409, ramify.Conflict],
  [418, ramify.ResponseError],
  [429, ramify.RateLimited],
  [500, ramify.ServerError],
  [503, ramify.ServerError],
] as const;

const bytes = (text: string) => new TextEncoder().encode(text);

test("every status has its error, all of one family", () => {
  for (const [status, Kind] of KINDS) {
    const found = errorOf(status, new Headers({ "retry-after": "2.5", "x-request-id": "req-1" }), "<html>");
    assert.equal(found.constructor, Kind);
    assert.equal(found.name, Kind.name);
    assert.ok(found instanceof ramify.RamifyError);
    assert.deepEqual([found.status, found.retryAfter, found.requestId], [status, 2.5, "req-1"]);
  }
});

test("an error repeats no more than a bounded part of a foreign text", () => {
  assert.ok(errorOf(502, new Headers(), "x".repeat(10_000)).message.length < 600);
});

test("Retry-After is seconds or a date", () => {
  const said = (value: string) => errorOf(503, new Headers({ "retry-after": value }), "").retryAfter;
  assert.deepEqual(["3", "-1", "Infinity", "soon", ""].map(said), [3, 0, null, null, null]);
  assert.equal(said("Wed, 21 Oct 2015 07:28:00 GMT"), 0);
});

test("a wait follows the server, doubles without it, and is not begun beyond the deadline", () => {
  const refusal = (headers: Record<string, string> = {}, status = 503) => errorOf(status, new Headers(headers), "");
  const named = refusal({ "retry-after": "60" });
  assert.equal(waitAfter(named, 1, 2, true, 61_000), 60_000);
  assert.equal(waitAfter(named, 1, 2, true, 59_000), null);
  assert.equal(waitAfter(named, 3, 2, true, 61_000), null);
  assert.equal(waitAfter(named, 1, 2, false, 61_000), null);
  for (const [tried, least, most] of [[1, 375, 625], [2, 750, 1250], [9, 22_500, 37_500]] as const) {
    const wait = waitAfter(refusal(), tried, 9, true, Infinity);
    assert.ok(wait !== null && wait >= least && wait <= most, `${tried}: ${wait}`);
  }
  assert.equal(waitAfter(refusal({ "x-should-retry": "false" }), 1, 2, true, Infinity), null);
  assert.notEqual(waitAfter(refusal({ "x-should-retry": "true" }, 400), 1, 2, true, Infinity), null);
  assert.equal(waitAfter(refusal({}, 400), 1, 2, true, Infinity), null);
});

test("lines are the same however their bytes come, and U+2028 ends none", () => {
  const whole = bytes("ä\u2028b\r\n\nc\n");
  for (let cut = 0; cut <= whole.length; cut++) {
    const lines = new Lines();
    const found = [whole.subarray(0, cut), whole.subarray(cut)].flatMap((piece) => [...lines.feed(piece)]);
    assert.deepEqual(found, ["ä\u2028b", "", "c"]);
    assert.equal(lines.unfinished, false);
  }
});

test("events are the same however their bytes come", () => {
  const whole = bytes(
    ': ping\n\nevent: search.started\r\ndata: {"id": "srch_a", "tree": {}, "model": "ö"}\r\n\r\n: ping\nevent: other\n' +
      'data: 1\n\nevent:search.progress\ndata: {"id": "srch_a",\ndata: "tokens": 3}\n\n',
  );
  for (let cut = 0; cut <= whole.length; cut++) {
    const reader = new EventReader(searchEvent);
    const found = [whole.subarray(0, cut), whole.subarray(cut)].flatMap((piece) => [...reader.feed(piece)]);
    assert.deepEqual(found, [
      { kind: "started", id: "srch_a", tree: {}, model: "ö" },
      { kind: "progress", id: "srch_a", tokens: 3 },
    ]);
    assert.equal(reader.completed, false);
  }
});

test("lines and events are bounded and are UTF-8", () => {
  const longer = { name: "InvalidAnswer", message: /longer/ };
  assert.throws(() => [...new Lines(4).feed(bytes("12345"))], longer);
  assert.throws(() => [...new EventReader(searchEvent, 8).feed(bytes("data:1\n".repeat(5)))], longer);
  assert.throws(() => [...new Lines().feed(new Uint8Array([0xff, 10]))], { name: "InvalidAnswer", message: /UTF-8/ });
});

test("an error event is a SearchError with the server's fields", () => {
  const error = { message: "no room", type: "server_error", param: null, code: "server_full" };
  const event = bytes(`event: error\ndata: ${JSON.stringify({ error })}\n\n`);
  assert.throws(() => [...new EventReader(searchEvent).feed(event)], {
    name: "SearchError",
    message: "no room",
    type: "server_error",
    code: "server_full",
  });
});

test("a key that no header can hold is refused without being repeated", () => {
  for (const apiKey of ["secret\nkey", "secret key", "secret-ö"]) {
    const refusal = ({ message }: Error) => /API key/.test(message) && !/secret/.test(message);
    assert.throws(() => new Client({ apiKey }), refusal);
  }
});

test("a key shows neither in what is inspected nor in JSON", () => {
  for (const client of [new Client({ apiKey: "secret-secret" }), new Admin({ key: "secret-secret" })]) {
    assert.doesNotMatch(inspect(client, { depth: 9, showHidden: true }) + JSON.stringify(client), /secret/);
  }
});

test("an address is one of http and holds no password", () => {
  assert.throws(
    () => new Client({ baseUrl: "http://me:secret@server" }),
    (error: Error) => /address/.test(error.message) && !/secret/.test(error.message),
  );
  for (const baseUrl of ["server:8000", "nowhere", "file:///x"]) {
    assert.throws(() => new Client({ baseUrl }), /address/);
  }
});

test("settings that cannot be are refused", () => {
  assert.throws(() => new Client({ timeoutMs: 0 }), /timeoutMs is 0/);
  assert.throws(() => new Client({ maxRetries: -1 }), /maxRetries is -1/);
});

test("address and key come from the environment if they are not given", (t) => {
  const before = { ...process.env };
  t.after(() => void (process.env = before));
  process.env.RAMIFY_BASE_URL = "http://server:1/";
  process.env.RAMIFY_API_KEY = "from-the-environment";
  delete process.env.RAMIFY_ADMIN__KEY;
  const { baseUrl, key } = configured({});
  assert.deepEqual([baseUrl, key], ["http://server:1", "from-the-environment"]);
  assert.equal(configured({ apiKey: "given" }).key, "given");
  assert.equal(configuredAdmin({}).key, null);
});

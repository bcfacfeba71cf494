/** What the compiler must refuse and must take; `npm run check` reads it, and running it proves that it is there. */

import { test } from "node:test";

import type { Client, SearchEvent, SearchRequest } from "ramify-client";

test("requests and answers are typed by the server's OpenAPI document", () => {
  const asked: SearchRequest = { prompt: "x", search: { algorithm: "mcts", budget: { tokens: 1 } } };
  // @ts-expect-error: no such algorithm
  asked.search = { algorithm: "mtcs" };
  // @ts-expect-error: no such field
  asked.widht = 3;
  // @ts-expect-error: `stream` is a method
  asked.stream = true;

  void (async (client: Client) => {
    const found = await client.search(asked);
    const value: number | null | undefined = found.answer?.value;
    // @ts-expect-error: an answer may be missing
    const text: string = found.answer.text;
    // @ts-expect-error: no such status
    const ended: boolean = found.status === "finished";
    return [value, text, ended];
  });

  void ((event: SearchEvent) => {
    // @ts-expect-error: only `completed` has a result
    if (event.kind === "progress") return event.result;
    return event.kind === "completed" ? event.result.tree.id : event.id;
  });
});

/** The events of one search. */

import { type Call, cancel } from "./calls.js";
import { ConnectionFailed } from "./errors.js";
import { EventReader } from "./events.js";
import type { Attempts } from "./retries.js";
import { type CallOptions, chunks, type Transport } from "./transport.js";
import type { SearchEvent, SearchResult } from "./types.js";

/** Send a search, again until it is accepted and then no more. */
export async function openStream(
  transport: Transport,
  call: Call<SearchResult>,
  how: CallOptions = {},
): Promise<SearchStream> {
  const attempts = transport.attempts(how);
  try {
    return new SearchStream(transport, await transport.accepted(call, attempts), attempts);
  } catch (error) {
    attempts.end();
    throw error;
  }
}

/** To be iterated over once, to its `completed`. Leaving the loop before that ends the search on the server. */
export class SearchStream implements AsyncIterable<SearchEvent> {
  readonly #transport: Transport;
  readonly #attempts: Attempts;
  readonly #events: AsyncGenerator<SearchEvent>;
  #id: string | null = null;

  constructor(transport: Transport, response: Response, attempts: Attempts) {
    this.#transport = transport;
    this.#attempts = attempts;
    this.#events = this.#read(response);
  }

  /** The search's id; null before its first event. */
  get id(): string | null {
    return this.#id;
  }

  [Symbol.asyncIterator](): AsyncGenerator<SearchEvent> {
    return this.#events;
  }

  /**
   * End the search now; its best answer so far, which `completed` brings too. Before the first event the connection is
   * closed in place of that, and null returned.
   */
  async cancel(): Promise<SearchResult | null> {
    if (this.#id !== null) return this.#transport.send(cancel(this.#id));
    this.close();
    return null;
  }

  /** Close the connection, which ends the search on the server if it still runs. */
  close(): void {
    this.#attempts.end();
  }

  async *#read(response: Response): AsyncGenerator<SearchEvent> {
    const reader = new EventReader();
    try {
      for await (const chunk of chunks(response, this.#attempts)) {
        for (const event of reader.feed(chunk)) {
          this.#id = event.id;
          yield event;
        }
        if (reader.completed) return;
      }
      throw new ConnectionFailed("the stream ended before the search did");
    } finally {
      this.close();
    }
  }
}

/** The events of one search, or of a batch. */

import { type Call, cancel, cancelBatch } from "./calls.js";
import { ConnectionFailed } from "./errors.js";
import { batchEvent, EventReader, type Reading, searchEvent } from "./events.js";
import type { Attempts } from "./retries.js";
import { type CallOptions, chunks, type Transport } from "./transport.js";
import type { BatchEvent, BatchResult, SearchEvent, SearchResult } from "./types.js";

type Opened<Stream> = new (
  transport: Transport,
  response: Response,
  attempts: Attempts,
  id: string | null,
) => Stream;

/** Send a search or a batch, again until it is accepted and then no more. id: its id, if it is known already. */
export async function openStream<Stream>(
  kind: Opened<Stream>,
  transport: Transport,
  call: Call<unknown>,
  how: CallOptions = {},
  id: string | null = null,
): Promise<Stream> {
  const attempts = transport.attempts(how);
  try {
    return new kind(transport, await transport.accepted(call, attempts), attempts, id);
  } catch (error) {
    attempts.end();
    throw error;
  }
}

/**
 * To be iterated over once, to its `completed`. Leaving the loop before that ends the work on the server, unless
 * another request began it.
 */
abstract class EventStream<Event extends { readonly kind: string; readonly id: string }, Result>
  implements AsyncIterable<Event>
{
  readonly #transport: Transport;
  readonly #attempts: Attempts;
  readonly #events: AsyncGenerator<Event>;
  #id: string | null;

  constructor(
    transport: Transport,
    response: Response,
    attempts: Attempts,
    reading: Reading<Event>,
    id: string | null = null,
  ) {
    this.#transport = transport;
    this.#attempts = attempts;
    this.#id = id;
    this.#events = this.#read(response, reading);
  }

  /** The id of the search or the batch; null before its first event, unless it was followed by its id. */
  get id(): string | null {
    return this.#id;
  }

  [Symbol.asyncIterator](): AsyncGenerator<Event> {
    return this.#events;
  }

  /**
   * End it now; its best answers so far, which the stream brings too. If its id is not known yet, the connection is
   * closed in place of that, and null returned.
   */
  async cancel(): Promise<Result | null> {
    if (this.#id !== null) return this.#transport.send(this.cancelling(this.#id));
    this.close();
    return null;
  }

  /** Close the connection, which ends the work on the server if it still runs and no other request began it. */
  close(): void {
    this.#attempts.end();
  }

  protected abstract cancelling(id: string): Call<Result>;

  async *#read(response: Response, reading: Reading<Event>): AsyncGenerator<Event> {
    const reader = new EventReader(reading);
    try {
      for await (const chunk of chunks(response, this.#attempts)) {
        for (const event of reader.feed(chunk)) {
          this.#id ??= event.id;
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

/** The events of one search. */
export class SearchStream extends EventStream<SearchEvent, SearchResult> {
  constructor(transport: Transport, response: Response, attempts: Attempts, id: string | null) {
    super(transport, response, attempts, searchEvent, id);
  }

  protected cancelling(id: string): Call<SearchResult> {
    return cancel(id);
  }
}

/** The events of a batch: each prompt's `answered` comes as soon as it is settled, `completed` at the end. */
export class BatchStream extends EventStream<BatchEvent, BatchResult> {
  constructor(transport: Transport, response: Response, attempts: Attempts) {
    super(transport, response, attempts, batchEvent);
  }

  protected cancelling(id: string): Call<BatchResult> {
    return cancelBatch(id);
  }
}

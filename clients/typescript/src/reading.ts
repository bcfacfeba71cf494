/** The log, read from a place to its end, across broken connections. */

import { readTrees } from "./calls.js";
import { ConnectionFailed } from "./errors.js";
import { Lines } from "./lines.js";
import { waitAfter } from "./retries.js";
import { type CallOptions, chunks, type Transport } from "./transport.js";
import type { LogRecord } from "./types.js";

export interface ReadOptions extends CallOptions {
  /** The `seq` that was read last; absent: from the log's beginning. */
  after?: number;
  /** Records at most; absent: to the log's end as it is now. */
  limit?: number;
}

/** Yield the records. If a connection breaks, go on after the last whole record. `timeoutMs` is for each wait for the server. */
export async function* readLog(transport: Transport, asked: ReadOptions): AsyncGenerator<LogRecord> {
  let { after = 0, limit: left = null }: { after?: number; limit?: number | null } = asked;
  const attempts = transport.attempts(asked);
  try {
    while (left === null || left > 0) {
      attempts.tried += 1;
      try {
        for await (const record of records(transport, attempts, after, left)) {
          [after, left, attempts.tried] = [record.seq, left === null ? null : left - 1, 1];
          attempts.stop();
          yield record;
          attempts.start();
        }
        return;
      } catch (error) {
        const wait = waitAfter(error, attempts.tried, transport.maxRetries, true, attempts.left);
        if (wait === null) throw error;
        await attempts.pause(wait);
        attempts.start();
      }
    }
  } finally {
    attempts.end();
  }
}

type Attempts = ReturnType<Transport["attempts"]>;

async function* records(
  transport: Transport,
  attempts: Attempts,
  after: number,
  limit: number | null,
): AsyncGenerator<LogRecord> {
  const call = readTrees(after, limit);
  const lines = new Lines();
  for await (const chunk of chunks(await transport.open(call, attempts), attempts)) {
    attempts.start();
    for (const line of lines.feed(chunk)) if (line) yield call.parse(line);
  }
  if (lines.unfinished) throw new ConnectionFailed("the log's answer ended inside a record");
}

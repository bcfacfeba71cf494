/** How a call is sent: tried again if that may help, ended by its deadline or its caller, read within bounds. */

import type { Call } from "./calls.js";
import type { Configuration } from "./configuration.js";
import { errorOf, InvalidAnswer } from "./errors.js";
import { decoded, joined } from "./lines.js";
import { Attempts, waitAfter } from "./retries.js";

/** Bytes of one answer that is read as a whole. */
const LARGEST_ANSWER = 256 * 2 ** 20;

export interface CallOptions {
  /** Milliseconds that this call may take, retries and waits included; absent: the client's. */
  timeoutMs?: number;
  /** Ends the call, and a search with it; the call then fails with the signal's reason. */
  signal?: AbortSignal;
}

export class Transport {
  readonly #configuration: Configuration;

  constructor(configuration: Configuration) {
    this.#configuration = configuration;
  }

  get maxRetries(): number {
    return this.#configuration.maxRetries;
  }

  attempts(how: CallOptions): Attempts {
    return new Attempts(how.timeoutMs ?? this.#configuration.timeoutMs, how.signal);
  }

  /** Send a call, again if that may help, and read its answer. */
  async send<Parsed>(call: Call<Parsed>, how: CallOptions = {}): Promise<Parsed> {
    const attempts = this.attempts(how);
    const once = async () => call.parse(decoded(await body(await this.open(call, attempts), attempts)));
    return this.#trying(call, attempts, once).finally(() => attempts.end());
  }

  /** Send a call, again until it is accepted and then no more; return the answer, its body still to be read. */
  accepted(call: Call<unknown>, attempts: Attempts): Promise<Response> {
    return this.#trying(call, attempts, () => this.open(call, attempts));
  }

  async #trying<Done>(call: Call<unknown>, attempts: Attempts, attempt: () => Promise<Done>): Promise<Done> {
    for (;;) {
      attempts.tried += 1;
      try {
        return await attempt();
      } catch (error) {
        const wait = waitAfter(error, attempts.tried, this.maxRetries, call.repeatable, attempts.left);
        if (wait === null) throw error;
        await attempts.pause(wait);
      }
    }
  }

  /** The answer to a call, its body still to be read. Throws the error that its status stands for. */
  async open(call: Call<unknown>, attempts: Attempts): Promise<Response> {
    const { baseUrl, key, fetch } = this.#configuration;
    const headers = new Headers(call.headers);
    if (key !== null) headers.set("Authorization", `Bearer ${key}`);
    if (call.body !== undefined) headers.set("Content-Type", "application/json");
    const sent: RequestInit = {
      method: call.method.toUpperCase(),
      headers,
      ...(call.body !== undefined && { body: JSON.stringify(call.body) }),
      redirect: "manual", // the key goes to nobody but whom it was given for
      signal: attempts.signal,
    };
    const response = await fetch(baseUrl + call.path, sent).catch((error: unknown) => {
      throw attempts.meaning(error);
    });
    if (response.ok) return response;
    const said = new TextDecoder().decode(await body(response, attempts)); // whoever wrote it, in whatever encoding
    throw errorOf(response.status, response.headers, said);
  }
}

/** The bytes of an answer as they come. If they end too soon, throws what that means. */
export async function* chunks(response: Response, attempts: Attempts): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } catch (error) {
    throw attempts.meaning(error);
  } finally {
    // closes the connection if the caller has left; a failure is told already
    await reader.cancel().catch(() => undefined);
  }
}

async function body(response: Response, attempts: Attempts): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let held = 0;
  for await (const chunk of chunks(response, attempts)) {
    pieces.push(chunk);
    held += chunk.length;
    if (held > LARGEST_ANSWER) throw new InvalidAnswer(`the answer is longer than ${LARGEST_ANSWER} bytes`);
  }
  return joined(pieces);
}

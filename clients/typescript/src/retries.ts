/** When a call is tried again, and after how long. */

import { ConnectionFailed, RamifyError, RequestTimeout, ResponseError } from "./errors.js";

const FIRST_WAIT_MS = 500;
/** The longest wait if the server does not say. */
const LONGEST_WAIT_MS = 30_000;
const AGAIN: ReadonlySet<number> = new Set([408, 409, 429, 500, 502, 503]);

/**
 * Milliseconds to wait before the next try; null if there is to be none.
 *
 * tried: tries so far. most: tries after the first. left: milliseconds until the deadline of the whole call.
 */
export function waitAfter(
  error: unknown,
  tried: number,
  most: number,
  repeatable: boolean,
  left: number,
): number | null {
  if (tried > most || !repeatable || !worthAnother(error)) return null;
  const said = error instanceof ResponseError ? error.retryAfter : null;
  const backoff = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (tried - 1)) * (0.75 + Math.random() / 2);
  const wait = said === null ? backoff : said * 1000;
  return wait < left ? wait : null;
}

function worthAnother(error: unknown): boolean {
  if (!(error instanceof ResponseError)) return error instanceof ConnectionFailed;
  if (error.shouldRetry !== null) return error.shouldRetry;
  // a stale version or another's lease stays what it is
  if (error.status === 409 && error.code !== null && error.code !== "conflict") return false;
  return AGAIN.has(error.status);
}

/** The tries of one call, which together may take `ms`, and the signal that ends whatever it waits for. */
export class Attempts {
  tried = 0;
  readonly #ms: number;
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #leave = () => this.#controller.abort(this.#outer?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #deadline = Infinity;

  /** outer: the caller's own signal; its reason is what the call then fails with. */
  constructor(ms: number, outer?: AbortSignal) {
    this.#ms = ms;
    this.#outer = outer;
    if (outer?.aborted) this.#leave();
    else outer?.addEventListener("abort", this.#leave, { once: true });
    this.start();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Milliseconds until the deadline. */
  get left(): number {
    return this.#deadline - performance.now();
  }

  /** Let the time run, all of it. */
  start(): void {
    this.stop();
    this.#deadline = performance.now() + this.#ms;
    const late = () => this.#controller.abort(new RequestTimeout(`no answer in ${this.#ms} ms`));
    // a timer holds 31 bits; more is as good as for ever
    if (this.#ms < 2 ** 31) this.#timer = setTimeout(late, this.#ms);
  }

  /** Let no time run, as while it is the caller who is waited for. */
  stop(): void {
    clearTimeout(this.#timer);
  }

  /** The call is over: whatever is still open is closed. */
  end(): void {
    this.stop();
    this.#outer?.removeEventListener("abort", this.#leave);
    this.#controller.abort(new ConnectionFailed("closed by its caller"));
  }

  /** What a failure means: the caller's own reason, the deadline, or the connection. */
  meaning(error: unknown): unknown {
    if (this.signal.aborted) return this.signal.reason;
    if (error instanceof RamifyError) return error;
    const cause = (error as { cause?: { code?: unknown } } | null)?.cause?.code;
    const text = error instanceof Error ? error.message : "the connection failed";
    return new ConnectionFailed(typeof cause === "string" ? `${text}: ${cause}` : text, { cause: error });
  }

  /** Resolves after `ms`. Rejects if the call ends before. */
  pause(ms: number): Promise<void> {
    const { signal } = this;
    return new Promise((resolve, reject) => {
      const leave = () => {
        clearTimeout(timer);
        reject(signal.reason);
      };
      const timer = setTimeout(() => {
        signal.removeEventListener("abort", leave);
        resolve();
      }, ms);
      if (signal.aborted) leave();
      else signal.addEventListener("abort", leave, { once: true });
    });
  }
}

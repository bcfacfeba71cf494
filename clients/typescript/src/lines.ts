/** Lines out of bytes that come in pieces. */

import { InvalidAnswer } from "./errors.js";

/** Bytes; a tree of some thousand nodes is a few MiB. */
export const LONGEST_LINE = 256 * 2 ** 20;

const LINE_FEED = 10;
const CARRIAGE_RETURN = 13;

/** Feed it bytes, take the lines that they complete, without their line end (LF or CRLF). A line is joined once. */
export class Lines {
  readonly #longest: number;
  #pieces: Uint8Array[] = [];
  #held = 0;

  constructor(longest = LONGEST_LINE) {
    this.#longest = longest;
  }

  /** Whether a line has begun that has not ended. */
  get unfinished(): boolean {
    return this.#held > 0;
  }

  /** Throws `InvalidAnswer` at a line that is longer than `longest` bytes, or is not UTF-8. */
  *feed(chunk: Uint8Array): Generator<string> {
    let start = 0;
    for (let end = chunk.indexOf(LINE_FEED); end >= 0; end = chunk.indexOf(LINE_FEED, start)) {
      this.#hold(chunk.subarray(start, end));
      start = end + 1;
      yield this.#take();
    }
    this.#hold(chunk.subarray(start));
  }

  #hold(piece: Uint8Array): void {
    if (piece.length) this.#pieces.push(piece);
    this.#held += piece.length;
    if (this.#held > this.#longest) {
      throw new InvalidAnswer(`a line of the answer is longer than ${this.#longest} bytes`);
    }
  }

  #take(): string {
    const line = joined(this.#pieces);
    this.#pieces = [];
    this.#held = 0;
    return decoded(line.at(-1) === CARRIAGE_RETURN ? line.subarray(0, -1) : line);
  }
}

export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  if (pieces.length === 1) return pieces[0] as Uint8Array;
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

/** Throws `InvalidAnswer` if the bytes are not UTF-8. */
export function decoded(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new InvalidAnswer("the answer is not UTF-8", { cause: error });
  }
}

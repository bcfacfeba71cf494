/** The server's JSON, held against the fields that make it what it should be. */

import { InvalidAnswer } from "./errors.js";

/** Parse the object that a text holds. Throws `InvalidAnswer` if it holds none, or one without these fields. */
export function object(text: string, what: string, fields: readonly string[]): Record<string, unknown> {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw new InvalidAnswer(`the answer is no ${what}: it is not JSON`, { cause: error });
  }
  if (typeof found !== "object" || found === null || Array.isArray(found)) {
    throw new InvalidAnswer(`the answer is no ${what}: it is no object`);
  }
  for (const field of fields) {
    if (!(field in found)) throw new InvalidAnswer(`the answer is no ${what}: ${field} is missing`);
  }
  return found as Record<string, unknown>;
}

/** The server's JSON, held against the fields that make it what it should be. */

import { InvalidAnswer } from "./errors.js";

/** Parse the object that a text holds. Throws `InvalidAnswer` if it holds none, or one without these fields. */
export function object(text: string, what: string, fields: readonly string[]): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InvalidAnswer(`the answer is not a ${what}: not valid JSON`, { cause: error });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InvalidAnswer(`the answer is not a ${what}: not a JSON object`);
  }
  for (const field of fields) {
    if (!(field in value)) throw new InvalidAnswer(`the answer is not a ${what}: ${field} is missing`);
  }
  return value as Record<string, unknown>;
}

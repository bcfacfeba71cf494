/** Server-Sent Events, read as they come (https://html.spec.whatwg.org/multipage/server-sent-events.html). */

import { searchResult } from "./calls.js";
import { InvalidAnswer, searchError } from "./errors.js";
import { object } from "./json.js";
import { Lines, LONGEST_LINE } from "./lines.js";
import type { BatchEvent, BatchResult, SearchEvent } from "./types.js";

/** Reads one event by its name; null for those that are of no interest. */
export type Reading<Event> = (name: string, body: string) => Event | null;

/** Feed it bytes, take the events that they complete. Comments and events of unknown names are left out. */
export class EventReader<Event extends { readonly kind: string } = SearchEvent> {
  readonly #reading: Reading<Event>;
  readonly #longest: number;
  readonly #lines: Lines;
  #name = "";
  #data: string[] = [];
  #held = 0;
  /** Whether the last event has been read. */
  completed = false;

  constructor(reading: Reading<Event>, longest = LONGEST_LINE) {
    this.#reading = reading;
    this.#longest = longest;
    this.#lines = new Lines(longest);
  }

  /** Throws `SearchError` at an `error` event, and `InvalidAnswer`. */
  *feed(chunk: Uint8Array): Generator<Event> {
    for (const line of this.#lines.feed(chunk)) {
      if (line) {
        this.#field(line);
        continue;
      }
      const event = this.#event(this.#name, this.#data.join("\n"));
      this.#name = "";
      this.#data = [];
      this.#held = 0;
      if (event) yield event;
    }
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#name = value;
    if (name !== "data") return;
    this.#data.push(value);
    this.#held += value.length + 1;
    if (this.#held > this.#longest) throw new InvalidAnswer(`an event is longer than ${this.#longest} characters`);
  }

  #event(name: string, body: string): Event | null {
    if (name === "error") throw searchError(body);
    const event = this.#reading(name, body);
    this.completed = event?.kind === "completed";
    return event;
  }
}

export function searchEvent(name: string, body: string): SearchEvent | null {
  switch (name) {
    case "search.started":
      return { ...object(body, name, ["id", "tree"]), kind: "started" } as SearchEvent;
    case "search.progress":
      return { ...object(body, name, ["id", "tokens"]), kind: "progress" } as SearchEvent;
    case "search.completed": {
      const result = searchResult(body);
      return { kind: "completed", id: result.id, result };
    }
    default:
      return null;
  }
}

export function batchEvent(name: string, body: string): BatchEvent | null {
  switch (name) {
    case "batch.started":
      return { ...object(body, name, ["id", "searches"]), kind: "started" } as BatchEvent;
    case "search.progress":
      return { ...object(body, name, ["id", "index", "tokens"]), kind: "progress" } as BatchEvent;
    case "search.completed": {
      const result = object(body, name, ["id", "index", "status", "tree", "usage"]) as BatchResult["results"][number];
      return { kind: "answered", id: result.id, index: result.index, result };
    }
    case "batch.completed":
      return { ...object(body, name, ["id", "usage"]), kind: "completed" } as BatchEvent;
    default:
      return null;
  }
}

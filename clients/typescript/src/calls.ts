/**
 * Every call of the API as data: what to send, and how to read the answer. Paths, methods and the types of answers are
 * those of the OpenAPI documents.
 */

import type { paths as AdminPaths } from "./admin_schema.js";
import { object } from "./json.js";
import type { paths as PublicPaths } from "./schema.js";
import type {
  ActivateRequest,
  ConsumerChange,
  FeedbackRequest,
  GateDecision,
  LogRecord,
  SearchResult,
  StreamBranchRequest,
  StreamContinueRequest,
  StreamPromptsRequest,
  StreamRequest,
  TreeFilters,
  ValueRequest,
} from "./types.js";

/** One request. */
export interface Call<Parsed> {
  readonly method: Method;
  readonly path: string;
  readonly parse: (body: string) => Parsed;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Whether sending it twice does what sending it once does; only then is it tried again. */
  readonly repeatable: boolean;
}

type Api = PublicPaths & AdminPaths;
type Method = "get" | "post" | "put" | "delete";
type MethodOf<P extends keyof Api> = { [M in Method]: Api[P][M] extends undefined ? never : M }[Method];
type Reply<P extends keyof Api, M extends Method> = Api[P][M] extends {
  responses: { 200: { content: { "application/json": infer Parsed } } };
}
  ? Parsed
  : never;
/** What a path's `{…}` are called. */
type Parts<P> = P extends `${string}{${infer Name}}${infer Rest}` ? Name | Parts<Rest> : never;

interface Sent {
  readonly query?: object;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly repeatable?: boolean;
}

/** fields: those that an answer cannot be without. */
function call<P extends keyof Api, M extends MethodOf<P>>(
  method: M,
  path: P,
  parts: Readonly<Record<Parts<P>, string>>,
  fields: readonly (keyof Reply<P, M> & string)[],
  sent: Sent = {},
): Call<Reply<P, M>> {
  const named = new Map<string, string>(Object.entries(parts));
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(named.get(name) ?? ""));
  const { query = {}, ...rest } = sent;
  const parse = (body: string) => object(body, `answer of ${path}`, fields) as Reply<P, M>;
  return { repeatable: true, ...rest, method, path: filled + queryOf(query), parse };
}

function queryOf(query: object): string {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}

const FOUND = ["id", "status", "tree", "usage"] as const;

/** A search's answer out of its JSON. */
export const searchResult = (body: string) => object(body, "search", FOUND) as SearchResult;

/** A search. Without a key of the caller's it gets one, so that a retry never searches twice. */
export const search = (asked: StreamRequest, key: string | undefined, stream = false) =>
  call("post", "/v1/search", {}, FOUND, searching(asked, key, stream));

/** A search from a node of a logged tree. */
export const branch = (
  tree: string,
  node: number,
  asked: StreamBranchRequest,
  key: string | undefined,
  stream = false,
) => call("post", "/v1/trees/{tree}/branch", { tree }, FOUND, searching({ ...asked, node }, key, stream));

/** A search that has ended, gone on with. */
export const continueSearch = (
  search: string,
  asked: StreamContinueRequest,
  key: string | undefined,
  stream = false,
) => call("post", "/v1/search/{search_id}/continue", { search_id: search }, FOUND, searching(asked, key, stream));

function searching(asked: object, key: string | undefined, stream: boolean): Sent {
  return {
    body: stream ? { ...asked, stream } : asked,
    headers: { "Idempotency-Key": key ?? newKey() },
  };
}

/** Random; by `getRandomValues`, since browsers have `randomUUID` on secure pages only. */
function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `ramify-client-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

const SHARED = ["id", "results", "usage"] as const;

export const searchBatch = (asked: StreamPromptsRequest, key: string | undefined, stream = false) =>
  call("post", "/v1/search/batch", {}, SHARED, searching(asked, key, stream));

export const cancelBatch = (id: string) =>
  call("post", "/v1/search/batch/{batch_id}/cancel", { batch_id: id }, SHARED);

export const getSearch = (id: string, stream = false) =>
  call("get", "/v1/search/{search_id}", { search_id: id }, FOUND, { query: stream ? { stream } : {} });

export const cancel = (id: string) => call("post", "/v1/search/{search_id}/cancel", { search_id: id }, FOUND);

export const value = (asked: ValueRequest) => call("post", "/v1/value", {}, ["values"], { body: asked });

export const listTrees = (filters: TreeFilters) =>
  call("get", "/v1/trees", {}, ["data", "next_before"], { query: filters });

/** One line of the answer at a time. */
export function readTrees(after: number, limit: number | null): Call<LogRecord> {
  const parse = (line: string) => object(line, "record of the log", ["seq", "kind", "tree_id"]) as LogRecord;
  return { ...call("get", "/v1/trees", {}, [], { query: { after, limit } }), parse };
}

export const getTree = (tree: string) => call("get", "/v1/trees/{tree}", { tree }, ["id", "tree"]);

export function dot(tree: string): Call<string> {
  return { ...call("get", "/v1/trees/{tree}", { tree }, [], { query: { format: "dot" } }), parse: (body) => body };
}

export const deleteTree = (tree: string) =>
  call("delete", "/v1/trees/{tree}", { tree }, [], { repeatable: false });

export const feedback = (tree: string, body: FeedbackRequest) =>
  call("post", "/v1/trees/{tree}/feedback", { tree }, ["seq", "outcome"], { body, repeatable: false });

export const getConsumer = (name: string) => call("get", "/v1/consumers/{name}", { name }, ["cursor", "version"]);

export const listConsumers = () => call("get", "/v1/consumers", {}, ["data"]);

export const deleteConsumer = (name: string) =>
  call("delete", "/v1/consumers/{name}", { name }, [], { repeatable: false });

/** Not repeated: the first try may have moved the version on. */
export function putConsumer(name: string, { version, ...body }: ConsumerChange) {
  const headers: Record<string, string> = version === undefined ? {} : { "If-Match": `"${version}"` };
  const sent = { body, headers, repeatable: false };
  return call("put", "/v1/consumers/{name}", { name }, ["cursor", "version"], sent);
}

export const models = () => call("get", "/v1/models", {}, ["data"]);

export const model = (name: string) => call("get", "/v1/models/{name}", { name }, ["id"]);

export const publicReleases = () => call("get", "/v1/releases", {}, ["active", "data"]);

export const version = () => call("get", "/version", {}, ["version", "model", "release"]);

export const ready = () => call("get", "/readyz", {}, [], { repeatable: false });

export const releases = () => call("get", "/admin/releases", {}, ["active", "data"]);

/** Recording the same again changes nothing. */
export const recordRelease = (release: string, body: GateDecision) =>
  call("put", "/admin/releases/{release}", { release }, ["id", "state"], { body });

/** The active one stays active, so this may be repeated. */
export const activate = (release: string, body: ActivateRequest) =>
  call("post", "/admin/releases/{release}/activate", { release }, ["release"], { body });

/** Twice would go back and forth. */
export const rollback = (body: ActivateRequest) =>
  call("post", "/admin/releases/rollback", {}, ["release"], { body, repeatable: false });

export const fleet = () => call("get", "/admin/fleet", {}, ["committed", "replicas"], {});

/** Done once, it is no more evicted. */
export const restore = (replica: string) =>
  call("post", "/admin/fleet/replicas/{replica}/restore", { replica }, ["committed", "replicas"], {
    body: {},
    repeatable: false,
  });

export const drain = (deadline_seconds: number) =>
  call("post", "/admin/drain", {}, ["drained"], { body: { deadline_seconds } });

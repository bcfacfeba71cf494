/** Names of the API's shapes; `schema.ts` and `admin_schema.ts` are made of the server's OpenAPI documents. */

import type { components as admin } from "./admin_schema.js";
import type { components, operations } from "./schema.js";

type Public = components["schemas"];
type Operators = admin["schemas"];

/** `POST /v1/search`: what to search, how, and how to answer. The server checks it, and its errors name the field. */
export type StreamRequest = Omit<Public["SearchRequest"], "stream">;
export type SearchRequest = Omit<StreamRequest, "stream_options">;
/** The same for `POST /v1/trees/{tree}/branch`, whose prompt and task are the tree's. */
export type StreamBranchRequest = Omit<Public["BranchRequest"], "stream" | "node">;
export type BranchRequest = Omit<StreamBranchRequest, "stream_options">;

/** `POST /v1/search/{id}/continue`: new limits of the whole search, and how to answer. */
export type StreamContinueRequest = Omit<Public["ContinueRequest"], "stream">;
export type ContinueRequest = Omit<StreamContinueRequest, "stream_options">;

/** `POST /v1/search/batch`: prompts that share a budget, and how to search them. */
export type StreamPromptsRequest = Omit<Public["BatchRequest"], "stream">;
export type PromptsRequest = Omit<StreamPromptsRequest, "stream_options">;

export type Answer = Public["Answer"];
export type SearchResult = Public["SearchReply"];
export type ValueRequest = Public["ValueRequest"];
export type Values = Public["ValueReply"];
export type Model = Public["Model"];
export type Models = Public["ModelList"];
export type Version = Public["Version"];
export type Release = Public["Release"];
export type Releases = Public["ReleaseList"];

export type GrowingNode = Public["GrowingNode"];

/** One event of a streamed search. */
export type SearchEvent =
  | ({ readonly kind: "started" } & Public["Started"])
  | ({ readonly kind: "progress" } & Public["Progressed"])
  | { readonly kind: "completed"; readonly id: string; readonly result: SearchResult };

export type BatchResult = Public["BatchReply"];

/** One event of a streamed batch. `progress` and `answered` are about one prompt, the others about the batch. */
export type BatchEvent =
  | ({ readonly kind: "started" } & Public["BatchStarted"])
  | ({ readonly kind: "progress" } & Public["BatchProgressed"])
  | { readonly kind: "answered"; readonly id: string; readonly index: number; readonly result: Public["BatchAnswer"] }
  | ({ readonly kind: "completed" } & Public["BatchCompleted"]);

/** `before`: the last page's `next_before`. `limit`: rows of a page. The rest are filters. */
export type TreeFilters = Omit<NonNullable<operations["trees_v1_trees_get"]["parameters"]["query"]>, "after">;
export type TreeSummary = Public["TreeSummary"];
export type TreePage = Public["TreeList"];
export type LoggedTree = Public["TreeReply"];
export type FeedbackRequest = Public["FeedbackRequest"];
export type Feedback = Public["LaterVerdict"];

/** A search and its result as they were logged: docs/tree.md has every field. */
export type Tree = Public["LoggedTree"];
export type TreeNode = Public["LoggedNode"];
/** One line of the log: a tree, feedback on one, or a row that is not what was written. `seq` is its place. */
export type LogRecord = Public["LogRecord"];

export type Consumer = Public["ConsumerReply"];
/** `version`: that of the consumer as it was last seen; absent, a new one is registered. */
export type ConsumerChange = Public["ConsumerPut"] & { version?: number };

export type GateDecision = Operators["Verdict"];
export type ActivateRequest = Operators["Activate"];
export type Activation = Operators["Activated"];
export type Drained = Operators["Drained"];
export type Fleet = Operators["FleetState"];

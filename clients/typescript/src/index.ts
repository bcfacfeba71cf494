/** The TypeScript client of Ramify: `Client`, and `Admin` for a server's admin listener. */

export { Admin } from "./admin.js";
export { Client, type Consumers, type SearchOptions, type Trees } from "./client.js";
export type { AdminOptions, ClientOptions } from "./configuration.js";
export {
  BadRequest,
  Conflict,
  ConnectionFailed,
  InvalidAnswer,
  NotFound,
  RamifyError,
  RateLimited,
  RequestTimeout,
  ResponseError,
  SearchError,
  ServerError,
  Unauthorized,
} from "./errors.js";
export type { ReadOptions } from "./reading.js";
export type { BatchStream, SearchStream } from "./stream.js";
export type { CallOptions } from "./transport.js";
export type * from "./types.js";

/**
 * The errors of the client, one family:
 *
 *     RamifyError
 *     ├── ConnectionFailed        no connection, or it broke before the answer was whole
 *     ├── RequestTimeout          no answer within `timeoutMs`
 *     ├── InvalidAnswer           the server's answer is not what its API promises
 *     ├── SearchError             a stream ended with an `error` event
 *     └── ResponseError           the server answered with an error `status`: one of these, or another
 *         ├── BadRequest          400: a field is wrong; `param` names it
 *         ├── Unauthorized        401
 *         ├── NotFound            404
 *         ├── Conflict            409
 *         ├── RateLimited         429
 *         └── ServerError         any 5xx
 */

/** Characters of a foreign text that an error repeats. */
export const LONGEST = 500;

/** The server's `error` object; `param` is the path of the field. */
export interface ErrorDetails {
  readonly type: string | null;
  readonly param: string | null;
  readonly code: string | null;
}

/** All that this client throws but a caller's own `signal.reason`, and arguments that no request can be made of. */
export class RamifyError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

export class ConnectionFailed extends RamifyError {}

export class RequestTimeout extends RamifyError {}

export class InvalidAnswer extends RamifyError {}

export class SearchError extends RamifyError {
  readonly type: string | null;
  readonly param: string | null;
  readonly code: string | null;

  constructor(message: string, said: ErrorDetails) {
    super(message);
    this.type = said.type;
    this.param = said.param;
    this.code = said.code;
  }
}

export interface ResponseDetails extends ErrorDetails {
  readonly status: number;
  /** For the server's operator. */
  readonly requestId: string | null;
  /** Seconds after which to try again; null if the server does not say. */
  readonly retryAfter: number | null;
  /** The server's `x-should-retry`. */
  readonly shouldRetry: boolean | null;
}

export class ResponseError extends RamifyError implements ResponseDetails {
  readonly status: number;
  readonly type: string | null;
  readonly param: string | null;
  readonly code: string | null;
  readonly requestId: string | null;
  readonly retryAfter: number | null;
  readonly shouldRetry: boolean | null;

  constructor(message: string, details: ResponseDetails) {
    super(message);
    this.status = details.status;
    this.type = details.type;
    this.param = details.param;
    this.code = details.code;
    this.requestId = details.requestId;
    this.retryAfter = details.retryAfter;
    this.shouldRetry = details.shouldRetry;
  }
}

export class BadRequest extends ResponseError {}
export class Unauthorized extends ResponseError {}
export class NotFound extends ResponseError {}
export class Conflict extends ResponseError {}
export class RateLimited extends ResponseError {}
export class ServerError extends ResponseError {}

const BY_STATUS: Readonly<Record<number, typeof ResponseError>> = {
  400: BadRequest,
  401: Unauthorized,
  404: NotFound,
  409: Conflict,
  429: RateLimited,
};

/** Return the error that a response's status stands for, whatever its body holds. */
export function errorOf(status: number, headers: Headers, body: string): ResponseError {
  const { message, ...said } = errorObject(body);
  const Kind = BY_STATUS[status] ?? (status >= 500 ? ServerError : ResponseError);
  const redirected = status === 0 || (status >= 300 && status < 400);
  const text = redirected
    ? `redirected to ${headers.get("location") ?? "elsewhere"}; give the address that it leads to`
    : (message ?? (body || "no message"));
  return new Kind(`${status}: ${text.slice(0, LONGEST)}`, {
    ...said,
    status,
    requestId: headers.get("x-request-id"),
    retryAfter: seconds(headers.get("retry-after")),
    shouldRetry: { true: true, false: false }[headers.get("x-should-retry") ?? ""] ?? null,
  });
}

/** Return the error that a stream's `error` event stands for. */
export function searchError(body: string): SearchError {
  const { message, ...said } = errorObject(body);
  return new SearchError((message ?? "the search failed").slice(0, LONGEST), said);
}

function errorObject(body: string): ErrorDetails & { message: string | null } {
  let said: Record<string, unknown> = {};
  try {
    said = Object(Object(JSON.parse(body)).error);
  } catch {
    // an answer of something between us and the server, such as a proxy's page
  }
  const text = (name: string) => (typeof said[name] === "string" ? said[name] : null);
  return { message: text("message"), type: text("type"), param: text("param"), code: text("code") };
}

/** `Retry-After`: seconds, or a date (RFC 9110, 10.2.3). */
function seconds(value: string | null): number | null {
  if (!value?.trim()) return null;
  const said = Number(value);
  const found = Number.isNaN(said) ? (Date.parse(value) - Date.now()) / 1000 : said;
  return Number.isFinite(found) ? Math.max(0, found) : null;
}

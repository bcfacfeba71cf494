/** Configuration of a client: the server's address, the key, and how long to wait. */

export const DEFAULT_URL = "http://127.0.0.1:8000";
export const DEFAULT_ADMIN_URL = "http://127.0.0.1:8001";
export const DEFAULT_TIMEOUT_MS = 600_000;
export const DEFAULT_RETRIES = 2;

export interface ClientOptions {
  /** Absent: `RAMIFY_BASE_URL` if there is an environment, else `http://127.0.0.1:8000`. */
  baseUrl?: string;
  /** Absent: `RAMIFY_API_KEY` if there is an environment. */
  apiKey?: string;
  /** Milliseconds that one call may take, retries and waits included. */
  timeoutMs?: number;
  /** Further tries of calls that may be repeated; a search may, since it carries an Idempotency-Key. */
  maxRetries?: number;
  /** In place of the global one. */
  fetch?: typeof fetch;
}

/** `baseUrl` and `key` have stand-ins of their own: `RAMIFY_ADMIN_URL` and `RAMIFY_ADMIN__KEY`. */
export interface AdminOptions extends Omit<ClientOptions, "apiKey"> {
  key?: string;
}

export interface Configuration {
  readonly baseUrl: string;
  readonly key: string | null;
  readonly timeoutMs: number;
  readonly maxRetries: number;
  readonly fetch: typeof fetch;
}

/** Throws `TypeError` or `RangeError` at an option that cannot be; its text never repeats a key or a password. */
export function configured(given: ClientOptions): Configuration {
  const url = given.baseUrl || environment("RAMIFY_BASE_URL") || DEFAULT_URL;
  return checked(given, url, given.apiKey || environment("RAMIFY_API_KEY"));
}

/** The same for the admin listener; the public key never stands in for its. */
export function configuredAdmin(given: AdminOptions): Configuration {
  const url = given.baseUrl || environment("RAMIFY_ADMIN_URL") || DEFAULT_ADMIN_URL;
  return checked(given, url, given.key || environment("RAMIFY_ADMIN__KEY"));
}

function checked(given: ClientOptions, url: string, key: string | undefined): Configuration {
  const { timeoutMs = DEFAULT_TIMEOUT_MS, maxRetries = DEFAULT_RETRIES } = given;
  if (!(timeoutMs > 0)) throw new RangeError(`timeoutMs is ${timeoutMs}; give milliseconds above 0`);
  if (!(maxRetries >= 0)) throw new RangeError(`maxRetries is ${maxRetries}; give 0 or more`);
  return {
    baseUrl: address(url),
    key: sendable(key || null),
    timeoutMs,
    maxRetries,
    fetch: given.fetch ?? ((...sent) => fetch(...sent)),
  };
}

function address(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : null;
  if (parsed?.username || parsed?.password) {
    throw new TypeError("the server's address holds a user name or password; give the API key apart from it");
  }
  if (parsed === null || !["http:", "https:"].includes(parsed.protocol)) {
    throw new TypeError(`not the address of a server: ${JSON.stringify(url)}; give one such as ${DEFAULT_URL}`);
  }
  return url.replace(/\/+$/, "");
}

/** Checked here, since `fetch` would repeat a header that it cannot send in its error. */
function sendable(key: string | null): string | null {
  if (key !== null && !/^[!-~]+$/.test(key)) {
    throw new TypeError("the API key holds a space, a line break or a character outside ASCII");
  }
  return key;
}

function environment(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name];
}

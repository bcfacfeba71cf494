/** A server that gives prepared answers, one after another, and notes what it was asked. */

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";

export type Answer = (response: ServerResponse, request: IncomingMessage) => void;

export interface Canned {
  url: string;
  seen: IncomingMessage[];
}

/** Ended with its connections when the test ends. */
export async function answering(test: TestContext, ...answers: Answer[]): Promise<Canned> {
  const seen: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    seen.push(request);
    const answer = answers.shift();
    if (answer) answer(response, request);
    else response.writeHead(500).end("no answer is left");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}

export const says =
  (body: string, status = 200, headers: Record<string, string> = {}): Answer =>
  (response) =>
    response.writeHead(status, headers).end(body);

export const refuses = (status: number, headers: Record<string, string> = {}, code: string | null = null): Answer => {
  const error = { message: "no", type: "t", param: "p", code };
  return says(JSON.stringify({ error }), status, { "x-request-id": "req-1", ...headers });
};

/** Says a part of what it promised, and hangs up. */
export const breaksOff =
  (part: string): Answer =>
  (response) => {
    response.writeHead(200, { "Content-Length": String(part.length + 1) });
    response.write(part, () => response.destroy());
  };

/** The client: a method for each call of the public API. */

import * as calls from "./calls.js";
import { type ClientOptions, configured } from "./configuration.js";
import { RamifyError } from "./errors.js";
import { readLog, type ReadOptions } from "./reading.js";
import { BatchStream, openStream, SearchStream } from "./stream.js";
import { type CallOptions, Transport } from "./transport.js";
import type {
  BatchResult,
  BranchRequest,
  ContinueRequest,
  Consumer,
  ConsumerChange,
  Feedback,
  FeedbackRequest,
  LoggedTree,
  LogRecord,
  Model,
  Models,
  PromptsRequest,
  Releases,
  SearchRequest,
  SearchResult,
  StreamBranchRequest,
  StreamContinueRequest,
  StreamPromptsRequest,
  StreamRequest,
  TreeFilters,
  TreePage,
  ValueRequest,
  Values,
  Version,
} from "./types.js";

const READY_TIMEOUT_MS = 30_000;

export interface SearchOptions extends CallOptions {
  /** One search for one key; absent, the client makes one up, so that a retry never searches twice. */
  idempotencyKey?: string;
}

/** A Ramify server. All methods fail with a `RamifyError`, or with the reason of the caller's own signal. */
export class Client {
  readonly #transport: Transport;
  readonly trees: Trees;
  readonly consumers: Consumers;

  constructor(options: ClientOptions = {}) {
    this.#transport = new Transport(configured(options));
    this.trees = new Trees(this.#transport);
    this.consumers = new Consumers(this.#transport);
  }

  /** Search, for a `prompt` or for `messages`, and return the best answer of the tree. */
  search(asked: SearchRequest, how: SearchOptions = {}): Promise<SearchResult> {
    return this.#transport.send(calls.search(asked, how.idempotencyKey), how);
  }

  /**
   * Search, and return the events while it runs; the last one is `completed`. Leaving the loop over them before that
   * ends the search on the server. Tried again until the server has accepted it, and then no more.
   */
  stream(asked: StreamRequest, how: SearchOptions = {}): Promise<SearchStream> {
    return openStream(SearchStream, this.#transport, calls.search(asked, how.idempotencyKey, true), how);
  }

  /** Return a search's state: its best answer so far, or how it ended. */
  getSearch(id: string, how?: CallOptions): Promise<SearchResult> {
    return this.#transport.send(calls.getSearch(id), how);
  }

  /**
   * Return the events of a search that another request began, from now on, as `stream` does; of one that has ended, the
   * first and the last. Leaving the loop leaves the search running.
   */
  follow(id: string, how?: CallOptions): Promise<SearchStream> {
    return openStream(SearchStream, this.#transport, calls.getSearch(id, true), how, id);
  }

  /** End a search now; return its best answer so far. */
  cancel(id: string, how?: CallOptions): Promise<SearchResult> {
    return this.#transport.send(calls.cancel(id), how);
  }

  /**
   * Let a search that has ended, or was interrupted by the end of its server, go on exactly where it was; the result is
   * a new search's. `asked.budget` limits the whole, and must be larger than what is spent.
   */
  continueSearch(id: string, asked: ContinueRequest = {}, how: SearchOptions = {}): Promise<SearchResult> {
    return this.#transport.send(calls.continueSearch(id, asked, how.idempotencyKey), how);
  }

  /** Let a search go on, and return the events as `stream` does. */
  streamContinued(id: string, asked: StreamContinueRequest = {}, how: SearchOptions = {}): Promise<SearchStream> {
    const call = calls.continueSearch(id, asked, how.idempotencyKey, true);
    return openStream(SearchStream, this.#transport, call, how);
  }

  /** Search several prompts on one budget, which goes where it is expected to bring most. */
  searchBatch(asked: PromptsRequest, how: SearchOptions = {}): Promise<BatchResult> {
    return this.#transport.send(calls.searchBatch(asked, how.idempotencyKey), how);
  }

  /** Search as `searchBatch` does, and return the events: each prompt's `answered` as soon as it is settled. */
  streamBatch(asked: StreamPromptsRequest, how: SearchOptions = {}): Promise<BatchStream> {
    return openStream(BatchStream, this.#transport, calls.searchBatch(asked, how.idempotencyKey, true), how);
  }

  /** End every search of a batch now; return their best answers so far. */
  cancelBatch(id: string, how?: CallOptions): Promise<BatchResult> {
    return this.#transport.send(calls.cancelBatch(id), how);
  }

  /** Score answers, finished or not, by the value model. */
  value(asked: ValueRequest, how?: CallOptions): Promise<Values> {
    return this.#transport.send(calls.value(asked), how);
  }

  /** List the models that are served. */
  models(how?: CallOptions): Promise<Models> {
    return this.#transport.send(calls.models(), how);
  }

  model(name: string, how?: CallOptions): Promise<Model> {
    return this.#transport.send(calls.model(name), how);
  }

  /** List the releases, and which one is active; the key needs the scope `log`. */
  releases(how?: CallOptions): Promise<Releases> {
    return this.#transport.send(calls.publicReleases(), how);
  }

  /** Return the server's version, model and release. */
  version(how?: CallOptions): Promise<Version> {
    return this.#transport.send(calls.version(), how);
  }

  /** Tell whether the server can search now; false also if nobody listens. */
  async ready(how: CallOptions = {}): Promise<boolean> {
    try {
      await this.#transport.send(calls.ready(), { timeoutMs: READY_TIMEOUT_MS, ...how });
    } catch (error) {
      if (error instanceof RamifyError) return false;
      throw error;
    }
    return true;
  }
}

/** The log of searched trees. */
export class Trees {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** List trees, newest first, a page at a time. */
  list(filters: TreeFilters = {}, how?: CallOptions): Promise<TreePage> {
    return this.#transport.send(calls.listTrees(filters), how);
  }

  get(tree: string, how?: CallOptions): Promise<LoggedTree> {
    return this.#transport.send(calls.getTree(tree), how);
  }

  /**
   * Yield the records with a `seq` above `after`, in order, to the log's end as it is now. If the
   * connection breaks, go on after the last whole record. `timeoutMs` is for each wait for the server.
   */
  read(from: ReadOptions = {}): AsyncGenerator<LogRecord> {
    return readLog(this.#transport, from);
  }

  /** Search on from a node of a logged tree; the result is a new tree's. */
  branch(tree: string, node: number, asked: BranchRequest = {}, how: SearchOptions = {}): Promise<SearchResult> {
    return this.#transport.send(calls.branch(tree, node, asked, how.idempotencyKey), how);
  }

  /** Search on from a node, and return the events as `stream` does. */
  streamBranch(
    tree: string,
    node: number,
    asked: StreamBranchRequest = {},
    how: SearchOptions = {},
  ): Promise<SearchStream> {
    return openStream(SearchStream, this.#transport, calls.branch(tree, node, asked, how.idempotencyKey, true), how);
  }

  /** Return the tree as a graph for Graphviz. */
  dot(tree: string, how?: CallOptions): Promise<string> {
    return this.#transport.send(calls.dot(tree), how);
  }

  async delete(tree: string, how?: CallOptions): Promise<void> {
    await this.#transport.send(calls.deleteTree(tree), how);
  }

  /** Give a verdict in [0, 1] on an answer: the chosen one, or that of `node` or `answer`. */
  feedback(tree: string, verdict: FeedbackRequest, how?: CallOptions): Promise<Feedback> {
    return this.#transport.send(calls.feedback(tree, verdict), how);
  }
}

/** Readers of the log. */
export class Consumers {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** List the registered readers, by name. */
  async list(how?: CallOptions): Promise<Consumer[]> {
    return (await this.#transport.send(calls.listConsumers(), how)).data;
  }

  /** Forget a reader that is gone. Fails with `Conflict` while it is leased. */
  async delete(name: string, how?: CallOptions): Promise<void> {
    await this.#transport.send(calls.deleteConsumer(name), how);
  }

  get(name: string, how?: CallOptions): Promise<Consumer> {
    return this.#transport.send(calls.getConsumer(name), how);
  }

  /**
   * Register a reader, or change the one last seen at `version`. Fails with `Conflict` if somebody else was faster
   * or holds the lease.
   */
  put(name: string, change: ConsumerChange = {}, how?: CallOptions): Promise<Consumer> {
    return this.#transport.send(calls.putConsumer(name, change), how);
  }
}

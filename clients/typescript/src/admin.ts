/** The client of a server's admin listener. */

import * as calls from "./calls.js";
import { type AdminOptions, configuredAdmin } from "./configuration.js";
import { type CallOptions, Transport } from "./transport.js";
import type { ActivateRequest, Activation, Drained, Fleet, GateDecision, Release, Releases } from "./types.js";

const DRAIN_SECONDS = 20;

/** The operator's side: which release is served, and the drain. */
export class Admin {
  readonly #transport: Transport;

  constructor(options: AdminOptions = {}) {
    this.#transport = new Transport(configuredAdmin(options));
  }

  /** List the releases, and which one is active. */
  releases(how?: CallOptions): Promise<Releases> {
    return this.#transport.send(calls.releases(), how);
  }

  /** Record a gate's decision: `candidate`, `promoted` or `rejected`, with its figures. */
  record(release: string, decision: GateDecision, how?: CallOptions): Promise<Release> {
    return this.#transport.send(calls.recordRelease(release, decision), how);
  }

  /**
   * Serve a release from now on. Fails with `Conflict` if it was refused or its canary failed; the one before stays
   * served then.
   */
  activate(release: string, asked: ActivateRequest = {}, how?: CallOptions): Promise<Activation> {
    return this.#transport.send(calls.activate(release, asked), how);
  }

  /** Serve the release that was active before. */
  rollback(asked: ActivateRequest = {}, how?: CallOptions): Promise<Activation> {
    return this.#transport.send(calls.rollback(asked), how);
  }

  /** Return the fleet that the server belongs to. Fails with `NotFound` if it is in none. */
  fleet(how?: CallOptions): Promise<Fleet> {
    return this.#transport.send(calls.fleet(), how);
  }

  /** Take an evicted replica back. Fails with `NotFound` if none of this id is evicted. */
  restore(replica: string, how?: CallOptions): Promise<Fleet> {
    return this.#transport.send(calls.restore(replica), how);
  }

  /** Take no more searches, and return when the running ones have ended, at the latest after `deadlineSeconds`. */
  drain(deadlineSeconds = DRAIN_SECONDS, how?: CallOptions): Promise<Drained> {
    return this.#transport.send(calls.drain(deadlineSeconds), how);
  }
}

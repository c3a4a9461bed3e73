/**
 * The interface of a store that processes share: it decides, charges and leases, each in one step, on its own clock.
 *
 * A store knows nothing of a policy but its rules. The queue, the bounds, interruption and observation stay in each process,
 * in `RedisThrottle`. `RedisStore` counts in Redis. `MemoryStore` counts in this process: for tests, and as the reference
 * for other stores.
 *
 * @since 0.1.0
 * @module ThrottleStore
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { Rules } from "./internal/rules.ts"

export type { Pool, Rule, Rules } from "./internal/rules.ts"

/**
 * A number of consecutive calls with the same demand.
 *
 * @category models
 * @since 0.1.0
 */
export interface Run {
  readonly count: number
  /** For each meter. */
  readonly meters: ReadonlyArray<number>
  /** For each permit pool. */
  readonly pools: ReadonlyArray<number>
}

/**
 * Returns what was granted to calls that did not start. The store takes it back only if nothing has changed since:
 * otherwise other calls have been granted instants that depend on it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Return {
  /** The version of the decision that granted it. */
  readonly version: number
  /** The reserved slot, if it is returned: its instant, and what it cost each meter. */
  readonly slot: { readonly at: number; readonly meters: ReadonlyArray<number> } | undefined
  /** What started at once: when, and its total cost for each meter. */
  readonly grants: { readonly at: number; readonly meters: ReadonlyArray<number> } | undefined
}

/**
 * The difference between the actual cost of a call and what it was charged.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settlement {
  /** The version of the decision that granted it. What was granted before a reset is not settled. */
  readonly version: number
  /** When it was charged. */
  readonly at: number
  /** Whether the call is cancelled: then it is no start for spacing either. */
  readonly isUndone: boolean
  /** For each meter. */
  readonly more: ReadonlyArray<number>
}

/**
 * A request for one decision. Times are microseconds; instants are those of the store's clock, as its answers give them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  readonly key: string
  readonly rules: Rules
  readonly returns: Return | undefined
  readonly settlements: ReadonlyArray<Settlement>
  /** Leases to end, by the names that the store gave them. Releases are idempotent, so they can be retried. */
  readonly releases: ReadonlyArray<string>
  readonly runs: ReadonlyArray<Run>
  /** The first `waited` calls have waited since `since` at least, and may be charged then, as far as rates allow. */
  readonly waited: number
  readonly since: number | undefined
  /** A slot for the first call that cannot start is reserved if it comes no later than this; below 0 none is. */
  readonly maxWait: number
  /** Whether to charge nothing, and only answer how long the first call would have to wait. */
  readonly isDry: boolean
  /** Whether to answer what is left of each part. */
  readonly asksLeft: boolean
  /** The process that asks, and whether it enters the queue for permits where they are missing. */
  readonly owner: string
  readonly joins: boolean
  /** The channel on which the first process in that queue is notified that permits are free. */
  readonly channel: string
  /** How long a lease lasts, and how long a place in the queue does, unless renewed. */
  readonly ttl: number
  readonly patience: number
  /** The owner's number for the lease of the first call, the next for the next call. A lease is granted once. */
  readonly firstLease: number
  /** How long what is charged now may still be settled; 0 where it will not be. */
  readonly settleWithin: number
}

/**
 * What is left of a part for calls that come now, if no other call comes. Times are microseconds.
 *
 * @category models
 * @since 0.2.0
 */
export interface Left {
  /** The permits that could start now, all at once. */
  readonly permits: number
  /** How long until one more could; undefined where that is unknown. */
  readonly untilMore: number | undefined
  /** How long until nothing is spent or held; undefined where that is unknown. */
  readonly untilFull: number | undefined
}

/**
 * The answer to a request.
 *
 * @category models
 * @since 0.1.0
 */
export interface Decision {
  /** How many calls, from the first, may start. */
  readonly granted: number
  /** When the next call may start, and in how many microseconds. It has been charged for that instant. */
  readonly slot: { readonly at: number; readonly wait: number } | undefined
  /** How long the first call that may not start has to wait for time; undefined where permits are missing, and in a pause without an end. */
  readonly wait: number | undefined
  /** Whether permits are missing for the first call that may not start. */
  readonly isBusy: boolean
  /** The part that this call waits for: a meter, or after those a pool; counted from 1, and 0 for none. */
  readonly part: number
  readonly now: number
  readonly version: number
  /** The names of the leases granted: one for each granted call that holds permits, that of the slot last. */
  readonly leases: ReadonlyArray<string>
  /** The fencing number of the first of them, the next for the next one. */
  readonly fence: number
  /** When the next lease ends unless renewed. */
  readonly nextExpiry: number | undefined
  readonly isPaused: boolean
  readonly hasReturned: boolean
  /** What is left of each meter, and then of each permit pool; empty where it was not asked for. */
  readonly left: ReadonlyArray<Left>
}

/**
 * The answer to requests for several keys at once.
 *
 * @category models
 * @since 0.2.0
 */
export interface Together {
  /** For each request. Unless the calls were granted, they are as if each request had been dry. */
  readonly decisions: ReadonlyArray<Decision>
  /** Whether the calls of all requests were granted, each charged now; otherwise none was. */
  readonly isGranted: boolean
  /** The first request whose call cannot start now; undefined if each could. */
  readonly blocked: number | undefined
}

/**
 * Why there is no decision. After "timeout", and after an interruption, it may have been made all the same. "refused" is an
 * answer: the store works, but not with this request.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreFailure extends Schema.TaggedError<StoreFailure>()("StoreFailure", {
  outcome: Schema.Literals(["timeout", "unavailable", "refused"]),
  cause: Schema.Defect()
}) {}

/**
 * A store. Each of its functions is atomic.
 *
 * @category models
 * @since 0.1.0
 */
export interface ThrottleStore {
  /** Takes back, settles, releases, and grants: in this order. */
  readonly decide: (request: Request) => Effect.Effect<Decision, StoreFailure>
  /**
   * The same for several keys of one hash slot, in one step: takes back, settles and releases what each request says. Then the
   * requests, of one call each, are all granted, or none; nothing is if one of them is dry. No slot is reserved. Absent: there
   * are no levels on this store.
   */
  readonly decideTogether?: ((requests: ReadonlyArray<Request>) => Effect.Effect<Together, StoreFailure>) | undefined
  /** Extends leases; false for one that is gone. */
  readonly renew: (
    key: string,
    leases: ReadonlyArray<string>,
    ttl: number
  ) => Effect.Effect<ReadonlyArray<boolean>, StoreFailure>
  /** Grants nothing for so long; a pause that ends later stays as it is. 0 ends it. */
  readonly pause: (key: string, micros: number) => Effect.Effect<void, StoreFailure>
  /**
   * Forgets what is charged, reserved instants included, and makes a new version. Leases, the queue for permits and a pause
   * stay.
   */
  readonly reset: (key: string) => Effect.Effect<void, StoreFailure>
  /**
   * Returns the name of the part of the store that holds a key, where parts can fail by themselves: each has a circuit
   * breaker of its own. Absent: the store is one part.
   */
  readonly nodeOf?: ((key: string) => string) | undefined
  /** The keys for which permits may be free, from messages on this channel until the scope closes. */
  readonly wakeups: (channel: string) => Effect.Effect<Queue.Dequeue<string, StoreFailure>, never, Scope.Scope>
}

/**
 * The service's key.
 *
 * @category services
 * @since 0.1.0
 */
export const ThrottleStore: Context.Service<ThrottleStore, ThrottleStore> = Context.Service<ThrottleStore>(
  "effect-throttle/redis/ThrottleStore"
)

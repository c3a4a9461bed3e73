/**
 * Where several processes count together: a store judges, charges and leases, each in one step, on its own clock.
 *
 * A policy is data and a store knows nothing else of it. Who waits, in which order, who gives up and what is observed
 * stays in each process; that half is `RedisThrottle`. `RedisStore` counts in Redis, `MemoryStore` in this process: for
 * tests, and as the measure of the others.
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

export type { Gate, Rule, Rules } from "./internal/rules.ts"

/**
 * So many calls in a row that ask the same of every part.
 *
 * @category models
 * @since 0.1.0
 */
export interface Run {
  readonly count: number
  /** For each timing rule. */
  readonly timings: ReadonlyArray<number>
  /** For each gate. */
  readonly gates: ReadonlyArray<number>
}

/**
 * What was granted to calls that are gone. It is taken back only if nothing has changed since: otherwise others have been
 * told when they may start by what it has left.
 *
 * @category models
 * @since 0.1.0
 */
export interface Return {
  /** The version of the decision that granted it. */
  readonly version: number
  /** The slot that was reserved, if it is among what comes back: when it was due, and what it cost each timing rule. */
  readonly slot: { readonly at: number; readonly timings: ReadonlyArray<number> } | undefined
  /** What started at once: when, and what it cost together. */
  readonly grants: { readonly at: number; readonly timings: ReadonlyArray<number> } | undefined
}

/**
 * What a call turned out to have cost more, or less, than it was charged.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settlement {
  /** When it was charged. */
  readonly at: number
  /** As if it had never been let in: a start that nothing came of is no start for spacing. */
  readonly isUndone: boolean
  /** For each timing rule. */
  readonly more: ReadonlyArray<number>
}

/**
 * All that one decision is about. Times are microseconds; instants are those of the store's clock, as its answers give
 * them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Request {
  readonly key: string
  readonly rules: Rules
  readonly returns: Return | undefined
  readonly settlements: ReadonlyArray<Settlement>
  /** Leases to end, as {@link leaseOf} names them. */
  readonly releases: ReadonlyArray<string>
  readonly runs: ReadonlyArray<Run>
  /** The first so many of them have waited since this instant at least: they may be charged then, as far as rates allow. */
  readonly waited: number
  readonly since: number | undefined
  /** A slot for the first that cannot start is reserved if it comes no later than this; below 0 none is. */
  readonly maxWait: number
  /** Nothing is taken: only how long the first one would have to wait. */
  readonly isDry: boolean
  /** Who asks, and whether to stand in line for permits where they are missing. */
  readonly owner: string
  readonly joins: boolean
  /** Where who is first in that line is told that permits are free. */
  readonly channel: string
  /** How long a lease lasts, and how long a place in line does, unless renewed. */
  readonly ttl: number
  readonly patience: number
  /** The number of the first call's lease, the next for the next call. */
  readonly firstLease: number
  /** How long what is charged now may still be settled; 0 where it will not be. */
  readonly settleWithin: number
}

/**
 * What the store says.
 *
 * @category models
 * @since 0.1.0
 */
export interface Decision {
  /** The first so many may start. */
  readonly granted: number
  /** When the next one may: it has been charged for that instant. */
  readonly slot: { readonly at: number; readonly wait: number } | undefined
  /** How long the first that may not start would have to wait for time; undefined where permits are missing. */
  readonly wait: number | undefined
  /** Whether permits are missing for the first that may not start. */
  readonly isBusy: boolean
  /** The part that it waits for: a timing rule, or after those a gate; counted from 1, and 0 for none. */
  readonly part: number
  readonly now: number
  readonly version: number
  /** The fencing number of the first lease granted, the next for the next one. */
  readonly fence: number
  /** When the next lease ends unless renewed. */
  readonly nextExpiry: number | undefined
  readonly isPaused: boolean
  readonly hasReturned: boolean
}

/**
 * Why there is no decision. "timeout" and an interruption leave open whether it was made; "refused" is an answer: the store
 * works, but not with this request.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreFailure extends Schema.TaggedError<StoreFailure>()("StoreFailure", {
  outcome: Schema.Literals(["timeout", "unavailable", "refused"]),
  cause: Schema.Defect()
}) {}

/**
 * A store. Each of its functions is one step: all of it happens, at one instant, or nothing does.
 *
 * @category models
 * @since 0.1.0
 */
export interface ThrottleStore {
  /** Takes back, settles, releases, and lets start who may: in this order. */
  readonly decide: (request: Request) => Effect.Effect<Decision, StoreFailure>
  /** Gives leases more time; false for one that is gone. */
  readonly renew: (
    key: string,
    leases: ReadonlyArray<string>,
    ttl: number
  ) => Effect.Effect<ReadonlyArray<boolean>, StoreFailure>
  /** Lets nobody start for so long; a longer pause stays as it is. 0 ends it. */
  readonly pause: (key: string, micros: number) => Effect.Effect<void, StoreFailure>
  /**
   * The name of the part of the store that holds a key, where parts can fail by themselves: each has a circuit breaker of
   * its own. Absent: the store is one part.
   */
  readonly nodeOf?: ((key: string) => string) | undefined
  /** The keys for which permits may be free, told on this channel until the scope closes. */
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

/**
 * What a lease is called in the store: whose it is, which one, and what it holds.
 *
 * @category models
 * @since 0.1.0
 */
export const leaseOf = (rules: Rules, owner: string, number: number, gates: ReadonlyArray<number>): string =>
  `${owner}:${number}${rules.gates.map(({ field }, j) => gates[j]! > 0 ? ` ${field}=${gates[j]}` : "").join("")}`

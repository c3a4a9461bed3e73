/**
 * What a throttle fails with: one error, {@link ThrottleError}, and the reason for it.
 *
 * @since 0.1.0
 * @module
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

const cost = Schema.Record(Schema.String, Schema.Number)

const common = {
  /** The throttle's name. */
  throttle: Schema.String,
  /** What the call asked for, by unit. */
  cost,
  /** How many calls waited when this one was refused. */
  queued: Schema.Number,
  /** The parts of the policy that stood in the way. */
  parts: Schema.Array(Schema.String)
}

const retryable = {
  ...common,
  /**
   * How long until a call of this cost could start behind those now waiting, if nobody else came; whole milliseconds,
   * rounded up. Absent where only those who run stand in the way: nobody can foresee when they end.
   */
  retryAfter: Schema.optionalKey(Schema.Duration)
}

const spell = (value: Readonly<Record<string, number>>): string =>
  Object.entries(value).map(([unit, amount]) => `${unit}: ${amount}`).join(", ")

const behind = (parts: ReadonlyArray<string>): string => parts.length === 0 ? "" : ` (held up by ${parts.join(", ")})`

const retry = (after: Duration.Duration | undefined): string =>
  after === undefined ? "" : `; try again in ${Duration.format(after)}`

/**
 * The line was full: `maxQueue` calls waited already.
 *
 * `limit` is the bound. Nothing was charged.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.1.0
 */
export class QueueFull extends Schema.TaggedError<QueueFull>()("QueueFull", {
  ...retryable,
  limit: Schema.Number
}) {
  override get message(): string {
    const why = this.limit === 0 ? "it would have to wait" : `${this.queued} waiting`
    return `${why}, maxQueue is ${this.limit}${behind(this.parts)}${retry(this.retryAfter)}`
  }
}

/**
 * The expected wait was longer than `maxWait`, so waiting was not begun.
 *
 * `limit` is the bound. Nothing was charged.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.1.0
 */
export class WaitTooLong extends Schema.TaggedError<WaitTooLong>()("WaitTooLong", {
  ...retryable,
  limit: Schema.Duration
}) {
  override get message(): string {
    return `the wait would be longer than maxWait, ${Duration.format(this.limit)}${behind(this.parts)}${
      retry(this.retryAfter)
    }`
  }
}

/**
 * The call waited for `timeout` and was not admitted.
 *
 * `limit` is the bound. Nothing was charged; the effect never started.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.1.0
 */
export class TimedOut extends Schema.TaggedError<TimedOut>()("TimedOut", {
  ...retryable,
  limit: Schema.Duration
}) {
  override get message(): string {
    return `not admitted within timeout, ${Duration.format(this.limit)}${behind(this.parts)}${retry(this.retryAfter)}`
  }
}

/**
 * The call asked for more permits than the policy can ever grant, so waiting would never end.
 *
 * `limit` is the most that could be granted. Nothing was charged. Ask for less, in several calls, or raise the limit.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.1.0
 */
export class PermitsExceedCapacity extends Schema.TaggedError<PermitsExceedCapacity>()("PermitsExceedCapacity", {
  ...common,
  limit: Schema.Number
}) {
  override get message(): string {
    return `asked for ${spell(this.cost)}; at most ${this.limit} can ever be granted${behind(this.parts)}`
  }
}

/**
 * A `ThrottleMap` has `maxKeys` keys, and found none of them as good as new, and none that it may forget.
 *
 * `limit` is `maxKeys`. Nothing was charged. Raise the limit, or let the map evict the key used longest ago.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.1.0
 */
export class KeysExhausted extends Schema.TaggedError<KeysExhausted>()("KeysExhausted", {
  ...common,
  limit: Schema.Number
}) {
  override get message(): string {
    return `there are ${this.limit} keys already, which is all that maxKeys allows`
  }
}

/**
 * The store that several processes share gave no decision: it was not reachable, did not answer in time, refused this
 * request (its key holds something else), or has failed so often that it is left alone for a while. A throttle in memory
 * never fails with it.
 *
 * `outcome` says which. After "timeout" the permits may have been spent all the same, so do not retry blindly; after the
 * others nothing was charged as far as this process knows. Where `outcome` is "open", `retryAfter` says
 * when the store is asked again.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.1.0
 */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  ...retryable,
  outcome: Schema.Literals(["timeout", "unavailable", "refused", "open"]),
  /** What the store or its client said. */
  detail: Schema.String
}) {
  override get message(): string {
    return `the store gave no decision (${this.outcome}): ${this.detail}${retry(this.retryAfter)}`
  }
}

/**
 * The lease on permits that several processes share was lost while the work ran, and the work was interrupted: no
 * renewal reached the store in time, or the store lost the key. A throttle in
 * memory never fails with it.
 *
 * `fence` is the lease's fencing number: whoever holds the permits now has a larger one.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.1.0
 */
export class LeaseLost extends Schema.TaggedError<LeaseLost>()("LeaseLost", {
  ...common,
  fence: Schema.Number
}) {
  override get message(): string {
    return `the lease on its permits (fencing number ${this.fence}) was lost, so the work was interrupted`
  }
}

/**
 * A call was refused. Its effect did not start and nothing was charged. (The two reasons of a store that several processes
 * share differ: after a `StoreError` the permits may have been spent, and a `LeaseLost` interrupts work that has begun.)
 *
 * `Effect.catchTag("ThrottleError", …)` catches all of them, `Effect.catchReason("ThrottleError", "QueueFull", …)` one
 * reason. The error is a Schema, so it can cross a process boundary.
 *
 * **Example**
 *
 * ```ts
 * import { Duration, Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const search = Effect.succeed("found").pipe(Throttle.rate({ limit: 1, per: "1 second", maxQueue: 0 }))
 *
 * const program = search.pipe(
 *   Effect.catchReason("ThrottleError", "QueueFull", (reason) =>
 *     Effect.succeed(`busy, try again in ${reason.retryAfter ? Duration.format(reason.retryAfter) : "a while"}`))
 * )
 *
 * await Effect.runPromise(program) // "found"
 * ```
 *
 * @see {@link QueueFull}, {@link WaitTooLong}, {@link TimedOut}, {@link PermitsExceedCapacity}, {@link KeysExhausted} for the
 * reasons; {@link StoreError}, {@link LeaseLost} for those of a store that several processes share
 * @category errors
 * @since 0.1.0
 */
export class ThrottleError extends Schema.TaggedError<ThrottleError>()("ThrottleError", {
  reason: Schema.Union([QueueFull, WaitTooLong, TimedOut, PermitsExceedCapacity, KeysExhausted, StoreError, LeaseLost])
}) {
  override get message(): string {
    return `${this.reason._tag}: throttle "${this.reason.throttle}": ${this.reason.message}`
  }

  /**
   * When to ask again; see the reason's `retryAfter`. Always absent for `PermitsExceedCapacity`,
   * `KeysExhausted` and `LeaseLost`.
   *
   * @since 0.1.0
   */
  get retryAfter(): Duration.Duration | undefined {
    return "retryAfter" in this.reason ? this.reason.retryAfter : undefined
  }
}

/**
 * The error of rejected calls, {@link ThrottleError}, and its reasons.
 *
 * @since 0.1.0
 * @module
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

const cost = Schema.Record(Schema.String, Schema.Number)

const common = {
  /** The name of the throttle. */
  throttle: Schema.String,
  /** The call's cost, by unit. */
  cost,
  /** The number of calls that waited, this one not counted. */
  queued: Schema.Number,
  /** The parts of the policy that blocked the call, by name or else description; "pause" during a pause. */
  parts: Schema.Array(Schema.String)
}

const retryable = {
  ...common,
  /**
   * How long until a call of this cost could start behind the waiting calls, if no other call came. Whole milliseconds,
   * rounded up. Absent if only held permits block the call, since the end of a running call is unknown.
   */
  retryAfter: Schema.optionalKey(Schema.Duration)
}

const spell = (value: Readonly<Record<string, number>>): string =>
  Object.entries(value).map(([unit, amount]) => `${unit}: ${amount}`).join(", ")

const blockedBy = (parts: ReadonlyArray<string>): string =>
  parts.length === 0 ? "" : ` (blocked by ${parts.join(", ")})`

const retry = (after: Duration.Duration | undefined): string =>
  after === undefined ? "" : `; retry after ${Duration.format(after)}`

/**
 * The call would have had to wait, and `maxQueue` calls waited already, or `maxQueuePerCaller` calls of its caller.
 *
 * `limit` is that bound; `caller` is present if it is `maxQueuePerCaller`. Nothing was charged. Retry after `retryAfter`, or do without.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.1.0
 */
export class QueueFull extends Schema.TaggedError<QueueFull>()("QueueFull", {
  ...retryable,
  limit: Schema.Number,
  /** The caller whose calls fill its own share of the queue; absent if `maxQueue` is exceeded. */
  caller: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    if (this.caller !== undefined) {
      return `${this.queued} waiting, maxQueuePerCaller is ${this.limit} for caller ${JSON.stringify(this.caller)}${
        blockedBy(this.parts)
      }${retry(this.retryAfter)}`
    }
    const why = this.limit === 0 ? "the call would have to wait" : `${this.queued} waiting`
    return `${why}, maxQueue is ${this.limit}${blockedBy(this.parts)}${retry(this.retryAfter)}`
  }
}

/**
 * The call's estimated wait exceeded `maxWait`, when it arrived or after a pause or an update.
 *
 * `limit` is `maxWait`. Nothing was charged. Retry after `retryAfter`, or do without.
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
    return `the call would wait longer than maxWait, ${Duration.format(this.limit)}${blockedBy(this.parts)}${
      retry(this.retryAfter)
    }`
  }
}

/**
 * The call waited for `timeout` and was not admitted.
 *
 * `limit` is `timeout`. Nothing was charged, and the effect never started. Retry after `retryAfter`, or do without.
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
    return `not admitted within timeout, ${Duration.format(this.limit)}${blockedBy(this.parts)}${
      retry(this.retryAfter)
    }`
  }
}

/**
 * The call requested more permits than the policy can ever grant.
 *
 * `limit` is the maximum. Nothing was charged. Request less, in several calls, or raise the policy's limit.
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
    return `requested ${spell(this.cost)}; at most ${this.limit} can ever be granted${blockedBy(this.parts)}`
  }
}

/**
 * The throttle is being drained and admits no newcomers: `Throttle.drain` was called, usually because the process ends.
 *
 * Nothing was charged. A retry here does not help; another process may take the call. There is no `retryAfter`.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.2.0
 */
export class Draining extends Schema.TaggedError<Draining>()("Draining", common) {
  override get message(): string {
    return `the throttle is being drained and admits no newcomers (${this.queued} waiting)`
  }
}

/**
 * A `ThrottleMap` has `maxKeys` keys, and no key can be dropped or evicted.
 *
 * `limit` is `maxKeys`. Nothing was charged. Raise `maxKeys`, or let the map evict keys.
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
    return `no room for another key, maxKeys is ${this.limit}`
  }
}

/**
 * The store that processes share made no decision. Throttles in memory never fail with it.
 *
 * `outcome` is the cause: "timeout" if the store did not answer in time, "unavailable" if it could not be reached,
 * "refused" if it rejected the request (for example because its key holds something else), "open" if its circuit
 * breaker is open. After "timeout" the permits may have been spent, so do not retry blindly; otherwise nothing was
 * charged as far as this process knows. With "open", `retryAfter` is how long until the store is tried again.
 *
 * @see {@link ThrottleError} for the error that carries it
 * @category reasons
 * @since 0.1.0
 */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  ...retryable,
  outcome: Schema.Literals(["timeout", "unavailable", "refused", "open"]),
  /** The message of the store or of its client. */
  detail: Schema.String
}) {
  override get message(): string {
    return `the store made no decision (${this.outcome}): ${this.detail}${retry(this.retryAfter)}`
  }
}

/**
 * The lease of permits that processes share was lost while the effect ran, and the effect was interrupted: no renewal
 * reached the store in time, or the store lost the key. Throttles in memory never fail with it.
 *
 * `fence` is the lease's fencing number. A later holder of the permits has a larger one.
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
 * The error of a rejected call: its effect did not start, and nothing was charged.
 *
 * Two reasons of a shared store differ: after a `StoreError` the permits may have been spent, and a `LeaseLost`
 * interrupts an effect that has started.
 *
 * `Effect.catchTag("ThrottleError", …)` catches all reasons, `Effect.catchReason("ThrottleError", "QueueFull", …)` one.
 * The error is a Schema, so it can be encoded for another process.
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
 * @see {@link QueueFull}, {@link WaitTooLong}, {@link TimedOut}, {@link PermitsExceedCapacity}, {@link Draining},
 * {@link KeysExhausted} for the reasons; {@link StoreError}, {@link LeaseLost} for those of a store that processes share
 * @category errors
 * @since 0.1.0
 */
export class ThrottleError extends Schema.TaggedError<ThrottleError>()("ThrottleError", {
  reason: Schema.Union([
    QueueFull,
    WaitTooLong,
    TimedOut,
    PermitsExceedCapacity,
    Draining,
    KeysExhausted,
    StoreError,
    LeaseLost
  ])
}) {
  override get message(): string {
    return `${this.reason._tag}: throttle "${this.reason.throttle}": ${this.reason.message}`
  }

  /**
   * How long to wait before a retry: the reason's `retryAfter`. Always absent for `PermitsExceedCapacity`,
   * `Draining`, `KeysExhausted` and `LeaseLost`.
   *
   * @since 0.1.0
   */
  get retryAfter(): Duration.Duration | undefined {
    return "retryAfter" in this.reason ? this.reason.retryAfter : undefined
  }
}

/**
 * Throttles effects: decides when an effect may start, and how many may run.
 *
 * A policy ({@link rate}, {@link tokenBucket}, {@link window}, {@link concurrency}, {@link spacing}, {@link none}, or
 * several of them in {@link all}) is a value, made once. Piped, it throttles that effect. It is also a Layer: code that
 * requires the {@link Throttle} service leaves the policy to the edge of the app.
 *
 * The operations have the names of Effect's `Semaphore`.
 *
 * @since 0.1.0
 * @module
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Layer from "effect/Layer"
import type * as LogLevel from "effect/LogLevel"
import type * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as CallBoundsInternal from "./internal/bounds.ts"
import * as CallerInternal from "./internal/caller.ts"
import type * as Counts from "./internal/counts.ts"
import * as PolicyConfig from "./internal/data/config.ts"
import * as Construct from "./internal/data/construct.ts"
import * as PolicySchema from "./internal/data/schema.ts"
import * as Words from "./internal/data/words.ts"
import * as LevelsEngine from "./internal/levels/engine.ts"
import * as Metrics from "./internal/metrics.ts"
import * as Observe from "./internal/observe.ts"
import * as ThrottleOperations from "./internal/operations.ts"
import * as Plan from "./internal/plan.ts"
import * as PolicyValue from "./internal/policy.ts"
import {
  type Cost,
  type ErrorOf,
  isPolicy,
  type Operations,
  type Permit,
  type Policy,
  type Remaining,
  type Statistics,
  Throttle,
  type UnitsOfAll,
  type UsePermitsForms,
  type WithPermitsForms,
  type WithPermitsIfAvailableForms
} from "./internal/service.ts"
import * as LocalThrottle from "./internal/throttle.ts"
import type { ThrottleError } from "./ThrottleError.ts"

export {
  type Cost,
  type ErrorOf,
  isPolicy,
  type Operations,
  type Permit,
  type Policy,
  type Remaining,
  type Statistics,
  Throttle,
  type UnitOf,
  type UnitsOfAll,
  type UsePermitsForms,
  type WithPermitsForms,
  type WithPermitsIfAvailableForms
} from "./internal/service.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Policies
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Options without {@link Bounds}: such a policy adds no error.
 *
 * @category options
 * @since 0.1.0
 */
export interface Unbounded {
  readonly maxQueue?: undefined
  readonly maxQueuePerCaller?: undefined
  readonly maxWait?: undefined
  readonly timeout?: undefined
}

/**
 * Options of every policy.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<out U extends string = string> extends Unbounded {
  /**
   * The throttle's name in logs, spans, metrics and errors. Default: the kind of policy, or the key of its Service
   * class.
   */
  readonly name?: string | undefined
  /** The unit that the policy counts, such as "tokens". Default: permits, of which a call costs 1. */
  readonly unit?: U | undefined
  /**
   * The order in which waiting calls start. "arrival": first come, first served. "priority": urgent calls first, see
   * `ageing`. "fair": the callers share the limits by their weights. {@link withCaller} names the caller of a call. Only
   * for a whole policy, not for a part of {@link all}. Default: "arrival".
   */
  readonly order?: "arrival" | "priority" | "fair" | undefined
  /**
   * The time of waiting that one step of priority is worth: a call of priority 1 starts before calls of priority 0 that
   * arrived less than `ageing` before it, and after all others, so no call starves. A duration > 0. Required for the
   * order "priority". In the order "fair" it applies among the calls of one caller; default: they start by arrival.
   */
  readonly ageing?: Duration.Input | undefined
}

/**
 * Options that bound the queue and the wait.
 *
 * **Details**
 *
 * `maxQueue` and `maxWait` are checked when a call arrives that cannot start at once, and `maxWait` again for the
 * waiting calls when a pause or an update makes them wait longer. `timeout` ends a wait. A rejected call is charged
 * nothing. A policy with a bound adds `ThrottleError` to the errors of the effects that it throttles.
 *
 * @see {@link ThrottleError} for the reasons
 * @category options
 * @since 0.1.0
 */
export interface Bounds {
  /**
   * Maximum number of waiting calls; a further call fails with `QueueFull`. An integer ≥ 0; 0 rejects a call that
   * cannot start at once. Default: no bound.
   */
  readonly maxQueue?: number | undefined
  /**
   * Maximum number of waiting calls of one caller, see {@link withCaller}; a further one fails with `QueueFull`. An
   * integer ≥ 0, below `maxQueue`: at or above that it has no effect. Default: no bound.
   */
  readonly maxQueuePerCaller?: number | undefined
  /**
   * Maximum estimated wait; a call whose estimate is longer fails with `WaitTooLong`. A duration > 0. Default: no
   * bound. Throws a `RangeError` for a policy of concurrency alone, since the end of a running call is unknown, and for
   * every order but "arrival", since later calls may start first.
   */
  readonly maxWait?: Duration.Input | undefined
  /**
   * Maximum wait; a call that has waited that long fails with `TimedOut`, unless it is ready exactly then. The run is
   * not counted. A duration > 0. Default: no bound.
   */
  readonly timeout?: Duration.Input | undefined
}

/**
 * Options of a policy, and {@link Bounds}.
 *
 * @category options
 * @since 0.1.0
 */
export type Bounded<O extends Unbounded> = Omit<O, keyof Bounds> & Bounds

/**
 * Options of {@link rate}.
 *
 * @category options
 * @since 0.1.0
 */
export interface RateOptions<out U extends string = string> extends Options<U> {
  /** Permits per `per`. An integer ≥ 1. */
  readonly limit: number
  /** The duration in which `limit` permits start. Default: 1 second. */
  readonly per?: Duration.Input | undefined
  /**
   * Additional permits that may start at once. Unused time restores one every `per / limit`. An integer ≥ 0. Default:
   * 0.
   */
  readonly burst?: number | undefined
}

/**
 * Makes a policy of one start every `per / limit`, and up to `burst` more at once on credit.
 *
 * @see {@link tokenBucket} for the same algorithm with the total capacity as an option
 * @see {@link window} for an exact limit in any span of time
 * @category policies
 * @since 0.1.0
 */
export const rate: {
  /**
   * Makes a policy of one start every `per / limit`, and up to `burst` more at once on credit.
   *
   * **When to use**
   *
   * To keep to a documented quota at an even pace. With `burst: 3` an idle throttle starts four calls at once; only
   * unused time restores the credit.
   *
   * **Details**
   *
   * The generic cell rate algorithm (ITU-T I.371) with a capacity of `1 + burst`. In any span of time t at most `1 +
   * burst + (t + 10 ms) · limit / per` permits start. The 10 ms are the lateness tolerance: a call that waited and
   * starts up to 10 ms late, because of timers, is charged at its scheduled time. Calls start first come, first served.
   * A call that is interrupted while it waits is charged nothing.
   *
   * **Errors**
   *
   * A piped effect gets none. The operations that take a cost fail with `PermitsExceedCapacity` for more than `1 +
   * burst`. Throws a `RangeError` for invalid options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const limited = Throttle.rate({ limit: 100, per: "1 second", burst: 2 })
   *
   * const fetchUser = (id: number) => Effect.succeed({ id }).pipe(limited)
   *
   * // Three at once, the fourth 10 ms later
   * await Effect.runPromise(Effect.forEach([1, 2, 3, 4], fetchUser, { concurrency: "unbounded" }))
   * ```
   *
   * @see {@link tokenBucket} for the same algorithm with the total capacity as an option
   * @see {@link window} for an exact limit in any span of time
   */
  <const U extends string = "permits">(options: RateOptions<U>): Policy<never, NoInfer<U>>
  /**
   * Makes a policy of one start every `per / limit`, and up to `burst` more at once on credit, with bounds: a call that
   * would exceed a bound is rejected.
   *
   * `maxQueue` bounds the number of waiting calls, `maxWait` the estimated wait, `timeout` the actual wait. They apply
   * only to calls that cannot start at once.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`, or `PermitsExceedCapacity` for a cost
   * above `1 + burst`. A rejected call is charged nothing. Throws a `RangeError` for invalid options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const search = Throttle.rate({ limit: 10, maxQueue: 100, timeout: "5 seconds" })
   *
   * const find = (text: string) =>
   *   Effect.succeed([text]).pipe(search, Effect.catchTag("ThrottleError", () => Effect.succeed(["busy"])))
   *
   * await Effect.runPromise(find("throttle"))
   * ```
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(options: Bounded<RateOptions<U>>): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<RateOptions>): Policy<never> => PolicyValue.make(Construct.construct("Rate", options))

/**
 * Options of {@link tokenBucket}.
 *
 * @category options
 * @since 0.1.0
 */
export interface TokenBucketOptions<out U extends string = string> extends Options<U> {
  /** Permits that the bucket holds: the maximum that can start at once. An integer ≥ 1. */
  readonly capacity: number
  /** Permits added per `per`, continuously. An integer ≥ 1. */
  readonly refill: number
  /** The duration in which `refill` permits are added. Default: 1 second. */
  readonly per?: Duration.Input | undefined
  /**
   * Permits in the bucket when its throttle is made. An integer from 0 to `capacity`. Default: `capacity`.
   *
   * It matters only at the beginning: an update, and a {@link reset}, do not return to it. In a map the buckets of all
   * keys are filled from the making of the map on. Processes cannot share a policy with it.
   */
  readonly initial?: number | undefined
}

/**
 * Makes a policy of a bucket of `capacity` permits that refills continuously by `refill` every `per`, and is full at
 * first unless `initial` says less.
 *
 * @see {@link rate} for an even pace with little burst
 * @category policies
 * @since 0.1.0
 */
export const tokenBucket: {
  /**
   * Makes a policy of a bucket of `capacity` permits that refills continuously by `refill` every `per`, and is full at
   * first unless `initial` says less: so many permits that all processes of a new deployment together do not burst.
   *
   * **When to use**
   *
   * For quotas in these terms, such as requests and tokens per minute of a model provider, and with a `unit` for calls
   * of different weights.
   *
   * **Details**
   *
   * The algorithm of {@link rate} in other terms (a leaky bucket, ITU-T I.371). In any span of time t at most `capacity
   * + (t + 10 ms) · refill / per` permits start, so up to `capacity + refill` in the first `per`: keep that sum below
   * the limit of a server that counts windows. Calls start first come, first served: light calls do not overtake a
   * heavy one at the head of the queue. A call that is interrupted while it waits is charged nothing.
   *
   * **Errors**
   *
   * A piped effect gets none. The operations that take a cost fail with `PermitsExceedCapacity` for more than
   * `capacity`. Throws a `RangeError` for invalid options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * // For a quota of 90,000 in any minute
   * const tokens = Throttle.tokenBucket({ capacity: 10_000, refill: 75_000, per: "1 minute", unit: "tokens" })
   *
   * const complete = (prompt: string) =>
   *   Effect.succeed(prompt.toUpperCase()).pipe(Throttle.withPermits({ tokens: prompt.length }))
   *
   * await Effect.runPromise(complete("hello").pipe(Effect.provide(tokens)))
   * ```
   *
   * @see {@link rate} for an even pace with little burst
   */
  <const U extends string = "permits">(options: TokenBucketOptions<U>): Policy<never, NoInfer<U>>
  /**
   * Makes a policy of a bucket of `capacity` permits that refills continuously by `refill` every `per`, and is full at
   * first unless `initial` says less, with bounds: a call that would exceed a bound is rejected.
   *
   * `maxQueue` bounds the number of waiting calls, `maxWait` the estimated wait, `timeout` the actual wait. They apply
   * only to calls that cannot start at once.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`, or `PermitsExceedCapacity` for a cost
   * above `capacity`. A rejected call is charged nothing. Throws a `RangeError` for invalid options.
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(options: Bounded<TokenBucketOptions<U>>): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<TokenBucketOptions>): Policy<never> =>
  PolicyValue.make(Construct.construct("TokenBucket", options))

/**
 * Options of {@link window}.
 *
 * @category options
 * @since 0.1.0
 */
export interface WindowOptions<out U extends string = string> extends Options<U> {
  /** Permits in each window. An integer ≥ 1. */
  readonly limit: number
  /** The length of the window. Required. */
  readonly per: Duration.Input
  /** "sliding": any span of time of that length. "fixed": the windows of the wall clock. Default: "sliding". */
  readonly kind?: "sliding" | "fixed" | undefined
}

/**
 * Options of {@link window} for the windows of a calendar.
 *
 * @category options
 * @since 0.2.0
 */
export interface CalendarWindowOptions<out U extends string = string> extends Options<U> {
  readonly kind: "calendar"
  /** Permits in each window. An integer ≥ 1. */
  readonly limit: number
  /** The unit of the calendar that a window lasts. Weeks begin on Monday, as in ISO 8601. Required. */
  readonly per: "day" | "week" | "month"
  /** The name of the time zone whose calendar counts, such as "America/Los_Angeles". Default: "UTC". */
  readonly zone?: string | undefined
}

/**
 * Makes a policy of at most `limit` permits in a window of length `per`.
 *
 * @see {@link rate} for an even pace with constant memory
 * @category policies
 * @since 0.1.0
 */
export const window: {
  /**
   * Makes a policy of at most `limit` permits in a window of length `per`.
   *
   * **When to use**
   *
   * Sliding, if a server counts "at most n in any minute" and a refusal is expensive: no span of that length has more
   * starts. Fixed, if a quota restarts at the full minute; then up to `2 · limit` may start around the edge of a
   * window.
   *
   * **Details**
   *
   * A sliding window is an exact log of at most `limit` starts. A fixed one counts in the windows [k·per, (k+1)·per) of
   * the wall clock; the end of a window is fixed in monotonic time when it opens, so setting the clock neither frees
   * nor blocks calls. Starts are charged when they happen, without a lateness tolerance. Calls start first come, first
   * served. A call that is interrupted while it waits is charged nothing.
   *
   * **Errors**
   *
   * A piped effect gets none. The operations that take a cost fail with `PermitsExceedCapacity` for more than `limit`.
   * Throws a `RangeError` for invalid options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const limited = Throttle.window({ limit: 3, per: "50 millis" })
   *
   * await Effect.runPromise(Effect.forEach([1, 2, 3, 4], (n) => Effect.succeed(n).pipe(limited)))
   * ```
   *
   * @see {@link rate} for an even pace with constant memory
   */
  <const U extends string = "permits">(options: WindowOptions<U>): Policy<never, NoInfer<U>>
  /**
   * Makes a policy of at most `limit` permits in each day, week or month of a time zone's calendar.
   *
   * **When to use**
   *
   * For a quota that restarts at midnight, on Monday or on the first of the month, in the zone that the server counts
   * in. Up to `2 · limit` may start around the edge of a window. Weeks begin on Monday, as in ISO 8601.
   *
   * **Details**
   *
   * A window begins at the first instant at which a clock in the zone shows its first date or a later one, so days have
   * 23 or 25 hours where clocks change, and a day whose midnight is skipped begins when the clock is set forward. The
   * end of a window is fixed in monotonic time when it opens, so setting the clock neither frees nor blocks calls; it
   * ends late by the time for which the machine slept. Calls start first come, first served. A call that is interrupted
   * while it waits is charged nothing.
   *
   * **Errors**
   *
   * A piped effect gets none. The operations that take a cost fail with `PermitsExceedCapacity` for more than `limit`.
   * Throws a `RangeError` for invalid options, such as a zone that the runtime does not know.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const quota = Throttle.window({ kind: "calendar", limit: 1_000, per: "day", zone: "America/Los_Angeles" })
   *
   * console.log(Throttle.describe(quota)) // at most 1000 in each calendar day of America/Los_Angeles
   *
   * await Effect.runPromise(Effect.succeed("found").pipe(quota))
   * ```
   *
   * @see {@link rate} for an even pace with constant memory
   */
  <const U extends string = "permits">(options: CalendarWindowOptions<U>): Policy<never, NoInfer<U>>
  /**
   * Makes a policy of at most `limit` permits in a window of length `per`, with bounds: a call that would exceed a
   * bound is rejected. The window is any span of that length; with `kind: "fixed"` one of the wall clock; with `kind:
   * "calendar"` a day, week or month of a time zone.
   *
   * `maxQueue` bounds the number of waiting calls, `maxWait` the estimated wait, `timeout` the actual wait. They apply
   * only to calls that cannot start at once. If the waiting calls have different costs, an estimate takes time
   * proportional to their number.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`, or `PermitsExceedCapacity` for a cost
   * above `limit`. A rejected call is charged nothing. Throws a `RangeError` for invalid options.
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(
    options: Bounded<WindowOptions<U>> | Bounded<CalendarWindowOptions<U>>
  ): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<WindowOptions> | Bounded<CalendarWindowOptions>): Policy<never> =>
  PolicyValue.make(Construct.construct("Window", options))

/**
 * Options of {@link concurrency}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConcurrencyOptions<out U extends string = string> extends Options<U> {
  /** Permits that may be held at once. An integer ≥ 1. */
  readonly limit: number
  /**
   * The result of a call that would wait for permits that its own fiber holds: "die" with an error that says so, or
   * "bypass": it runs without permits. Default: "die".
   */
  readonly onReentry?: "die" | "bypass" | undefined
}

/**
 * Makes a policy of at most `limit` permits held at once.
 *
 * @see {@link all} to limit the rate as well
 * @category policies
 * @since 0.1.0
 */
export const concurrency: {
  /**
   * Makes a policy of at most `limit` permits held at once.
   *
   * **When to use**
   *
   * To limit running work instead of starts: connections, memory, a server's "5 at a time".
   *
   * **Details**
   *
   * The permits are those of an Effect `Semaphore` behind a queue. Calls start first come, first served, also weighted
   * ones, whereas a bare `Semaphore` lets a light call overtake a heavy one. A waiting call costs O(1), however many
   * wait. A call releases its permits when it succeeds, fails, dies or is interrupted. A call that is interrupted while
   * it waits has taken none.
   *
   * **Errors**
   *
   * A piped effect gets none. The operations that take a cost fail with `PermitsExceedCapacity` for more than `limit`.
   * Throws a `RangeError` for invalid options.
   *
   * **Gotchas**
   *
   * A fiber that holds a permit and requests another from the same throttle may wait for itself. If that is certain,
   * the inner call dies with an error that says so; with `onReentry: "bypass"` it runs without permits. Requests of
   * child fibers are not detected.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const connections = Throttle.concurrency({ limit: 2 })
   *
   * const query = (n: number) => Effect.succeed(n).pipe(Effect.delay("5 millis"), connections)
   *
   * await Effect.runPromise(Effect.forEach([1, 2, 3, 4], query, { concurrency: "unbounded" }))
   * ```
   *
   * @see {@link all} to limit the rate as well
   */
  <const U extends string = "permits">(options: ConcurrencyOptions<U>): Policy<never, NoInfer<U>>
  /**
   * Makes a policy of at most `limit` permits held at once, with bounds: a call that would exceed a bound is rejected.
   *
   * `maxQueue` bounds the number of waiting calls, `timeout` the wait. They apply only to calls that cannot start at
   * once. `maxWait` throws a `RangeError`, since the end of a running call is unknown.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull` or `TimedOut`, or `PermitsExceedCapacity` for a cost above `limit`. A
   * rejected call is charged nothing. Throws a `RangeError` for invalid options.
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(options: Bounded<ConcurrencyOptions<U>>): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<ConcurrencyOptions>): Policy<never> =>
  PolicyValue.make(Construct.construct("Concurrency", options))

/**
 * Options of {@link spacing}.
 *
 * @category options
 * @since 0.1.0
 */
export interface SpacingOptions<out U extends string = string> extends Options<U> {
  /** Minimum time between two starts, or from an end to the next start. */
  readonly interval: Duration.Input
  /**
   * Whether every start, the first one included, lies on a multiple of `interval` of the wall clock. Default: false.
   */
  readonly align?: boolean | undefined
  /**
   * "start": the interval begins at a start. "end": it begins at the end of a call, and one call runs at a time.
   * Default: "start".
   */
  readonly from?: "start" | "end" | undefined
  /**
   * With `from: "end"`, the result of a call that would wait for the end of its own fiber's call: "die" with an error
   * that says so, or "bypass": it runs without permits. Default: "die".
   */
  readonly onReentry?: "die" | "bypass" | undefined
}

/**
 * Makes a policy of at least `interval` between one start and the next, also for simultaneous calls.
 *
 * @see {@link rate} for a pace that allows bursts and makes up for late timers
 * @category policies
 * @since 0.1.0
 */
export const spacing: {
  /**
   * Makes a policy of at least `interval` between one start and the next, also for simultaneous calls.
   *
   * **When to use**
   *
   * For pollers and polite crawlers. `align: true` for jobs on the full minute; `from: "end"` if the other side needs a
   * rest after each call.
   *
   * **Details**
   *
   * Any cost above 0 is one start. Starts are charged when they happen, without a lateness tolerance, so the gap is
   * exact. With `align` each start belongs to a multiple of `interval` of the wall clock, and is charged to it if it is
   * less than an interval late, so a late timer loses no slot. With `from: "end"` the interval begins when a call ends
   * in any way, interruption included. Calls start first come, first served. A call that is interrupted while it waits
   * is charged nothing.
   *
   * **Errors**
   *
   * A piped effect gets none. Throws a `RangeError` for invalid options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const polite = Throttle.spacing({ interval: "10 millis" })
   *
   * await Effect.runPromise(Effect.forEach([1, 2, 3], (n) => Effect.succeed(n).pipe(polite), { concurrency: "unbounded" }))
   * ```
   *
   * @see {@link rate} for a pace that allows bursts and makes up for late timers
   */
  <const U extends string = "permits">(options: SpacingOptions<U>): Policy<never, NoInfer<U>>
  /**
   * Makes a policy of at least `interval` between one start and the next, also for simultaneous calls, with bounds: a
   * call that would exceed a bound is rejected.
   *
   * `maxQueue` bounds the number of waiting calls, `maxWait` the estimated wait, `timeout` the actual wait. They apply
   * only to calls that cannot start at once.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`. A rejected call is charged nothing.
   * Throws a `RangeError` for invalid options.
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(options: Bounded<SpacingOptions<U>>): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<SpacingOptions>): Policy<never> => PolicyValue.make(Construct.construct("Spacing", options))

/**
 * A policy without a limit: every call starts at once, and every unit is accepted.
 *
 * **When to use**
 *
 * To switch a throttle off in a test or a configuration: `GitHub.layerWith(Throttle.none)`.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * await Effect.runPromise(Effect.succeed(1).pipe(Throttle.withPermits({ tokens: 9 }), Effect.provide(Throttle.none)))
 * ```
 *
 * @see {@link shadow} to measure a limit without enforcing it
 * @category policies
 * @since 0.1.0
 */
export const none: Policy<never, string> = PolicyValue.make(Construct.construct("None", {}))

/**
 * Combines policies into one: an effect starts when every part allows it, at one instant.
 *
 * @see {@link Cost} for a cost in several units
 * @category policies
 * @since 0.1.0
 */
export const all: {
  /**
   * Combines policies into one: an effect starts when every part allows it, at one instant.
   *
   * **When to use**
   *
   * For a quota with several limits, such as requests per minute, tokens per minute and calls at once. An effect that
   * is piped through two policies waits in two queues instead: calls pass the first, gather at the second and break the
   * first limit when they start, or are charged by the first and rejected by the second.
   *
   * **Details**
   *
   * There is one queue. Its head waits until all permits are free and all time-based parts are ready; then every part
   * is charged in one step. A call that is rejected, times out or is interrupted while it waits is charged nothing. The
   * smallest bound of each kind among the parts applies. Parts are read as data: each `all` has meters and permits of
   * its own, also for a part value that is used elsewhere. `unit` is the unit of parts that have none.
   * `Throttle.all([])` is no limit.
   *
   * **Errors**
   *
   * A piped effect gets `ThrottleError` if a part has a bound, otherwise none. The operations that take a cost fail
   * with `PermitsExceedCapacity` for more than a part can ever grant. Throws a `RangeError` for invalid options, and
   * for aligned spacings whose slots coincide less than once in 10,000 intervals.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const openai = Throttle.all([
   *   // For a quota of 500 requests and 90,000 tokens in any minute
   *   Throttle.tokenBucket({ capacity: 50, refill: 400, per: "1 minute" }),
   *   Throttle.tokenBucket({ capacity: 10_000, refill: 75_000, per: "1 minute", unit: "tokens" }),
   *   Throttle.concurrency({ limit: 20 })
   * ], { name: "openai", maxQueue: 1_000 })
   *
   * const complete = (prompt: string) =>
   *   Effect.succeed(prompt.length).pipe(Throttle.withPermits({ tokens: prompt.length }))
   *
   * await Effect.runPromise(complete("hello").pipe(Effect.provide(openai)))
   * ```
   */
  <P extends Policy<any>, const U extends string = "permits">(
    policies: ReadonlyArray<P>,
    options?: Options<U>
  ): Policy<ErrorOf<P>, UnitsOfAll<P, NoInfer<U>>>
  /**
   * Combines policies into one, with bounds: an effect starts when every part allows it, at one instant, and a call
   * that would exceed a bound is rejected.
   *
   * The smallest bound of each kind, of the whole and of its parts, applies. Bounds apply only to calls that cannot
   * start at once.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`, or `PermitsExceedCapacity` for more than
   * a part can ever grant. A rejected call is charged nothing. Throws a `RangeError` for invalid options, and for
   * `maxWait` if all parts are concurrency.
   *
   * @see {@link Bounds} for each bound
   */
  <P extends Policy<any>, const U extends string = "permits">(
    policies: ReadonlyArray<P>,
    options: Bounded<Options<U>>
  ): Policy<ThrottleError, UnitsOfAll<P, NoInfer<U>>>
} = (policies: ReadonlyArray<Policy<any>>, options: Bounded<Options> = {}): Policy<never> => {
  if (!Array.isArray(policies)) {
    throw new RangeError(
      `Throttle.all: "policies" must be an array of policies, received ${Formatter.format(policies)}`
    )
  }
  const parts = Array.from(policies, (part: unknown, i) => {
    if (isPolicy(part)) return part.data
    throw new RangeError(`Throttle.all: "policies[${i}]" must be a policy, received ${Formatter.format(part)}`)
  })
  const data = Construct.construct("All", options, { policies: parts })
  return PolicyValue.make(data, policies.some((part) => PolicyValue.mayReject(part)) || Plan.isBounded(Plan.make(data)))
}

/**
 * Makes a policy that counts, logs and measures what another one would do, and lets every call start at once.
 *
 * **When to use**
 *
 * To try a limit on real traffic: pipe the effect through the policy in force and through the candidate in shadow. A
 * whole policy is in shadow, not a part of an {@link all}.
 *
 * **Details**
 *
 * The policy's queue is simulated: a call that would wait enters it, is charged and takes permits when the policy would
 * have started it, and holds them as long as it really runs. Statistics and metrics are those that the policy would
 * have in force; log lines and events have `shadow: true`. The simulation advances whenever the throttle is used or
 * read, so a timeout is reported then. Without `maxQueue` its queue holds at most 10,000 calls; further ones count as
 * admitted. `name` replaces the policy's name.
 *
 * **Errors**
 *
 * A throttled effect gets none. Throws a `RangeError` for invalid options, and for a policy that is already in shadow.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const candidate = Throttle.shadow(Throttle.rate({ limit: 5, maxQueue: 0 }))
 *
 * const program = Effect.gen(function*() {
 *   yield* Effect.forEach([1, 2, 3], (n) => Effect.succeed(n).pipe(candidate))
 *   return yield* (yield* Throttle.inline(candidate)).statistics
 * })
 *
 * await Effect.runPromise(program) // { admitted: 1, rejected: { QueueFull: 2, … }, … }
 * ```
 *
 * @see {@link none} for no limit and no simulation
 * @category policies
 * @since 0.1.0
 */
export const shadow = <U extends string>(
  policy: Policy<any, U>,
  options: { readonly name?: string | undefined } = {}
): Policy<never, U> => PolicyValue.make(Construct.construct("Shadow", options, { policy: PolicyValue.dataOf(policy) }))

// ---------------------------------------------------------------------------------------------------------------------
// Policies as data
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The schema of policies as data.
 *
 * @see {@link decode} to make a policy of data from outside
 * @see {@link fromData} to make one of data in code
 * @category data
 * @since 0.1.0
 */
export const PolicyData: Schema.Codec<PolicySchema.PolicyData, PolicySchema.PolicyEncoded> = PolicySchema.PolicyData

/**
 * A policy as data: plain JSON, durations in milliseconds, defaults filled in.
 *
 * @category data
 * @since 0.1.0
 */
export type PolicyData = PolicySchema.PolicyData

/**
 * Makes a policy of its data.
 *
 * The compiler does not know the bounds in the data, so the policy adds `ThrottleError`.
 *
 * **Errors**
 *
 * Throws the `RangeError` of the constructor for invalid options, and a `RangeError` for an unknown tag.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const limited = Throttle.fromData({ _tag: "Rate", limit: 30, per: "1 minute" })
 *
 * await Effect.runPromise(Effect.succeed(1).pipe(limited))
 * ```
 *
 * @see {@link decode} for data from outside
 * @category data
 * @since 0.1.0
 */
export const fromData = (data: PolicySchema.PolicyEncoded): Policy<ThrottleError> =>
  PolicyValue.make(Construct.constructData(data), true)

/**
 * Makes a policy of data from outside, such as parsed JSON.
 *
 * Fails with a `SchemaError` for an unknown tag or option and for an invalid value.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Throttle.decode(JSON.parse(`{ "_tag": "Concurrency", "limit": 5 }`)).pipe(
 *   Effect.map(Throttle.describe)
 * )
 *
 * await Effect.runPromise(program) // "at most 5 at once"
 * ```
 *
 * @see {@link config} to read it from the app's configuration
 * @category data
 * @since 0.1.0
 */
export const decode = (input: unknown): Effect.Effect<Policy<ThrottleError>, Schema.SchemaError> =>
  Effect.map(PolicySchema.decode(input), (data) => PolicyValue.make<ThrottleError>(data, true))

/**
 * Returns a policy in words, such as "30 per second, burst 10; at most 5 at once".
 *
 * @category data
 * @since 0.1.0
 */
export const describe = (policy: Policy<any> | PolicySchema.PolicyData): string =>
  Words.describe(typeof policy === "function" ? policy.data : policy)

/**
 * Returns a `Config` of a policy, to be read from the app's configuration.
 *
 * The value of the setting is JSON, `GITHUB_THROTTLE={"_tag":"Rate","limit":30}`, or a structure if the provider has
 * structures (`ConfigProvider.fromUnknown`). Reading it fails with a `ConfigError` if it is missing or is not the data
 * of a policy. Unknown options are an error in JSON; in a structure they are ignored.
 *
 * **Example**
 *
 * ```ts
 * import { Config, ConfigProvider, Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const policy = Throttle.config("THROTTLE").pipe(Config.withDefault(Throttle.none))
 *
 * const env = ConfigProvider.fromEnv({ env: {} })
 *
 * const program = Effect.map(policy, Throttle.describe)
 *
 * await Effect.runPromise(Effect.provideService(program, ConfigProvider.ConfigProvider, env)) // "no limit"
 * ```
 *
 * @see {@link layerConfig} for a Layer of it
 * @category data
 * @since 0.1.0
 */
export const config = (name: string): Config.Config<Policy<ThrottleError>> =>
  Config.map(PolicyConfig.config(name), (data) => PolicyValue.make<ThrottleError>(data, true))

/**
 * Makes the Layer of a policy that is read from the app's configuration when the Layer is built.
 *
 * Fails with the `ConfigError` of the configuration.
 *
 * **Example**
 *
 * ```ts
 * import { ConfigProvider, Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const env = ConfigProvider.fromEnv({ env: { GITHUB_THROTTLE: `{"_tag":"Rate","limit":30}` } })
 *
 * const program = Effect.succeed("fetched").pipe(
 *   Throttle.withPermit,
 *   Effect.provide(Throttle.layerConfig(Throttle.config("GITHUB_THROTTLE"))),
 *   Effect.provideService(ConfigProvider.ConfigProvider, env)
 * )
 *
 * await Effect.runPromise(program) // "fetched"
 * ```
 *
 * @see `Throttle.config` for the configuration of a policy
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (config: Config.Config<Policy<any>>): Layer.Layer<Throttle, Config.ConfigError> =>
  Layer.unwrap(Effect.map(config, (policy): Layer.Layer<Throttle> => policy))

// ---------------------------------------------------------------------------------------------------------------------
// Throttles
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Makes a throttle that lives until the scope closes; then waiting calls are interrupted, and so are later calls.
 *
 * **When to use**
 *
 * For a throttle that belongs to something else, such as a connection or a job. For a service provide the policy, which
 * is a Layer. Throws a `RangeError` for a value that is not a policy.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
 *   yield* throttle.withPermit(Effect.void)
 *   return yield* throttle.statistics
 * })
 *
 * await Effect.runPromise(Effect.scoped(program)) // { admitted: 1, … }
 * ```
 *
 * @see {@link inline} for the throttle of inline use
 * @category constructors
 * @since 0.1.0
 */
export const make = (policy: Policy<any>): Effect.Effect<Throttle, never, Scope.Scope> => makeNamed(policy)

const makeNamed = (policy: Policy<any>, name?: string): Effect.Effect<Throttle, never, Scope.Scope> => {
  const plan = LocalThrottle.planOf(policy)
  return Effect.map(LocalThrottle.makeScoped({ ...plan, name: name ?? plan.name }, true), ({ throttle }) => throttle)
}

/**
 * Returns the throttle that inline use of a policy runs in: the provided one if the policy is provided, otherwise that
 * of the current Clock.
 *
 * **When to use**
 *
 * To read the statistics of an inline policy, or for a weighted call. Throws a `RangeError` for a value that is not a
 * policy.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const limited = Throttle.rate({ limit: 10 })
 *
 * const program = Effect.gen(function*() {
 *   yield* limited(Effect.void)
 *   const throttle = yield* Throttle.inline(limited)
 *   return (yield* throttle.statistics).admitted
 * })
 *
 * await Effect.runPromise(program) // 1
 * ```
 *
 * @see {@link make} for a separate throttle
 * @category constructors
 * @since 0.1.0
 */
export const inline = (policy: Policy<any>): Effect.Effect<Throttle> => PolicyValue.throttleOf(policy)

// ---------------------------------------------------------------------------------------------------------------------
// Operations of the provided throttle
// ---------------------------------------------------------------------------------------------------------------------

/** Runs an effect once the throttle under a key grants one permit, in a step of the calling fiber. */
const withPermitOf =
  <Self>(key: Context.Key<Self, Throttle>) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | ThrottleError, R | Self> =>
    Effect.withFiber((fiber) => {
      const throttle = Context.getUnsafe(fiber.context, key)
      const engine = ThrottleOperations.engineOf(throttle)
      // By way of its `withPermit` it would be a step more, 70 ns.
      return engine === undefined ? throttle.withPermit(self) : engine.run(self, undefined)
    })

const provided: Operations<ThrottleError, Throttle> = ThrottleOperations.derive<ThrottleError, Throttle>((f) =>
  Effect.flatMap(Throttle, f)
)

/**
 * Runs an effect once the provided throttle grants one permit.
 *
 * **Details**
 *
 * Calls start first come, first served. A call that is interrupted while it waits leaves the queue and is charged
 * nothing. Permits of concurrency are released when the effect ends in any way.
 *
 * **Errors**
 *
 * `ThrottleError` if the provided policy has a bound that the call would exceed.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const fetchTeam = Effect.succeed("team").pipe(Throttle.withPermit)
 *
 * await Effect.runPromise(fetchTeam.pipe(Effect.provide(Throttle.concurrency({ limit: 5 }))))
 * ```
 *
 * @see {@link withPermits} for another cost
 * @category combinators
 * @since 0.1.0
 */
export const withPermit = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R | Throttle> => withPermitOf(Throttle)(self)

/**
 * Runs an effect once the provided throttle grants its {@link Cost}: a number of permits, or an amount for each unit.
 * Order, interruption and errors are those of {@link WithPermitsForms}.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const upload = Effect.succeed("done").pipe(Throttle.withPermits(3))
 *
 * await Effect.runPromise(upload.pipe(Effect.provide(Throttle.rate({ limit: 10, burst: 9 }))))
 * ```
 *
 * @see {@link withPermitsIfAvailable} for a call that must not wait
 * @category combinators
 * @since 0.1.0
 */
export const withPermits: WithPermitsForms<Throttle> = provided.withPermits

/**
 * Runs an effect only if the provided throttle can grant its cost without a wait, and returns its value as
 * `Option.some`; otherwise returns `Option.none()` and runs nothing. It never overtakes waiting calls.
 *
 * Fails with `PermitsExceedCapacity` for more than the policy can ever grant. Dies with a `RangeError` for an invalid
 * cost, as {@link withPermits} does.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const refresh = Effect.succeed("fresh").pipe(
 *   Throttle.withPermitsIfAvailable(1),
 *   Effect.map(Option.getOrElse(() => "from the cache"))
 * )
 *
 * await Effect.runPromise(refresh.pipe(Effect.provide(Throttle.rate({ limit: 1 })))) // "fresh"
 * ```
 *
 * @see {@link withPermits} for the variant that waits
 * @category combinators
 * @since 0.1.0
 */
export const withPermitsIfAvailable: WithPermitsIfAvailableForms<Throttle> = provided.withPermitsIfAvailable

/**
 * Waits until a call may start, charges it and holds nothing. Default cost: one permit.
 *
 * For policies that decide by time alone. Fails with `ThrottleError` if the call would exceed a bound or the capacity.
 * Dies with a `RangeError` for an invalid cost, and if a part limits running calls (concurrency, or spacing from the
 * end), since `wait` knows no end of the call: use {@link takeScoped} there.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.wait()
 *   return "my turn"
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 10 }))))
 * ```
 *
 * @see {@link takeScoped} to hold permits without wrapping an effect
 * @category combinators
 * @since 0.1.0
 */
export const wait: (cost?: Cost) => Effect.Effect<void, ThrottleError, Throttle> = provided.wait

/**
 * Charges a call now if it may start at once, and returns whether it did; never waits and holds nothing. Default cost:
 * one permit.
 *
 * **When to use**
 *
 * To skip, drop or sample work that is above the limit: log lines, metrics, optional refreshes. It is the cheapest
 * operation.
 *
 * **Details**
 *
 * It charges and decides in one step, so interruption leaves either nothing or a charged call. It never overtakes
 * waiting calls, and is false in a pause. False charges nothing, and counts in no statistics. In shadow it is true.
 *
 * **Errors**
 *
 * Fails with `PermitsExceedCapacity` for more than the policy can ever grant, as {@link withPermitsIfAvailable} does:
 * false forever would hide the mistake. Dies with a `RangeError` for an invalid cost, and if a part limits running
 * calls (concurrency, or spacing from the end): use {@link withPermitsIfAvailable} there.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.forEach([1, 2, 3], () => Throttle.allow())
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 1, burst: 1 })))) // [true, true, false]
 * ```
 *
 * @see {@link wait} for the variant that waits
 * @see {@link withPermitsIfAvailable} to run an effect
 * @category combinators
 * @since 0.2.0
 */
export const allow: (cost?: Cost) => Effect.Effect<boolean, ThrottleError, Throttle> = provided.allow

/**
 * Takes permits and holds them until the scope closes. Default cost: one permit.
 *
 * The wait can be interrupted; taking the permits and adding their release to the scope cannot, so none is lost. Fails
 * and dies as {@link withPermits} does.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.scoped(Effect.gen(function*() {
 *   yield* Throttle.takeScoped()
 *   return "holding one of two"
 * }))
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.concurrency({ limit: 2 }))))
 * ```
 *
 * @see {@link withPermit} for permits around one effect
 * @see {@link Permit} to settle or cancel the call
 * @category combinators
 * @since 0.1.0
 */
export const takeScoped: (cost?: Cost) => Effect.Effect<Permit, ThrottleError, Throttle | Scope.Scope> =
  provided.takeScoped

/**
 * Takes permits, then runs the effect that a function makes of the {@link Permit}, which may be settled for the actual
 * cost.
 *
 * **When to use**
 *
 * If the cost is an estimate: tokens of a language model, points of an API, bytes of a response.
 *
 * **Details**
 *
 * The permits are held while the effect runs, and the permit may be settled until it ends. A call that fails or is
 * interrupted before it is settled has cost what it requested. Waiting, errors and defects are those of {@link
 * withPermits}.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const ask = (prompt: string) => Effect.succeed({ text: prompt.toUpperCase(), tokens: 12 })
 *
 * const complete = (prompt: string) =>
 *   Throttle.usePermits({ tokens: 1_000 })((permit) =>
 *     Effect.tap(ask(prompt), (answer) => permit.settle({ tokens: answer.tokens }))
 *   )
 *
 * const perMinute = Throttle.tokenBucket({ capacity: 10_000, refill: 75_000, per: "1 minute", unit: "tokens" })
 *
 * await Effect.runPromise(complete("hello").pipe(Effect.provide(perMinute)))
 * ```
 *
 * @see {@link takeScoped} for a permit that lives as long as a scope
 * @category combinators
 * @since 0.1.0
 */
export const usePermits: UsePermitsForms<Throttle> = provided.usePermits

/**
 * Lets no call start for a duration, waiting calls included.
 *
 * **When to use**
 *
 * When a server refuses one call for a while (`Retry-After`), so that the others do not try either.
 *
 * **Details**
 *
 * A second pause only lengthens the first; an infinite one lasts until {@link resume}. Bounds apply meanwhile:
 * `maxWait` counts the pause, for waiting calls too, which are rejected with `WaitTooLong` if they would now exceed it;
 * `timeout` runs on; the queue fills up to `maxQueue`. Running calls continue. A throttle in shadow holds no call back.
 * Dies with a `RangeError` for anything but a duration ≥ 0.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.pause("20 millis")
 *   yield* Throttle.wait() // 20 ms later
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 10 }))))
 * ```
 *
 * @see {@link resume} to end it
 * @category combinators
 * @since 0.1.0
 */
export const pause: (duration: Duration.Input) => Effect.Effect<void, never, Throttle> = provided.pause

/**
 * Ends a pause: waiting calls that may start do so at once. Without a pause it does nothing.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.pause("1 hour")
 *   yield* Throttle.resume
 *   yield* Throttle.wait() // at once
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 10 }))))
 * ```
 *
 * @see {@link pause}
 * @category combinators
 * @since 0.1.0
 */
export const resume: Effect.Effect<void, never, Throttle> = provided.resume

/**
 * Replaces the policy of the provided throttle while it is in use; what is spent stays spent.
 *
 * **When to use**
 *
 * When limits change at run time: another plan, another configuration, a server that reports its limits.
 *
 * **Details**
 *
 * A part continues the former part of the same kind, unit and given name; of several alike, by their order. A bucket
 * keeps its spent permits, at most the new capacity; a window keeps its log; held permits stay held, and a lower limit
 * admits no call until enough are released. A part that continues none has nothing spent; a former part that
 * is not continued is forgotten.
 *
 * Waiting calls keep their places and are decided anew at once. One that could never be granted fails with
 * `PermitsExceedCapacity`, one that would now wait longer than `maxWait` with `WaitTooLong`. A unit that no part counts
 * any more costs nothing. The throttle keeps its name. The next build of a Layer starts with the original policy.
 *
 * **Errors**
 *
 * Dies with a `RangeError` for a value that is not a policy, and for a policy with bounds if the type of the throttle's
 * policy has no `ThrottleError`, since its inline uses cannot fail. Policies from `fromData` or `decode`, Service
 * classes whose policy has bounds and throttles of {@link make} accept bounds.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.wait()
 *   yield* Throttle.update(Throttle.rate({ limit: 1_000 }))
 *   yield* Throttle.wait() // 1 ms later, not 1 s
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 1 }))))
 * ```
 *
 * @see {@link pause} to let no call start for a while
 * @category combinators
 * @since 0.1.0
 */
export const update: (policy: Policy<any>) => Effect.Effect<void, never, Throttle> = provided.update

/**
 * Forgets what calls of the provided throttle have spent and owe, as if none had started before.
 *
 * **When to use**
 *
 * To lift a block by hand, or after a server has reset its own count.
 *
 * **Details**
 *
 * Held permits stay held, waiting calls stay in the queue and start as far as they now may, a pause stays. Buckets are
 * full, also with `initial`. A call that started before the reset costs nothing any more: to settle or cancel it later
 * changes no charge. Statistics stay. In shadow the simulation is reset alike. It is one step, which interruption does
 * not divide.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.wait()
 *   yield* Throttle.reset
 *   return yield* Throttle.allow()
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.window({ limit: 1, per: "1 hour" })))) // true
 * ```
 *
 * @see {@link resume} to end a pause
 * @see {@link update} to replace the policy
 * @category combinators
 * @since 0.2.0
 */
export const reset: Effect.Effect<void, never, Throttle> = provided.reset

/**
 * Throttles a stream element by element, whatever its chunks.
 *
 * **Details**
 *
 * The next element is pulled when the previous one has been emitted, so upstream feels the backpressure. `cost` returns
 * the cost of an element. Default: one permit. Permits of concurrency are released as soon as the element is emitted.
 * Inline use of the policy elsewhere shares its budget.
 *
 * **Errors**
 *
 * Those of the policy; with `cost` also `ThrottleError`, since an element may cost more than can ever be granted.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Stream.range(1, 3).pipe(
 *   Throttle.stream(Throttle.spacing({ interval: "5 millis" })),
 *   Stream.runCollect
 * )
 *
 * await Effect.runPromise(program) // [1, 2, 3], 5 ms from one to the next
 * ```
 *
 * @see {@link withPermit} inside `Stream.mapEffect` to throttle work on the elements
 * @category combinators
 * @since 0.1.0
 */
export const stream: {
  /**
   * Throttles a stream element by element, whatever its chunks, at one permit each. The next element is pulled when the
   * previous one has been emitted, so upstream feels the backpressure. Adds the policy's errors: none without bounds.
   */
  <P>(policy: Policy<P>): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | P, R>
  /**
   * Throttles a stream element by element, whatever its chunks, with a cost for each. The next element is pulled when
   * the previous one has been emitted, so upstream feels the backpressure. Adds `ThrottleError`, since an element may
   * cost more than can ever be granted.
   */
  <A>(
    policy: Policy<any>,
    options: { readonly cost: (element: NoInfer<A>) => Cost }
  ): <E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | ThrottleError, R>
} = (policy: Policy<any>, options?: { readonly cost: (element: any) => Cost }) => {
  const throttle = inline(policy)
  return throttled<any, any, any, any>((element) =>
    options === undefined
      ? policy(Effect.succeed(element))
      : Effect.flatMap(throttle, ({ withPermits }) => withPermits(Effect.succeed(element), options.cost(element)))
  )
}

/** Runs each element of a stream through a throttle. */
const throttled =
  <A, B, E, R>(pass: (element: A) => Effect.Effect<B, E, R>) =>
  <E1, R1>(self: Stream.Stream<A, E1, R1>): Stream.Stream<B, E1 | E, R1 | R> => Stream.mapEffect(self, pass)

/**
 * Estimates how long a call of a cost would wait if it came now, behind the waiting calls. Takes nothing. Default cost:
 * one permit.
 *
 * Returns `Option.some` of zero if the call could start at once. Returns `Option.none()` if it could never start, and
 * if the wait is unknown: the permits that it needs are held, calls wait for a policy that limits running calls, or a
 * pause has no end. Dies with a `RangeError` for an invalid cost.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.wait()
 *   return yield* Throttle.estimateWait()
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 1 })))) // just under a second
 * ```
 *
 * @see {@link withPermitsIfAvailable} to run an effect only if no wait is needed
 * @category combinators
 * @since 0.1.0
 */
export const estimateWait: (cost?: Cost) => Effect.Effect<Option.Option<Duration.Duration>, never, Throttle> =
  provided.estimateWait

/**
 * Returns what is left of each part of the provided throttle's policy for calls that come now. Takes nothing.
 *
 * **Details**
 *
 * Parts that decide by time come first, then those that limit running calls. While calls wait, in a pause, in a drain and
 * after the throttle's scope has closed, nothing is left, since no call that comes could start. In shadow it is what would
 * be left in force. The same numbers are sent in the RateLimit fields of an HTTP server.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.andThen(Throttle.allow(3), Throttle.remaining)
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.tokenBucket({ capacity: 10, refill: 1 }))))
 * // [{ name: "1 per second, bucket of 10", unit: "permits", kind: "rate", limit: 10, remaining: 7, … }]
 * ```
 *
 * @see {@link estimateWait} for the wait of one call
 * @category combinators
 * @since 0.2.0
 */
export const remaining: Effect.Effect<ReadonlyArray<Remaining>, never, Throttle> = provided.remaining

/**
 * Returns the numbers of the provided throttle: calls admitted, rejected and interrupted so far, calls waiting and
 * running now, and waits.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.andThen(Throttle.wait(), Throttle.statistics)
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 10 })))) // { admitted: 1, … }
 * ```
 *
 * @see {@link metrics} for the same as Effect metrics
 * @category combinators
 * @since 0.1.0
 */
export const statistics: Effect.Effect<Statistics, never, Throttle> = provided.statistics

/**
 * Refuses newcomers, and lets the calls that wait or run finish; at the deadline it interrupts the rest. Returns the number
 * of calls that it interrupted: 0 if all have finished. The deadline counts from now. Default: none.
 *
 * **When to use**
 *
 * Before a process ends, so that what is under way is finished and nothing new begins. It works in a finalizer too, where
 * nothing can be interrupted.
 *
 * **Details**
 *
 * From its first step on newcomers fail with `Draining`. Where the type of the policy's calls has no error, because it has
 * no bounds, they are interrupted instead, as after the end of the throttle's scope. A call of a fiber that holds permits
 * of the throttle is let through, so that running calls can finish; calls of its child fibers are newcomers.
 *
 * It completes when no call waits or holds permits. A policy that decides by time alone does not know which calls run:
 * it is drained when no call waits. A call that itself drains its throttle waits for itself: set a deadline.
 *
 * At the deadline, waiting calls end as interrupted and the fibers of running calls are interrupted; it completes when
 * they have left the queue and released their permits, finalizers included. Permits of {@link takeScoped} end with their
 * scope, which may close after this; from the deadline on they are not waited for.
 *
 * There is no way back: the throttle refuses newcomers until its scope closes, whatever becomes of this effect.
 * {@link pause}, {@link resume} and {@link update} work as before; a pause without an end keeps waiting calls until the
 * deadline. Interrupted, this waits no longer, and its deadline no longer counts. Drained again, the throttle obeys the
 * earliest deadline. A policy in shadow is put in force, so that its running calls are known; those that it would have
 * rejected are not. On a store, only this process is drained.
 *
 * **Errors**
 *
 * None. Dies with a `RangeError` for anything but a duration ≥ 0.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Effect.forkChild(Throttle.withPermit(Effect.sleep("20 millis")), { startImmediately: true })
 *   const interrupted = yield* Throttle.drain("1 second") // 20 ms later
 *   const error = yield* Effect.flip(Throttle.withPermit(Effect.void))
 *   return [interrupted, error.reason._tag]
 * })
 *
 * const policy = Throttle.concurrency({ limit: 5, maxQueue: 100 })
 * await Effect.runPromise(program.pipe(Effect.provide(policy))) // [0, "Draining"]
 * ```
 *
 * @see {@link awaitIdle} to wait without refusing newcomers
 * @category combinators
 * @since 0.2.0
 */
export const drain: (deadline?: Duration.Input) => Effect.Effect<number, never, Throttle> = provided.drain

/**
 * Waits until no call waits in the provided throttle or holds its permits; at once if none does.
 *
 * A policy that decides by time alone does not know which calls run: it is idle when no call waits. A policy in shadow
 * holds no call back, so it is always idle. Newcomers are admitted meanwhile.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Effect.forkChild(Throttle.withPermit(Effect.sleep("20 millis")), { startImmediately: true })
 *   yield* Throttle.awaitIdle // 20 ms later
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.concurrency({ limit: 5 }))))
 * ```
 *
 * @see {@link drain} to refuse newcomers too
 * @category combinators
 * @since 0.2.0
 */
export const awaitIdle: Effect.Effect<void, never, Throttle> = provided.awaitIdle

/**
 * Waits until at least `n` calls wait in the provided throttle; at once if they do already.
 *
 * **When to use**
 *
 * To react to load: start another worker, or shed work, when a queue becomes long. A policy in shadow holds no call back,
 * so none waits there. Dies with a `RangeError` if `n` is not an integer ≥ 1.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Effect.forkChild(Effect.forEach([1, 2, 3], () => Throttle.wait(), { concurrency: "unbounded" }))
 *   yield* Throttle.awaitQueue(2)
 *   return (yield* Throttle.statistics).waiting
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 1 })))) // 2
 * ```
 *
 * @see {@link awaitIdle} for the opposite
 * @category combinators
 * @since 0.2.0
 */
export const awaitQueue: (n: number) => Effect.Effect<void, never, Throttle> = provided.awaitQueue

// ---------------------------------------------------------------------------------------------------------------------
// Service classes
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The class that {@link Service} returns: the key of a throttle, with the {@link Operations} as statics.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServiceClass<Self, Id extends string, E, U extends string = any>
  extends Context.ServiceClass<Self, Id, Throttle>, Operations<E, Self, U>
{
  /** The policy that the class was defined with. */
  readonly policy: Policy<E, U>
  /** The Layer of the class's policy. */
  readonly layer: Layer.Layer<Self>
  /**
   * Returns the Layer of another policy. It must not add errors if the class's own policy does not, and must count the
   * units of the class; `Throttle.none` counts every unit.
   */
  readonly layerWith: (policy: Policy<E, U>) => Layer.Layer<Self>
  /**
   * Returns the Layer of a policy that is read from the app's configuration, as `Throttle.config` returns it. Fails
   * with a `ConfigError`, also for a policy with bounds if the class's own has none.
   */
  readonly layerConfig: (config: Config.Config<Policy<any>>) => Layer.Layer<Self, Config.ConfigError>
  /** Throttles a stream element by element; see {@link stream}. */
  readonly stream: <A>(
    options?: { readonly cost?: ((element: NoInfer<A>) => Cost<U>) | undefined }
  ) => <E1, R>(self: Stream.Stream<A, E1, R>) => Stream.Stream<A, E1 | ThrottleError, R | Self>
}

/**
 * Defines a throttle with a service key of its own.
 *
 * **When to use**
 *
 * In an app with several throttles, which is the normal case: one class for each thing that has a quota. The compiler
 * then knows which throttle an effect needs, and a test replaces one without affecting the others.
 *
 * **Details**
 *
 * Its name in logs and metrics is the policy's `name`, by default the class's key. Its Layer is memoised as that of the
 * policy: there is one limiter for each policy value and build, which inline use of that value below it shares. Two
 * classes with one policy value therefore share a budget, and the name of the one that is built first: give each its
 * own policy. A class whose policy has bounds, provided with a policy that has none, gets a limiter that inline use of
 * that policy does not share, since an update may add bounds to it. Provide a class by `layer` or `layerWith`, which
 * keep its errors exact.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * class GitHub extends Throttle.Service<GitHub>()("app/GitHub", Throttle.rate({ limit: 10, per: "1 second" })) {}
 *
 * const fetchRepo = Effect.succeed("repo").pipe(GitHub.withPermit)
 *
 * await Effect.runPromise(fetchRepo.pipe(Effect.provide(GitHub.layer)))
 * await Effect.runPromise(fetchRepo.pipe(Effect.provide(GitHub.layerWith(Throttle.none)))) // in a test
 * ```
 *
 * @see {@link Throttle} for the generic service
 * @category services
 * @since 0.1.0
 */
export const Service =
  <Self>() =>
  <const Id extends string, E, U extends string>(id: Id, policy: Policy<E, U>): ServiceClass<Self, Id, E, U> => {
    const key = Context.Service<Self, Throttle>()(id)
    const apart = new WeakMap<Policy<any>, Layer.Layer<Self>>()
    const layerWith = (given: Policy<any>): Layer.Layer<Self> => {
      // Calls of the class may fail, inline use of this policy may not: they cannot share a limiter that may get bounds.
      if (!PolicyValue.mayReject(policy) || PolicyValue.mayReject(given)) return PolicyValue.layerUnder(key, id, given)
      const layer = apart.get(given) ?? Layer.effect(key, makeNamed(given, given.data.name ?? id))
      apart.set(given, layer)
      return layer
    }
    const operations = ThrottleOperations.derive<any, Self>((f) => Effect.flatMap(key, f))
    const withPermit = withPermitOf(key)
    return Object.assign(key, operations, {
      policy,
      layer: layerWith(policy),
      layerWith,
      layerConfig: (config: Config.Config<Policy<any>>) =>
        Layer.unwrap(Effect.map(PolicyValue.mayReject(policy) ? config : PolicyValue.unbounded(id, config), layerWith)),
      withPermit,
      stream: (options?: { readonly cost?: (element: any) => Cost }) =>
        throttled((element) =>
          options?.cost === undefined
            ? withPermit(Effect.succeed(element))
            : operations.withPermits(Effect.succeed(element), options.cost(element))
        )
    }) as unknown as ServiceClass<Self, Id, E, U>
  }

// ---------------------------------------------------------------------------------------------------------------------
// Levels
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The operations of several throttles as levels.
 *
 * @see {@link levels}, which returns it
 * @category models
 * @since 0.2.0
 */
export interface Levels extends
  Pick<
    Throttle,
    | "withPermit"
    | "withPermits"
    | "withPermitsIfAvailable"
    | "wait"
    | "allow"
    | "takeScoped"
    | "usePermits"
    | "estimateWait"
    | "remaining"
  >
{}

/**
 * Limits each call by several throttles, all or none, at one instant: from the narrowest to the widest, such as the user's,
 * the organisation's and that of all.
 *
 * **When to use**
 *
 * Where a call counts for several limits of which some are by key. Make it for each call; it is a view and keeps nothing.
 * For several limits of one throttle use {@link all}.
 *
 * **Details**
 *
 * A call waits at its narrowest level first. Where it is the head of the queue and ready, it keeps that place and enters the
 * queue of the next level. Once every level lets it start, all are charged in one step; before, none is. So a call that its
 * user's limit holds back makes no other user wait. Within each level calls start in the level's order. An interrupted or
 * rejected call is charged nothing at any level. `settle` and `cancel` apply to every level; permits are held at all, until
 * the end. A cost may name the units of any level. A timeout of a level counts from the arrival there and includes the
 * waits at wider ones. While a call waits at a wider level it is among the waiting calls of the narrower ones too; but
 * `maxQueue` of a level rejects no call that the level could start now and that waits only behind one ahead.
 *
 * Each level at which the call has to wait emits `Waiting` and has a span of its own. The end emits one event, with the name
 * of the level at which the call waited last, and its whole wait.
 *
 * Throttles on a store are levels of one script; there processes take no turns for time.
 *
 * Always name the levels in the same order: two calls that wait for each other's level would wait for ever.
 *
 * **Errors**
 *
 * `ThrottleError` of the level that rejects the call: its reason has that throttle's name. Throws a `RangeError` for an
 * empty list, and for throttles that cannot be charged in one step: of this process and of a store together, or of a store
 * whose keys are in different hash slots. (`{acme}:ada` and `acme` are in one.) Dies with a `RangeError` if a throttle occurs
 * twice; on a store it throws.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle, ThrottleMap } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   const users = yield* ThrottleMap.make({ lookup: (_user: string) => Throttle.rate({ limit: 5 }) })
 *   const organisations = yield* ThrottleMap.make({ lookup: (_name: string) => Throttle.rate({ limit: 50, burst: 10 }) })
 *   const everybody = yield* Throttle.make(Throttle.concurrency({ limit: 100 }))
 *
 *   const limits = Throttle.levels([users.get("ada"), organisations.get("acme"), everybody])
 *   return yield* limits.withPermit(Effect.succeed("done"))
 * })
 *
 * await Effect.runPromise(Effect.scoped(program)) // "done"
 * ```
 *
 * @see {@link all} for several limits in one throttle
 * @category constructors
 * @since 0.2.0
 */
export const levels = (throttles: ReadonlyArray<Throttle>): Levels => LevelsEngine.make(throttles)

// ---------------------------------------------------------------------------------------------------------------------
// Callers
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Whose call it is: `key`, such as a tenant; `weight`, its share in the order "fair"; `priority`, how urgent the call is.
 *
 * @see {@link withCaller}, which sets it
 * @category callers
 * @since 0.2.0
 */
export type Caller = CallerInternal.Caller

/**
 * The numbers of one caller of a throttle.
 *
 * @see {@link Statistics}, which has them
 * @category callers
 * @since 0.2.0
 */
export interface CallerStatistics extends Counts.CallerStatistics {}

/**
 * The caller of the calls of a fiber and its child fibers. Default: the key "", weight 1, priority 0.
 *
 * @see {@link withCaller} to set it, with checks
 * @category callers
 * @since 0.2.0
 */
export const Caller: Context.Reference<Caller> = CallerInternal.Caller

/**
 * Names the caller of all calls that an effect and its child fibers make: for the orders "fair" and "priority", for
 * `maxQueuePerCaller`, and in events and logs.
 *
 * **When to use**
 *
 * Once at the app's edge, where a request's tenant is known. Inside, `withCaller({ priority: 1 })` marks urgent work:
 * fields that are not given stay as they are outside.
 *
 * **Details**
 *
 * `key` is any string; calls without a caller are those of the caller "". `weight` is a number from 0.001 to 1,000: with
 * weight 2 a caller gets twice the share of one with weight 1. `priority` is a finite number, higher is more urgent. The
 * caller is read when a call begins to wait.
 *
 * Choose as key what clients cannot choose: in the order "fair" each key has a share.
 *
 * **Errors**
 *
 * Throws a `RangeError` for an invalid or unknown field.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const search = Effect.succeed("found").pipe(Throttle.rate({ limit: 10, order: "fair" }))
 *
 * const program = search.pipe(Throttle.withCaller({ key: "tenant 7", weight: 2 }))
 *
 * await Effect.runPromise(program) // "found"
 * ```
 *
 * @see {@link Options} for `order` and `ageing`
 * @category callers
 * @since 0.2.0
 */
export const withCaller = (
  caller: Partial<Caller>
): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> => {
  const given = CallerInternal.read("Throttle.withCaller", caller)
  return Effect.updateService(Caller, (outer) => ({ ...outer, ...given }))
}

// ---------------------------------------------------------------------------------------------------------------------
// Bounds of single calls
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Bounds of single calls: `maxWait` and `timeout`.
 *
 * @see {@link withBounds} to set it, with checks
 * @category bounds
 * @since 0.2.0
 */
export interface CallBounds extends CallBoundsInternal.CallBounds {}

/**
 * The bounds of the calls of a fiber and its child fibers, besides those of policies. Default: none.
 *
 * @see {@link withBounds} to set it, with checks
 * @category bounds
 * @since 0.2.0
 */
export const CallBounds: Context.Reference<CallBounds> = CallBoundsInternal.CallBounds

/**
 * Bounds the waits of the calls that an effect and its child fibers make, besides the bounds of the policies.
 *
 * **When to use**
 *
 * Where one call is in a greater hurry than others, such as a request whose client waits.
 *
 * **Details**
 *
 * `maxWait` and `timeout` are durations > 0, as in {@link Bounds}; the smaller one of the call and of the policy applies. A
 * bound that is not given stays as it is outside. In another order than "arrival" `maxWait` is checked on arrival only,
 * by the wait if no other call comes. They are read when a call begins to wait.
 *
 * They apply to policies with a bound or from data, to throttles of {@link make} and to the keys of a `ThrottleMap`, in memory
 * and on a store. Calls of a policy without bounds are not affected: one throttle serves all of them, and the type of its
 * inline use has no error. That includes forms whose type has one, `withPermits(n)` and the generic `withPermit`. Give such a
 * policy a bound that is never reached, such as `timeout: "1 day"`. Calls in shadow are not affected either.
 *
 * **Errors**
 *
 * The calls fail with the reasons `WaitTooLong` and `TimedOut`, with this bound as `limit`. Throws a `RangeError` for an
 * invalid or unknown bound.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const search = Effect.succeed("found").pipe(Throttle.rate({ limit: 10, maxQueue: 100 }))
 *
 * const program = search.pipe(Throttle.withBounds({ timeout: "200 millis" }))
 *
 * await Effect.runPromise(program) // "found"
 * ```
 *
 * @see {@link Bounds} for those of all calls of a policy
 * @category bounds
 * @since 0.2.0
 */
export const withBounds = (
  bounds: { readonly maxWait?: Duration.Input | undefined; readonly timeout?: Duration.Input | undefined }
): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> => {
  const given = CallBoundsInternal.read("Throttle.withBounds", bounds)
  return Effect.updateService(CallBounds, (outer) => ({ ...outer, ...given }))
}

// ---------------------------------------------------------------------------------------------------------------------
// Observing
// ---------------------------------------------------------------------------------------------------------------------

/**
 * An event of a call that waits or is rejected: `Waiting`, `Admitted`, `Rejected` or `Interrupted`. Times are
 * milliseconds.
 *
 * @see {@link Observer}, which receives it
 * @category observing
 * @since 0.1.0
 */
export type Event = Observe.Event

/**
 * Receives an event when a call starts to wait, is admitted after waiting, is rejected, or is interrupted while it
 * waits. Default: no observer.
 *
 * **Details**
 *
 * A call that need not wait has no event. The observer runs in the fiber of the call, so keep it short, or offer the
 * event to a queue. While it handles `Waiting`, the call keeps its place; if it is the head of the queue, no call
 * behind it starts or times out. While it handles `Admitted`, the call is already charged and its effect has not begun.
 * A failure or defect of the observer is logged once and does not affect the call. Logs, spans and metrics do not
 * depend on it.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const events: Array<string> = []
 *
 * const program = Effect.void.pipe(
 *   Throttle.spacing({ interval: "5 millis" }),
 *   Effect.repeat({ times: 1 }),
 *   Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event._tag)))
 * )
 *
 * await Effect.runPromise(program)
 * console.log(events) // ["Waiting", "Admitted"]
 * ```
 *
 * @see {@link metrics} for counts
 * @category observing
 * @since 0.1.0
 */
export const Observer: Context.Reference<(event: Event) => Effect.Effect<void>> = Observe.Observer

/**
 * The level of log lines about waits: `throttle.waiting` when a call begins to wait, `throttle.admitted` when it is
 * admitted, `throttle.paused` when a pause begins or becomes longer. Default: "Debug". "None" writes no such lines.
 * Rejections and interruptions are always logged at Debug.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.void.pipe(
 *   Throttle.rate({ limit: 10 }),
 *   Effect.provideService(Throttle.WaitLogLevel, "Info")
 * )
 *
 * await Effect.runPromise(program)
 * ```
 *
 * @see {@link Observer} to handle events in code
 * @category observing
 * @since 0.1.0
 */
export const WaitLogLevel: Context.Reference<LogLevel.LogLevel> = Observe.WaitLogLevel

/**
 * The metrics of all throttles. They are always on. Attributes: `throttle`, the throttle's name, and `reason` for
 * rejections.
 *
 * | metric | counts |
 * |---|---|
 * | `throttle_admitted_total` | calls admitted |
 * | `throttle_rejected_total` | calls rejected, by `reason` |
 * | `throttle_interrupted_total` | calls interrupted while they waited |
 * | `throttle_waiting` | calls waiting now |
 * | `throttle_running` | calls holding permits now |
 * | `throttle_wait_seconds` | histogram of the waits of admitted calls that waited |
 *
 * The numbers of throttles with the same name are added up. A snapshot reads plain numbers, so a call costs no metric
 * update.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Metric } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const limited = Throttle.rate({ limit: 10, name: "github" })
 *
 * const program = Effect.gen(function*() {
 *   yield* limited(Effect.void)
 *   return yield* Metric.value(Throttle.metrics.admitted.pipe(Metric.withAttributes({ throttle: "github" })))
 * })
 *
 * await Effect.runPromise(program) // { count: 1, incremental: true }
 * ```
 *
 * @see {@link statistics} for the numbers of one throttle
 * @category observing
 * @since 0.1.0
 */
export const metrics = Metrics.metrics

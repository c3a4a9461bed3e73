/** A throttle that answers calls by a script and records them. */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Formatter from "effect/Formatter"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import * as Operations from "../internal/operations.ts"
import * as Rules from "../internal/options.ts"
import * as Throttle from "../Throttle.ts"
import type { ThrottleError } from "../ThrottleError.ts"
import * as Record from "./record.ts"
import * as Script from "./script.ts"

/**
 * A throttle that answers calls by a script, and its record.
 *
 * @see {@link make} to make one
 * @see {@link layer} to provide one
 * @category models
 * @since 0.1.0
 */
export interface Recorder {
  /** The throttle for the code under test. */
  readonly throttle: Throttle.Throttle
  /** Its uses so far, in order of arrival. */
  readonly asked: Effect.Effect<ReadonlyArray<Record.Asked>>
}

/**
 * The key of the recorder that {@link layer} provides.
 *
 * @see {@link recorderOf} for the recorder of a Service class
 * @category services
 * @since 0.1.0
 */
export const Recorder: Context.Service<Recorder, Recorder> = Context.Service<Recorder>(
  "effect-throttle/testing/Recorder"
)

/**
 * Makes a throttle that answers calls by a script and records them; each run of this effect makes a new one.
 *
 * **When to use**
 *
 * To test how code uses its throttle and handles rejections, independent of a policy: which calls it makes, their costs,
 * what it settles, whether it pauses the throttle when a server says so.
 *
 * **Details**
 *
 * Each call of `withPermit`, `withPermits`, `withPermitsIfAvailable`, `wait`, `allow`, `takeScoped` and `usePermits` takes the
 * next answer of the script, then `otherwise`. There is no queue: each call waits for the duration of its answer, on the caller's
 * Clock, and calls may overtake each other. A call that is interrupted while it waits counts as interrupted.
 * `withPermitsIfAvailable` never waits: it fails where the answer is `PermitsExceedCapacity` or `Draining` and returns
 * `Option.none()` for any other answer but "admit". `allow` is alike, and returns false there.
 *
 * `estimateWait` reads the next answer without taking it: zero for "admit", the wait if it is finite, the `retryAfter` of a
 * rejection, otherwise `Option.none()`. `pause`, `resume`, `update`, `reset` and `drain` are recorded and have no effect.
 * Without a policy there are no parts, so `remaining` is empty. Every unit of a cost is accepted.
 *
 * Its statistics are those of a throttle without a limit: every admitted call is `running` until it ends, except those of
 * `wait` and `allow`, which hold nothing; `waited` is the sum of the scripted waits. It writes no logs, spans, metrics or events.
 *
 * **Errors**
 *
 * The throttle fails with a `ThrottleError` where the script rejects. It dies with a `RangeError` for a cost that is not an
 * integer ≥ 0, a pause that is not a duration and an update that is not a policy; such calls take no answer and are not
 * recorded. `make` throws a `RangeError` at once for invalid options.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Testing from "effect-throttle/testing"
 *
 * const program = Effect.gen(function*() {
 *   const { asked, throttle } = yield* Testing.make({ script: [{ reject: "QueueFull", retryAfter: "2 seconds" }] })
 *   const search = throttle.withPermits(Effect.succeed("found"), { tokens: 5 })
 *   yield* Effect.catchTag(search, "ThrottleError", (error) => throttle.pause(error.retryAfter ?? "1 second"))
 *   yield* search
 *   return yield* asked
 * })
 *
 * await Effect.runPromise(program)
 * // [
 * //   { method: "withPermits", cost: { tokens: 5 }, outcome: "rejected", reason: "QueueFull" },
 * //   { method: "pause", duration: Duration.seconds(2) },
 * //   { method: "withPermits", cost: { tokens: 5 }, outcome: "admitted" }
 * // ]
 * ```
 *
 * @see {@link layer} to provide it as the `Throttle` service
 * @see {@link layerFor} to provide it as a Service class
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Script.Options = {}): Effect.Effect<Recorder> =>
  fromSettings(Script.read("Testing.make", options, "recorder"))

type Restore = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A copy, so that a record does not change with the object that was passed. */
const copied = (cost: Throttle.Cost): Throttle.Cost => typeof cost === "number" ? cost : { ...cost }

/** The estimated wait of a call with this answer. */
const estimateOf = (answer: Script.Settled): Option.Option<Duration.Duration> => {
  switch (answer._tag) {
    case "Admit":
      return Option.some(Duration.zero)
    case "Wait":
      return Duration.isFinite(answer.wait) ? Option.some(answer.wait) : Option.none()
    case "Reject":
      return Option.fromUndefinedOr(answer.retryAfter)
  }
}

/** Makes a recorder of options that were read. */
export const fromSettings = Effect.fnUntraced(function*(settings: Script.Settings): Effect.fn.Return<Recorder> {
  const state = yield* SubscriptionRef.make(Record.empty)
  // A throttle without a limit. It checks costs by the rules of every throttle, and does nothing else.
  const unlimited = yield* Throttle.inline(Throttle.all([], { name: settings.name }))
  const checked = (cost: Throttle.Cost = 1) => Effect.as(unlimited.estimateWait(cost), copied(cost))

  /** Waits until the statistics meet a condition. */
  const when = (holds: (statistics: Throttle.Statistics) => boolean) =>
    Stream.runDrain(
      Stream.takeUntil(SubscriptionRef.changes(state), (current) => holds(Record.statistics(current)))
    )

  /** Answers a call. Only its wait can be interrupted, so an admitted call is always released. */
  const request = Effect.fnUntraced(
    function*(
      method: Record.Call["method"],
      cost: Throttle.Cost,
      restore: Restore
    ): Effect.fn.Return<Option.Option<number>, ThrottleError> {
      const decision = yield* SubscriptionRef.modify(state, Record.answer(settings, method, cost))
      switch (decision._tag) {
        case "Admitted":
          return Option.some(decision.id)
        case "None":
          return Option.none()
        case "Rejected":
          return yield* Effect.fail(decision.error)
        case "Waits": {
          const { id, wait } = decision
          const waits = Duration.isFinite(wait) ? Effect.sleep(wait) : Effect.never
          yield* Effect.onExit(
            restore(waits),
            (exit) => SubscriptionRef.update(state, Record.endWait(id, wait, Exit.isSuccess(exit)))
          )
          return Option.some(id)
        }
      }
    }
  )

  const permitOf = (id: number, cost: Throttle.Cost): Throttle.Permit => ({
    cost,
    settle: (actual) =>
      Effect.flatMap(checked(actual), (settled) => SubscriptionRef.update(state, Record.settle(id, { settled }))),
    cancel: SubscriptionRef.update(state, Record.cancel(id))
  })

  const use = <A, E, R>(
    method: Record.Call["method"],
    given: Throttle.Cost | undefined,
    f: (permit: Throttle.Permit) => Effect.Effect<A, E, R>
  ): Effect.Effect<Option.Option<A>, E | ThrottleError, R> =>
    Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
      const cost = yield* checked(given)
      const id = yield* request(method, cost, restore)
      if (Option.isNone(id)) return Option.none()
      const run = Effect.suspend(() => restore(f(permitOf(id.value, cost))))
      return Option.some(yield* Effect.ensuring(run, SubscriptionRef.update(state, Record.release(id.value))))
    }))

  const usePermits = <A, E, R>(
    method: Record.Call["method"],
    cost: Throttle.Cost | undefined,
    f: (permit: Throttle.Permit) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | ThrottleError, R> => Effect.map(use(method, cost, f), Option.getOrThrow)

  const throttle = Operations.make({
    name: settings.name,
    plan: () => undefined,
    run: (self, cost) => usePermits(cost === undefined ? "withPermit" : "withPermits", cost, () => self),
    runIfAvailable: (self, cost) => use("withPermitsIfAvailable", cost, () => self),
    wait: (given) =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
        yield* request("wait", yield* checked(given), restore)
      })),
    allow: (given) =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
        return Option.isSome(yield* request("allow", yield* checked(given), restore))
      })),
    take: (given) =>
      Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
        const cost = yield* checked(given)
        const id = Option.getOrThrow(yield* request("takeScoped", cost, restore))
        yield* Effect.addFinalizer(() => SubscriptionRef.update(state, Record.release(id)))
        return permitOf(id, cost)
      })),
    use: (f, cost) => usePermits("usePermits", cost, f),
    estimateWait: Effect.fnUntraced(function*(given) {
      const cost = yield* checked(given)
      const before = yield* SubscriptionRef.getAndUpdate(state, Record.record({ method: "estimateWait", cost }))
      return estimateOf(Record.nextAnswer(settings, before))
    }),
    remaining: () => Effect.succeed([]),
    pause: (nanos) =>
      SubscriptionRef.update(state, Record.record({ method: "pause", duration: Duration.millis(nanos / 1e6) })),
    resume: () => SubscriptionRef.update(state, Record.record({ method: "resume" })),
    update: (policy) =>
      Effect.suspend(() => {
        if (Throttle.isPolicy(policy)) {
          return SubscriptionRef.update(state, Record.record({ method: "update", policy: policy.data }))
        }
        throw Rules.invalid(`throttle ${Formatter.format(settings.name)}`, "policy", "a policy", policy)
      }),
    reset: () => SubscriptionRef.update(state, Record.record({ method: "reset" })),
    statistics: () => Effect.map(SubscriptionRef.get(state), Record.statistics),
    drain: (nanos) =>
      Effect.as(
        SubscriptionRef.update(
          state,
          Record.record({
            method: "drain",
            ...(nanos === Infinity ? undefined : { deadline: Duration.millis(nanos / 1e6) })
          })
        ),
        0
      ),
    awaitIdle: () => when(({ running, waiting }) => running === 0 && waiting === 0),
    awaitQueue: (calls) => when(({ waiting }) => waiting >= calls)
  })

  return {
    throttle,
    asked: Effect.map(SubscriptionRef.get(state), Record.all)
  }
})

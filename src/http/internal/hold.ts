/**
 * The wait for a pacer: within the bounds of the policy, and observed like the wait for a throttle.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { byUnit } from "../../internal/demand.ts"
import * as Metrics from "../../internal/metrics.ts"
import * as Observe from "../../internal/observe.ts"
import type { Plan } from "../../internal/plan.ts"
import type * as Throttle from "../../Throttle.ts"
import { QueueFull, ThrottleError, TimedOut, WaitTooLong } from "../../ThrottleError.ts"
import * as Learner from "./learning/learner.ts"
import * as Pacer from "./pacer.ts"

/** What asks to be let through. */
export interface Asking {
  readonly cost: Throttle.Cost
  /** The plan of the policy that it asks after this; undefined where that cannot be known. */
  readonly plan: Plan | undefined
  /** How long that policy would have it wait. */
  readonly estimateWait: () => Effect.Effect<Option.Option<Duration.Duration>>
}

/** What an attempt gives whose request may not start after all. */
export const notYet = Symbol("effect-throttle/http/notYet")

/** Lets a request through when it may start: makes an attempt, and another one where that was {@link notYet}. */
export const through = <A, E, R>(
  pacer: Pacer.Pacer,
  asking: Asking,
  place: number | undefined,
  attempt: (passage: Pacer.Passage) => Effect.Effect<A | typeof notYet, E, R>
): Effect.Effect<A, E | ThrottleError, R> => {
  let passage: Pacer.Passage | undefined
  return Effect.onExitPrimitive(
    Effect.suspend(() => {
      const arrived = passage = Pacer.arrive(pacer, Fiber.getCurrent()!, place)
      const admitted: Effect.Effect<A, E | ThrottleError, R> = Effect.flatMap(
        Effect.suspend(() => attempt(arrived)),
        (made) => made === notYet ? held(false) : Effect.succeed(made)
      )
      const held = (isArrival: boolean) =>
        Effect.suspend(() => Effect.andThen(hold(pacer, arrived, asking, isArrival), admitted))
      return arrived.state === "admitted" ? admitted : held(true)
    }),
    () => {
      if (passage !== undefined) Pacer.leave(pacer, passage)
      return undefined
    }
  )
}

/** How long a request has before its policy gives it up, in nanoseconds. */
export const timeLeft = ({ arrival, fiber }: Pacer.Passage, { plan }: Asking): number =>
  plan === undefined ? Infinity : Math.max(0, plan.timeout - (Pacer.timeOf(fiber) - arrival))

/** Waits for the policy within what is left of its `timeout`, which has begun with the wait for the pacer. */
export const within = <A, E, R>(
  passage: Pacer.Passage,
  asking: Asking,
  pacer: Pacer.Pacer,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> => {
  const left = timeLeft(passage, asking)
  return left === Infinity || left === asking.plan?.timeout ? self : beforeTimeOut(left, passage, asking, pacer, self)
}

const beforeTimeOut = <A, E, R>(
  left: number,
  passage: Pacer.Passage,
  asking: Asking,
  pacer: Pacer.Pacer,
  self: Effect.Effect<A, E, R>
) =>
  Effect.timeoutOrElse(self, {
    duration: Duration.millis(left / 1e6),
    orElse: () => {
      const limit = Duration.millis(asking.plan!.timeout / 1e6)
      return reject(passage, asking, new TimedOut({ ...circumstances(pacer, passage, asking), limit }))
    }
  })

const hold = (
  pacer: Pacer.Pacer,
  passage: Pacer.Passage,
  asking: Asking,
  isArrival: boolean
): Effect.Effect<void, ThrottleError> => {
  const { fiber } = passage
  const rejected = rejection(pacer, passage, asking, isArrival)
  const left = timeLeft(passage, asking)
  const admission = Pacer.admission(pacer, passage)
  const bounded = left === Infinity ? admission : beforeTimeOut(left, passage, asking, pacer, admission)
  const waiting = fiber.cache.tracerEnabled || Observe.isObserved(fiber)
    ? watched(pacer, passage, asking, bounded)
    : bounded
  return rejected === undefined ? waiting : Effect.andThen(rejected, waiting)
}

// ---------------------------------------------------------------------------------------------------------------------
// Bounds
// ---------------------------------------------------------------------------------------------------------------------

/** Fails where the policy's bounds do not let the request wait; undefined where it has none of these. */
const rejection = (
  pacer: Pacer.Pacer,
  passage: Pacer.Passage,
  asking: Asking,
  isArrival: boolean
): Effect.Effect<void, ThrottleError> | undefined => {
  const { estimateWait, plan } = asking
  if (plan === undefined || (plan.maxQueue === Infinity && plan.maxWait === Infinity)) return undefined
  // Itself not counted. One that was let wait, and waits again, keeps its place in the queue.
  const waiting = pacer.queue.length - 1
  if (isArrival && waiting >= plan.maxQueue) {
    return reject(passage, asking, new QueueFull({ ...circumstances(pacer, passage, asking), limit: plan.maxQueue }))
  }
  if (plan.maxWait === Infinity) return undefined
  return Effect.flatMap(estimateWait(), (available) => {
    const ofPolicy = Option.match(available, { onNone: () => 0, onSome: (wait) => Duration.toMillis(wait) * 1e6 })
    if (ofPolicy + (expected(pacer, passage) ?? 0) <= plan.maxWait) return Effect.void
    const limit = Duration.millis(plan.maxWait / 1e6)
    return reject(passage, asking, new WaitTooLong({ ...circumstances(pacer, passage, asking), limit }))
  })
}

/** Nanoseconds until those before it and itself may have started; undefined where an answer has to come first. */
const expected = (pacer: Pacer.Pacer, { fiber, state }: Pacer.Passage): number | undefined => {
  const before = pacer.queue.length + pacer.ahead - (state === "waiting" ? 1 : 0)
  return Learner.expectedWait(pacer.learner, Pacer.timeOf(fiber), before)
}

const circumstances = (pacer: Pacer.Pacer, passage: Pacer.Passage, { cost, plan }: Asking) => {
  const wait = expected(pacer, passage)
  return {
    throttle: plan?.name ?? unnamed,
    cost: byUnit(cost),
    queued: pacer.queue.length - (passage.state === "waiting" ? 1 : 0),
    parts: [part],
    ...(wait === undefined ? undefined : { retryAfter: Duration.millis(Math.ceil(wait / 1e6)) })
  }
}

/** What stands in the way, as errors call it. */
const part = "server"

const unnamed = "http"

const reject = (
  { arrival, fiber }: Pacer.Passage,
  { cost, plan }: Asking,
  reason: QueueFull | WaitTooLong | TimedOut
): Effect.Effect<never, ThrottleError> => {
  const error = new ThrottleError({ reason })
  const told = Observe.notify(fiber, "Rejected", () => ({
    _tag: "Rejected",
    throttle: plan?.name ?? unnamed,
    policy: plan?.description ?? "",
    cost,
    waited: (Pacer.timeOf(fiber) - arrival) / 1e6,
    error
  }))
  Metrics.countRejected(fiber.context, plan?.name ?? unnamed, reason._tag)
  return told === undefined ? Effect.fail(error) : Effect.andThen(told, Effect.fail(error))
}

// ---------------------------------------------------------------------------------------------------------------------
// Observation
// ---------------------------------------------------------------------------------------------------------------------

/** The wait with its span and its lines, as a throttle has them; the policy is what was learned. */
const watched = (
  pacer: Pacer.Pacer,
  { fiber }: Pacer.Passage,
  { cost, plan }: Asking,
  wait: Effect.Effect<void, ThrottleError>
): Effect.Effect<void, ThrottleError> =>
  Effect.suspend(() => {
    const from = Pacer.timeOf(fiber)
    const about = { throttle: plan?.name ?? unnamed, policy: Learner.describe(pacer.learner), cost }
    const waited = () => (Pacer.timeOf(fiber) - from) / 1e6
    const queued = pacer.queue.length
    const nanos = Learner.expectedWait(pacer.learner, from, queued - 1 + pacer.ahead)
    const expected = nanos === undefined ? undefined : { expected: nanos / 1e6 }
    const spanned = fiber.cache.tracerEnabled
      ? Observe.withWaitSpan(wait, () => ({ ...about, queued, ...expected, waited: waited() }))
      : wait
    const before = Observe.notify(fiber, "Waiting", () => ({ _tag: "Waiting", ...about, queued, ...expected }))
    return (before === undefined ? spanned : Effect.andThen(before, spanned)).pipe(
      Effect.andThen(Effect.suspend(() =>
        Observe.notify(fiber, "Admitted", () => ({ _tag: "Admitted", ...about, waited: waited() })) ?? Effect.void
      )),
      Effect.onInterrupt(() =>
        Observe.notify(fiber, "Interrupted", () => ({ _tag: "Interrupted", ...about, waited: waited() })) ?? Effect.void
      )
    )
  })

/**
 * The life of a waiting call: it enters the queue, its fiber is parked, and it starts, is rejected, or is abandoned
 * because its fiber is interrupted.
 *
 * Invariant, in this process: a waiter stays in the queue, and nothing is charged or taken for it, until the step in which its
 * effect begins. An interruption before that step therefore leaves nothing behind. (On a store a call is charged when it is
 * granted, and has left the queue by then; if it does not start, the backend's `leave` gives the grant back.)
 */
import * as Effect from "effect/Effect"
import type { ThrottleError } from "../ThrottleError.ts"
import type { Call, Host, Observation, Waiter } from "./backend.ts"
import * as Bounds from "./bounds.ts"
import * as Caller from "./caller.ts"
import * as Counts from "./counts.ts"
import type { Demand } from "./demand.ts"
import type { AnyFiber } from "./grant.ts"
import * as List from "./list.ts"
import * as Observe from "./observe.ts"
import * as Pauses from "./pauses.ts"
import * as Time from "./time.ts"

export const make = <Self>(limiter: Host<Self>, call: Call, now: number): Waiter => ({
  prev: undefined,
  next: undefined,
  fiber: call.fiber,
  demand: call.demand,
  meters: limiter.meters,
  pools: limiter.pools,
  endedBy: call.endedBy,
  settlement: call.settlement,
  startedAt: 0,
  arrival: now,
  self: call.self,
  own: undefined,
  caller: limiter.plan.asksCaller ? call.fiber.getRef(Caller.Caller) : Caller.unnamed,
  place: undefined,
  state: "waiting",
  observation: undefined,
  resume: undefined,
  outcome: undefined,
  isAhead: false
})

/** Whether a call that arrived waits; otherwise an effect replaces it. */
export const isWaiter = (arrived: Waiter | Effect.Effect<any, any, any>): arrived is Waiter => !Effect.isEffect(arrived)

/** Adds a waiter to the limiter's waiters. */
export const enqueue = <Self>(limiter: Host<Self>, waiter: Waiter): void => {
  List.add(limiter.waiters, waiter)
  Bounds.add(limiter, waiter)
  count(limiter, waiter, 1)
}

/** Removes a waiter from the limiter's waiters. */
export const remove = <Self>(limiter: Host<Self>, waiter: Waiter): void => {
  List.remove(limiter.waiters, waiter)
  Bounds.remove(limiter, waiter)
  count(limiter, waiter, -1)
}

/** Adds a waiting call to the totals of each meter and of its caller, or subtracts it. */
export const count = <Self>(
  { callers, meters, plan }: Host<Self>,
  { caller, demand }: Waiter,
  change: 1 | -1
): void => {
  if (plan.asksCaller) Caller.count(callers, caller, change)
  for (let i = 0; i < meters.length; i++) {
    const amount = demand.meters[i]!
    if (amount === 0) continue
    meters[i]!.waitingCost += change * amount
    meters[i]!.waitingCalls += change
  }
}

/** Describes how a wait is observed; undefined if it is not. `estimate` returns the estimated wait in nanoseconds. */
export const observation = <Self>(
  limiter: Host<Self>,
  fiber: AnyFiber,
  now: number,
  queued: number,
  estimate: () => number | undefined
): Observation | undefined => {
  const hasSpan = fiber.cache.tracerEnabled
  const isNotified = Observe.isObserved(fiber)
  return hasSpan || isNotified
    ? { hasSpan, isNotified, queued, expected: estimate(), pausedBefore: Pauses.upTo(limiter.pauses, now) }
    : undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// Waiting
// ---------------------------------------------------------------------------------------------------------------------

/** Waits in the queue, then runs the call's effect. */
export const waitAndRun = <Self extends Host<Self>>(limiter: Self, waiter: Waiter): Effect.Effect<any, any, any> => {
  const { observation } = waiter
  return observation === undefined
    ? park(limiter, waiter)
    : Effect.flatMap(observedWait(limiter, waiter, observation), () => start(limiter, waiter))
}

/**
 * Parks the fiber of a waiter until it is resumed.
 *
 * It is resumed with the effect that starts it. A continuation after the wait would be one more object that every
 * parked fiber keeps alive, and a third of the cost of a wait is the garbage collector copying such objects. (An
 * observed wait has a continuation, since its span ends before the start.)
 */
const park = <Self extends Host<Self>>(limiter: Self, waiter: Waiter): Effect.Effect<any, any, any> =>
  Effect.callback((resume) => {
    if (waiter.outcome !== undefined) return resume(waiter.outcome)
    waiter.resume = resume
    limiter.backend.onPark(limiter, waiter)
  })

/** Parks the fiber of a waiter until it is resumed, and does not wait for the same any more. */
const parkOn = <Self extends Host<Self>>(limiter: Self, waiter: Waiter): Effect.Effect<any, any, any> => {
  const { waitsOn } = limiter.backend
  const parked = park(limiter, waiter)
  return waitsOn === undefined
    ? parked
    : Effect.flatMap(parked, () => waitsOn(limiter, waiter) ? parkOn(limiter, waiter) : Effect.void)
}

/** Notifies of the event `Waiting`, then parks the fiber, within a span. */
const observedWait = <Self extends Host<Self>>(
  limiter: Self,
  waiter: Waiter,
  { expected, hasSpan, isNotified, queued }: Observation
): Effect.Effect<any, any, any> => {
  const about = () => ({ queued, ...(expected === undefined ? undefined : { expected: expected / 1e6 }) })
  const parked = parkOn(limiter, waiter)
  const wait = hasSpan
    ? Observe.withWaitSpan(parked, () => ({
      ...description(limiter, waiter),
      ...about(),
      waited: millisSince(limiter, waiter),
      ...pausedUntil(limiter, waiter, Time.now(limiter.time))
    }))
    : parked
  const notice = isNotified
    ? Observe.notify(waiter.fiber, "Waiting", () => ({
      _tag: "Waiting",
      ...description(limiter, waiter),
      ...about(),
      ...pausedUntil(limiter, waiter, Infinity)
    }))
    : undefined
  return notice === undefined ? wait : Effect.andThen(notice, wait)
}

/** Resumes a parked waiter that may start now. */
export const resumeToStart = <Self extends Host<Self>>(limiter: Self, waiter: Waiter): void =>
  resumeWith(waiter, waiter.observation === undefined ? Effect.suspend(() => start(limiter, waiter)) : Effect.void)

/** Makes a waiter's fiber continue with an effect: now, or as soon as it is parked. */
export const resumeWith = (waiter: Waiter, effect: Effect.Effect<any, any, any>): void => {
  const { resume } = waiter
  waiter.resume = undefined
  if (resume === undefined) waiter.outcome = effect
  else resume(effect)
}

/**
 * The same for a waiter that ends without a start, in a task of its own. A resumed fiber runs at once as far as it can: it
 * may use the throttle again, and its observers may throw. The change that ends the wait is complete by then.
 */
export const endWith = (waiter: Waiter, effect: Effect.Effect<any, any, any>): void => {
  const { fiber, resume } = waiter
  waiter.resume = undefined
  waiter.outcome = effect
  if (resume !== undefined) fiber.currentDispatcher.scheduleTask(() => resume(effect), 0)
}

/**
 * Starts a waiter, and continues with its effect in the step that charges it. Parks it again if it may not start after
 * all, for example because a pause has begun since it was resumed.
 */
const start = <Self extends Host<Self>>(limiter: Self, waiter: Waiter): Effect.Effect<any, any, any> => {
  if (waiter.state === "left") return waiter.outcome!
  const { observation } = waiter
  if (!limiter.backend.startIfReady(limiter, waiter)) {
    // The backend observes a wait anew if the call waits for something else now.
    if (waiter.observation !== observation) return waitAndRun(limiter, waiter)
    const parked = park(limiter, waiter)
    return observation === undefined ? parked : Effect.flatMap(parked, () => start(limiter, waiter))
  }
  const notice = notifyEnd(limiter, waiter, "Admitted")
  // The observer runs while the permits are held: the call has started, however long the observer takes.
  return limiter.backend.runHolding(
    limiter,
    waiter,
    notice === undefined ? waiter.self : Effect.andThen(notice, waiter.self)
  )
}

// ---------------------------------------------------------------------------------------------------------------------
// Leaving without a start
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Rejects a waiter. It leaves the queue before the error is built, so that the error counts only the remaining calls.
 */
export const reject = <Self extends Host<Self>>(limiter: Self, waiter: Waiter, error: () => ThrottleError): void => {
  const waited = millisSince(limiter, waiter)
  waiter.state = "left"
  limiter.backend.leave(limiter, waiter)
  endWith(waiter, rejection(limiter, waiter.fiber, waiter.demand, error(), waited))
}

/** Ends the wait of a call whose fiber was interrupted. Returns the notice to run, if there is one. */
export const abandon = <Self extends Host<Self>>(limiter: Self, waiter: Waiter): Effect.Effect<void> | undefined => {
  waiter.state = "left"
  waiter.resume = undefined
  limiter.backend.leave(limiter, waiter)
  Counts.interrupted(limiter.counts)
  return notifyEnd(limiter, waiter, "Interrupted")
}

/** Interrupts a waiter: it leaves the queue, and its call ends as interrupted, also in an uninterruptible region. */
export const interrupt = <Self extends Host<Self>>(limiter: Self, waiter: Waiter): void => {
  const { resume } = waiter
  const notice = abandon(limiter, waiter)
  waiter.resume = resume
  endWith(waiter, notice === undefined ? Effect.interrupt : Effect.andThen(notice, Effect.interrupt))
}

type Rejecting = Pick<Host<never>, "counts" | "plan">

/** Counts a rejection, notifies of it, and fails with it. */
export const rejection = (
  limiter: Rejecting,
  fiber: AnyFiber,
  demand: Demand,
  error: ThrottleError,
  waited: number
): Effect.Effect<never, ThrottleError> => {
  const notice = notifyRejection(limiter, fiber, demand, error, waited)
  return notice === undefined ? Effect.fail(error) : Effect.andThen(notice, Effect.fail(error))
}

/** Counts a rejection and notifies of it. `waited`: milliseconds. */
export const notifyRejection = (
  { counts, plan }: Rejecting,
  fiber: Observe.Source,
  demand: Demand,
  error: ThrottleError,
  waited: number
): Effect.Effect<void> | undefined => {
  Counts.rejected(counts, error.reason._tag)
  return Observe.notify(fiber, "Rejected", () => ({
    _tag: "Rejected",
    throttle: plan.name,
    policy: plan.description,
    cost: demand.cost,
    ...Caller.fields(fiber.getRef(Caller.Caller)),
    ...(plan.shadow ? { shadow: true } : undefined),
    waited,
    error
  }))
}

// ---------------------------------------------------------------------------------------------------------------------
// Observation
// ---------------------------------------------------------------------------------------------------------------------

const notifyEnd = <Self>(
  limiter: Host<Self>,
  waiter: Waiter,
  tag: "Admitted" | "Interrupted"
): Effect.Effect<void> | undefined =>
  waiter.observation?.isNotified === true
    ? Observe.notify(waiter.fiber, tag, () => ({
      _tag: tag,
      ...description(limiter, waiter),
      waited: millisSince(limiter, waiter),
      ...pausedUntil(limiter, waiter, Time.now(limiter.time))
    }))
    : undefined

const description = <Self>({ plan }: Host<Self>, { demand, fiber }: Waiter) => ({
  throttle: plan.name,
  policy: plan.description,
  cost: demand.cost,
  ...Caller.fields(fiber.getRef(Caller.Caller))
})

const millisSince = <Self>({ time }: Host<Self>, { arrival }: Waiter): number => (Time.now(time) - arrival) / 1e6

/** The part of a wait, until an instant, that was a pause. */
const pausedUntil = <Self>({ pauses }: Host<Self>, { observation }: Waiter, at: number) =>
  Pauses.attribute(pauses, observation!.pausedBefore, at)

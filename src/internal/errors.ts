/**
 * Decides whether a call that cannot start at once may wait, and builds the errors of rejected calls.
 */
import * as Duration from "effect/Duration"
import { Draining, PermitsExceedCapacity, QueueFull, ThrottleError, TimedOut, WaitTooLong } from "../ThrottleError.ts"
import type { Waiter } from "./backend.ts"
import * as Bounds from "./bounds.ts"
import * as Budget from "./budget.ts"
import * as Caller from "./caller.ts"
import { byUnit, type Demand } from "./demand.ts"
import * as Estimate from "./estimate.ts"
import type { View } from "./limiter.ts"

/** The reason to reject a call on arrival. */
export type Reason = "PermitsExceedCapacity" | "QueueFull" | "WaitTooLong"

type OwnBounds = Pick<Bounds.Own<unknown>, "maxWait">

/** Returns the reason to reject a call that cannot start at once; undefined if it may wait. Builds no error. */
export const reasonOf = (view: View, demand: Demand, now: number, own?: OwnBounds): Reason | undefined => {
  const { maxQueue, maxQueuePerCaller } = view.plan
  const maxWait = Bounds.maxWaitOf(view.plan, own)
  if (demand.exceeds !== undefined) return "PermitsExceedCapacity"
  const isFull = view.waiters.size >= maxQueue ||
    (maxQueuePerCaller < Infinity && waitingOf(view, Caller.current()) >= maxQueuePerCaller)
  if (isFull && !isBehindOneAhead(view, demand, now)) return "QueueFull"
  return maxWait !== Infinity && Estimate.waitOnArrival(view, demand, now) > maxWait + Budget.tolerance
    ? "WaitTooLong"
    : undefined
}

/** Whether an arriving call need not wait for this limiter, but for a wider one, for which the head waits. */
const isBehindOneAhead = (view: View, demand: Demand, now: number): boolean =>
  view.queue.peek()?.isAhead === true && Estimate.waitOnArrival(view, demand, now) <= Budget.tolerance

/** The number of waiting calls of a caller. */
const waitingOf = ({ callers }: View, { key }: Caller.Caller): number => callers.get(key) ?? 0

/** The content of a rejection, without its error. */
export interface Summary {
  readonly _tag: Reason
  readonly parts: ReadonlyArray<string>
  readonly retryAfter?: Duration.Duration
}

/** Summarizes a rejection in a tenth of the time that its error would take. */
export const summary = (view: View, demand: Demand, now: number, _tag: Reason): Summary =>
  _tag === "PermitsExceedCapacity"
    ? { _tag, parts: [demand.exceeds!.name] }
    : { _tag, parts: Estimate.blockingParts(view, demand, now), ...retryAfter(view, demand, now) }

/** Makes the error of a call that may not wait. `wait`: its wait in nanoseconds, if that is known. */
export const make = (
  view: View,
  demand: Demand,
  now: number,
  reason: Reason,
  wait?: number,
  own?: OwnBounds
): ThrottleError => {
  const { maxQueue, maxQueuePerCaller } = view.plan
  switch (reason) {
    case "PermitsExceedCapacity":
      return exceeds(view, demand)
    case "QueueFull":
      return failed(
        new QueueFull({
          ...retryable(view, demand, now),
          ...(view.waiters.size >= maxQueue
            ? { limit: maxQueue }
            : { limit: maxQueuePerCaller, caller: Caller.current().key })
        })
      )
    case "WaitTooLong":
      return failed(
        new WaitTooLong({ ...retryable(view, demand, now, wait), limit: millis(Bounds.maxWaitOf(view.plan, own)) })
      )
  }
}

/** Makes the error of a call that demands more than can ever be granted. */
export const exceeds = (view: View, demand: Demand): ThrottleError => {
  const { limit, name } = demand.exceeds!
  return failed(new PermitsExceedCapacity({ ...common(view, demand), parts: [name], limit }))
}

/** Makes the error of a call that waited for `timeout`. */
export const timedOut = (view: View, waiter: Waiter, now: number): ThrottleError =>
  failed(
    new TimedOut({
      ...retryable(view, waiter.demand, now, undefined, waiter.caller),
      limit: millis(Bounds.timeoutOf(view.plan, waiter.own))
    })
  )

const millis = (nanos: number): Duration.Duration => Duration.millis(nanos / 1e6)

/** Makes the error of a call that arrives while the throttle drains. */
export const draining = (view: View, demand: Demand): ThrottleError =>
  failed(new Draining({ ...common(view, demand), parts: [] }))

const failed = (reason: ThrottleError["reason"]): ThrottleError => new ThrottleError({ reason })

const common = ({ plan, waiters }: View, demand: Demand) => ({
  throttle: plan.name,
  cost: byUnit(demand.cost),
  queued: waiters.size
})

const retryable = (view: View, demand: Demand, now: number, wait?: number, caller?: Caller.Caller) => ({
  ...common(view, demand),
  parts: Estimate.blockingParts(view, demand, now),
  ...retryAfter(view, demand, now, wait, caller)
})

const retryAfter = (view: View, demand: Demand, now: number, wait?: number, caller?: Caller.Caller) => {
  const after = Estimate.retryAfter(view, demand, now, wait, caller)
  return after === undefined ? undefined : { retryAfter: after }
}

/**
 * Decides whether a call that cannot start at once may wait, and builds the errors of rejected calls.
 */
import * as Duration from "effect/Duration"
import { Draining, PermitsExceedCapacity, QueueFull, ThrottleError, TimedOut, WaitTooLong } from "../ThrottleError.ts"
import * as Budget from "./budget.ts"
import { byUnit, type Demand } from "./demand.ts"
import * as Estimate from "./estimate.ts"
import type { View } from "./limiter.ts"

/** The reason to reject a call on arrival. */
export type Reason = "PermitsExceedCapacity" | "QueueFull" | "WaitTooLong"

/** Returns the reason to reject a call that cannot start at once; undefined if it may wait. Builds no error. */
export const reasonOf = (view: View, demand: Demand, now: number): Reason | undefined => {
  const { maxQueue, maxWait } = view.plan
  if (demand.exceeds !== undefined) return "PermitsExceedCapacity"
  if (view.waiters.size >= maxQueue) return "QueueFull"
  return maxWait !== Infinity && (Estimate.expectedWait(view, demand, now) ?? 0) > maxWait + Budget.tolerance
    ? "WaitTooLong"
    : undefined
}

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
export const make = (view: View, demand: Demand, now: number, reason: Reason, wait?: number): ThrottleError => {
  const { maxQueue, maxWait } = view.plan
  switch (reason) {
    case "PermitsExceedCapacity":
      return exceeds(view, demand)
    case "QueueFull":
      return failed(new QueueFull({ ...retryable(view, demand, now), limit: maxQueue }))
    case "WaitTooLong":
      return failed(new WaitTooLong({ ...retryable(view, demand, now, wait), limit: Duration.millis(maxWait / 1e6) }))
  }
}

/** Makes the error of a call that demands more than can ever be granted. */
export const exceeds = (view: View, demand: Demand): ThrottleError => {
  const { limit, name } = demand.exceeds!
  return failed(new PermitsExceedCapacity({ ...common(view, demand), parts: [name], limit }))
}

/** Makes the error of a call that waited for `timeout`. */
export const timedOut = (view: View, demand: Demand, now: number): ThrottleError =>
  failed(new TimedOut({ ...retryable(view, demand, now), limit: Duration.millis(view.plan.timeout / 1e6) }))

/** Makes the error of a call that arrives while the throttle drains. */
export const draining = (view: View, demand: Demand): ThrottleError =>
  failed(new Draining({ ...common(view, demand), parts: [] }))

const failed = (reason: ThrottleError["reason"]): ThrottleError => new ThrottleError({ reason })

const common = ({ plan, waiters }: View, demand: Demand) => ({
  throttle: plan.name,
  cost: byUnit(demand.cost),
  queued: waiters.size
})

const retryable = (view: View, demand: Demand, now: number, wait?: number) => ({
  ...common(view, demand),
  parts: Estimate.blockingParts(view, demand, now),
  ...retryAfter(view, demand, now, wait)
})

const retryAfter = (view: View, demand: Demand, now: number, wait?: number) => {
  const after = Estimate.retryAfter(view, demand, now, wait)
  return after === undefined ? undefined : { retryAfter: after }
}

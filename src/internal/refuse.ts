/**
 * Why calls that may not start may not wait either, and the errors of that. Reads only.
 */
import * as Duration from "effect/Duration"
import { PermitsExceedCapacity, QueueFull, ThrottleError, TimedOut, WaitTooLong } from "../ThrottleError.ts"
import { type Ask, spelled } from "./ask.ts"
import { expectedWait, inTheWay, retryAfter } from "./foresee.ts"
import { type Limiter, noise } from "./state.ts"

/** Why a call that cannot start at once may not wait either. */
export type Reason = "PermitsExceedCapacity" | "QueueFull" | "WaitTooLong"

/** Why a call that cannot start at once may not wait either; undefined if it may. Builds no error. */
export const reasonOf = (limiter: Limiter, ask: Ask, now: number): Reason | undefined => {
  const { maxQueue, maxWait } = limiter.plan
  if (ask.never !== undefined) return "PermitsExceedCapacity"
  if (limiter.line.size >= maxQueue) return "QueueFull"
  return maxWait !== Infinity && (expectedWait(limiter, ask, now) ?? 0) > maxWait + noise ? "WaitTooLong" : undefined
}

/** What a caller who makes no error of it is told of a refusal: as the error's reason would say it. */
export interface Refusal {
  readonly _tag: Reason
  readonly parts: ReadonlyArray<string>
  readonly retryAfter?: Duration.Duration
}

/** The refusal for this reason without an error, which costs ten times as much. */
export const refusal = (limiter: Limiter, ask: Ask, now: number, _tag: Reason): Refusal => {
  if (_tag === "PermitsExceedCapacity") return { _tag, parts: [ask.never!.name] }
  const wait = retryAfter(limiter, ask, now)
  const parts = inTheWay(limiter, ask, now)
  return wait === undefined ? { _tag, parts } : { _tag, parts, retryAfter: wait }
}

/** What every refusal but the first says. */
const circumstances = (limiter: Limiter, ask: Ask, now: number, known?: number) => {
  const wait = retryAfter(limiter, ask, now, known)
  return {
    throttle: limiter.plan.name,
    cost: spelled(ask.cost),
    queued: limiter.line.size,
    parts: inTheWay(limiter, ask, now),
    ...(wait === undefined ? undefined : { retryAfter: wait })
  }
}

/** More than can ever be granted; undefined where it can. */
export const exceeds = (limiter: Limiter, ask: Ask): ThrottleError | undefined =>
  ask.never === undefined ? undefined : new ThrottleError({
    reason: new PermitsExceedCapacity({
      throttle: limiter.plan.name,
      cost: spelled(ask.cost),
      queued: limiter.line.size,
      parts: [ask.never.name],
      limit: ask.never.limit
    })
  })

export const queueFull = (limiter: Limiter, ask: Ask, now: number): ThrottleError =>
  new ThrottleError({
    reason: new QueueFull({ ...circumstances(limiter, ask, now), limit: limiter.plan.maxQueue })
  })

/** `wait`: how long it would have to wait, in nanoseconds, where that is known. */
export const waitTooLong = (limiter: Limiter, ask: Ask, now: number, wait?: number): ThrottleError =>
  new ThrottleError({
    reason: new WaitTooLong({
      ...circumstances(limiter, ask, now, wait),
      limit: Duration.millis(limiter.plan.maxWait / 1e6)
    })
  })

export const timedOut = (limiter: Limiter, ask: Ask, now: number): ThrottleError =>
  new ThrottleError({
    reason: new TimedOut({ ...circumstances(limiter, ask, now), limit: Duration.millis(limiter.plan.timeout / 1e6) })
  })

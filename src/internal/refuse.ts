/**
 * The errors of calls that may not start, and may not wait either. Reads only.
 */
import * as Duration from "effect/Duration"
import { PermitsExceedCapacity, QueueFull, ThrottleError, TimedOut, WaitTooLong } from "../ThrottleError.ts"
import { type Ask, spelled } from "./ask.ts"
import { inTheWay, retryAfter } from "./foresee.ts"
import type { Limiter } from "./state.ts"

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

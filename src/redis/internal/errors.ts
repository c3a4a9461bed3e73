/**
 * Rejections of calls on a store: whether a call may wait, how long, and the errors of those that may not.
 */
import * as Duration from "effect/Duration"
import type * as Backend from "../../internal/backend.ts"
import * as Bounds from "../../internal/bounds.ts"
import * as Budget from "../../internal/budget.ts"
import { byUnit, type Demand } from "../../internal/demand.ts"
import type { LiveMeter } from "../../internal/grant.ts"
import type { Plan } from "../../internal/plan.ts"
import {
  Draining,
  LeaseLost,
  PermitsExceedCapacity,
  QueueFull,
  StoreError,
  ThrottleError,
  TimedOut,
  WaitTooLong
} from "../../ThrottleError.ts"
import type { Failure } from "./client.ts"
import { headOf, type Lease, type Limiter, now, pausedFor, queuedCalls, type Waiter } from "./limiter.ts"

/**
 * Nanoseconds that waiting calls take, if no other call comes. `paid`: the demand of one of them whose time is in another
 * sum already. `behind`: that of a call behind them, if its own time is to be included.
 */
export const timeFor = (
  { meters }: Plan,
  waiting: ReadonlyArray<Pick<LiveMeter, "waitingCalls" | "waitingCost">>,
  paid: Demand | undefined,
  behind: Demand | undefined
): number => {
  let longest = 0
  meters.forEach(({ pace, rule }, i) => {
    const { waitingCalls, waitingCost } = waiting[i]!
    if (waitingCalls === 0) return
    const all = waitingCost + (behind?.meters[i] ?? 0)
    const time = "per" in rule
      ? Math.floor(Math.max(0, all - 1) / pace.permits) * pace.per
      : (all - (paid?.meters[i] ?? 0)) * pace.per / pace.permits
    longest = Math.max(longest, time)
  })
  return longest
}

/** Nanoseconds that a new call would wait behind the waiting ones; undefined where that cannot be estimated. */
export const expectedWait = (limiter: Limiter, demand: Demand): number | undefined => {
  const due = Math.max(limiter.slot?.due ?? -Infinity, limiter.answer.pausedUntil, limiter.pausedUntil)
  return due === -Infinity
    ? undefined
    : Math.max(0, due - now(limiter)) + timeFor(limiter.plan, limiter.meters, headOf(limiter)?.demand, demand)
}

const failed = (reason: ThrottleError["reason"]): ThrottleError => new ThrottleError({ reason })

const common = (limiter: Limiter, { cost }: Demand, parts: ReadonlyArray<string>) => ({
  throttle: limiter.plan.name,
  cost: byUnit(cost),
  queued: queuedCalls(limiter),
  parts
})

/** `wait`: nanoseconds until the call could start; undefined where that cannot be estimated. */
const retryable = (limiter: Limiter, demand: Demand, wait: number | undefined) => {
  const { answer, plan } = limiter
  const part = [...plan.meters, ...plan.pools][answer.part - 1]
  const isPaused = answer.pausedUntil > now(limiter) || pausedFor(limiter) > 0
  return {
    ...common(limiter, demand, isPaused ? ["pause"] : part === undefined ? [] : [part.name]),
    ...(wait === undefined || wait <= Budget.tolerance || wait === Infinity
      ? undefined
      : { retryAfter: Duration.millis(Math.ceil((wait - Budget.tolerance) / 1e6)) })
  }
}

/**
 * The error of a call that has to wait and may not; undefined if it may. `ofCaller`: the number of waiting calls of its
 * caller. `wait`: as in `retryAfter`.
 */
export const rejectionOf = (
  limiter: Limiter,
  waiter: Waiter,
  ofCaller: number,
  wait: number | undefined
): ThrottleError | undefined => {
  const { caller, demand } = waiter
  const { maxQueue, maxQueuePerCaller } = limiter.plan
  const maxWait = Bounds.maxWaitOf(limiter.plan, waiter.own)
  if (queuedCalls(limiter) >= maxQueue) {
    return failed(new QueueFull({ ...retryable(limiter, demand, wait), limit: maxQueue }))
  }
  if (ofCaller >= maxQueuePerCaller) {
    const full = { ...retryable(limiter, demand, wait), limit: maxQueuePerCaller, caller: caller.key }
    return failed(new QueueFull(full))
  }
  return wait !== undefined && wait > maxWait + Budget.tolerance
    ? failed(new WaitTooLong({ ...retryable(limiter, demand, wait), limit: Duration.millis(maxWait / 1e6) }))
    : undefined
}

export const exceeds = (limiter: Limiter, demand: Demand): ThrottleError => {
  const { limit, name } = demand.exceeds!
  return failed(new PermitsExceedCapacity({ ...common(limiter, demand, [name]), limit }))
}

export const draining = (limiter: Limiter, demand: Demand): ThrottleError =>
  failed(new Draining(common(limiter, demand, [])))

export const timedOut = (limiter: Limiter, waiter: Backend.Waiter): ThrottleError =>
  failed(
    new TimedOut({
      ...retryable(limiter, waiter.demand, expectedWait(limiter, waiter.demand)),
      limit: Duration.millis(Bounds.timeoutOf(limiter.plan, waiter.own) / 1e6)
    })
  )

export const storeError = (limiter: Limiter, demand: Demand, { detail, outcome, retryAfter }: Failure): ThrottleError =>
  failed(new StoreError({ ...retryable(limiter, demand, retryAfter), parts: [], outcome, detail }))

export const leaseLost = (limiter: Limiter, { demand, fence }: Lease): ThrottleError => {
  const parts = limiter.plan.pools.filter((_, j) => (demand.pools[j] ?? 0) > 0).map(({ name }) => name)
  return failed(new LeaseLost({ ...common(limiter, demand, parts), fence }))
}

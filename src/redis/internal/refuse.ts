/**
 * What somebody who waits, or is refused, is told: how long it will be, and why not.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { type Ask, spelled } from "../../internal/ask.ts"
import * as Observe from "../../internal/observe.ts"
import { type AnyFiber, noise } from "../../internal/state.ts"
import {
  LeaseLost,
  PermitsExceedCapacity,
  QueueFull,
  StoreError,
  ThrottleError,
  WaitTooLong
} from "../../ThrottleError.ts"
import * as Client from "./client.ts"
import type { Rules } from "./rules.ts"
import { type Lease, type Limiter, pausedFor, time } from "./state.ts"

/**
 * Nanoseconds that those in line need, if nobody else comes. `paid`: whose part is in another sum already; `ask`: who
 * comes behind them, where its own part is not.
 */
export const needed = (
  { timings }: Rules,
  ahead: ReadonlyArray<{ readonly total: number; readonly calls: number }>,
  paid: Ask | undefined,
  ask: Ask | undefined
): number => {
  let most = 0
  timings.forEach((rule, i) => {
    const { calls, total } = ahead[i]!
    if (calls === 0) return
    const permits = total - (paid?.timings[i] ?? 0) + (ask?.timings[i] ?? 0)
    const starts = calls - Math.min(1, paid?.timings[i] ?? 0) + Math.min(1, ask?.timings[i] ?? 0)
    const micros = rule.kind === "rate"
      ? permits * rule.interval
      : rule.kind === "spacing"
      ? starts * rule.interval
      : Math.floor(Math.max(0, permits + (paid?.timings[i] ?? 0) - 1) / rule.limit) * rule.per
    most = Math.max(most, micros * 1e3)
  })
  return most
}

/** Nanoseconds a newcomer would wait behind those who wait; undefined where nobody can know. */
export const expectedBehind = (limiter: Limiter, ask: Ask, now: number): number | undefined => {
  const due = Math.max(limiter.slot?.due ?? -Infinity, limiter.storePausedUntil, limiter.pausedUntil)
  if (due === -Infinity) return undefined
  return Math.max(0, due - now) + needed(limiter.rules, limiter.ahead, limiter.line.head?.ask, ask)
}

export const circumstances = (limiter: Limiter, ask: Ask, wait: number | undefined) => {
  const { holdings, timings } = limiter.plan
  const part = [...timings, ...holdings][limiter.inTheWay - 1]
  return {
    throttle: limiter.plan.name,
    cost: spelled(ask.cost),
    queued: limiter.told,
    parts: limiter.storePausedUntil > time(limiter) || pausedFor(limiter) > 0
      ? ["pause"]
      : part === undefined
      ? []
      : [part.name],
    ...(wait === undefined || wait <= noise
      ? undefined
      : { retryAfter: Duration.millis(Math.ceil((wait - noise) / 1e6)) })
  }
}

export const exceeds = (limiter: Limiter, ask: Ask): ThrottleError =>
  new ThrottleError({
    reason: new PermitsExceedCapacity({
      throttle: limiter.plan.name,
      cost: spelled(ask.cost),
      queued: limiter.told,
      parts: [ask.never!.name],
      limit: ask.never!.limit
    })
  })

export const storeError = (
  limiter: Limiter,
  ask: Ask,
  { detail, outcome, retryAfter }: Client.Silence
): ThrottleError =>
  new ThrottleError({
    reason: new StoreError({ ...circumstances(limiter, ask, retryAfter), parts: [], outcome, detail })
  })

export const leaseLost = (limiter: Limiter, { ask, fence }: Lease): ThrottleError =>
  new ThrottleError({
    reason: new LeaseLost({
      throttle: limiter.plan.name,
      cost: spelled(ask.cost),
      queued: limiter.told,
      parts: limiter.plan.holdings.filter((_, j) => (ask.holdings[j] ?? 0) > 0).map(({ name }) => name),
      fence
    })
  })

/** Why a call may not wait; undefined if it may. */
export const refusal = (limiter: Limiter, ask: Ask, expected: number | undefined): ThrottleError | undefined => {
  const { maxQueue, maxWait } = limiter.plan
  if (limiter.told >= maxQueue) {
    return new ThrottleError({
      reason: new QueueFull({ ...circumstances(limiter, ask, expected), limit: maxQueue })
    })
  }
  if (expected !== undefined && expected > maxWait + noise) {
    return new ThrottleError({
      reason: new WaitTooLong({ ...circumstances(limiter, ask, expected), limit: Duration.millis(maxWait / 1e6) })
    })
  }
  return undefined
}

/** An error where the type knows it, and otherwise a defect. */
export const failing = (error: ThrottleError, isInline: boolean): Effect.Effect<never, ThrottleError> =>
  isInline ? Effect.die(error) : Effect.fail(error)

export const about = (limiter: Limiter, { ask }: { readonly ask: Ask }) => ({
  throttle: limiter.plan.name,
  policy: limiter.plan.description,
  cost: ask.cost
})

export const reject = (
  limiter: Limiter,
  fiber: AnyFiber,
  ask: Ask,
  error: ThrottleError,
  waited: number,
  isInline = false
): Effect.Effect<never, ThrottleError> => {
  const reason = error.reason._tag
  if (reason in limiter.counters.rejected) {
    limiter.counters.rejected[reason as Observe.Rejection]++
    limiter.series.rejected[reason as Observe.Rejection]++
  }
  const told = Observe.tell(fiber, "Rejected", () => ({ _tag: "Rejected", ...about(limiter, { ask }), waited, error }))
  const failed = failing(error, isInline)
  return told === undefined ? failed : Effect.andThen(told, failed)
}

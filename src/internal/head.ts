/**
 * Decides when the head of the queue may start, and remembers the decision.
 */
import type { Waiter } from "./backend.ts"
import * as Budget from "./budget.ts"
import type { Limiter } from "./limiter.ts"

/**
 * Decides when the head may start. The instant is counted from the scheduled start of the call before it, so it may be
 * in the past: then the head starts late, and is charged at that instant within the lateness tolerance.
 *
 * A decision `ReadyAt` is kept as long as the permits are there. After `NeedsPermits` the instant is not before
 * `freedAt`, when permits were released: the time without permits is not made up for.
 */
export const examine = (limiter: Limiter, waiter: Waiter, freedAt: number): Budget.Decision => {
  const { charged, examined, pauses, pools } = limiter
  if (examined.waiter !== undefined && examined.waiter !== waiter) displace(limiter, freedAt)
  const former = examined.waiter === waiter ? examined.decision : undefined
  if (former?._tag === "ReadyAt" && Budget.hasPermits(pools, waiter.demand)) return former
  const neededPermits = former?._tag === "NeedsPermits"
  const from = Math.max(waiter.arrival, examined.countFrom, pauses.until, neededPermits ? freedAt : -Infinity)
  examined.waiter = waiter
  return examined.decision = Budget.decide(limiter, charged.ref.current, waiter.demand, from)
}

/** Forgets a head that another waiter precedes now. The time until `now` is not made up for, unless it was ready. */
const displace = ({ examined }: Limiter, now: number): void => {
  examined.countFrom = Math.max(
    examined.countFrom,
    examined.decision?._tag === "ReadyAt" ? Math.min(examined.decision.at, now) : now
  )
  examined.waiter = undefined
  examined.decision = undefined
}

/**
 * Discards the decision after a change. A head that was ready before `now` stays ready; otherwise the time until `now`
 * is not made up for.
 */
export const forgetDecision = ({ examined }: Limiter, now: number): void => {
  if (examined.decision?._tag !== "ReadyAt") return
  examined.countFrom = Math.max(examined.countFrom, Math.min(examined.decision.at, now))
  examined.decision = undefined
}

/** Discards the decision: the head's start is counted from now. */
export const restart = ({ examined }: Limiter, now: number): void => {
  examined.countFrom = Math.max(examined.countFrom, now)
  examined.decision = undefined
}

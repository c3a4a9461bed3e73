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
  const { charged, head, pauses, pools } = limiter
  if (head.waiter !== undefined && head.waiter !== waiter) displace(limiter, freedAt)
  const former = head.waiter === waiter ? head.decision : undefined
  if (former?._tag === "ReadyAt" && Budget.hasPermits(pools, waiter.demand)) return former
  const neededPermits = former?._tag === "NeedsPermits"
  const from = Math.max(waiter.arrival, head.since, pauses.until, neededPermits ? freedAt : -Infinity)
  head.waiter = waiter
  return head.decision = Budget.decide(limiter, charged.ref.current, waiter.demand, from)
}

/** Forgets a head that another waiter precedes now. The time until `now` is not made up for, unless it was ready. */
const displace = ({ head }: Limiter, now: number): void => {
  head.since = Math.max(head.since, head.decision?._tag === "ReadyAt" ? Math.min(head.decision.at, now) : now)
  head.waiter = undefined
  head.decision = undefined
}

/**
 * Discards the decision after a change. A head that was ready before `now` stays ready; otherwise the time until `now`
 * is not made up for.
 */
export const forgetDecision = ({ head }: Limiter, now: number): void => {
  if (head.decision?._tag !== "ReadyAt") return
  head.since = Math.max(head.since, Math.min(head.decision.at, now))
  head.decision = undefined
}

/** Discards the decision: the head's start is counted from now. */
export const restart = ({ head }: Limiter, now: number): void => {
  head.since = Math.max(head.since, now)
  head.decision = undefined
}

/**
 * The operations on a limiter that admit no calls: estimate, remaining, statistics, pause, resume, update, reset.
 */
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Budget from "./budget.ts"
import * as Caller from "./caller.ts"
import * as Counts from "./counts.ts"
import * as Demand from "./demand.ts"
import * as Errors from "./errors.ts"
import * as Estimate from "./estimate.ts"
import type { AnyFiber } from "./grant.ts"
import { isRefusing, type Limiter, liveMeter } from "./limiter.ts"
import * as List from "./list.ts"
import { reconsider } from "./local.ts"
import * as Observe from "./observe.ts"
import * as Pauses from "./pauses.ts"
import { continued, orderOf, type Plan } from "./plan.ts"
import * as Pool from "./pool.ts"
import * as Orders from "./queue/orders.ts"
import * as Remaining from "./remaining.ts"
import * as Shadow from "./shadow.ts"
import * as Time from "./time.ts"
import * as Waiters from "./waiter.ts"

/** Estimates how long a call that came now would wait. */
export const estimateWait = (limiter: Limiter, demand: Demand.Demand): Option.Option<Duration.Duration> => {
  const now = Time.now(limiter.time)
  Shadow.advance(limiter, now)
  return Estimate.wait(limiter, demand, now)
}

/** Returns what is left of each part for calls that come now. */
export const remaining = (limiter: Limiter): ReadonlyArray<Remaining.PartRemaining> => {
  const now = Time.now(limiter.time)
  Shadow.advance(limiter, now)
  return Remaining.report(limiter, now)
}

export const statistics = (limiter: Limiter): Counts.Statistics => {
  Shadow.advance(limiter, Time.now(limiter.time))
  const statistics = Counts.statistics(limiter.counts.own)
  return limiter.plan.asksCaller ? { ...statistics, callers: callers(limiter) } : statistics
}

const callers = ({ callers, queue }: Limiter): ReadonlyMap<string, Counts.CallerStatistics> => {
  const ahead = new Map(queue.ranking?.ahead() ?? [])
  return new Map(
    Array.from(new Set([...callers.keys(), ...ahead.keys()]), (key) => [
      key,
      { waiting: callers.get(key) ?? 0, ahead: Duration.nanos(BigInt(Math.round(ahead.get(key) ?? 0))) }
    ])
  )
}

/**
 * Lets no call start for some nanoseconds; a pause that ends later stays as it is. Returns the log line to write, if
 * there is one.
 */
export const pause = (limiter: Limiter, fiber: AnyFiber, nanos: number): Effect.Effect<void> | undefined => {
  const { pauses, plan } = limiter
  const now = Time.now(limiter.time)
  Shadow.advance(limiter, now)
  const until = now + nanos
  if (until <= pauses.until) return undefined
  Pauses.extend(pauses, now, until)
  rejectTooLong(limiter, now)
  reconsider(limiter)
  // In shadow a pause holds back no call, so it is not logged.
  return plan.shadow ? undefined : Observe.pauseLog(fiber, () => ({
    throttle: plan.name,
    policy: plan.description,
    ...(nanos === Infinity ? undefined : { wait: nanos / 1e6 })
  }))
}

/** Ends a pause. */
export const resume = (limiter: Limiter): void => {
  const now = Time.now(limiter.time)
  Shadow.advance(limiter, now)
  Pauses.end(limiter.pauses, now)
  reconsider(limiter)
}

/** Rejects the waiters whose wait would now exceed `maxWait`. */
const rejectTooLong = (limiter: Limiter, now: number): void => {
  for (const [waiter, wait] of Estimate.tooLong(limiter, now)) {
    const error = () => Errors.make(limiter, waiter.demand, now, "WaitTooLong", wait, waiter.own)
    if (Shadow.isSimulated(waiter)) Shadow.reject(limiter, waiter, error, now)
    else if (waiter.state === "waiting") Waiters.reject(limiter, waiter, error)
  }
}

/** Replaces the plan of a limiter, in one step: what is spent stays spent, what is held stays held. */
export const update = (limiter: Limiter, newPlan: Plan): void => {
  // A limiter that drains stays in force.
  const plan = isRefusing(limiter) ? { ...newPlan, shadow: false } : newPlan
  const { charged: { ref }, meters, pools, simulation } = limiter
  const former = limiter.plan
  const now = Time.now(limiter.time)
  if (plan.shadow) Shadow.advance(limiter, now)
  else if (former.shadow) Shadow.putInForce(limiter, now)

  ref.current = Budget.adopt(plan, former, ref.current, now)
  limiter.plan = { ...plan, name: former.name }
  limiter.meters = continued(former.meters, plan.meters).map((i) =>
    i < 0 ? liveMeter() : Object.assign(meters[i]!, liveMeter())
  )
  limiter.pools = continued(former.pools, plan.pools).map((i, j) =>
    i < 0 ? Pool.make(plan.pools[j]!) : Pool.update(pools[i]!, plan.pools[j]!)
  )
  limiter.one = Demand.one(limiter.plan)
  if (!isRefusing(limiter)) limiter.phase = plan.shadow ? "shadow" : "inForce"
  if (!plan.catchesUp) limiter.lateness.until = -Infinity
  simulation.permitsSince = now
  limiter.updatedAt = now
  limiter.callers.clear()
  for (const waiter of List.values(limiter.waiters)) {
    waiter.demand = Demand.forPlan(limiter.plan, waiter.demand)
    waiter.meters = limiter.meters
    waiter.pools = limiter.pools
    if (plan.asksCaller) waiter.caller = waiter.fiber.getRef(Caller.Caller)
    Waiters.count(limiter, waiter, 1)
  }
  limiter.queue = Orders.continued(
    limiter.queue,
    orderOf(former),
    orderOf(limiter.plan),
    limiter.waiters,
    () => Time.now(limiter.time)
  )
  if (plan.shadow) Shadow.rejectExcessive(limiter, now)
  else rejectExcessive(limiter)
  rejectTooLong(limiter, now)
  reconsider(limiter)
  Counts.changed(limiter.counts)
}

/** Rejects the waiters that the new plan can never grant. */
const rejectExcessive = (limiter: Limiter): void => {
  for (const waiter of Array.from(List.values(limiter.waiters))) {
    if (waiter.demand.exceeds !== undefined && waiter.state === "waiting") {
      Waiters.reject(limiter, waiter, () => Errors.exceeds(limiter, waiter.demand))
    }
  }
}

/**
 * Forgets what is spent and owed, in one step. Held permits, waiting calls and pauses stay.
 *
 * A call that started before cannot be refunded any more, or it would refund later calls. Its charges belong to the
 * former `LiveMeter`s, so replacing those makes its tickets void, as those of a part that an update took away. A part
 * that is charged on release keeps its own: a running call is charged when it ends, which is after the reset.
 */
export const reset = (limiter: Limiter): void => {
  const { charged: { ref }, examined, lateness, meters, plan, time, waiters } = limiter
  const now = Time.now(limiter.time)
  Shadow.advance(limiter, now)
  ref.current = Budget.initial(plan)
  limiter.meters = meters.map((meter, i) => plan.meters[i]!.chargedOnRelease === undefined ? { ...meter } : meter)
  for (const waiter of List.values(waiters)) waiter.meters = limiter.meters
  limiter.queue = Orders.restarted(orderOf(plan), waiters, () => Time.now(time))
  reconsider(limiter)
  // The time before is not made up for.
  examined.countFrom = Math.max(examined.countFrom, now)
  lateness.until = -Infinity
}

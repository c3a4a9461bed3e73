/**
 * Applies decisions: the steps that start, settle and end calls. (The fast path charges in `local.ts`, an update adopts
 * charges in `control.ts`.)
 */
import type { Waiter } from "./backend.ts"
import * as Budget from "./budget.ts"
import * as Counts from "./counts.ts"
import type { Demand } from "./demand.ts"
import type { Grant, LiveMeter, Settlement } from "./grant.ts"
import type { Limiter } from "./limiter.ts"
import * as List from "./list.ts"
import { latenessTolerance } from "./part/meter.ts"
import * as Pool from "./pool.ts"
import * as Scheduler from "./scheduler.ts"
import * as Waiters from "./waiter.ts"

// ---------------------------------------------------------------------------------------------------------------------
// The queue
// ---------------------------------------------------------------------------------------------------------------------

export const enqueue = (limiter: Limiter, waiter: Waiter): void => {
  Waiters.enqueue(limiter, waiter)
  limiter.queue.push(waiter)
  Counts.waiting(limiter.counts, 1)
}

export const dequeue = (limiter: Limiter, waiter: Waiter, hasStarted: boolean): void => {
  const { counts, examined, queue, scheduler, waiters } = limiter
  Waiters.remove(limiter, waiter)
  queue.remove(waiter, hasStarted)
  Counts.waiting(counts, -1)
  if (examined.waiter === waiter) {
    examined.waiter = undefined
    examined.decision = undefined
  }
  if (waiters.size === 0) Scheduler.stop(scheduler)
}

// ---------------------------------------------------------------------------------------------------------------------
// Starts
// ---------------------------------------------------------------------------------------------------------------------

/** Charges a call that was ready at `readyAt` and starts at `now`. */
export const charge = (
  limiter: Limiter,
  demand: Demand,
  readyAt: number,
  now: number,
  settlement: Settlement | undefined
): void => {
  const { charged: { ref }, plan } = limiter
  const before = ref.current
  ref.current = Budget.charge(limiter, before, demand, readyAt, now)
  if (settlement === undefined) return
  const { charged, tickets } = Budget.open(plan, ref.current, before, demand)
  ref.current = charged
  settlement.tickets = tickets
  limiter.unsettled++
}

/** Takes the permits of a call that starts, and counts it. */
export const takePermits = ({ counts, pools }: Limiter, demand: Demand): void => {
  if (demand.holdsPermits) {
    for (let i = 0; i < pools.length; i++) Pool.count(pools[i]!, demand.pools[i]!)
  }
  Counts.admitted(counts, demand.holdsPermits)
}

/** Starts a waiter that was ready at `readyAt`, and removes it from the queue. */
export const startWaiter = (limiter: Limiter, waiter: Waiter, readyAt: number, now: number): void => {
  charge(limiter, waiter.demand, readyAt, now, waiter.settlement)
  // Only now: if the clock throws before, the waiter has not started.
  waiter.state = "started"
  takePermits(limiter, waiter.demand)
  dequeue(limiter, waiter, true)
  noteLateness(limiter, readyAt, now)
  if (limiter.plan.learns) waiter.startedAt = now
  if (waiter.demand.holdsPermits) List.add(limiter.holders, waiter)
  Counts.waited(limiter.counts, now - waiter.arrival)
}

/** Notes the scheduled time of a start and how late it is, for the calls that follow. */
export const noteLateness = ({ examined, lateness, plan }: Limiter, readyAt: number, now: number): void => {
  examined.countFrom = readyAt
  lateness.nanos = Math.min(now - readyAt, latenessTolerance)
  lateness.until = plan.catchesUp && lateness.nanos > Budget.tolerance ? now + latenessTolerance : -Infinity
}

// ---------------------------------------------------------------------------------------------------------------------
// Ends
// ---------------------------------------------------------------------------------------------------------------------

/** Releases the permits of a call. `isCharged`: whether meters that are charged on release count this call. */
export const release = (limiter: Limiter, grant: Grant, isCharged: boolean, at: number): void => {
  const { charged: { ref }, plan } = limiter
  List.remove(limiter.holders, grant)
  if (isCharged && plan.chargesReleases) {
    ref.current = Budget.chargeRelease(limiter, ref.current, amounts(limiter, grant), at)
  }
  const { demand, pools } = grant
  for (let i = 0; i < pools.length; i++) Pool.release(pools[i]!, demand.pools[i]!)
  Counts.released(limiter.counts)
}

/** Replaces the estimated cost of a call with the actual one. */
export const settle = (limiter: Limiter, grant: Grant, actual: Demand, now: number): void => {
  const { charged: { ref } } = limiter
  ref.current = Budget.settle(limiter, ref.current, tickets(limiter, grant), amounts(limiter, grant), actual, now)
}

/** Refunds everything a call was charged. */
export const cancel = (limiter: Limiter, grant: Grant, now: number): void => {
  const { charged: { ref }, plan } = limiter
  ref.current = Budget.cancel(plan, ref.current, tickets(limiter, grant), amounts(limiter, grant), now)
}

/** Makes the cost of a call final. */
export const close = (limiter: Limiter, grant: Grant): void => {
  const { charged: { ref }, plan } = limiter
  limiter.unsettled--
  ref.current = Budget.close(plan, ref.current, tickets(limiter, grant))
}

/** The call's demand of each present meter of the limiter; undefined for a meter that an update added since. */
const amounts = (limiter: Limiter, { demand, meters }: Grant): ReadonlyArray<number | undefined> =>
  perMeter(limiter, meters, demand.meters)

const tickets = (limiter: Limiter, { meters, settlement }: Grant): Budget.Tickets =>
  perMeter(limiter, meters, settlement!.tickets)

const perMeter = <A>(
  limiter: Limiter,
  meters: ReadonlyArray<LiveMeter>,
  values: ReadonlyArray<A>
): ReadonlyArray<A | undefined> =>
  meters === limiter.meters ? values : limiter.meters.map((meter) => values[meters.indexOf(meter)])

/**
 * Estimates how long a call would wait, and finds the parts that block it. Changes nothing.
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type { Waiter } from "./backend.ts"
import * as Bounds from "./bounds.ts"
import * as Budget from "./budget.ts"
import type { Caller } from "./caller.ts"
import type { Demand } from "./demand.ts"
import { afterPause, isRefusing, type Limiter, mayStart, newcomer, type View } from "./limiter.ts"
import * as List from "./list.ts"
import { type Backlog, estimateReadyAt } from "./part/meter.ts"
import * as Pool from "./pool.ts"

/** Maximum length of a queue that is simulated for an estimate, so that a rejection is quick. */
const longestPlayed = 1_000

/** Maximum length of a queue that is examined only to report a wait. */
const longestReported = 100

// ---------------------------------------------------------------------------------------------------------------------
// Each meter alone
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Returns when meter `i` alone would let a call start behind all waiting calls; undefined if that takes examining more
 * than `maxCalls`.
 */
const meterReadyAt = (view: View, demand: Demand, i: number, from: number, maxCalls: number): number | undefined => {
  if (from === Infinity) return Infinity
  const { meter } = view.plan.meters[i]!
  const { waitingCalls, waitingCost } = view.meters[i]!
  const waiting: Backlog = { calls: waitingCalls, total: waitingCost, costs: waitingCosts(view, i) }
  return estimateReadyAt(meter, stateIfEnded(view, i, from), from, demand.meters[i]!, waiting, view.wall, maxCalls)
}

function* waitingCosts({ waiters }: View, i: number): Generator<number> {
  for (const { demand } of List.values(waiters)) {
    if (demand.meters[i]! > 0) yield demand.meters[i]!
  }
}

/** Returns the state of meter `i` as if the running call ended now, for a meter that is charged on release. */
const stateIfEnded = ({ charged, plan, pools, wall }: View, i: number, now: number): unknown => {
  const { chargedOnRelease, meter } = plan.meters[i]!
  const state = Budget.stateOf(plan, charged.ref.current, i)
  return chargedOnRelease !== undefined && pools[chargedOnRelease]!.held > 0 ? meter.charge(state, now, 1, wall) : state
}

/**
 * Returns the nanoseconds that a new call would wait, by the slowest meter alone; undefined if no meter is charged and
 * no pause lasts, or if it takes examining more than `maxCalls`.
 */
export const expectedWait = (view: View, demand: Demand, now: number, maxCalls = Infinity): number | undefined => {
  const from = afterPause(view, now)
  let expected = from > now ? from - now : undefined
  for (let i = 0; i < view.meters.length; i++) {
    if (demand.meters[i] === 0) continue
    const at = meterReadyAt(view, demand, i, from, maxCalls)
    if (at === undefined) return undefined
    expected = Math.max(expected ?? 0, at - now)
  }
  return expected
}

/**
 * Returns the wait by which `maxWait` is checked, in nanoseconds. In another order than that of arrival it is the wait if
 * no other call comes; later calls may start first.
 */
export const waitOnArrival = (view: View, demand: Demand, now: number): number =>
  (view.queue.ranking === undefined ? expectedWait(view, demand, now) : untilAvailable(view, demand, now)) ?? 0

/**
 * Finds the waiters that wait for time, and whose wait would now exceed `maxWait`, and the nanoseconds that each would still
 * have to wait. In a policy with permits only the wait still to come counts: how long a call has waited for permits was no part
 * of the estimate when it arrived. Each meter is asked alone, as for a new call. A waiter that is found does not delay those
 * behind it.
 */
export const tooLong = (limiter: Limiter, now: number): ReadonlyArray<readonly [waiter: Waiter, wait: number]> => {
  const { bounded, examined: { decision }, plan: { maxWait, meters }, pools, queue, waiters, wall } = limiter
  if (waiters.size === 0 || queue.ranking !== undefined) return []
  if (maxWait === Infinity && bounded.nodes.length === 0) return []
  const from = afterPause(limiter, now)
  // A head that was ready already, and whose timer is late, is charged when it was ready.
  const readyAt = from === now && decision?._tag === "ReadyAt" ? Math.min(from, decision.at) : from
  const found: Array<readonly [Waiter, number]> = []
  const states = meters.map((_, i) => stateIfEnded(limiter, i, from))
  const latest = meters.map(({ meter }) => Math.max(readyAt, from - meter.lateness))
  for (const waiter of List.values(waiters)) {
    const { demand } = waiter
    if (demand.exceeds !== undefined) continue
    const starts = meters.map(({ meter }, i) =>
      demand.meters[i] === 0
        ? from
        : from === Infinity
        ? Infinity
        : meter.readyAt(states[i], latest[i]!, demand.meters[i]!, wall)
    )
    const start = Math.max(from, ...starts)
    // How long it has waited for permits was not part of the estimate when it came.
    const since = pools.length > 0 ? now : waiter.arrival
    if (
      start > now + Budget.tolerance && start - since > Bounds.maxWaitOf(limiter.plan, waiter.own) + Budget.tolerance
    ) {
      found.push([waiter, start - now])
      continue
    }
    meters.forEach(({ meter }, i) => {
      if (demand.meters[i] === 0) return
      latest[i] = starts[i]!
      states[i] = meter.charge(states[i], starts[i]!, demand.meters[i]!, wall)
    })
  }
  return found
}

// ---------------------------------------------------------------------------------------------------------------------
// All parts together
// ---------------------------------------------------------------------------------------------------------------------

/** The state after all waiting calls have started. */
export interface Played {
  /** The start of the last one, or the end of a pause if that is later. */
  readonly at: number
  readonly charged: Budget.Charged
}

/** Simulates the starts of waiting calls, with all meters together, as if every permit were free. */
const playQueue = (view: View, now: number, calls: Iterable<Waiter>): Played => {
  const { charged, plan } = view
  let at = afterPause(view, now)
  let played = Budget.map(plan, charged.ref.current, (_, __, i) => stateIfEnded(view, i, at))
  for (const { demand } of calls) {
    at = Budget.readyAt(view, played, demand, at)
    played = Budget.map(
      plan,
      played,
      (state, { meter }, i) => demand.meters[i]! > 0 ? meter.charge(state, at, demand.meters[i]!, view.wall) : state
    )
  }
  return { at, charged: played }
}

/**
 * Returns the state after all waiting calls have started; undefined if newcomers are refused, or if that is unknown, since
 * it depends on the ends of running calls, or takes examining more than 1,000 waiting calls.
 */
export const afterQueue = (view: View, now: number): Played | undefined => {
  const { pools, waiters } = view
  return isRefusing(view) || waiters.size > longestPlayed || (waiters.size > 0 && pools.length > 0)
    ? undefined
    : playQueue(view, now, List.values(waiters))
}

/**
 * Returns the nanoseconds until a new call could start if every permit were free; 0 if no meter makes it wait.
 *
 * The whole queue is simulated, since a call also waits behind others for meters that do not charge it. For a long
 * queue it is the estimate of the slowest meter alone.
 */
export const untilAvailable = (view: View, demand: Demand, now: number, caller?: Caller): number => {
  const { plan, queue: { ranking }, waiters } = view
  const isAlone = ranking === undefined && plan.meters.length === 1 && demand.meters[0]! > 0
  if (isAlone || waiters.size > longestPlayed) return expectedWait(view, demand, now) ?? 0
  const ahead = ranking?.before(newcomer(demand, now, caller)) ?? List.values(waiters)
  const { at, charged } = playQueue(view, now, ahead)
  return Budget.readyAt(view, charged, demand, at) - now
}

/** Whether a start depends on the ends of running calls, which cannot be estimated. */
const dependsOnPermits = ({ pools, waiters }: View, demand: Demand): boolean =>
  pools.length > 0 && (waiters.size > 0 || !Budget.hasPermits(pools, demand))

/** Whether a start depends on nothing but the ends of running calls. */
const dependsOnPermitsAlone = (view: View, demand: Demand): boolean =>
  view.meters.length === 0 && dependsOnPermits(view, demand)

/**
 * Returns the wait of a new call for logs and spans, in nanoseconds, as exact as is possible without examining a long
 * queue; undefined if it cannot be estimated.
 */
export const reportedWait = (view: View, demand: Demand, now: number): number | undefined => {
  if (dependsOnPermitsAlone(view, demand)) return undefined
  const expected = view.waiters.size > longestReported
    ? expectedWait(view, demand, now, longestReported)
    : untilAvailable(view, demand, now)
  return expected === Infinity ? undefined : expected
}

/**
 * Returns the time after which a rejected call could start if no other call came; undefined if it cannot be estimated.
 * `known`: its wait in nanoseconds, if that is known.
 */
export const retryAfter = (
  view: View,
  demand: Demand,
  now: number,
  known?: number,
  caller?: Caller
): Duration.Duration | undefined => {
  if (dependsOnPermitsAlone(view, demand)) return undefined
  const wait = known ?? untilAvailable(view, demand, now, caller)
  return wait <= Budget.tolerance || wait === Infinity
    ? undefined
    : Duration.millis(Math.ceil((wait - Budget.tolerance) / 1e6))
}

/** Returns the wait of a new call; none if it cannot be estimated, or if it would never end. */
export const wait = (view: View, demand: Demand, now: number): Option.Option<Duration.Duration> => {
  if (isRefusing(view) || demand.exceeds !== undefined) return Option.none()
  if (mayStart(view, demand, now)) return Option.some(Duration.zero)
  if (dependsOnPermits(view, demand)) return Option.none()
  const wait = untilAvailable(view, demand, now)
  return wait === Infinity ? Option.none() : Option.some(roundedUp(wait))
}

/** A duration in whole microseconds, rounded up. */
export const roundedUp = (nanos: number): Duration.Duration =>
  Duration.millis(Math.max(0, Math.ceil(nanos / 1e3 - 0.1)) / 1e3)

/**
 * Returns the names of the parts that block a new call: those that it waits for, and those that the head of the queue
 * waits for.
 */
export const blockingParts = (view: View, demand: Demand, now: number): ReadonlyArray<string> => {
  const { charged, pauses, plan, pools, queue, wall } = view
  const head = queue.peek()?.demand
  const meters = plan.meters.filter(({ meter }, i) =>
    (demand.meters[i]! > 0 &&
      (meterReadyAt(view, demand, i, now, longestReported) ?? Infinity) > now + Budget.tolerance) ||
    (head !== undefined && head.meters[i]! > 0 &&
      meter.readyAt(Budget.stateOf(plan, charged.ref.current, i), now, head.meters[i]!, wall) > now + Budget.tolerance)
  )
  const blocked = pools.filter((pool, i) => Math.max(demand.pools[i]!, head?.pools[i] ?? 0) > Pool.free(pool))
  const names = new Set([...meters.map(({ name }) => name), ...blocked.map(({ part }) => part.name)])
  return pauses.until > now + Budget.tolerance ? [...names, "pause"] : [...names]
}

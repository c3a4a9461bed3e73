/**
 * Computes what each part of a limiter has left for calls that arrive now. Changes nothing.
 */
import * as Duration from "effect/Duration"
import * as Budget from "./budget.ts"
import * as Estimate from "./estimate.ts"
import { afterPause, type View } from "./limiter.ts"
import type { MeterPart, Plan, PoolPart } from "./plan.ts"
import * as Pool from "./pool.ts"

/** @see Throttle.PartRemaining */
export interface PartRemaining {
  /** The part's name, or else the part in words. */
  readonly name: string
  /** The unit that it counts. */
  readonly unit: string
  /** The most permits that can be left. */
  readonly limit: number
  /** The permits that a call that arrives now could start with, at once. 0 while calls wait, and in a pause. */
  readonly remaining: number
  /** The time until everything is left again, if no call comes. Absent if that depends on the ends of running calls. */
  readonly untilFull?: Duration.Duration
}

export interface Remaining {
  /** The permits that could start now, all at once. */
  readonly permits: number
  /** Nanoseconds until more are left, if no call comes; undefined if none is spent, or if it cannot be estimated. */
  readonly untilMore: number | undefined
}

/**
 * Returns the parts of a plan in the order of {@link remaining}. Spacing from the end is one part, although it has a
 * meter and a pool.
 */
export const partsOf = ({ meters, pools }: Plan): ReadonlyArray<MeterPart | PoolPart> => [
  ...meters,
  ...pools.filter((_, i) => isOwnPart(meters, i))
]

const isOwnPart = (meters: ReadonlyArray<MeterPart>, pool: number): boolean =>
  meters.every(({ chargedOnRelease }) => chargedOnRelease !== pool)

/** Returns the most permits that a part can have left. */
export const capacityOf = (part: MeterPart | PoolPart): number =>
  part.perCall ? 1 : "meter" in part ? part.meter.capacity : part.limit.initial

/** Returns what is left of each part; empty for a policy in shadow, which holds back no call. */
export const remaining = (view: View, now: number): ReadonlyArray<Remaining> => {
  const { plan, pools, waiters } = view
  if (plan.shadow) return []
  // No call overtakes waiting calls, and none starts in a pause.
  if (waiters.size > 0 || afterPause(view, now) > now + Budget.tolerance) {
    const wait = Estimate.untilAvailable(view, view.one, now)
    const untilMore = wait <= Budget.tolerance || wait === Infinity ? undefined : wait
    return partsOf(plan).map((part) => ({ permits: 0, untilMore: "meter" in part ? untilMore : undefined }))
  }
  return [
    ...plan.meters.map((_, i) => ofMeter(view, i, now)),
    ...pools.filter((_, i) => isOwnPart(plan.meters, i)).map((pool) => ({
      permits: Math.max(0, Pool.free(pool)),
      untilMore: undefined
    }))
  ]
}

const ofMeter = ({ charged, plan, pools, wall }: View, i: number, now: number): Remaining => {
  const part = plan.meters[i]!
  const { chargedOnRelease, meter } = part
  // The end of the running call is unknown.
  if (chargedOnRelease !== undefined && pools[chargedOnRelease]!.held > 0) return { permits: 0, untilMore: undefined }
  const state = Budget.stateOf(plan, charged.ref.current, i)
  const capacity = capacityOf(part)
  const until = (cost: number) => cost > capacity ? undefined : meter.readyAt(state, now, cost, wall) - now
  const permits = meter.remaining(state, now, wall)
  const untilMore = until(permits + 1)
  return untilMore === undefined || untilMore > Budget.tolerance
    ? { permits, untilMore }
    : { permits: permits + 1, untilMore: until(permits + 2) }
}

/** Describes what each part has left. In shadow everything is left, since no call is held back. */
export const describe = (view: View, now: number): ReadonlyArray<PartRemaining> => {
  const left = remaining(view, now)
  const { plan, waiters } = view
  return partsOf(plan).map((part, i) => {
    const limit = capacityOf(part)
    const wait = plan.shadow
      ? 0
      : waiters.size > 0
      ? undefined
      : "meter" in part
      ? untilFull(view, part, now)
      : left[i]!.permits === limit
      ? 0
      : undefined
    return {
      name: part.name,
      unit: part.unit,
      limit,
      remaining: left[i]?.permits ?? limit,
      ...(wait === undefined || wait === Infinity
        ? undefined
        : { untilFull: Duration.millis(wait <= Budget.tolerance ? 0 : Math.ceil(wait / 1e3) / 1e3) })
    }
  })
}

/** Returns the nanoseconds until a part could start its capacity at once; undefined if a running call decides. */
const untilFull = (view: View, part: MeterPart, now: number): number | undefined => {
  const { charged, plan, pools, wall } = view
  const { chargedOnRelease, meter } = part
  if (chargedOnRelease !== undefined && pools[chargedOnRelease]!.held > 0) return undefined
  const from = afterPause(view, now)
  if (from === Infinity) return Infinity
  return meter.readyAt(
    Budget.stateOf(plan, charged.ref.current, plan.meters.indexOf(part)),
    from,
    capacityOf(part),
    wall
  ) -
    now
}

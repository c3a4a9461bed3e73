/**
 * Computes what each part of a limiter has left for calls that arrive now. Changes nothing.
 */
import * as Budget from "./budget.ts"
import * as Estimate from "./estimate.ts"
import { afterPause, type View } from "./limiter.ts"
import type { MeterPart, Plan, PoolPart } from "./plan.ts"
import * as Pool from "./pool.ts"

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

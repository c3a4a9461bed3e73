/**
 * Computes what each part of a limiter has left for calls that arrive now. Changes nothing.
 */
import * as Duration from "effect/Duration"
import * as Budget from "./budget.ts"
import * as Estimate from "./estimate.ts"
import { afterPause, isRefusing, type View } from "./limiter.ts"
import type { Rule } from "./part/kinds.ts"
import type { MeterPart, Plan, PoolPart } from "./plan.ts"
import * as Pool from "./pool.ts"

/** @see Throttle.Remaining */
export interface PartRemaining {
  /** The part's name, by default the part in words. */
  readonly name: string
  /** The unit that it counts: "permits" unless it has one. */
  readonly unit: string
  /**
   * The kind of limit: "rate" for `rate` and `tokenBucket`, "sliding" and "fixed" for `window`, "spacing",
   * "concurrency".
   */
  readonly kind: Rule["kind"] | "concurrency"
  /** The most permits that can be left. */
  readonly limit: number
  /** The permits that could start now, all at once. */
  readonly remaining: number
  /** The time until more are left, if no other call comes; undefined if `limit` is left, or if it is unknown. */
  readonly untilMore: Duration.Duration | undefined
  /** The time until `limit` is left, if no other call comes; zero if it is; undefined if it is unknown. */
  readonly untilFull: Duration.Duration | undefined
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

/** Returns what is left of each part: nothing if newcomers are refused; in shadow, what would be left in force. */
export const remaining = (view: View, now: number): ReadonlyArray<Remaining> => {
  const { plan, pools, waiters } = view
  if (isRefusing(view)) return partsOf(plan).map(() => ({ permits: 0, untilMore: undefined }))
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

/** Returns what is left of each part, and how long it takes until nothing is spent or held. */
export const report = (view: View, now: number): ReadonlyArray<PartRemaining> => {
  const left = remaining(view, now)
  const full = Estimate.afterQueue(view, now)
  return partsOf(view.plan).map((part, i) => {
    const { permits, untilMore } = left[i]!
    return describe(part, permits, untilMore, full && untilFull(view, i, full, now))
  })
}

/** Makes the public description of what is left of a part. Times are nanoseconds. */
export const describe = (
  part: MeterPart | PoolPart,
  permits: number,
  untilMore: number | undefined,
  untilFull: number | undefined
): PartRemaining => {
  const limit = capacityOf(part)
  // At a very high rate the tolerance is worth several permits.
  const isFull = untilFull !== undefined && untilFull <= Budget.tolerance
  return {
    name: part.name,
    unit: part.unit,
    kind: "meter" in part ? part.rule.kind : "concurrency",
    limit,
    remaining: isFull ? limit : permits,
    untilMore: isFull ? undefined : durationOf(untilMore),
    untilFull: isFull ? Duration.zero : durationOf(untilFull)
  }
}

const durationOf = (nanos: number | undefined): Duration.Duration | undefined =>
  nanos === undefined || nanos === Infinity ? undefined : Estimate.roundedUp(nanos)

/** Returns the nanoseconds until nothing is spent or held of a part; undefined if it is unknown. */
const untilFull = (view: View, i: number, { at, charged }: Estimate.Played, now: number): number | undefined => {
  const { plan, pools, wall } = view
  if (i >= plan.meters.length) {
    const pool = pools.filter((_, j) => isOwnPart(plan.meters, j))[i - plan.meters.length]!
    return pool.held > 0 ? undefined : at - now
  }
  const part = plan.meters[i]!
  if (part.chargedOnRelease !== undefined && pools[part.chargedOnRelease]!.held > 0) return undefined
  if (at === Infinity) return undefined
  return part.meter.readyAt(Budget.stateOf(plan, charged, i), at, capacityOf(part), wall) - now
}

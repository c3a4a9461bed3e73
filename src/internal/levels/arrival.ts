/**
 * Decides about an arriving call of several levels by their views alone, before a map makes room for its keys: no other
 * key is evicted for a call that neither starts nor waits.
 */
import * as Fiber from "effect/Fiber"
import * as Bounds from "../bounds.ts"
import type * as Counts from "../counts.ts"
import type { Demand } from "../demand.ts"
import * as Errors from "../errors.ts"
import { type Limiter, mayStart, type View } from "../limiter.ts"
import * as Time from "../time.ts"

/** A call at one level. */
export interface Arrival {
  readonly view: View
  /** Where a rejection is counted. */
  readonly counts: Counts.Counts
  readonly demand: Demand
  readonly now: number
  /** The longest wait that the call itself allows, in nanoseconds. */
  readonly own: { readonly maxWait: number } | undefined
}

/** A call at a limiter. To be called in a step of the fiber that makes the call. */
export const ofLimiter = (limiter: Limiter, demand: Demand): Arrival => ({
  view: limiter,
  counts: limiter.counts,
  demand,
  now: Time.now(limiter.time),
  own: limiter.mayReject ? Bounds.ofCall(Fiber.getCurrent()!) : undefined
})

/** The first level that does not let the call start now. */
export interface Stop extends Arrival {
  readonly level: number
  /** Why that level rejects the call; undefined if the call may wait there. */
  readonly reason: Errors.Reason | undefined
}

/**
 * Returns where a call stops; undefined if every level lets it start, and where a level is not in force and decides itself.
 * `arrivals`: from the narrowest level to the widest.
 */
export const firstStop = (arrivals: ReadonlyArray<Arrival>): Stop | undefined => {
  const never = arrivals.findIndex(({ demand, view }) => view.phase === "inForce" && demand.exceeds !== undefined)
  if (never >= 0) return { ...arrivals[never]!, level: never, reason: "PermitsExceedCapacity" }
  for (const [level, arrival] of arrivals.entries()) {
    const { demand, now, own, view } = arrival
    if (view.phase === "shadow") continue
    if (view.phase !== "inForce") return undefined
    if (!mayStart(view, demand, now)) return { ...arrival, level, reason: Errors.reasonOf(view, demand, now, own) }
  }
  return undefined
}

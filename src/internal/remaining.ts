/**
 * What a limiter has left for those who ask now, part by part. Reads only.
 */
import { untilAvailable } from "./foresee.ts"
import type { Holding, Plan, Timing } from "./plan.ts"
import * as Pool from "./pool.ts"
import { type Clockwork, fromNow, type Limiter, noise, stateOf, time } from "./state.ts"

export interface Remaining {
  /** What could start now, all at once. */
  readonly left: number
  /** Nanoseconds until more than that is left, if nobody comes; undefined where nothing is spent, or nobody can know. */
  readonly more: number | undefined
}

/** The parts of a plan in the order in which {@link remaining} tells of them: spacing from the end is one, not two. */
export const partsOf = ({ holdings, timings }: Plan): ReadonlyArray<Timing | Holding> => [
  ...timings,
  ...holdings.filter((_, i) => isOwnPart(timings, i))
]

const isOwnPart = (timings: ReadonlyArray<Timing>, holding: number): boolean =>
  timings.every(({ chargedWhenFree }) => chargedWhenFree !== holding)

/** The most that can be left of a part. */
export const capacityOf = (part: Timing | Holding): number =>
  part.flat ? 1 : "meter" in part ? part.meter.capacity : part.limit

/** Nothing of a policy in shadow, which keeps nobody from anything. */
export const remaining = (limiter: Limiter): ReadonlyArray<Remaining> => {
  if (limiter.plan.shadow) return []
  const { gates, timings } = limiter.parts
  const now = time(limiter)
  // Nobody passes those who wait, and nobody starts in a pause.
  if (limiter.line.size > 0 || fromNow(limiter, now) > now + noise) {
    const wait = untilAvailable(limiter, limiter.one, now)
    const more = wait <= noise || wait === Infinity ? undefined : wait
    return partsOf(limiter.plan).map((part) => ({ left: 0, more: "meter" in part ? more : undefined }))
  }
  const all = timings.map((part) => ofTiming(limiter, part, now))
  gates.forEach(({ free }, i) => {
    if (isOwnPart(timings, i)) all.push({ left: Math.max(0, free), more: undefined })
  })
  return all
}

const ofTiming = (limiter: Limiter, part: Clockwork, now: number): Remaining => {
  const { chargedWhenFree, meter } = part
  // Spacing from the end: nobody knows when the call that runs ends.
  if (chargedWhenFree !== undefined && Pool.isHeld(limiter.parts.gates[chargedWhenFree]!)) {
    return { left: 0, more: undefined }
  }
  const capacity = capacityOf(part)
  const state = stateOf(part)
  const until = (cost: number) => cost > capacity ? undefined : meter.readyAt(state, now, cost, limiter.wall) - now
  const left = meter.remaining(state, now, limiter.wall)
  const more = until(left + 1)
  // What is due within the noise is due.
  return more === undefined || more > noise ? { left, more } : { left: left + 1, more: until(left + 2) }
}

/**
 * What a limiter has left for those who ask now, part by part. Reads only.
 */
import { untilAvailable } from "./foresee.ts"
import { fromNow, isHeld, type Limiter, noise, stateOf, time } from "./state.ts"

/** A part of a policy, and what is left of it. */
export interface Remaining {
  /** The name it was given. */
  readonly given: string | undefined
  readonly name: string
  readonly unit: string
  /** In the long run it grants so many permits in so many nanoseconds; undefined where permits are held, not spent. */
  readonly pace: { readonly permits: number; readonly per: number } | undefined
  /** The most that can be left. */
  readonly capacity: number
  /** What could start now, all at once. */
  readonly left: number
  /** Nanoseconds until more than that is left, if nobody comes; undefined where nothing is spent, or nobody can know. */
  readonly more: number | undefined
}

/** Nothing of a policy in shadow, which keeps nobody from anything. */
export const remaining = (limiter: Limiter): ReadonlyArray<Remaining> => {
  if (limiter.plan.shadow) return []
  const now = time(limiter)
  const { gates, timings } = limiter.parts
  // Nobody passes those who wait, and nobody starts in a pause.
  const isBlocked = limiter.line.size > 0 || fromNow(limiter, now) > now + noise
  const unblocked = isBlocked ? knowable(untilAvailable(limiter, limiter.one, now)) : undefined
  const measured = timings.map((part): Remaining => {
    const { chargedWhenFree, flat, given, meter, name, pace, unit } = part
    const capacity = flat ? 1 : meter.capacity
    const common = { given, name, unit, pace, capacity }
    if (isBlocked) return { ...common, left: 0, more: unblocked }
    // Spacing from the end: nobody knows when the call that runs ends.
    if (chargedWhenFree !== undefined && isHeld(gates[chargedWhenFree]!)) return { ...common, left: 0, more: undefined }
    const wait = (cost: number) => cost > capacity ? undefined : meter.due(stateOf(part), now, cost, limiter.wall) - now
    const left = meter.left(stateOf(part), now, limiter.wall)
    const more = wait(left + 1)
    // What is due within the noise is due.
    return more === undefined || more > noise
      ? { ...common, left, more }
      : { ...common, left: left + 1, more: wait(left + 2) }
  })
  const held = gates.filter((_, i) => timings.every(({ chargedWhenFree }) => chargedWhenFree !== i))
    .map(({ free, given, limit, name, unit }): Remaining => ({
      given,
      name,
      unit,
      pace: undefined,
      capacity: limit,
      left: isBlocked ? 0 : Math.max(0, free),
      more: undefined
    }))
  return [...measured, ...held]
}

const knowable = (nanos: number): number | undefined => nanos <= noise || nanos === Infinity ? undefined : nanos

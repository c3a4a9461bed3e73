/**
 * Settling: what a call turns out to have cost is charged or returned, once, until what it holds is given back.
 */
import * as Effect from "effect/Effect"
import type { Ask } from "./ask.ts"
import { giveBack, type Grant, reconsider } from "./limiter.ts"
import { type Limiter, stateOf, time } from "./state.ts"

/** Charges or returns the difference to what it was charged. A part that an update has taken out counts no more. */
export const settle = (limiter: Limiter, grant: Grant, actual: Ask): void => {
  if (!grant.open || grant.settled) return
  grant.settled = true
  const now = time(limiter)
  for (const { amount, part, ticket } of grant.charges) {
    const i = limiter.parts.timings.indexOf(part)
    // A start is a start, whatever it turns out to have cost.
    const more = i < 0 || part.flat ? 0 : actual.timings[i]! - amount
    if (more > 0) part.state.ref.current = part.meter.charge(stateOf(part), now, more, limiter.wall)
    if (more < 0) part.state.ref.current = part.meter.refund(stateOf(part), ticket, now, -more)
  }
  reconsider(limiter)
}

/** As if it had never been let in: returns all it was charged and gives back what it holds. */
export const cancel = (limiter: Limiter, grant: Grant): Effect.Effect<void> =>
  Effect.uninterruptible(Effect.suspend(() => {
    if (!grant.open || grant.settled) return Effect.void
    grant.settled = true
    const now = time(limiter)
    for (const { amount, part, ticket } of grant.charges) {
      if (amount > 0) part.state.ref.current = part.meter.refund(stateOf(part), ticket, now, amount)
    }
    reconsider(limiter)
    return giveBack(limiter, grant, false)
  }))

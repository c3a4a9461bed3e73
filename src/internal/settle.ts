/**
 * Settling: what a call turns out to have cost is charged or returned, once, until what it holds is given back.
 */
import * as Effect from "effect/Effect"
import type { Ask } from "./ask.ts"
import * as Ledger from "./ledger.ts"
import { giveBack, type Grant, reconsider } from "./limiter.ts"
import * as Shadow from "./shadow.ts"
import { type Limiter, time } from "./state.ts"

/** Charges or returns the difference to what it was charged. A part that an update has taken out counts no more. */
export const settle = (limiter: Limiter, grant: Grant, actual: Ask): void => {
  if (!grant.open || grant.settled) return
  grant.settled = true
  if (grant.shadow !== undefined) Shadow.settle(limiter, grant.shadow, actual)
  else Ledger.settleCharges(limiter, grant.charges, actual, time(limiter))
  if (!limiter.plan.shadow) reconsider(limiter)
}

/** As if it had never been let in: returns all it was charged and gives back what it holds. */
export const cancel = (limiter: Limiter, grant: Grant): Effect.Effect<void> =>
  Effect.uninterruptible(Effect.suspend(() => {
    if (!grant.open || grant.settled) return Effect.void
    grant.settled = true
    if (grant.shadow !== undefined) {
      grant.open = false
      Shadow.cancel(limiter, grant.shadow)
    } else Ledger.cancelCharges(grant.charges, time(limiter))
    if (!limiter.plan.shadow) reconsider(limiter)
    return giveBack(limiter, grant, false)
  }))

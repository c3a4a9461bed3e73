/**
 * What levels of this process and of a store have in common for `admission.ts` and `waiter.ts`.
 */
import type { Host } from "../backend.ts"
import * as Bounds from "../bounds.ts"
import * as Demand from "../demand.ts"
import * as List from "../list.ts"
import type { Plan } from "../plan.ts"

/**
 * Makes the state of the levels of one call, or of several one after the other. `first`: the narrowest level. `plan`: without
 * parts; its units are those of all.
 */
export const make = (
  { counts, pauses, time }: Pick<Host<never>, "counts" | "pauses" | "time">,
  plan: Plan
): Omit<Host<never>, "backend"> => ({
  plan,
  meters: [],
  pools: [],
  one: Demand.one(plan),
  time,
  counts,
  pauses,
  waiters: List.make(),
  callers: new Map(),
  bounded: Bounds.deadlines(),
  mayReject: true,
  afterCall: undefined
})

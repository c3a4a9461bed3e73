/**
 * Decides in one step about a call that a key's limit and another limiter must both admit, as an HTTP server needs for
 * each request.
 */
import * as Fiber from "effect/Fiber"
import * as Budget from "../budget.ts"
import * as Counts from "../counts.ts"
import type * as Demand from "../demand.ts"
import * as Errors from "../errors.ts"
import { isRefusing, type Limiter, mayStart, type View } from "../limiter.ts"
import * as Local from "../local.ts"
import * as Observe from "../observe.ts"
import * as Calls from "./calls.ts"
import * as Keyed from "./keyed.ts"
import * as Lending from "./lending.ts"
import * as Sweep from "./sweep.ts"

/**
 * Starts a call that will hold nothing, of a key without a limiter and of the other limiter, if both let it start in
 * this step; otherwise charges neither. Returns whether it started.
 */
export const startAtOnce = <K>(
  keyed: Keyed.Keyed<K>,
  given: K,
  demandOf: Calls.DemandOf,
  other: Limiter | undefined
): boolean => {
  if (keyed.phase !== "open" || (other !== undefined && (other.pools.length > 0 || other.phase !== "inForce"))) {
    return false
  }
  const key = Keyed.canonical(keyed, given)
  if (Lending.lentTo(keyed, key) !== undefined) return false
  const now = Keyed.now(keyed)
  const idle = Keyed.idleOf(keyed, key, now)
  const { charged, kind } = idle
  if (!kind.holdsNothing) return false
  const demand = demandOf(kind.view)
  const next = demand.exceeds === undefined ? Budget.chargeIfReady(kind.view, charged, demand, now) : undefined
  if (next === undefined || (other !== undefined && !mayStart(other, other.one, now))) return false
  // Another key is evicted only for a call that starts.
  if (!idle.isRemembered && !Sweep.makeRoom(keyed)) return false
  if (other !== undefined && !Local.startNow(other, other.one, undefined)) return false
  Calls.admit(keyed, idle, next)
  // Last, since it may drop this key.
  Sweep.countCall(keyed)
  return true
}

export interface Rejected {
  /** Whether the other limiter rejects the call. */
  readonly isOther: boolean
  readonly summary: Errors.Summary
}

/**
 * Rejects a call that may neither start now nor wait, without building its error. Returns undefined, and does nothing,
 * if the call may start or wait; if an observer or a log needs the error; and if the decision is made elsewhere,
 * because a limiter drains, is closed or in shadow or the map is full.
 */
export const rejectAtOnce = <K>(
  keyed: Keyed.Keyed<K>,
  given: K,
  demandOf: Calls.DemandOf,
  other: Limiter | undefined
): Rejected | undefined => {
  if (keyed.phase !== "open" || (other !== undefined && isRefusing(other))) return undefined
  const now = Keyed.now(keyed)
  const view = Calls.peek(keyed, given)
  const demand = demandOf(view)
  const rejected = reasonOf(view, demand, now)
  if (rejected !== undefined) {
    const counts = keyed.lent.get(Keyed.canonical(keyed, given))?.limiter.counts ?? keyed.counts
    return reject(keyed, view, counts, demand, now, rejected, false)
  }
  if (other === undefined || view.phase === "shadow" || !mayStart(view, demand, now)) return undefined
  const reason = reasonOf(other, other.one, now)
  return reason && reject(keyed, other, other.counts, other.one, now, reason, true)
}

const reasonOf = (view: View, demand: Demand.Demand, now: number): Errors.Reason | undefined =>
  view.phase !== "inForce" || mayStart(view, demand, now) ? undefined : Errors.reasonOf(view, demand, now)

const reject = <K>(
  keyed: Keyed.Keyed<K>,
  view: View,
  counts: Counts.Counts,
  demand: Demand.Demand,
  now: number,
  reason: Errors.Reason,
  isOther: boolean
): Rejected | undefined => {
  if (Observe.isObserved(Fiber.getCurrent()!)) return undefined
  Counts.rejected(counts, reason)
  const summary = Errors.summary(view, demand, now, reason)
  // Last, since it may drop this key.
  Sweep.countCall(keyed)
  return { isOther, summary }
}

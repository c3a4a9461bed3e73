/**
 * Decides in one step about a call that the limits of keys, each in another map, and a further limiter must all admit, as
 * an HTTP server needs for each request.
 */
import * as Fiber from "effect/Fiber"
import * as Budget from "../budget.ts"
import * as Counts from "../counts.ts"
import * as Errors from "../errors.ts"
import * as Arrival from "../levels/arrival.ts"
import { type Limiter, mayStart } from "../limiter.ts"
import * as Local from "../local.ts"
import * as Observe from "../observe.ts"
import * as Calls from "./calls.ts"
import * as Keyed from "./keyed.ts"
import * as Lending from "./lending.ts"
import * as Sweep from "./sweep.ts"

/** A call of a key. */
export interface KeyCall<K> {
  readonly keyed: Keyed.Keyed<K>
  readonly key: K
  readonly demandOf: Calls.DemandOf
}

/** A key without a limiter, and what it is charged after the call. */
interface Quote<K> {
  readonly keyed: Keyed.Keyed<K>
  readonly idle: Keyed.Idle
  readonly charged: Budget.Charged
}

/**
 * Starts a call that will hold nothing, of keys without limiters and of the other limiter, if all of them let it start
 * in this step; otherwise charges none. Returns whether it started.
 */
export const startAtOnce = <K>(calls: ReadonlyArray<KeyCall<K>>, other: Limiter | undefined): boolean => {
  if (other !== undefined && (other.pools.length > 0 || other.phase !== "inForce")) return false
  const quotes: Array<Quote<K>> = []
  let now = 0
  for (const call of calls) {
    // To make room for one key may drop another key of the same map.
    if (quotes.some(({ keyed }) => keyed === call.keyed)) return false
    now = Keyed.now(call.keyed)
    const quote = quoteOf(call, now)
    if (quote === undefined) return false
    quotes.push(quote)
  }
  if (other !== undefined && !mayStart(other, other.one, now)) return false
  // Another key is evicted only for a call that starts.
  if (!quotes.every(({ idle, keyed }) => idle.isRemembered || Sweep.makeRoom(keyed))) return false
  if (other !== undefined && !Local.startNow(other, other.one, undefined)) return false
  for (const { charged, idle, keyed } of quotes) {
    Calls.admit(keyed, idle, charged)
    // Last, since it may drop this key.
    Sweep.countCall(keyed)
  }
  return true
}

const quoteOf = <K>({ demandOf, key: given, keyed }: KeyCall<K>, now: number): Quote<K> | undefined => {
  if (keyed.phase !== "open") return undefined
  const key = Keyed.canonical(keyed, given)
  if (Lending.lentTo(keyed, key) !== undefined) return undefined
  const idle = Keyed.idleOf(keyed, key, now)
  const { kind } = idle
  if (!kind.holdsNothing) return undefined
  const demand = demandOf(kind.view)
  if (demand.exceeds !== undefined) return undefined
  const charged = Budget.chargeIfReady(kind.view, idle.charged, demand, now)
  return charged === undefined ? undefined : { keyed, idle, charged }
}

export interface Rejected {
  /** Which of the calls is rejected; their number for that of the other limiter. */
  readonly level: number
  readonly summary: Errors.Summary
}

/**
 * Rejects a call that may neither start now nor wait, without building its error. Returns undefined, and does nothing,
 * if the call may start or wait; if an observer or a log needs the error; and if the decision is made elsewhere,
 * because a limiter drains, is closed or in shadow or the map is full.
 */
export const rejectAtOnce = <K>(
  calls: ReadonlyArray<KeyCall<K>>,
  other: Limiter | undefined
): Rejected | undefined => {
  if (calls.some(({ keyed }) => keyed.phase !== "open") || Observe.isObserved(Fiber.getCurrent()!)) return undefined
  const arrivals = calls.map(({ demandOf, key, keyed }) => Calls.arrival(keyed, key, demandOf))
  if (other !== undefined) arrivals.push(Arrival.ofLimiter(other, other.one))
  const stop = Arrival.firstStop(arrivals)
  if (stop?.reason === undefined || arrivals.some(({ view }) => view.phase === "shadow")) return undefined
  const { counts, demand, level, now, reason, view } = stop
  Counts.rejected(counts, reason)
  const summary = Errors.summary(view, demand, now, reason)
  // Last, since it may drop this key.
  Sweep.countCall(calls[0]!.keyed)
  return { level, summary }
}

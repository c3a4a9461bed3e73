/**
 * What a call takes from a limiter, and what it gives back: charges, permits, and the numbers that go with them. Nothing
 * else changes them.
 */
import type * as Effect from "effect/Effect"
import type { ThrottleError } from "../ThrottleError.ts"
import type { Ask } from "./ask.ts"
import * as Line from "./line.ts"
import * as Observe from "./observe.ts"
import { catchUp } from "./plan.ts"
import * as Pool from "./pool.ts"
import {
  type AnyFiber,
  type Call,
  type Charge,
  dueFrom,
  type Holder,
  type Limiter,
  noise,
  stateOf,
  time
} from "./state.ts"

/**
 * Charges the timing parts if each of them would let it start now. One call of each meter and not two, since that is
 * what a call costs here: the compiler does not see through them where several kinds of meters are in use, and each
 * number that goes in or out becomes an object (`all` of three: 490 ns with two, 450 with one).
 */
export const chargeIfDue = (limiter: Limiter, ask: Ask, now: number): boolean => {
  if (now < limiter.lateUntil) return chargeIfNearlyDue(limiter, ask, now)
  const { timings } = limiter.parts
  for (let i = 0; i < timings.length; i++) {
    const amount = ask.timings[i]!
    const part = timings[i]!
    part.next = amount === 0 ? stateOf(part) : part.meter.tryCharge(stateOf(part), now, amount, limiter.wall)
    if (part.next === undefined) return chargeIfNearlyDue(limiter, ask, now)
  }
  for (let i = 0; i < timings.length; i++) {
    const part = timings[i]!
    if (part.chargedWhenFree === undefined) part.state.ref.current = part.next
  }
  return true
}

export const chargeIfNearlyDue = (limiter: Limiter, ask: Ask, now: number, charges?: Array<Charge>): boolean => {
  const isLate = now < limiter.lateUntil
  const due = dueFrom(limiter, ask, isLate ? Math.max(limiter.headSince, now - limiter.late) : now)
  if (due > now + noise) return false
  charge(limiter, ask, now, due, charges)
  if (isLate) noteLateness(limiter, now, due)
  return true
}

/**
 * Remembers how late a start was. Who calls one effect after the other calls late because of it, and the schedule would
 * lose that time: until the catch-up is over, a call is judged as if it had come as much earlier.
 */
export const noteLateness = (limiter: Limiter, now: number, due: number): void => {
  limiter.headSince = due
  limiter.late = Math.min(now - due, catchUp)
  limiter.lateUntil = limiter.plan.catchesUp && limiter.late > noise ? now + catchUp : -Infinity
}

/** Charges the timing parts. `due` is when it was due, `now` when it really starts. */
export const charge = (limiter: Limiter, ask: Ask, now: number, due: number, charges?: Array<Charge>): void => {
  const { timings } = limiter.parts
  for (let i = 0; i < timings.length; i++) {
    const amount = ask.timings[i]!
    const part = timings[i]!
    if (part.chargedWhenFree !== undefined) continue
    const before = stateOf(part)
    const at = Math.max(due, now - part.meter.lateness)
    if (amount > 0) part.state.ref.current = part.meter.charge(before, at, amount, limiter.wall)
    if (charges === undefined) continue
    if (amount === 0) {
      charges.push({ part, amount, ticket: undefined })
      continue
    }
    const { state, ticket } = part.meter.open(stateOf(part), before)
    part.state.ref.current = state
    charges.push({ part, amount, ticket })
  }
}

/** Takes the permits. */
export const admit = (limiter: Limiter, ask: Ask): void => {
  if (ask.holds) {
    const { gates } = limiter.parts
    for (let i = 0; i < gates.length; i++) gates[i]!.free -= ask.holdings[i]!
    limiter.counters.running++
    limiter.series.running++
  }
  limiter.counters.admitted++
  limiter.series.admitted++
}

export const count = (limiter: Limiter, ask: Ask, sign: 1 | -1): void => {
  const { timings } = limiter.parts
  for (let i = 0; i < timings.length; i++) {
    const amount = ask.timings[i]!
    if (amount === 0) continue
    timings[i]!.total += sign * amount
    timings[i]!.calls += sign
  }
  limiter.counters.waiting += sign
  limiter.series.waiting += sign
}

export const noteWait = (limiter: Limiter, nanos: number): void => {
  limiter.counters.waited += nanos
  limiter.counters.longestWait = Math.max(limiter.counters.longestWait, nanos)
  Observe.addWait(limiter.series.waits, nanos / 1e9)
}

/** Lets a call of the line start: charges it as of `due`, takes its permits, and takes it out of the line. */
export const startHead = (limiter: Limiter, call: Call, now: number, due: number): void => {
  call.state = "started"
  charge(limiter, call.ask, now, due, call.charges)
  if (call.charges !== undefined) limiter.open++
  admit(limiter, call.ask)
  Line.leave(limiter.line, call)
  count(limiter, call.ask, -1)
  noteLateness(limiter, now, due)
  if (call.ask.holds) Line.enter(limiter.holders, call)
  noteWait(limiter, now - call.arrival)
}

/** Gives back what a call held. `isCharged`: whether spacing from the end counts from its end. */
export const giveBack = (limiter: Limiter, holder: Holder, isCharged: boolean, at?: number): void => {
  const { ask, parts: { gates, timings } } = holder
  Line.leave(limiter.holders, holder)
  for (let i = 0; i < timings.length; i++) {
    const part = timings[i]!
    if (part.chargedWhenFree === undefined || ask.timings[i] === 0 || !isCharged) continue
    part.state.ref.current = part.meter.charge(stateOf(part), at ?? time(limiter), 1, limiter.wall)
  }
  for (let i = 0; i < gates.length; i++) Pool.release(gates[i]!, ask.holdings[i]!)
  limiter.counters.running--
  limiter.series.running--
}

/** What was charged is settled no more. */
export const closeCharges = (limiter: Limiter, charges: ReadonlyArray<Charge>): void => {
  limiter.open--
  for (const { amount, part, ticket } of charges) {
    if (amount > 0) part.state.ref.current = part.meter.close(stateOf(part), ticket)
  }
}

/** Charges or returns the difference to what was charged. A part that an update has taken out counts no more. */
export const settleCharges = (limiter: Limiter, charges: ReadonlyArray<Charge>, actual: Ask, now: number): void => {
  for (const { amount, part, ticket } of charges) {
    const i = limiter.parts.timings.indexOf(part)
    // A start is a start, whatever it turns out to have cost.
    const more = i < 0 || part.flat ? 0 : actual.timings[i]! - amount
    if (more > 0) part.state.ref.current = part.meter.charge(stateOf(part), now, more, limiter.wall)
    if (more < 0) part.state.ref.current = part.meter.refund(stateOf(part), ticket, now, -more)
  }
}

/** Returns all that was charged. */
export const cancelCharges = (charges: ReadonlyArray<Charge>, now: number): void => {
  for (const { amount, part, ticket } of charges) {
    if (amount > 0) part.state.ref.current = part.meter.refund(stateOf(part), ticket, now, amount)
  }
}

/** Counts a rejection, and tells of it. */
export const countRejection = (
  limiter: Limiter,
  fiber: AnyFiber,
  ask: Ask,
  error: ThrottleError,
  waited: number
): Effect.Effect<void> | undefined => {
  const reason = error.reason._tag as Observe.Rejection
  limiter.counters.rejected[reason]++
  limiter.series.rejected[reason]++
  return Observe.tell(fiber, "Rejected", () => ({
    _tag: "Rejected",
    throttle: limiter.plan.name,
    policy: limiter.plan.description,
    cost: ask.cost,
    ...(limiter.plan.shadow ? { shadow: true } : undefined),
    waited,
    error
  }))
}

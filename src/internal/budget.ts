/**
 * The decision: when may a call start? Pure functions.
 *
 * All that the meters of a limiter have charged is one immutable value. A decision is a function of that value, of the
 * free permits and of the call's demand; charging returns a new value. Everything that asks whether a call may start
 * asks here: a call that arrives, the head of the queue, an idle key, a simulated queue, an estimate.
 */
import type { Demand } from "./demand.ts"
import type { Wall } from "./part/meter.ts"
import { continued, type MeterPart, type Plan } from "./plan.ts"
import * as Pool from "./pool.ts"

/**
 * What the meters of a plan have charged. With one meter it is that meter's state, so that an idle key stores little
 * more; with several it is the array of their states. Read it with {@link stateOf}.
 */
export type Charged = unknown

/** When a call could start if it were the next one. */
export type Decision =
  /** At this instant, which may be in the past. */
  | { readonly _tag: "ReadyAt"; readonly at: number }
  /** When enough permits are released. */
  | { readonly _tag: "NeedsPermits" }
  /** Never: it demands more than can ever be granted. */
  | { readonly _tag: "Never" }

const needsPermits: Decision = { _tag: "NeedsPermits" }
const never: Decision = { _tag: "Never" }

/**
 * A call is ready if it is ready within 1 µs (in nanoseconds). Sleeps are whole microseconds, rounded down, because
 * added fractions could end just after the intended millisecond.
 */
export const tolerance = 1_000

/** What a decision depends on, besides the charges and the demand. */
export interface Basis {
  readonly plan: Plan
  readonly pools: ReadonlyArray<Pool.Pool>
  readonly wall: Wall
}

/** Decides when a call may start, at or after `from`. */
export const decide = (basis: Basis, charged: Charged, demand: Demand, from: number): Decision =>
  demand.exceeds !== undefined
    ? never
    : hasPermits(basis.pools, demand)
    ? { _tag: "ReadyAt", at: readyAt(basis, charged, demand, from) }
    : needsPermits

export const isReady = (decision: Decision, now: number): boolean =>
  decision._tag === "ReadyAt" && decision.at <= now + tolerance

export const hasPermits = (pools: ReadonlyArray<Pool.Pool>, demand: Demand): boolean => {
  for (let i = 0; i < pools.length; i++) {
    if (demand.pools[i]! > Pool.free(pools[i]!)) return false
  }
  return true
}

/** Returns the first instant, at or after `from`, at which every meter lets a call start. */
export const readyAt = ({ plan, wall }: Basis, charged: Charged, demand: Demand, from: number): number => {
  // A pause without an end.
  if (from === Infinity) return Infinity
  const { maxIterations, meters } = plan
  for (let iteration = 0;; iteration++) {
    let at = from
    for (let i = 0; i < meters.length; i++) {
      const amount = demand.meters[i]!
      if (amount > 0) at = meters[i]!.meter.readyAt(stateOf(plan, charged, i), at, amount, wall)
    }
    // A meter may have moved the instant past that of a meter asked before it, so all are asked again until they agree.
    if (at === from || iteration + 1 >= maxIterations) return at
    from = at
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// What is charged
// ---------------------------------------------------------------------------------------------------------------------

/** Returns the charges of a limiter that has spent nothing. */
export const initial = ({ meters }: Plan): Charged =>
  meters.length === 1 ? meters[0]!.meter.initial : meters.map(({ meter }) => meter.initial)

/** Returns the charges of a limiter that is made at an instant: its buckets may not be full. */
export const starting = (plan: Plan, at: number): Charged =>
  map(plan, initial(plan), (initial, { meter }) => meter.startingAt === undefined ? initial : meter.startingAt(at))

/** Whether decisions from `now` on are the same as with the initial value. */
export const isInitial = ({ meters }: Plan, charged: Charged, now: number): boolean =>
  meters.length === 1
    ? meters[0]!.meter.isInitial(charged, now)
    : meters.every(({ meter }, i) => meter.isInitial((charged as ReadonlyArray<unknown>)[i], now))

/** Whether nothing that was charged affects decisions any more. */
export const isUnspent = ({ meters }: Plan, charged: Charged, now: number): boolean =>
  meters.length === 1
    ? meters[0]!.meter.isUnspent(charged, now)
    : meters.every(({ meter }, i) => meter.isUnspent((charged as ReadonlyArray<unknown>)[i], now))

/** Returns the state of meter `i`. */
export const stateOf = ({ meters }: Plan, charged: Charged, i: number): unknown =>
  meters.length === 1 ? charged : (charged as ReadonlyArray<unknown>)[i]

/** Replaces the state of each meter by the result of `next`. */
export const map = (
  plan: Plan,
  charged: Charged,
  next: (state: unknown, part: MeterPart, i: number) => unknown
): Charged => {
  const { meters } = plan
  return meters.length === 1
    ? next(charged, meters[0]!, 0)
    : meters.map((part, i) => next((charged as ReadonlyArray<unknown>)[i], part, i))
}

/**
 * Charges a call that starts now, if every meter allows it; otherwise undefined.
 *
 * The fast path: `readyAt` and `charge` in one call of each meter. With several kinds of meters in use the compiler
 * does not inline these calls, and allocates each number passed in or out: `all` of three takes 490 ns with two calls
 * for each meter and 450 with one.
 */
export const tryCharge = (
  { plan, wall }: Basis,
  charged: Charged,
  demand: Demand,
  now: number
): Charged | undefined => {
  const { meters } = plan
  if (meters.length === 1) {
    const amount = demand.meters[0]!
    if (amount === 0) return charged
    const { chargedOnRelease, meter } = meters[0]!
    const next = meter.tryCharge(charged, now, amount, wall)
    return next === undefined || chargedOnRelease === undefined ? next : charged
  }
  const states: Array<unknown> = []
  for (let i = 0; i < meters.length; i++) {
    const { chargedOnRelease, meter } = meters[i]!
    const state = (charged as ReadonlyArray<unknown>)[i]
    const amount = demand.meters[i]!
    const next = amount === 0 ? state : meter.tryCharge(state, now, amount, wall)
    if (next === undefined) return undefined
    states.push(chargedOnRelease === undefined ? next : state)
  }
  return states
}

/** Charges a call that starts now, if it is ready within the tolerance; otherwise undefined. */
export const chargeIfReady = (basis: Basis, charged: Charged, demand: Demand, now: number): Charged | undefined => {
  const next = tryCharge(basis, charged, demand, now)
  if (next !== undefined) return next
  const at = readyAt(basis, charged, demand, now)
  return at > now + tolerance ? undefined : charge(basis, charged, demand, at, now)
}

/**
 * Charges a call that was ready at `readyAt` and starts at `now`. It is charged at `readyAt`, but not earlier than the
 * meter's lateness tolerance allows.
 */
export const charge = (
  { plan, wall }: Basis,
  charged: Charged,
  demand: Demand,
  readyAt: number,
  now: number
): Charged =>
  map(plan, charged, (state, { chargedOnRelease, meter }, i) => {
    const amount = demand.meters[i]!
    if (amount === 0 || chargedOnRelease !== undefined) return state
    return meter.charge(state, Math.max(readyAt, now - meter.lateness), amount, wall)
  })

/**
 * Charges the meters that are charged on release. `amounts`: the call's demand of each meter; undefined for a meter
 * that an update added since.
 */
export const chargeRelease = (
  { plan, wall }: Basis,
  charged: Charged,
  amounts: ReadonlyArray<number | undefined>,
  at: number
): Charged =>
  map(
    plan,
    charged,
    (state, { chargedOnRelease, meter }, i) =>
      chargedOnRelease !== undefined && (amounts[i] ?? 0) > 0 ? meter.charge(state, at, 1, wall) : state
  )

/** Carries over the charges of another plan's meters. */
export const adopt = (plan: Plan, former: Plan, charged: Charged, now: number): Charged => {
  const formerOf = continued(former.meters, plan.meters)
  return map(plan, initial(plan), (initial, { meter }, i) => {
    const j = formerOf[i]!
    return j < 0 ? initial : meter.adopt(stateOf(former, charged, j), former.meters[j]!.meter, now)
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// Settling
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Identifies a call's charge to each meter, so that it can be refunded until it is closed; undefined for a meter that
 * did not charge the call at its start.
 */
export type Tickets = ReadonlyArray<unknown>

/** Makes the charges that led from `before` to `charged` refundable. */
export const open = (
  plan: Plan,
  charged: Charged,
  before: Charged,
  demand: Demand
): { readonly charged: Charged; readonly tickets: Tickets } => {
  const tickets: Array<unknown> = []
  const opened = map(plan, charged, (state, { chargedOnRelease, meter }, i) => {
    if (demand.meters[i] === 0 || chargedOnRelease !== undefined) return state
    const one = meter.open(state, stateOf(plan, before, i))
    tickets[i] = one.ticket
    return one.state
  })
  return { charged: opened, tickets }
}

/** Makes the charges of a call final. */
export const close = (plan: Plan, charged: Charged, tickets: Tickets): Charged =>
  map(plan, charged, (state, { meter }, i) => tickets[i] === undefined ? state : meter.close(state, tickets[i]))

/** Replaces the estimated cost of a call with the actual one. For a meter that counts calls nothing changes. */
export const settle = (
  { plan, wall }: Basis,
  charged: Charged,
  tickets: Tickets,
  estimated: ReadonlyArray<number | undefined>,
  actual: Demand,
  now: number
): Charged =>
  map(plan, charged, (state, { chargedOnRelease, meter, perCall }, i) => {
    // A meter without an estimate was added by an update and did not charge the call.
    if (perCall || chargedOnRelease !== undefined || estimated[i] === undefined) return state
    const more = actual.meters[i]! - estimated[i]!
    return more > 0
      ? meter.charge(state, now, more, wall)
      : more < 0
      ? meter.refund(state, tickets[i], now, -more)
      : state
  })

/** Refunds everything a call was charged. */
export const cancel = (
  plan: Plan,
  charged: Charged,
  tickets: Tickets,
  amounts: ReadonlyArray<number | undefined>,
  now: number
): Charged =>
  map(
    plan,
    charged,
    (state, { meter }, i) => tickets[i] === undefined ? state : meter.refund(state, tickets[i], now, amounts[i]!)
  )

/**
 * What a call asks for: its cost, as each part of the policy sees it.
 */
import * as Formatter from "effect/Formatter"
import * as Predicate from "effect/Predicate"
import { type Holding, permits, type Plan, type Timing } from "./plan.ts"

/** What a call costs: permits, or an amount for each unit. */
export type Cost = number | Readonly<Record<string, number>>

/** An amount for each of the plan's timings and holdings. */
export interface Ask {
  /** The plan whose parts its amounts are for. */
  readonly plan: Plan
  readonly cost: Cost
  readonly timings: ReadonlyArray<number>
  readonly holdings: ReadonlyArray<number>
  /** Whether it holds anything while it runs. */
  readonly holds: boolean
  /** The part that could never grant this, if there is one: then it is refused at once, and no meter is asked. */
  readonly never: { readonly name: string; readonly limit: number } | undefined
}

/** The cost of a call that names none: one permit. */
export const askOne = (plan: Plan): Ask => fromGiven(plan, 1, {})

/** Throws a RangeError for a cost that makes no sense to this throttle: `units` are those that may be asked for. */
export const askFor = (plan: Plan, cost: Cost, units = plan.units): Ask => {
  if (typeof cost !== "number" && (!Predicate.isObject(cost) || Predicate.isIterable(cost))) {
    throw senseless(
      plan,
      `a cost must be a number of permits or an amount for each unit, got ${Formatter.format(cost)}`
    )
  }
  // Copied, so that what is checked is what is charged.
  const given = Object.fromEntries(Object.entries(spelled(cost)))
  for (const [unit, amount] of Object.entries(given)) {
    if (units !== undefined && !units.has(unit)) {
      const known = [...units].map((unit) => Formatter.format(unit)).join(", ")
      throw senseless(plan, `nothing here counts ${Formatter.format(unit)}; it counts ${known}`)
    }
    if (!Number.isSafeInteger(amount) || amount < 0) {
      const got = `${Formatter.format(amount)} for ${Formatter.format(unit)}`
      throw senseless(plan, `a cost must be a whole number of at least 0, got ${got}`)
    }
  }
  return fromGiven(plan, typeof cost === "number" ? cost : given, given)
}

/** The same cost as other parts see it, after an update: what none of them counts any more costs nothing. */
export const askAgain = (plan: Plan, { cost }: Ask): Ask => fromGiven(plan, cost, spelled(cost))

/** What it asks of the parts as they are now: a call may be worked out one step before an update, and come one after. */
export const upToDate = ({ plan }: { readonly plan: Plan }, ask: Ask): Ask =>
  ask.plan === plan ? ask : askAgain(plan, ask)

/** What a call turns out to have cost: also in units that were counted when it asked, and are no more. */
export const askActual = (plan: Plan, asked: Ask, actual: Cost): Ask => {
  const before = asked.plan.units
  const checked = askFor(plan, actual, plan.units && before && new Set([...plan.units, ...before]))
  // What is not named stays as it was asked for.
  const given = { ...spelled(asked.cost), ...spelled(checked.cost) }
  return fromGiven(plan, given, given)
}

const senseless = (plan: Plan, why: string) => new RangeError(`throttle ${Formatter.format(plan.name)}: ${why}`)

/** The cost with its unit named. */
export const spelled = (cost: Cost): Readonly<Record<string, number>> =>
  typeof cost === "number" ? { [permits]: cost } : cost

const fromGiven = (plan: Plan, cost: Cost, given: Readonly<Record<string, number>>): Ask => {
  const amount = ({ flat, unit }: Timing | Holding): number => {
    const amount = Object.hasOwn(given, unit) ? given[unit]! : unit === permits ? 1 : 0
    return flat ? Math.min(1, amount) : amount
  }
  const timings = plan.timings.map(amount)
  const holdings = plan.holdings.map(amount)
  const timing = plan.timings.find((part, i) => timings[i]! > part.meter.capacity)
  const holding = plan.holdings.find((part, i) => holdings[i]! > part.limit)
  return {
    plan,
    cost,
    timings,
    holdings,
    holds: holdings.some((amount) => amount > 0),
    never: timing === undefined ? holding : { name: timing.name, limit: timing.meter.capacity }
  }
}

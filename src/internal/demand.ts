/**
 * Resolves the cost of a call into a demand: an amount for each part of a plan.
 */
import * as Formatter from "effect/Formatter"
import * as Predicate from "effect/Predicate"
import { type MeterPart, permits, type Plan, type PoolPart } from "./plan.ts"

/** A number of permits, or an amount for each unit. */
export type Cost = number | Readonly<Record<string, number>>

export interface Demand {
  /** The plan to whose parts the amounts belong. */
  readonly plan: Plan
  readonly cost: Cost
  readonly meters: ReadonlyArray<number>
  readonly pools: ReadonlyArray<number>
  readonly holdsPermits: boolean
  /**
   * The first part that can never grant this demand, if there is one. Such a call is rejected at once, and no meter is
   * asked.
   */
  readonly exceeds: { readonly name: string; readonly limit: number } | undefined
}

/** The demand of a call that names no cost: one permit. */
export const one = (plan: Plan): Demand => resolve(plan, 1, {})

/** Resolves a cost. Throws a `RangeError` if it is invalid. `units`: those that it may name. */
export const make = (plan: Plan, cost: Cost, units = plan.units): Demand => {
  const received = (value: unknown) => Formatter.format(value)
  if (typeof cost !== "number" && (!Predicate.isObject(cost) || Predicate.isIterable(cost))) {
    throw invalid(plan, `a cost must be a number of permits or an amount for each unit, received ${received(cost)}`)
  }
  // A copy, so that a later change of the object, or a getter, cannot change what was checked.
  const amounts = Object.fromEntries(Object.entries(byUnit(cost)))
  for (const [unit, amount] of Object.entries(amounts)) {
    if (units !== undefined && !units.has(unit)) {
      const known = [...units].map(received).join(", ")
      throw invalid(plan, `unknown unit ${received(unit)}; this policy counts: ${known}`)
    }
    if (!Number.isSafeInteger(amount) || amount < 0) {
      throw invalid(plan, `a cost must be an integer ≥ 0, received ${received(amount)} for ${received(unit)}`)
    }
  }
  return resolve(plan, typeof cost === "number" ? cost : amounts, amounts)
}

/** Resolves the same cost for the parts of another plan. A unit that no part counts any more costs nothing. */
export const forPlan = (plan: Plan, demand: Demand): Demand =>
  demand.plan === plan ? demand : resolve(plan, demand.cost, byUnit(demand.cost))

/**
 * Resolves the actual cost of a call. It may name units that were counted when the call started; units that it does not
 * name stay as estimated.
 */
export const actual = (plan: Plan, estimated: Demand, cost: Cost): Demand => {
  const before = estimated.plan.units
  const { cost: checked } = make(plan, cost, plan.units && before && new Set([...plan.units, ...before]))
  const amounts = { ...byUnit(estimated.cost), ...byUnit(checked) }
  return resolve(plan, amounts, amounts)
}

export const byUnit = (cost: Cost): Readonly<Record<string, number>> =>
  typeof cost === "number" ? { [permits]: cost } : cost

const invalid = (plan: Plan, message: string) => new RangeError(`throttle ${Formatter.format(plan.name)}: ${message}`)

const resolve = (plan: Plan, cost: Cost, amounts: Readonly<Record<string, number>>): Demand => {
  const amountOf = ({ perCall, unit }: MeterPart | PoolPart): number => {
    const amount = Object.hasOwn(amounts, unit) ? amounts[unit]! : unit === permits ? 1 : 0
    return perCall ? Math.min(1, amount) : amount
  }
  const meters = plan.meters.map(amountOf)
  const pools = plan.pools.map(amountOf)
  const meter = plan.meters.find((part, i) => meters[i]! > part.meter.capacity)
  const pool = plan.pools.find((part, i) => pools[i]! > part.limit.initial)
  return {
    plan,
    cost,
    meters,
    pools,
    holdsPermits: pools.some((amount) => amount > 0),
    exceeds: meter === undefined
      ? pool && { name: pool.name, limit: pool.limit.initial }
      : { name: meter.name, limit: meter.meter.capacity }
  }
}

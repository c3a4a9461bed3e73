/**
 * A policy as a store counts it: its limits as plain data, each under a name of its own. Times are microseconds.
 */
import * as Duration from "effect/Duration"
import type { Rule as MeterRule } from "../../internal/part/kinds.ts"
import { latenessTolerance } from "../../internal/part/meter.ts"
import { isAligned, permits, type Plan } from "../../internal/plan.ts"

/** Everything in a store is in microseconds, everything in a process in nanoseconds. */
export const micros = (nanos: number): number => nanos / 1e3
export const nanos = (micros: number): number => micros * 1e3

/** A sleep, which ends no sooner than a store that counts in whole microseconds says. */
export const sleepAtLeast = (nanos: number): Duration.Duration =>
  Duration.millis(Math.max(1, Math.ceil(micros(nanos))) / 1e3)

/**
 * A part of a policy that decides by time, in microseconds, by its `kind`: "rate" has `interval` and `capacity`, "sliding" and
 * "fixed" have `per` and `limit`, "calendar" has `unit`, `zone` and `limit`, "spacing" has `interval` and `align`. `field` is its name in the store, the same in every
 * process with this policy.
 *
 * @category models
 * @since 0.1.0
 */
export type Rule = MeterRule & { readonly field: string }

/**
 * A part of a policy whose permits are leased.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pool {
  readonly field: string
  readonly limit: number
}

/**
 * A policy as a store counts it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rules {
  readonly meters: ReadonlyArray<Rule>
  readonly pools: ReadonlyArray<Pool>
}

/** A rule with its times in another unit. */
const convert = <R extends MeterRule>(rule: R, unit: (time: number) => number): R =>
  "interval" in rule
    ? { ...rule, interval: unit(rule.interval) }
    : "per" in rule
    ? { ...rule, per: unit(rule.per) }
    : rule

/** The rule of a meter, which counts in nanoseconds. */
export const meterRule = (rule: Rule): MeterRule => convert(rule, nanos)

/** How late a call that waited may be and still be charged when it was ready, as in memory. */
export const grace = micros(latenessTolerance)

/**
 * What is ready within this many microseconds is ready: for rates, whose instants are fractions. The other parts are exact
 * to the microsecond.
 */
export const rateTolerance = 1

/** The largest error of a sum of fractions: half a nanosecond, in microseconds. */
export const rounding = 5e-4

/**
 * How long the first process in the queue for permits has to ask again after a message that some are free: 300 ms, in
 * microseconds. Longer than the interval at which it asks without messages, so a lost message does not cost its place.
 */
export const notifiedPatience = 300e3

/**
 * A log of more entries than this is kept in steps of a thousandth of its window, each counted at its end: it stays small,
 * and no window ever has more than its limit.
 */
const longestLog = 1_000

/** The step of a sliding window's log; 0 where every start is an entry of its own. */
export const grainOf = (per: number, limit: number): number => limit > longestLog ? Math.ceil(per / longestLog) : 0

/** The most permits that can be left of a part. */
export const limitOf = (rule: Rule): number => "capacity" in rule ? rule.capacity : "limit" in rule ? rule.limit : 1

const letters: { readonly [K in MeterRule["kind"]]: string } = {
  rate: "r",
  sliding: "s",
  fixed: "x",
  calendar: "d",
  spacing: "p"
}

/** A pattern of Lua for the names of all parts that decide by time. */
export const meterFields = `^[${Object.values(letters).join("")}]%d`

/** The name of a part in the store: its kind, which of several alike it is, its unit and its given name. */
const namer = () => {
  const seen = new Map<string, number>()
  return (letter: string, part: (Plan["meters"] | Plan["pools"])[number]): string => {
    const nth = seen.get(part.identity) ?? 0
    seen.set(part.identity, nth + 1)
    const unit = part.unit === permits ? "" : `:${encodeURIComponent(part.unit)}`
    const name = part.givenName === undefined ? "" : `#${encodeURIComponent(part.givenName)}`
    return `${letter}${nth}${unit}${name}`
  }
}

export const rulesOf = ({ meters, pools }: Plan): Rules => {
  const nameOf = namer()
  return {
    meters: meters.map((part) => ({ ...convert(part.rule, micros), field: nameOf(letters[part.rule.kind], part) })),
    pools: pools.map((part) => ({ field: nameOf("c", part), limit: part.limit.initial }))
  }
}

/** Whether the parts that decide by time are the same, in the same order. Their limits may differ. */
export const haveSameMeters = (one: Plan, other: Plan): boolean => {
  if (one === other) return true
  const [{ meters }, others] = [rulesOf(one), rulesOf(other)]
  return meters.length === others.meters.length && meters.every(({ field }, i) => field === others.meters[i]!.field)
}

/** Why several processes cannot share a policy; undefined if they can. */
export const undistributable = (plan: Plan): { readonly part: string; readonly why: string } | undefined => {
  if (plan.shadow) {
    return {
      part: plan.description,
      why: "shadow counts what one process would have done, so there is nothing to share"
    }
  }
  const fromEnd = plan.meters.find((part) => part.chargedOnRelease !== undefined)
  if (fromEnd !== undefined) {
    return { part: fromEnd.name, why: "a process that is killed never ends its call; use spacing from the start" }
  }
  const aligned = plan.meters.filter(isAligned)
  const filling = plan.meters.find(({ rule }) => rule.kind === "rate" && rule.initial !== undefined)
  if (filling !== undefined) {
    return {
      part: filling.name,
      why: "\"initial\" is for the beginning of a process, but what is spent outlives processes in the store"
    }
  }
  return aligned.length > 1
    ? { part: aligned[1]!.name, why: "only one part may be on the clock; use the longer interval alone" }
    : undefined
}

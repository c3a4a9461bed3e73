/**
 * A policy as a store counts it: plain numbers, in microseconds, each part under a name of its own.
 */
import type { Holding, Plan, Timing } from "../../internal/plan.ts"
import { catchUp, permits } from "../../internal/plan.ts"

/**
 * A part of a policy that decides by time, in microseconds. `field` is its name in the store, the same in every process
 * with this policy.
 *
 * @category models
 * @since 0.1.0
 */
export type Rule =
  | { readonly kind: "rate"; readonly field: string; readonly interval: number; readonly capacity: number }
  | { readonly kind: "sliding"; readonly field: string; readonly per: number; readonly limit: number }
  | { readonly kind: "fixed"; readonly field: string; readonly per: number; readonly limit: number }
  | { readonly kind: "spacing"; readonly field: string; readonly interval: number; readonly align: boolean }

/**
 * A part of a policy whose permits are leased.
 *
 * @category models
 * @since 0.1.0
 */
export interface Gate {
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
  readonly timings: ReadonlyArray<Rule>
  readonly gates: ReadonlyArray<Gate>
}

/** How late a call that waited may be and still be charged when it was due, as in memory: 10 ms, in microseconds. */
export const grace = catchUp / 1e3

/**
 * What is due within this many microseconds is due: for rates, whose instants are fractions. The other parts keep what they
 * promise to the microsecond.
 */
export const rateNoise = 1

/** Half a nanosecond, in microseconds: what sums of fractions are off by at most. */
export const noise = 5e-4

/**
 * How long the first process in the line for permits has to ask again once it was sent a message that some are free: 300 ms, in
 * microseconds. Longer than the interval at which it looks without messages, so it keeps its place where they are lost.
 */
export const wokenPatience = 300e3

/**
 * A log of more entries than this is kept in steps of a thousandth of its window, each counted at its end: so it stays
 * small, and no window ever has more than its limit.
 */
export const longestLog = 1_000

/** The step of a sliding window's log, in microseconds; 0 where every start is an entry of its own. */
export const grainOf = (per: number, limit: number): number => limit > longestLog ? Math.ceil(per / longestLog) : 0

const letters: Readonly<Record<string, string>> = {
  "rate": "r",
  "sliding": "s",
  "fixed": "x",
  "spacing from the start": "p",
  "concurrency": "c"
}

/** What a part is called in the store: its kind, which of several alike it is, and what it counts. */
const namer = () => {
  const seen = new Map<string, number>()
  return ({ key }: { readonly key: string }): string => {
    const nth = seen.get(key) ?? 0
    seen.set(key, nth + 1)
    const [kind, unit, name] = JSON.parse(key) as [string, string, string | null]
    const counted = unit === permits ? "" : `:${encodeURIComponent(unit)}`
    return `${letters[kind]}${nth}${counted}${name === null ? "" : `#${encodeURIComponent(name)}`}`
  }
}

const micros = (nanos: number): number => nanos / 1e3

const ruleOf = ({ key, meter }: Timing, field: string): Rule => {
  const kind = (JSON.parse(key) as [string])[0]
  const interval = micros(meter.interval)
  switch (kind) {
    case "rate":
      return { kind, field, interval, capacity: meter.capacity }
    case "sliding":
    case "fixed":
      return { kind, field, per: interval, limit: meter.capacity }
    default:
      return { kind: "spacing", field, interval, align: meter.lateness > 0 }
  }
}

/** Why several processes cannot share a policy; undefined if they can. */
export const undistributable = (plan: Plan): { readonly part: string; readonly why: string } | undefined => {
  if (plan.shadow) {
    return {
      part: plan.description,
      why: "shadow counts what one process would have done, so there is nothing to share"
    }
  }
  const fromEnd = plan.timings.find((part) => part.chargedWhenFree !== undefined)
  if (fromEnd !== undefined) {
    return { part: fromEnd.name, why: "a process that is killed never ends its call; use spacing from the start" }
  }
  const aligned = plan.timings.filter((part) => part.flat && part.meter.lateness > 0)
  if (aligned.length > 1) {
    return { part: aligned[1]!.name, why: "only one part may be on the clock; use the longer interval alone" }
  }
  return undefined
}

export const rulesOf = (plan: Plan): Rules => {
  const nameOf = namer()
  return {
    timings: plan.timings.map((part) => ruleOf(part, nameOf(part))),
    gates: plan.holdings.map((part: Holding) => ({ field: nameOf(part), limit: part.limit }))
  }
}

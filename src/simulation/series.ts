/** The numbers of a simulation over time, as steps, and the limits that apply to them. */
import type * as Throttle from "../Throttle.ts"
import type { Call, Result } from "./run.ts"

/** The value from an instant on, until the next step. */
export interface Step {
  readonly at: number
  readonly value: number
}

export type Steps = ReadonlyArray<Step>

/** Something that lasts from one instant to another. */
interface Stay {
  readonly from: number
  readonly to: number
  readonly weight: number
}

/** How early a start may be: sleeps are whole microseconds, rounded down. */
const microsecond = 1e-3

/** At one instant ends come before begins. */
const countOf = (stays: ReadonlyArray<Stay>): Steps => {
  const ends = stays.toSorted((a, b) => a.to - b.to)
  const begins = stays.toSorted((a, b) => a.from - b.from)
  const steps: Array<{ at: number; value: number }> = []
  let value = 0
  const step = (at: number, by: number) => {
    value += by
    const last = steps.at(-1)
    if (last !== undefined && at - last.at <= microsecond) last.value = value
    else steps.push({ at, value })
  }
  let ended = 0
  for (const { from, weight } of begins) {
    while (ended < ends.length && ends[ended]!.to <= from) step(ends[ended]!.to, -ends[ended++]!.weight)
    step(from, weight)
  }
  while (ended < ends.length && ends[ended]!.to < Infinity) step(ends[ended]!.to, -ends[ended++]!.weight)
  return steps
}

export const highest = (steps: Steps | LimitSteps): number =>
  steps.reduce((most, { value = 0 }) => Math.max(most, value), 0)

/** Calls that wait. */
export const waiting = ({ calls }: Result): Steps =>
  countOf(
    calls.flatMap(({ arrival, wait }) => wait > 0 ? [{ from: arrival, to: arrival + wait, weight: 1 }] : [])
  )

/** The amount of a unit in a cost. */
const amountOf = (cost: Throttle.Cost, unit: string): number =>
  typeof cost === "number" ? (unit === "permits" ? cost : 0) : cost[unit] ?? (unit === "permits" ? 1 : 0)

/** Whether each call costs one permit. */
export const costOne = ({ calls }: Result): boolean => calls.every(({ cost }) => amountOf(cost, "permits") === 1)

/** Whether a call takes time. One that does not never runs beside another. */
export const lasts = ({ end, start }: Call): boolean => start !== undefined && end !== undefined && end > start

/** Calls that run. */
export const running = ({ calls }: Result): Steps =>
  countOf(calls.filter(lasts).map(({ end, start }) => ({ from: start!, to: end!, weight: 1 })))

/** Calls that arrive in each span of this length, or the rejected ones of them. */
export const arriving = ({ calls }: Result, span: number, isCounted: (call: Call) => boolean): Steps =>
  countOf(
    calls.filter(isCounted).map(({ arrival }) => {
      const from = Math.floor(arrival / span) * span
      return { from, to: from + span, weight: 1 }
    })
  )

export const isRefused = ({ outcome }: Call): boolean =>
  outcome !== "done" && outcome !== "interrupted" && outcome !== "waiting"

/** Permits of a unit that running calls hold. */
export const held = ({ calls }: Result, unit: string): Steps =>
  countOf(
    calls.filter(lasts).map(({ cost, end, start }) => ({ from: start!, to: end!, weight: amountOf(cost, unit) }))
  )

/** Permits of a unit that started in the last `per`. */
export const started = ({ calls }: Result, per: number, unit: string): Steps =>
  countOf(
    calls.flatMap(({ cost, start }) =>
      start === undefined ? [] : [{ from: start, to: start + per - microsecond / 2, weight: amountOf(cost, unit) }]
    )
  )

/** A limit of a series: permits of a unit, held at once or started in the last `per`. */
export interface Limit {
  readonly unit: string
  /** Undefined for permits that are held. */
  readonly per: number | undefined
  readonly limit: number
  /** Its word in the policy. Only a "limit" is never exceeded: a rate is exceeded by its burst, a refill by its bucket. */
  readonly word: "limit" | "rate" | "refill"
}

/** The usual lengths of the windows of a calendar, in milliseconds. */
const calendarLengths = { day: 864e5, week: 7 * 864e5, month: 31 * 864e5 } as const

const limitsIn = (data: Throttle.PolicyData, unit = "permits"): ReadonlyArray<Limit> => {
  switch (data._tag) {
    case "All":
      return data.policies.flatMap((part) => limitsIn(part, data.unit ?? unit))
    case "Shadow":
      return limitsIn(data.policy)
    case "Rate":
      return [{ unit: data.unit ?? unit, per: data.per, limit: data.limit, word: "rate" }]
    case "Window":
      return [{
        unit: data.unit ?? unit,
        per: data.kind === "calendar" ? calendarLengths[data.per] : data.per,
        limit: data.limit,
        word: "limit"
      }]
    case "TokenBucket":
      return [{ unit: data.unit ?? unit, per: data.per, limit: data.refill, word: "refill" }]
    case "Concurrency":
      return [{ unit: data.unit ?? unit, per: undefined, limit: data.limit, word: "limit" }]
    case "Spacing":
    case "None":
      return []
  }
}

/** The policies in force, each from an instant on. Updates apply to a single policy, so a chain has no change. */
const stagesOf = (
  { changes, policies }: Result
): ReadonlyArray<{ readonly at: number; readonly data: Throttle.PolicyData }> => [
  { at: 0, data: policies.length === 1 ? policies[0]! : { _tag: "All", policies } },
  ...changes.flatMap((change) => "update" in change ? [{ at: change.at, data: change.update }] : [])
]

/** The limit from an instant on; undefined for none. */
export interface LimitStep {
  readonly at: number
  readonly value: number | undefined
}

export type LimitSteps = ReadonlyArray<LimitStep>

/** One kind of limit, with its value from each instant on. */
interface LimitSeries extends Omit<Limit, "limit"> {
  readonly steps: LimitSteps
}

/** The identity of limits that are one line of a picture. Several of one kind in a policy are told apart by their order. */
const kindsOf = (limits: ReadonlyArray<Limit>): ReadonlyMap<string, Limit> => {
  const found = new Map<string, Limit>()
  for (const limit of limits) {
    const kind = (nth: number) => JSON.stringify([limit.word, limit.per, limit.unit, nth])
    let nth = 0
    while (found.has(kind(nth))) nth++
    found.set(kind(nth), limit)
  }
  return found
}

/** All limits that were in force at some time, with their values: updates may remove and add limits. */
export const limitsOf = (result: Result): ReadonlyArray<LimitSeries> => {
  const stages = stagesOf(result).map(({ at, data }) => ({ at, limits: kindsOf(limitsIn(data)) }))
  const all = new Map(stages.flatMap(({ limits }) => [...limits]))
  return [...all].map(([kind, { per, unit, word }]) => ({
    per,
    unit,
    word,
    steps: stages.map(({ at, limits }) => ({ at, value: limits.get(kind)?.limit }))
  }))
}

/** `maxQueue` from each instant on. In a chain each throttle has its own queue, so no bound applies to all. */
export const queueLimits = (result: Result): LimitSteps => {
  if (result.policies.length > 1) return []
  const steps = stagesOf(result).map(({ at, data }) => {
    const most = maxQueueOf(data)
    return { at, value: most === Infinity ? undefined : most }
  })
  return steps.some(({ value }) => value !== undefined) ? steps : []
}

/** The smallest bound of all parts. */
const maxQueueOf = (data: Throttle.PolicyData): number => {
  if (data._tag === "Shadow") return Infinity
  const own = data.maxQueue ?? Infinity
  return data._tag === "All" ? Math.min(own, ...data.policies.map(maxQueueOf)) : own
}

/**
 * The intervals whose multiples are edges of fixed windows or aligned slots. Those of a calendar are no multiples: they
 * are not drawn.
 */
export const edgesOf = (data: Throttle.PolicyData): ReadonlyArray<number> => {
  switch (data._tag) {
    case "All":
      return data.policies.flatMap(edgesOf)
    case "Window":
      return data.kind === "fixed" ? [data.per] : []
    case "Spacing":
      return data.align ? [data.interval] : []
    default:
      return []
  }
}

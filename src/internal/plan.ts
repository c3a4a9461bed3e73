/**
 * A policy's data, worked out once: nested `all`s flattened into parts, durations in
 * nanoseconds, the smallest of each bound.
 */
import { describe, nameOf, type PolicyData, rule } from "../Policy.ts"
import { fixed } from "./part/fixed.ts"
import type { Meter } from "./part/meter.ts"
import { rate } from "./part/rate.ts"
import { sliding } from "./part/sliding.ts"
import { spacing } from "./part/spacing.ts"

/** A part that decides by time. */
export interface Timing {
  /** By which an update knows it again: its kind, its unit and the name it was given. */
  readonly key: string
  readonly name: string
  /** The name it was given. */
  readonly given: string | undefined
  readonly unit: string
  readonly meter: Meter<any, any>
  /** In the long run it grants so many permits in so many nanoseconds. */
  readonly pace: { readonly permits: number; readonly per: number }
  /** Whether a call counts once, whatever it costs. */
  readonly flat: boolean
  /** The holding (its index) at whose end it is charged; undefined for those charged at the start. */
  readonly chargedWhenFree: number | undefined
}

/** A part whose permits are held while the effect runs. */
export interface Holding {
  readonly key: string
  readonly name: string
  readonly given: string | undefined
  readonly unit: string
  readonly limit: number
  readonly flat: boolean
  /** What becomes of a call that would wait for ever for what its own fiber holds. */
  readonly nested: "die" | "pass"
}

export interface Plan {
  readonly name: string
  readonly description: string
  readonly timings: ReadonlyArray<Timing>
  readonly holdings: ReadonlyArray<Holding>
  /** How often the timing parts must be asked in turn until all agree on an instant; more than once for two on the clock. */
  readonly rounds: number
  /** The units that some part counts; undefined where every unit will do. */
  readonly units: ReadonlySet<string> | undefined
  /** Whether a late start is made up for, also by calls that come after it. */
  readonly catchesUp: boolean
  /** Whether it only counts what it would do. */
  readonly shadow: boolean
  readonly maxQueue: number
  /** Nanoseconds, like `timeout`; Infinity where there is no bound. */
  readonly maxWait: number
  readonly timeout: number
}

/** The unit of a cost that names none. */
export const permits = "permits"

/**
 * How late a call that waited may start and still be charged at its due instant: 10 ms.
 *
 * Timers tick in milliseconds and wake late; without it each late start would push back
 * all that follow. 10 ms is several ticks of a busy event loop, and at the same time all
 * that can ever be started above the schedule: 10 ms worth of permits.
 */
export const catchUp = 10e6

const nanos = (millis: number | undefined): number => millis === undefined ? Infinity : millis * 1e6

export const make = (data: PolicyData): Plan => {
  if (data._tag === "Shadow") {
    return { ...make(data.policy), name: nameOf(data), description: describe(data), shadow: true }
  }
  const timings: Array<Timing> = []
  const aligned: Array<Timing> = []
  const holdings: Array<Holding> = []
  let maxQueue = Infinity
  let maxWait = Infinity
  let timeout = Infinity

  const add = (part: PolicyData, inherited: string): void => {
    if (part._tag === "Shadow") return add(part.policy, inherited)
    maxQueue = Math.min(maxQueue, part.maxQueue ?? Infinity)
    maxWait = Math.min(maxWait, nanos("maxWait" in part ? part.maxWait : undefined))
    timeout = Math.min(timeout, nanos(part.timeout))
    const unit = part.unit ?? inherited
    const given = part.name
    const name = given ?? rule(part)
    const keyOf = (kind: string) => JSON.stringify([kind, unit, given])
    const timing = (kind: string, meter: Meter<any, any>, permits: number, per: number) =>
      timings.push({
        key: keyOf(kind),
        name,
        given,
        unit,
        meter,
        pace: { permits, per: nanos(per) },
        flat: false,
        chargedWhenFree: undefined
      })
    switch (part._tag) {
      case "None":
        return
      case "Rate": {
        const interval = nanos(part.per) / part.limit
        timing("rate", rate({ interval, capacity: part.burst + 1, lateness: catchUp }), part.limit, part.per)
        return
      }
      case "TokenBucket": {
        const interval = nanos(part.per) / part.refill
        timing("rate", rate({ interval, capacity: part.capacity, lateness: catchUp }), part.refill, part.per)
        return
      }
      case "Window": {
        const options = { limit: part.limit, per: nanos(part.per) }
        timing(part.kind, part.kind === "sliding" ? sliding(options) : fixed(options), part.limit, part.per)
        return
      }
      case "Spacing": {
        const fromEnd = part.from === "end"
        const key = keyOf(`spacing from the ${part.from}`)
        const chargedWhenFree = fromEnd
          ? holdings.push({ key, name, given, unit, limit: 1, flat: true, nested: part.nested ?? "die" }) - 1
          : undefined
        const meter = spacing({ interval: nanos(part.interval), align: part.align, fromEnd })
        const pace = { permits: 1, per: nanos(part.interval) }
        ;(part.align ? aligned : timings).push({ key, name, given, unit, meter, pace, flat: true, chargedWhenFree })
        return
      }
      case "Concurrency":
        holdings.push({
          key: keyOf("concurrency"),
          name,
          given,
          unit,
          limit: part.limit,
          flat: false,
          nested: part.nested ?? "die"
        })
        return
      case "All":
        for (const inner of part.policies) add(inner, unit)
    }
  }
  add(data, permits)

  const parts = [...timings, ...aligned, ...holdings]
  return {
    name: nameOf(data),
    description: describe(data),
    // A start aligned to the clock is settled last, so that it lies on the clock whatever the others say.
    timings: [...timings, ...aligned],
    holdings,
    rounds: aligned.length > 1 ? 100_000 : 1,
    units: parts.length === 0 ? undefined : new Set(parts.map((part) => part.unit)),
    // Not where a start waits for a slot of the clock.
    catchesUp: aligned.length === 0 && timings.some(({ meter }) => meter.lateness > 0),
    shadow: false,
    maxQueue,
    maxWait,
    timeout
  }
}

/** Whether a call may be refused, or give up. In shadow none is. */
export const isBounded = (plan: Plan): boolean =>
  !plan.shadow && Math.min(plan.maxQueue, plan.maxWait, plan.timeout) < Infinity

/**
 * Prepares a policy's data for decisions: nested `all`s are flattened into parts, durations are nanoseconds, and the
 * smallest bound of each kind applies.
 */
import type { PolicyData } from "./data/schema.ts"
import { describe, nameOf, wordsOf } from "./data/words.ts"
import { constant } from "./limit/constant.ts"
import type { Limit } from "./limit/limit.ts"
import type { MeterOptions, Parts, PoolOptions } from "./part/kind.ts"
import { kinds, meterOf, type Rule } from "./part/kinds.ts"
import type { Meter } from "./part/meter.ts"

/** The properties of both kinds of parts. */
interface Part {
  /** The kind, the unit and the given name. An update finds the part that continues this one by it. */
  readonly identity: string
  /** The given name, or the part in words. */
  readonly name: string
  readonly givenName: string | undefined
  readonly unit: string
  /** Whether a call counts as 1, whatever its cost. */
  readonly perCall: boolean
}

/** A time-based part. */
export interface MeterPart extends Part {
  /** The meter as plain data. */
  readonly rule: Rule
  readonly meter: Meter<any, any>
  /** The long-run pace: so many permits in so many nanoseconds. */
  readonly pace: { readonly permits: number; readonly per: number }
  /**
   * The index of the pool whose released permit charges this meter; undefined for a part that is charged at the start.
   */
  readonly chargedOnRelease: number | undefined
}

/** A permit-based part: its permits are held while the effect runs. */
export interface PoolPart extends Part {
  readonly limit: Limit
  /** The result of a call that would wait for permits that its own fiber holds. */
  readonly onReentry: "die" | "bypass"
}

/** The order of the queue. `ageing`: the nanoseconds of waiting that one step of priority is worth. */
export interface Order {
  readonly kind: "arrival" | "priority" | "fair"
  readonly ageing: number
}

export interface Plan {
  readonly name: string
  readonly description: string
  /** Parts that are aligned to the wall clock come last, so that the start that all agree on lies on the clock. */
  readonly meters: ReadonlyArray<MeterPart>
  readonly pools: ReadonlyArray<PoolPart>
  /** Maximum iterations to find a common start time; more than 1 if several parts are aligned to the wall clock. */
  readonly maxIterations: number
  /** The units that parts count; undefined if every unit is accepted. */
  readonly units: ReadonlySet<string> | undefined
  /** Whether a late start is made up for, by the same call and by those after it. */
  readonly catchesUp: boolean
  /** Whether a meter is charged on release. */
  readonly chargesReleases: boolean
  /** Whether a limit learns from the ends of calls. */
  readonly learns: boolean
  /** Whether the policy is only simulated. */
  readonly shadow: boolean
  readonly order: Order
  readonly maxQueue: number
  readonly maxQueuePerCaller: number
  /** Whether it matters who makes a call. */
  readonly asksCaller: boolean
  /** Nanoseconds, like `timeout`; Infinity without a bound. */
  readonly maxWait: number
  readonly timeout: number
}

/** The unit of parts and costs that name none. */
export const permits = "permits"

export const make = (data: PolicyData): Plan => {
  if (data._tag === "Shadow") {
    return { ...make(data.policy), name: nameOf(data), description: describe(data), shadow: true }
  }
  const timed: Array<MeterPart> = []
  const aligned: Array<MeterPart> = []
  const pools: Array<PoolPart> = []
  const bounds = { maxQueue: Infinity, maxQueuePerCaller: Infinity, maxWait: Infinity, timeout: Infinity }

  const add = (data: PolicyData, inheritedUnit: string): void => {
    if (data._tag === "Shadow") return add(data.policy, inheritedUnit)
    bounds.maxQueue = Math.min(bounds.maxQueue, data.maxQueue ?? Infinity)
    bounds.maxQueuePerCaller = Math.min(bounds.maxQueuePerCaller, data.maxQueuePerCaller ?? Infinity)
    bounds.maxWait = Math.min(bounds.maxWait, nanos("maxWait" in data ? data.maxWait : undefined))
    bounds.timeout = Math.min(bounds.timeout, nanos(data.timeout))
    const unit = data.unit ?? inheritedUnit
    if (data._tag === "All") {
      for (const policy of data.policies) add(policy, unit)
      return
    }
    const { meter, pool }: Parts<Rule> = kinds[data._tag].parts(data as never)
    const common = { name: data.name ?? wordsOf(data), givenName: data.name, unit }
    if (meter !== undefined) {
      const part = meterPart(meter, common, meter.chargedOnRelease === true ? pools.length : undefined)
      ;(isAligned(part) ? aligned : timed).push(part)
    }
    if (pool !== undefined) pools.push(poolPart(pool, common, meter === undefined ? "concurrency" : kindOf(meter.rule)))
  }
  add(data, permits)

  const meters = [...timed, ...aligned]
  const parts = [...meters, ...pools]
  const order: Order = { kind: data.order ?? "arrival", ageing: (data.ageing ?? 0) * 1e6 }
  return {
    name: nameOf(data),
    description: describe(data),
    meters,
    pools,
    maxIterations: aligned.length > 1 ? 100_000 : 1,
    units: parts.length === 0 ? undefined : new Set(parts.map((part) => part.unit)),
    catchesUp: aligned.length === 0 && meters.some(({ meter }) => meter.lateness > 0),
    chargesReleases: meters.some(({ chargedOnRelease }) => chargedOnRelease !== undefined),
    learns: pools.some(({ limit }) => limit.onEnd !== undefined),
    shadow: false,
    order,
    asksCaller: order.kind !== "arrival" || bounds.maxQueuePerCaller < Infinity,
    ...bounds
  }
}

const nanos = (millis: number | undefined): number => millis === undefined ? Infinity : millis * 1e6

type Common = Pick<Part, "name" | "givenName" | "unit">

/**
 * The kind in a part's identity. Spacing from the start and from the end are two kinds, since they charge different
 * instants.
 */
const kindOf = (rule: Rule): string => rule.kind === "spacing" && rule.fromEnd ? "spacing from the end" : rule.kind

const identityOf = (kind: string, { givenName, unit }: Common): string => JSON.stringify([kind, unit, givenName])

const meterPart = (
  { pace, perCall = false, rule }: MeterOptions<Rule>,
  common: Common,
  chargedOnRelease: number | undefined
): MeterPart => ({
  ...common,
  identity: identityOf(kindOf(rule), common),
  perCall,
  rule,
  meter: meterOf(rule),
  pace,
  chargedOnRelease
})

const poolPart = ({ limit, onReentry, perCall = false }: PoolOptions, common: Common, kind: string): PoolPart => ({
  ...common,
  identity: identityOf(kind, common),
  perCall,
  limit: constant(limit),
  onReentry
})

export const isAligned = ({ rule }: MeterPart): boolean => rule.kind === "spacing" && rule.align

/** Whether the policy in force may reject a call that it could grant. */
export const isBounded = (plan: Plan): boolean =>
  !plan.shadow && Math.min(plan.maxQueue, plan.maxQueuePerCaller, plan.maxWait, plan.timeout) < Infinity

/** The order of the queue. In shadow no call waits, and the simulated ones start by arrival. */
export const orderOf = ({ order, shadow }: Plan): Order => shadow ? { kind: "arrival", ageing: 0 } : order

/**
 * Returns, for each part, the index of the former part that it continues: the first one of the same identity that no
 * earlier part continues; -1 if there is none.
 */
export const continued = (former: ReadonlyArray<Part>, parts: ReadonlyArray<Part>): ReadonlyArray<number> => {
  const taken = new Set<number>()
  return parts.map(({ identity }) => {
    const i = former.findIndex((part, i) => part.identity === identity && !taken.has(i))
    taken.add(i)
    return i
  })
}

/**
 * The numbers of a throttle as Effect metrics.
 *
 * The limiters count in plain numbers, which Effect's metrics read when a snapshot is taken: a call costs no metric update.
 * Throttles of one name, under the same attributes and in the same registry, count in the same series.
 *
 * A registry keeps 1,000 series, of names under their attributes. What a throttle has counted stays when it is closed, until
 * others need the place: then the series of the throttle that was closed first is added to that of the name "other" and
 * removed. Where as many throttles are open, further ones count as "other" from the beginning. There is one "other", without
 * attributes: one for each set of them would again be without bound.
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { ThrottleError } from "../ThrottleError.ts"

/** From 0.1 ms to 50,000 s (14 hours), three steps a decade. */
const boundaries = [-4, -3, -2, -1, 0, 1, 2, 3, 4].flatMap((power) =>
  [1, 2, 5].map((step) => Number(`${step}e${power}`))
)

export const metrics = {
  admitted: Metric.counter("throttle_admitted_total", { description: "Calls let in", incremental: true }),
  rejected: Metric.counter("throttle_rejected_total", { description: "Calls refused", incremental: true }),
  interrupted: Metric.counter("throttle_interrupted_total", {
    description: "Calls interrupted while waiting",
    incremental: true
  }),
  waiting: Metric.gauge("throttle_waiting", { description: "Calls waiting now" }),
  running: Metric.gauge("throttle_running", { description: "Calls holding permits now" }),
  waitSeconds: Metric.histogram("throttle_wait_seconds", {
    description: "How long admitted calls waited, those that had to",
    // By which an exporter knows the unit.
    attributes: { unit: "seconds" },
    boundaries
  })
} as const

/** Why a throttle refuses. (A map that has no room for another key counts that itself, and so does what has a store.) */
export type Rejection = Exclude<ThrottleError["reason"]["_tag"], "KeysExhausted" | "StoreError" | "LeaseLost">

/** What happened, as plain numbers: adding to them costs nothing worth measuring, so they are always on. */
export interface Counters {
  admitted: number
  readonly rejected: { [R in Rejection]: number }
  interrupted: number
  waiting: number
  running: number
}

export const counters = (): Counters => ({
  admitted: 0,
  rejected: { QueueFull: 0, WaitTooLong: 0, TimedOut: 0, PermitsExceedCapacity: 0 },
  interrupted: 0,
  waiting: 0,
  running: 0
})

/** The counters of all throttles of one name together, and their waits. */
export interface Series extends Counters {
  readonly waits: Waits
  /** The limiters in shadow whose numbers are not up to date, and how to make them so. */
  readonly behind: Map<object, () => void>
  /** Calls of maps that had no room for their key; undefined where no map has this name. */
  keysRefused: { count: number } | undefined
  /** How many throttles that are open count in it. */
  users: number
  readonly registered: Array<Metric.Registration>
  /** Registers one more metric of this series. */
  readonly register: <State>(metric: Metric.Metric<number, State>, get: () => State, reason?: string) => void
  /** The series of its registry, and under what they have this one. */
  readonly all: All
  readonly id: string
}

/** A histogram of waits in seconds, as plain numbers too: an update of Effect's costs 1.3 µs a wait. */
export interface Waits {
  /** How many fell into each bucket, the last for those above all boundaries. */
  readonly buckets: Array<number>
  count: number
  min: number
  max: number
  sum: number
}

export const addWait = (waits: Waits, seconds: number): void => {
  let bucket = 0
  while (bucket < boundaries.length && seconds > boundaries[bucket]!) bucket++
  waits.buckets[bucket]!++
  waits.count++
  waits.min = Math.min(waits.min, seconds)
  waits.max = Math.max(waits.max, seconds)
  waits.sum += seconds
}

const histogram = ({ buckets, ...rest }: Waits): Metric.HistogramState => {
  let sum = 0
  return { ...rest, buckets: boundaries.map((boundary, i) => [boundary, sum += buckets[i]!]) }
}

/** The series of one registry. */
interface All {
  readonly named: Map<string, Series>
  /** Those whose throttles are all closed, closed first first. */
  readonly closed: Set<Series>
}

const mostNames = 1_000

/** The name that further throttles count as. */
const other = "other"

const AllSeries = Context.Reference<WeakMap<Metric.MetricRegistry, All>>("effect-throttle/internal/AllSeries", {
  defaultValue: () => new WeakMap()
})

const idOf = (context: Context.Context<never>, name: string): string => {
  const attributes = Object.entries(Context.get(context, Metric.CurrentMetricAttributes))
  return attributes.length === 0 ? name : JSON.stringify([name, attributes.toSorted(([a], [b]) => (a < b ? -1 : 1))])
}

/** The series of a throttle that is made; to be released when it is closed. */
export const acquire = (context: Context.Context<never>, name: string): Series => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const registries = Context.get(context, AllSeries)
  let all = registries.get(registry)
  if (all === undefined) registries.set(registry, all = { named: new Map(), closed: new Set() })
  const series = find(context, all, name)
  series.users++
  all.closed.delete(series)
  return series
}

const find = (context: Context.Context<never>, all: All, name: string): Series => {
  const id = idOf(context, name)
  const found = all.named.get(id)
  if (found !== undefined) return found
  return id === other || all.named.size < mostNames || makeRoom(context, all)
    ? register(context, all, id, name)
    : findOther(context, all)
}

const findOther = (context: Context.Context<never>, all: All): Series =>
  find(Context.add(context, Metric.CurrentMetricAttributes, {}), all, other)

export const release = (series: Series): void => {
  if (--series.users === 0) series.all.closed.add(series)
}

/** Counts a rejection of a throttle of this name, by something that stands before it. */
export const countRejected = (context: Context.Context<never>, name: string, reason: Rejection): void => {
  const series = acquire(context, name)
  series.rejected[reason]++
  release(series)
}

/** Adds the series that was closed first, and counts nothing any more, to those of no name of their own. */
const makeRoom = (context: Context.Context<never>, all: All): boolean => {
  for (const series of all.closed) {
    for (const catchUp of series.behind.values()) catchUp()
    if (series.id === other || series.running > 0 || series.waiting > 0) continue
    all.closed.delete(series)
    all.named.delete(series.id)
    for (const one of series.registered) one.remove()
    addTo(findOther(context, all), series)
    return true
  }
  return false
}

const addTo = (sum: Series, series: Series): void => {
  sum.admitted += series.admitted
  sum.interrupted += series.interrupted
  for (const reason of Object.keys(sum.rejected) as Array<Rejection>) sum.rejected[reason] += series.rejected[reason]
  if (series.keysRefused !== undefined) keysRefused(sum).count += series.keysRefused.count
  const { waits } = sum
  series.waits.buckets.forEach((count, i) => waits.buckets[i]! += count)
  waits.count += series.waits.count
  waits.min = Math.min(waits.min, series.waits.min)
  waits.max = Math.max(waits.max, series.waits.max)
  waits.sum += series.waits.sum
}

/** How often maps that count in this series had no room for a key: a metric of theirs alone. */
export const keysRefused = (series: Series): { count: number } => {
  if (series.keysRefused === undefined) {
    const refused = series.keysRefused = { count: 0 }
    series.register(metrics.rejected, () => ({ count: refused.count, incremental: true }), "KeysExhausted")
  }
  return series.keysRefused
}

const pull = <State>(
  context: Context.Context<never>,
  name: string,
  metric: Metric.Metric<number, State>,
  get: () => State,
  reason?: string
): Metric.Registration =>
  Metric.registerUnsafe(
    metric,
    Context.add(context, Metric.CurrentMetricAttributes, {
      ...Context.get(context, Metric.CurrentMetricAttributes),
      throttle: name,
      ...(reason === undefined ? undefined : { reason })
    }),
    { get, update: () => {}, modify: () => {} }
  )

const register = (context: Context.Context<never>, all: All, id: string, name: string): Series => {
  const series: Series = {
    ...counters(),
    waits: {
      buckets: Array.from({ length: boundaries.length + 1 }, () => 0),
      count: 0,
      min: Number.MAX_VALUE,
      max: -Number.MAX_VALUE,
      sum: 0
    },
    behind: new Map(),
    keysRefused: undefined,
    users: 0,
    registered: [],
    register: (metric, get, reason) => {
      const upToDate = () => {
        for (const catchUp of series.behind.values()) catchUp()
        return get()
      }
      series.registered.push(pull(context, name, metric, upToDate, reason))
    },
    all,
    id
  }
  const add = series.register
  const count = (count: number) => ({ count, incremental: true })
  add(metrics.admitted, () => count(series.admitted))
  for (const reason of ["QueueFull", "WaitTooLong", "TimedOut", "PermitsExceedCapacity"] as const) {
    add(metrics.rejected, () => count(series.rejected[reason]), reason)
  }
  add(metrics.interrupted, () => count(series.interrupted))
  add(metrics.waiting, () => ({ value: series.waiting }))
  add(metrics.running, () => ({ value: series.running }))
  add(metrics.waitSeconds, () => histogram(series.waits))
  all.named.set(id, series)
  return series
}

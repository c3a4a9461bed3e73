/**
 * Publishes the numbers of throttles as Effect metrics.
 *
 * Limiters count in plain numbers, which a snapshot of the metrics reads, so a call costs no metric update. Throttles
 * with the same name, metric attributes and registry share one series.
 *
 * A registry keeps 1,000 series. A closed throttle's numbers stay until another name or other attributes need the place: then
 * the series that was closed first is added to the series of the name "other" and removed. If 1,000 series have open
 * throttles, further ones count as "other" from the beginning. "other" has no attributes: a series for each set of them would
 * be unbounded again.
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { ThrottleError } from "../ThrottleError.ts"

/** Histogram boundaries in seconds: 0.0001 to 50,000 (14 hours), three for each power of ten. */
const boundaries = [-4, -3, -2, -1, 0, 1, 2, 3, 4].flatMap((power) =>
  [1, 2, 5].map((step) => Number(`${step}e${power}`))
)

export const metrics = {
  admitted: Metric.counter("throttle_admitted_total", { description: "Calls admitted", incremental: true }),
  rejected: Metric.counter("throttle_rejected_total", { description: "Calls rejected", incremental: true }),
  interrupted: Metric.counter("throttle_interrupted_total", {
    description: "Calls interrupted while they waited",
    incremental: true
  }),
  waiting: Metric.gauge("throttle_waiting", { description: "Calls waiting now" }),
  running: Metric.gauge("throttle_running", { description: "Calls holding permits now" }),
  waitSeconds: Metric.histogram("throttle_wait_seconds", {
    description: "Waits of admitted calls that waited",
    // Tells exporters the unit.
    attributes: { unit: "seconds" },
    boundaries
  })
} as const

/** The reasons counted by a throttle. (The others are counted by a full map, and by a throttle on a store.) */
export type Rejection = Exclude<ThrottleError["reason"]["_tag"], "KeysExhausted" | "StoreError" | "LeaseLost">

/** Counts as plain numbers. Adding to them takes no measurable time, so they are always on. */
export interface Counters {
  admitted: number
  readonly rejected: { [R in Rejection]: number }
  interrupted: number
  waiting: number
  running: number
}

export const counters = (): Counters => ({
  admitted: 0,
  rejected: { QueueFull: 0, WaitTooLong: 0, TimedOut: 0, PermitsExceedCapacity: 0, Draining: 0 },
  interrupted: 0,
  waiting: 0,
  running: 0
})

/** The counters of all throttles with one name, and their waits. */
export interface Series extends Counters {
  readonly waits: Waits
  /** The limiters in shadow whose numbers are out of date, each with the function that updates them. */
  readonly outdated: Map<object, () => void>
  /** Calls for which a map of this name had no room; undefined if there is no such map. */
  keysRefused: { count: number } | undefined
  /** Whether it has the metric of the reason `Draining`. */
  countsDraining: boolean
  /** The number of open throttles that count in it. */
  users: number
  readonly registered: Array<Metric.Registration>
  /** Registers one more metric of this series. */
  readonly register: <State>(metric: Metric.Metric<number, State>, get: () => State, reason?: string) => void
  /** The series of its registry, and the id under which they contain this one. */
  readonly all: All
  readonly id: string
}

/** A histogram of waits in seconds, as plain numbers: updating an Effect histogram takes 1.3 µs for each wait. */
export interface Waits {
  /** The number of waits in each bucket; the last one is for waits above all boundaries. */
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
  /** The series without open throttles, in the order in which they were closed. */
  readonly closed: Set<Series>
}

const mostNames = 1_000

/** The name under which further throttles count. */
const other = "other"

const AllSeries = Context.Reference<WeakMap<Metric.MetricRegistry, All>>("effect-throttle/internal/AllSeries", {
  defaultValue: () => new WeakMap()
})

const idOf = (context: Context.Context<never>, name: string): string => {
  const attributes = Object.entries(Context.get(context, Metric.CurrentMetricAttributes))
  return attributes.length === 0 ? name : JSON.stringify([name, attributes.toSorted(([a], [b]) => (a < b ? -1 : 1))])
}

/** Finds or makes the series of a throttle, until it is released when the throttle is closed. */
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

/** Counts a rejection by something in front of the throttle of this name. */
export const countRejected = (context: Context.Context<never>, name: string, reason: Rejection): void => {
  const series = acquire(context, name)
  series.rejected[reason]++
  release(series)
}

/**
 * Adds the series that was closed first, and has no waiting or running calls, to "other". Returns false if there is
 * none.
 */
const makeRoom = (context: Context.Context<never>, all: All): boolean => {
  for (const series of all.closed) {
    for (const catchUp of series.outdated.values()) catchUp()
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
  if (series.countsDraining) countDraining(sum)
  if (series.keysRefused !== undefined) keysRefused(sum).count += series.keysRefused.count
  const { waits } = sum
  series.waits.buckets.forEach((count, i) => waits.buckets[i]! += count)
  waits.count += series.waits.count
  waits.min = Math.min(waits.min, series.waits.min)
  waits.max = Math.max(waits.max, series.waits.max)
  waits.sum += series.waits.sum
}

/** Returns the count of calls for which maps that count in this series had no room. Only maps have this metric. */
export const keysRefused = (series: Series): { count: number } => {
  if (series.keysRefused === undefined) {
    const refused = series.keysRefused = { count: 0 }
    series.register(metrics.rejected, () => ({ count: refused.count, incremental: true }), "KeysExhausted")
  }
  return series.keysRefused
}

/** Adds the metric of newcomers rejected with `Draining`. Only throttles that were drained have it. */
export const countDraining = (series: Series): void => {
  if (series.countsDraining) return
  series.countsDraining = true
  series.register(metrics.rejected, () => ({ count: series.rejected.Draining, incremental: true }), "Draining")
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
    outdated: new Map(),
    keysRefused: undefined,
    countsDraining: false,
    users: 0,
    registered: [],
    register: (metric, get, reason) => {
      const upToDate = () => {
        for (const catchUp of series.outdated.values()) catchUp()
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

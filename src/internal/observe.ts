/**
 * The one place that decides what anyone gets to see of a throttle: log lines,
 * the span, metrics, events. The limiter says what happened; this says who hears it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import type { ThrottleError } from "../ThrottleError.ts"

/** What every event says of the call it is about. Times are milliseconds. */
interface Call {
  /** The throttle's name. */
  readonly throttle: string
  /** The policy in words, as `Throttle.describe` gives it. */
  readonly policy: string
  /** What the call costs: permits, or an amount for each unit. */
  readonly cost: number | Readonly<Record<string, number>>
  /** Present where the policy is in shadow: this is what would have happened. */
  readonly shadow?: true
}

export interface Waiting extends Call {
  readonly _tag: "Waiting"
  /** How many wait, this call included. */
  readonly queued: number
  /** Milliseconds until it should start; absent where nothing can be foreseen. */
  readonly expected?: number
  /** Milliseconds of a pause still to come; absent where there is none, or none with an end. */
  readonly paused?: number
}

/** What is told of a wait that is over. */
interface Waited extends Call {
  readonly waited: number
  /** For how many milliseconds of that the throttle was paused; absent for none. The rest was its own limits. */
  readonly paused?: number
}

/** @see Throttle.Event */
export type Event =
  | Waiting
  | (Waited & { readonly _tag: "Admitted" })
  | (Call & { readonly _tag: "Rejected"; readonly waited: number; readonly error: ThrottleError })
  | (Waited & { readonly _tag: "Interrupted" })

const silent = (_event: Event): Effect.Effect<void> => Effect.void

export const Observer: Context.Reference<(event: Event) => Effect.Effect<void>> = Context.Reference(
  "effect-throttle/Throttle/Observer",
  { defaultValue: () => silent }
)

export const WaitLogLevel: Context.Reference<LogLevel.LogLevel> = Context.Reference<LogLevel.LogLevel>(
  "effect-throttle/Throttle/WaitLogLevel",
  { defaultValue: () => "Debug" }
)

// ---------------------------------------------------------------------------------------------------------------------
// Events and log lines
// ---------------------------------------------------------------------------------------------------------------------

type AnyFiber = Fiber.Fiber<unknown, unknown>

const messages: { readonly [K in Event["_tag"]]: string } = {
  Waiting: "throttle.waiting",
  Admitted: "throttle.admitted",
  Rejected: "throttle.rejected",
  Interrupted: "throttle.interrupted"
}

/** Rejections and interruptions are told at Debug: the caller has the error, or wanted the interruption. */
const levelOf = (fiber: AnyFiber, tag: Event["_tag"]): LogLevel.LogLevel =>
  tag === "Waiting" || tag === "Admitted" ? fiber.getRef(WaitLogLevel) : "Debug"

const isLogged = (fiber: AnyFiber, level: LogLevel.LogLevel): level is LogLevel.Severity =>
  level !== "None" && level !== "All" && LogLevel.isGreaterThanOrEqualTo(level, fiber.cache.minimumLogLevel)

/** Tells of an event, or is undefined where nobody listens; only then is the event not even built. */
export const tell = (
  fiber: AnyFiber,
  tag: Event["_tag"],
  event: () => Event
): Effect.Effect<void> | undefined => {
  const level = levelOf(fiber, tag)
  const observer = fiber.getRef(Observer)
  const logged = isLogged(fiber, level)
  if (!logged && observer === silent) return undefined
  const happened = event()
  const log = logged ? line(level, happened) : Effect.void
  // Somebody else's code: what it throws belongs to the call's fiber, not to whoever builds this.
  return observer === silent ? log : Effect.andThen(log, () => observer(happened))
}

/** Tells of a pause that has begun or become longer; undefined where nobody listens. */
export const tellPaused = (fiber: AnyFiber, annotations: () => Annotations): Effect.Effect<void> | undefined =>
  tellOf(fiber, "throttle.paused", annotations)

type Annotations = Readonly<Record<string, unknown>>

export const tellOf = (
  fiber: AnyFiber,
  message: string,
  annotations: () => Annotations
): Effect.Effect<void> | undefined => {
  const level = fiber.getRef(WaitLogLevel)
  return isLogged(fiber, level)
    ? Effect.annotateLogs(Effect.logWithLevel(level)(message), annotations())
    : undefined
}

/** Whether a log or an observer hears anything of a wait: asked once a wait, since each look at a Reference costs 30 ns. */
export const isHeard = (fiber: AnyFiber): boolean =>
  isLogged(fiber, "Debug") || fiber.getRef(Observer) !== silent || isLogged(fiber, fiber.getRef(WaitLogLevel))

const line = (level: LogLevel.Severity, event: Event): Effect.Effect<void> =>
  Effect.annotateLogs(Effect.logWithLevel(level)(messages[event._tag]), attributes(event))

const attributes = (event: Event): Record<string, unknown> => {
  const { _tag, ...rest } = event
  if ("error" in rest) {
    const { error, ...others } = rest
    return { ...others, reason: error.reason._tag, message: error.message }
  }
  return rest
}

// ---------------------------------------------------------------------------------------------------------------------
// The span
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The span `throttle.wait` around a wait, a child of the caller's span. It gets its attributes at its end: set at the
 * start, they would be as much to keep alive for each call that waits as the call itself.
 */
export const withWaitSpan = <A, E, R>(
  wait: Effect.Effect<A, E, R>,
  attributes: () => Annotations
): Effect.Effect<A, E, R> =>
  Effect.useSpan("throttle.wait", (span) =>
    Effect.onExitPrimitive(wait, () => {
      const known = attributes()
      for (const key in known) if (known[key] !== undefined) span.attribute(key, known[key])
      return undefined
    }))

/** A wait before a retry that no throttle asks for, and so tells of: a line, and a span with the reason "retry". */
export const retryWait = (
  fiber: AnyFiber,
  wait: Effect.Effect<void>,
  annotations: () => Annotations
): Effect.Effect<void> => {
  const spanned = fiber.cache.tracerEnabled
    ? withWaitSpan(wait, () => ({ reason: "retry", ...annotations() }))
    : wait
  const told = tellOf(fiber, "throttle.retrying", annotations)
  return told === undefined ? spanned : Effect.andThen(told, spanned)
}

// ---------------------------------------------------------------------------------------------------------------------
// Metrics
// ---------------------------------------------------------------------------------------------------------------------

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

/** All throttles of one name in one metric registry: their counters together, and their waits. */
export interface Series extends Counters {
  readonly waits: Waits
  /** Calls of maps that had no room for their key; undefined where no map has this name. */
  keysRefused: { count: number } | undefined
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

// The series of each registry, so that two throttles of one name add up instead of hiding each other.
const AllSeries = Context.Reference<WeakMap<Metric.MetricRegistry, Map<string, Series>>>(
  "effect-throttle/internal/AllSeries",
  { defaultValue: () => new WeakMap() }
)

/**
 * The series of a throttle's name. Effect's metrics read its numbers when a snapshot
 * is taken, so a call costs no metric update. The registry keeps the numbers, not the
 * throttle: what was counted stays when the throttle is gone.
 */
export const series = (context: Context.Context<never>, name: string): Series => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const all = Context.get(context, AllSeries)
  let named = all.get(registry)
  if (named === undefined) all.set(registry, named = new Map())
  let found = named.get(name)
  if (found === undefined) named.set(name, found = register(context, name))
  return found
}

/** How often maps of this name had no room for a key: a metric of theirs alone. */
export const keysRefused = (context: Context.Context<never>, name: string): { count: number } => {
  const found = series(context, name)
  if (found.keysRefused === undefined) {
    const refused = found.keysRefused = { count: 0 }
    pull(context, name, metrics.rejected, () => ({ count: refused.count, incremental: true }), "KeysExhausted")
  }
  return found.keysRefused
}

const pull = <State>(
  context: Context.Context<never>,
  name: string,
  metric: Metric.Metric<number, State>,
  get: () => State,
  reason?: string
): void => {
  Metric.registerUnsafe(
    metric,
    Context.add(context, Metric.CurrentMetricAttributes, {
      ...Context.get(context, Metric.CurrentMetricAttributes),
      throttle: name,
      ...(reason === undefined ? undefined : { reason })
    }),
    { get, update: () => {}, modify: () => {} }
  )
}

const register = (context: Context.Context<never>, name: string): Series => {
  const series: Series = {
    ...counters(),
    waits: {
      buckets: Array.from({ length: boundaries.length + 1 }, () => 0),
      count: 0,
      min: Number.MAX_VALUE,
      max: -Number.MAX_VALUE,
      sum: 0
    },
    keysRefused: undefined
  }
  const count = (get: () => number) => () => ({ count: get(), incremental: true })
  pull(context, name, metrics.admitted, count(() => series.admitted))
  for (const reason of ["QueueFull", "WaitTooLong", "TimedOut", "PermitsExceedCapacity"] as const) {
    pull(context, name, metrics.rejected, count(() => series.rejected[reason]), reason)
  }
  pull(context, name, metrics.interrupted, count(() => series.interrupted))
  pull(context, name, metrics.waiting, () => ({ value: series.waiting }))
  pull(context, name, metrics.running, () => ({ value: series.running }))
  pull(context, name, metrics.waitSeconds, () => histogram(series.waits))
  return series
}

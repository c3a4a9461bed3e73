/**
 * Turns events of calls into log lines, spans and observer calls. (Metrics are in `metrics.ts`.)
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import * as LogLevel from "effect/LogLevel"
import type { ThrottleError } from "../ThrottleError.ts"

/** The fields that all events have. Times are milliseconds. */
interface Call {
  /** The throttle's name. */
  readonly throttle: string
  /** The policy in words, as `Throttle.describe` returns it. */
  readonly policy: string
  /** The call's cost: a number of permits, or an amount for each unit. */
  readonly cost: number | Readonly<Record<string, number>>
  /** The key of the call's caller; absent if it has none. */
  readonly caller?: string
  /** The call's priority; absent for 0. */
  readonly priority?: number
  /** Present if the policy is in shadow: the event is simulated. */
  readonly shadow?: true
}

export interface Waiting extends Call {
  readonly _tag: "Waiting"
  /** The number of waiting calls, this one included. */
  readonly queued: number
  /** The estimated wait in milliseconds; absent if it cannot be estimated. */
  readonly expected?: number
  /** Milliseconds of a pause that are still to come; absent if there is no pause or it is infinite. */
  readonly paused?: number
}

/** The fields of a wait that is over. */
interface Waited extends Call {
  /** Milliseconds. */
  readonly waited: number
  /** Milliseconds of the wait that were a pause; absent for none. The rest is due to the throttle's own limits. */
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

/** What tells how the events of a call are observed: its fiber, or what is kept of it. */
export type Source = Pick<AnyFiber, "cache" | "getRef">

const messages: { readonly [K in Event["_tag"]]: string } = {
  Waiting: "throttle.waiting",
  Admitted: "throttle.admitted",
  Rejected: "throttle.rejected",
  Interrupted: "throttle.interrupted"
}

/** Rejections and interruptions are logged at Debug, since the caller has the error or caused the interruption. */
const levelOf = (fiber: Source, tag: Event["_tag"]): LogLevel.LogLevel =>
  tag === "Waiting" || tag === "Admitted" ? fiber.getRef(WaitLogLevel) : "Debug"

const isLogged = (fiber: Source, level: LogLevel.LogLevel): level is LogLevel.Severity =>
  level !== "None" && level !== "All" && LogLevel.isGreaterThanOrEqualTo(level, fiber.cache.minimumLogLevel)

/** Logs an event and calls the observer. Returns undefined if neither is used; then the event is not built. */
export const notify = (
  fiber: Source,
  tag: Event["_tag"],
  event: () => Event
): Effect.Effect<void> | undefined => {
  const level = levelOf(fiber, tag)
  const observer = fiber.getRef(Observer)
  const logged = isLogged(fiber, level)
  if (!logged && observer === silent) return undefined
  const happened = event()
  const log = logged ? logEvent(level, happened) : Effect.void
  return observer === silent ? log : Effect.andThen(log, observe(fiber, observer, happened))
}

/** The observers that have failed, since each is reported only once. */
const Reported = Context.Reference<WeakSet<object>>("effect-throttle/internal/Reported", {
  defaultValue: () => new WeakSet()
})

/** Stands for all observers that are not functions. */
const noFunction = {}

/** Runs an observer. Neither its failures nor its result affect the call. */
const observe = (
  fiber: Source,
  observer: (event: Event) => Effect.Effect<void>,
  event: Event
): Effect.Effect<void> => {
  const report = (cause: Cause.Cause<unknown>): Effect.Effect<void> => {
    const reported = fiber.getRef(Reported)
    const identity = typeof observer === "function" ? observer : noFunction
    if (Cause.hasInterruptsOnly(cause) || reported.has(identity)) return Effect.void
    reported.add(identity)
    return Effect.annotateLogs(Effect.logError("throttle.observer-failed", cause), { event: event._tag })
  }
  return Effect.catchCause(
    Effect.suspend(() => {
      if (typeof observer !== "function") {
        throw new TypeError(`Throttle.Observer must be a function, received ${Formatter.format(observer)}`)
      }
      const returned: unknown = observer(event)
      return Effect.isEffect(returned) ? Effect.asVoid(returned as Effect.Effect<unknown>) : Effect.void
    }),
    report
  )
}

type Annotations = Readonly<Record<string, unknown>>

/** Logs a pause that began or became longer; undefined if that is not logged. */
export const pauseLog = (fiber: AnyFiber, annotations: () => Annotations): Effect.Effect<void> | undefined =>
  waitLog(fiber, "throttle.paused", annotations)

/** Makes a log line at the level of waits; undefined if that is not logged. */
export const waitLog = (
  fiber: AnyFiber,
  message: string,
  annotations: () => Annotations
): Effect.Effect<void> | undefined => {
  const level = fiber.getRef(WaitLogLevel)
  return isLogged(fiber, level)
    ? Effect.annotateLogs(Effect.logWithLevel(level)(message), annotations())
    : undefined
}

/** Whether a wait is logged or observed. Asked once for each wait, since reading a Reference takes 30 ns. */
export const isObserved = (fiber: AnyFiber): boolean =>
  isLogged(fiber, "Debug") || fiber.getRef(Observer) !== silent || isLogged(fiber, fiber.getRef(WaitLogLevel))

const logEvent = (level: LogLevel.Severity, event: Event): Effect.Effect<void> =>
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
 * Adds the span `throttle.wait` around a wait, as a child of the caller's span. Its attributes are set at its end: from
 * the start on they would take as much memory for each waiting call as the call itself.
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

/** Observes a wait before a retry: a log line, and a span with the reason "retry". */
export const retryWait = (
  fiber: AnyFiber,
  wait: Effect.Effect<void>,
  annotations: () => Annotations
): Effect.Effect<void> => {
  const spanned = fiber.cache.tracerEnabled
    ? withWaitSpan(wait, () => ({ reason: "retry", ...annotations() }))
    : wait
  const log = waitLog(fiber, "throttle.retrying", annotations)
  return log === undefined ? spanned : Effect.andThen(log, spanned)
}

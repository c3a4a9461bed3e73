/**
 * The one place that decides what anyone gets to see of a throttle: log lines,
 * the span, metrics, events. The limiter says what happened; this says who hears it.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import * as LogLevel from "effect/LogLevel"
import type { ThrottleError } from "../ThrottleError.ts"

export * from "./metrics.ts"

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
  return observer === silent ? log : Effect.andThen(log, notify(fiber, observer, happened))
}

// The observers that have failed: each is reported once.
const Reported = Context.Reference<WeakSet<object>>("effect-throttle/internal/Reported", {
  defaultValue: () => new WeakSet()
})

/** Stands for all observers that are no functions. */
const noFunction = {}

/** Runs an observer, whose failures and whatever else it returns are nothing to the call. */
const notify = (
  fiber: AnyFiber,
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

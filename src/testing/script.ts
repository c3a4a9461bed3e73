/** The script of a recorder: its answers, and how they are read. */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import * as Rules from "../internal/options.ts"

/**
 * Lets a call start: at once, or after a wait. A wait is longer than 0; an infinite one lasts until the call is interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export type Admission = "admit" | { readonly wait: Duration.Input }

/**
 * Rejects a call at once with a `ThrottleError` of this reason, and this `retryAfter` if there is one.
 *
 * The other fields of the reason are the recorder's name, the cost, the number of waiting calls, no parts, and 0 for the
 * limit.
 *
 * @category models
 * @since 0.1.0
 */
export type Rejection =
  | { readonly reject: "QueueFull" | "WaitTooLong" | "TimedOut"; readonly retryAfter?: Duration.Input | undefined }
  | { readonly reject: "PermitsExceedCapacity" | "Draining"; readonly retryAfter?: undefined }

/**
 * The answer of a recorder to a call.
 *
 * @see {@link Options} for the script made of them
 * @category models
 * @since 0.1.0
 */
export type Answer = Admission | Rejection

/**
 * Options of {@link make}, {@link layer} and {@link layerFor}.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<out A extends Answer = Answer> {
  /** The answers to the first calls, one for each call in order of arrival. Default: none. */
  readonly script?: ReadonlyArray<A> | undefined
  /** The answer to every call after those of the script. Default: "admit". */
  readonly otherwise?: A | undefined
  /** The throttle's name in errors. Default: "recorder"; for a Service class the policy's name, or the class's key. */
  readonly name?: string | undefined
}

/** The reason of a scripted rejection. */
export type Reason = Rejection["reject"]

/** Whether calls are rejected for this reason because they have to wait; only then is there a `retryAfter`. */
export const isForWaiting = (reason: Reason): boolean => reason !== "PermitsExceedCapacity" && reason !== "Draining"

/** An answer whose durations were read. */
export type Settled =
  | { readonly _tag: "Admit" }
  | { readonly _tag: "Wait"; readonly wait: Duration.Duration }
  | { readonly _tag: "Reject"; readonly reason: Reason; readonly retryAfter?: Duration.Duration }

/** Options that were read, with their defaults. */
export interface Settings {
  readonly name: string
  readonly script: ReadonlyArray<Settled>
  readonly otherwise: Settled
}

const rules = {
  script: Rules.array,
  otherwise: { allowed: "an answer", read: (received: unknown) => received },
  name: Rules.text
}

const waitRule = Rules.duration("a duration > 0", (millis) => millis > 0)
const retryAfterRule = Rules.duration("a finite duration ≥ 0", (millis) => millis >= 0 && millis < Infinity)
const reasonRule = Rules.oneOf("QueueFull", "WaitTooLong", "TimedOut", "PermitsExceedCapacity", "Draining")

/** Reads the options, or throws a RangeError. */
export const read = (caller: string, options: Options, defaultName: string): Settings => {
  const { name = defaultName, otherwise = "admit", script = [] } = Rules.readAll(caller, rules, options)
  return {
    name,
    script: Array.from(script, (answer, i) => readAnswer(caller, `script[${i}]`, answer)),
    otherwise: readAnswer(caller, "otherwise", otherwise)
  }
}

const readAnswer = (caller: string, option: string, answer: unknown): Settled => {
  if (answer === "admit") return { _tag: "Admit" }
  const isWait = Predicate.hasProperty(answer, "wait")
  if (isWait === Predicate.hasProperty(answer, "reject")) {
    throw Rules.invalid(caller, option, "\"admit\", { wait } or { reject }", answer)
  }
  Rules.known(`${caller}, ${option}`, answer, isWait ? ["wait"] : ["reject", "retryAfter"])
  const field = <A>(name: string, rule: Rules.Rule<A>): A =>
    Rules.read(caller, `${option}.${name}`, rule, (answer as Record<string, unknown>)[name])
  if (isWait) return { _tag: "Wait", wait: Duration.millis(field("wait", waitRule)) }
  const reason = field("reject", reasonRule)
  const { retryAfter } = answer as Rejection
  if (retryAfter === undefined) return { _tag: "Reject", reason }
  if (!isForWaiting(reason)) {
    throw Rules.invalid(caller, `${option}.retryAfter`, `undefined with ${reason}`, retryAfter)
  }
  return { _tag: "Reject", reason, retryAfter: Duration.millis(field("retryAfter", retryAfterRule)) }
}

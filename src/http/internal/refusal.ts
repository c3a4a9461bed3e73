/**
 * What a refusal comes to for a client: a status, and when to try again.
 */
import * as Duration from "effect/Duration"
import type { ThrottleError } from "../../ThrottleError.ts"

/** Whose limit it was. */
export type By = "key" | "global"

/** What the limits themselves refuse for. Every other reason is a store's. */
const reasons: ReadonlySet<string> = new Set([
  "QueueFull",
  "WaitTooLong",
  "TimedOut",
  "PermitsExceedCapacity",
  "KeysExhausted"
])

export const isOfStore = (error: ThrottleError): boolean => !reasons.has(error.reason._tag)

export interface Judgement {
  readonly status: 429 | 503
  /** Whole seconds; undefined where it never helps to try again. */
  readonly retryAfter: number | undefined
  /** The names of what stood in the way. */
  readonly violated: ReadonlyArray<string>
}

export const judge = (
  error: ThrottleError,
  by: By,
  options: { readonly globalName: string; readonly concurrencyStatus: 429 | 503 }
): Judgement => {
  const { retryAfter } = error
  // Nobody can know when those who run will end. A second is soon enough to ask again, and late enough not to hammer.
  const seconds = retryAfter === undefined ? 1 : Math.max(1, Math.ceil(Duration.toSeconds(retryAfter)))
  if (error.reason._tag === "KeysExhausted" || isOfStore(error)) return { status: 503, retryAfter: 1, violated: [] }
  if (by === "global") return { status: 503, retryAfter: seconds, violated: [options.globalName] }
  const violated = error.reason.parts
  if (error.reason._tag === "PermitsExceedCapacity") return { status: 429, retryAfter: undefined, violated }
  return { status: retryAfter === undefined ? options.concurrencyStatus : 429, retryAfter: seconds, violated }
}

/**
 * What a refusal comes to for a client: a problem, and when to try again.
 */
import * as Duration from "effect/Duration"
import type { ThrottleError } from "../../ThrottleError.ts"
import { type Problem, quotaExceeded, reducedCapacity } from "./problem.ts"

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

export const problemOf = (
  error: ThrottleError,
  by: By,
  options: {
    readonly globalName: string
    readonly concurrencyStatus: 429 | 503
    /** By what clients know the part of this name. */
    readonly partName: (name: string) => string
  }
): Problem => {
  const { reason, retryAfter } = error
  // Nobody can know when those who run will end. A second is soon enough to ask again, and late enough not to hammer.
  const seconds = retryAfter === undefined ? 1 : Math.max(1, Math.ceil(Duration.toSeconds(retryAfter)))
  const finer = retryAfter && { retryAfterMillis: Math.max(1, Math.ceil(Duration.toMillis(retryAfter))) }
  const again = { retryAfter: seconds, detail: `Try again in ${seconds} s.` }
  if (reason._tag === "KeysExhausted" || isOfStore(error)) {
    return { kind: reducedCapacity, members: { "violated-policies": [], ...again }, ...finer }
  }
  if (by === "global") {
    return { kind: reducedCapacity, members: { "violated-policies": [options.globalName], ...again }, ...finer }
  }
  const violated = { "violated-policies": reason.parts.map(options.partName) }
  if (reason._tag === "PermitsExceedCapacity") return { kind: quotaExceeded, members: violated }
  // Nor can anybody know when a pause without an end is ended, but that is no matter of those who run.
  const isForPermitsToSay = retryAfter === undefined && !reason.parts.includes("pause")
  return {
    kind: isForPermitsToSay && options.concurrencyStatus === 503 ? reducedCapacity : quotaExceeded,
    members: { ...violated, ...again },
    ...finer
  }
}

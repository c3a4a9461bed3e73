/**
 * Answers refusals: maps the reason to an HTTP problem, and that to the default response or to the app's own.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as HttpEffect from "effect/http/HttpEffect"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as ProblemDetails from "effect/http/ProblemDetails"
import type { Rejection } from "../problems.ts"
import { withHeaders } from "./announce.ts"
import { type Problem, quotaExceeded, reducedCapacity } from "./problem.ts"

type Response = HttpServerResponse.HttpServerResponse

/** The limit that refused. */
export interface By {
  /** The name of the global limit; undefined for the limit of a key. */
  readonly globalName: string | undefined
  readonly concurrencyStatus: 429 | 503
  /** The name that clients know a part by. */
  readonly nameOf: (part: string) => string
}

/** What is read of the reason of a `ThrottleError`, or of a refusal without an error. */
export interface Reason {
  readonly _tag: string
  readonly parts: ReadonlyArray<string>
  readonly retryAfter?: Duration.Duration
}

/** The reasons of the limits themselves. Every other reason is a store's. */
const reasons: ReadonlySet<string> = new Set([
  "QueueFull",
  "WaitTooLong",
  "TimedOut",
  "PermitsExceedCapacity",
  "Draining",
  "KeysExhausted"
])

export const isOfStore = ({ _tag }: Reason): boolean => !reasons.has(_tag)

export const problemOf = (reason: Reason, by: By): Problem => {
  const { _tag, parts } = reason
  // The end of a running call cannot be foreseen. A second is soon enough to ask again, and late enough not to hammer.
  const retryAfter = reason.retryAfter === undefined ? 1 : Math.max(1, Math.ceil(Duration.toSeconds(reason.retryAfter)))
  const retryAfterMillis = reason.retryAfter && Math.max(1, Math.ceil(Duration.toMillis(reason.retryAfter)))
  const again = { retryAfter, retryAfterMillis }
  if (_tag === "Draining" || _tag === "KeysExhausted" || isOfStore(reason)) {
    return { kind: reducedCapacity, violatedPolicies: [], ...again }
  }
  if (by.globalName !== undefined) {
    return { kind: reducedCapacity, violatedPolicies: [by.globalName], ...again }
  }
  const violatedPolicies = parts.map(by.nameOf)
  if (_tag === "PermitsExceedCapacity") {
    return { kind: quotaExceeded, violatedPolicies, retryAfter: undefined, retryAfterMillis: undefined }
  }
  // Nor can the end of a pause without an end be foreseen, but that does not depend on running calls.
  const isForPermitsToSay = reason.retryAfter === undefined && !parts.includes("pause")
  return {
    kind: isForPermitsToSay && by.concurrencyStatus === 503 ? reducedCapacity : quotaExceeded,
    violatedPolicies,
    ...again
  }
}

/** The fields that every refusal carries, whatever its body. */
export const headersOf = ({ retryAfter, retryAfterMillis }: Problem): Readonly<Record<string, string>> => ({
  "cache-control": "no-store",
  ...(retryAfterMillis === undefined ? undefined : { "retry-after-ms": `${retryAfterMillis}` }),
  ...(retryAfter === undefined ? undefined : { "retry-after": `${retryAfter}` })
})

/** The problem document. Put together by hand: an object for `JSON.stringify`, made of parts, takes ten times as long. */
const documentOf = ({ kind: { status, title, type }, retryAfter, violatedPolicies }: Problem): string => {
  const again = retryAfter === undefined ? "" : `"detail":"Try again in ${retryAfter} s.","retryAfter":${retryAfter},`
  return `{"type":"${type}","status":${status},"title":"${title}",${again}"violated-policies":${
    JSON.stringify(violatedPolicies)
  }}`
}

/** The default answer. */
export const responseOf = (problem: Problem): Response =>
  withHeaders(
    HttpServerResponse.text(documentOf(problem), {
      status: problem.kind.status,
      contentType: ProblemDetails.contentType
    }),
    headersOf(problem)
  )

/** The app's own answer to a refusal; see the option `onRejected`. */
export type OnRejected<E, R> = (rejection: Rejection) => Response | Effect.Effect<Response, E, R>

/** The app's own answer, with the fields of every refusal where it does not set them itself. */
export const ownResponseOf = <E, R>(
  onRejected: OnRejected<E, R>,
  key: string,
  problem: Problem
): Effect.Effect<Response, E, R> => {
  const { kind: { status }, retryAfter, retryAfterMillis, violatedPolicies } = problem
  const complete = (response: Response): Response => {
    const { headers } = response
    const missing = Object.entries(headersOf(problem)).filter(([name]) => headers[name] === undefined)
    const completed = withHeaders(response, Object.fromEntries(missing))
    // Milliseconds that are not the app's own must not contradict its seconds: clients read them first.
    const hasOwnSeconds = headers["retry-after"] !== undefined && headers["retry-after"] !== `${retryAfter}`
    const hasOwnMillis = headers["retry-after-ms"] !== undefined && headers["retry-after-ms"] !== `${retryAfterMillis}`
    return hasOwnSeconds && !hasOwnMillis ? HttpServerResponse.removeHeader(completed, "retry-after-ms") : completed
  }
  return Effect.suspend(() => {
    const response = responseOf(problem)
    const own: unknown = onRejected({ key, status, retryAfter, violatedPolicies, response })
    // In front of all routes nothing can be interrupted, and an answer may take its time.
    return Effect.isEffect(own)
      ? Effect.interruptible(own as Effect.Effect<Response, E, R>)
      : Effect.succeed(own as Response)
  }).pipe(
    Effect.map((own) => {
      if (HttpServerResponse.isHttpServerResponse(own)) return complete(own)
      const allowed = "a response, or an effect that gives one"
      throw new RangeError(`HttpThrottle: "onRejected" must return ${allowed}, received ${Formatter.format(own)}`)
    }),
    // The response to an error is made further out.
    Effect.onError(() =>
      Effect.withFiber(({ context }) => {
        HttpEffect.appendPreResponseHandlerUnsafe(context, (_, response) => Effect.succeed(complete(response)))
        return Effect.void
      })
    )
  )
}

/**
 * How a server refuses for want of capacity, and what may be sent again after that.
 */
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import { canBeSentAgain } from "./internal/request.ts"

/**
 * How an answer refuses a request for want of capacity.
 *
 * - "limit": a limit of this client. All requests of the key wait, also where the answer names no time. The request was not
 *   carried out, so one of any method may be sent again.
 * - "overload": the server has too much to do. All requests of the key wait for a time that the answer names; where it names
 *   none, the refused request waits alone. One of any method may be sent again.
 * - "unavailable": as "overload", but it may come from a gateway after the server behind it has carried out the request, so
 *   only one that does no harm twice is sent again ({@link isRepeatable}).
 *
 * @see {@link statuses} for which statuses do
 * @category models
 * @since 0.1.0
 */
export type Refusal = "limit" | "overload" | "unavailable"

/**
 * The statuses that refuse a request, and how; the default of the client's option `statuses`.
 *
 * **Details**
 *
 * | status | refuses by    | used by                                          |
 * | ------ | ------------- | ------------------------------------------------ |
 * | 420    | "limit"       | older APIs ("Enhance your calm")                 |
 * | 429    | "limit"       | RFC 6585                                         |
 * | 503    | "unavailable" | RFC 9110                                         |
 * | 509    | "limit"       | shared hosting ("Bandwidth limit exceeded")      |
 * | 529    | "overload"    | Anthropic and others ("The site is overloaded")  |
 *
 * Besides these an answer from 400 on is a refusal where a parser says so ({@link Limit}): a 403 that says when to come back
 * or that nothing remains, and what {@link refusalBodies} recognises.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * // A gateway that answers 502 when it has too much to do
 * const polite = HttpThrottle.client(Throttle.rate({ limit: 10 }), {
 *   statuses: { ...HttpThrottle.statuses, 502: "unavailable" }
 * })
 * ```
 *
 * @see {@link Refusal} for what each of them means
 * @category limits
 * @since 0.1.0
 */
export const statuses: Readonly<Record<number, Refusal>> = {
  420: "limit",
  429: "limit",
  503: "unavailable",
  509: "limit",
  529: "overload"
}

const idempotent: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PUT", "DELETE"])

/**
 * Whether a request may be sent again after this answer.
 *
 * **Details**
 *
 * The default of the client's option `retryIf`, where the server does not say `should-retry` itself. The body must be there
 * to be sent again: none, bytes, a text or form data, not a stream. After an answer of a status that is "unavailable", by
 * default 503, it must be a request that does no harm twice: an idempotent method (GET, HEAD, OPTIONS, TRACE, QUERY, PUT,
 * DELETE), or one with an `Idempotency-Key`. After others any method will do, since they say that it was not carried out.
 * `byStatus` is the client's option `statuses`.
 *
 * **Example**
 *
 * ```ts
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * // Searches are sent by POST, and do no harm
 * const polite = HttpThrottle.client(Throttle.rate({ limit: 10 }), {
 *   retryIf: (request, response) => request.url.endsWith("/search") || HttpThrottle.isRepeatable(request, response)
 * })
 * ```
 *
 * @see {@link client} for what it is used by
 * @category limits
 * @since 0.1.0
 */
export const isRepeatable = (
  request: HttpClientRequest.HttpClientRequest,
  response: { readonly status: number },
  byStatus: Readonly<Record<number, Refusal>> = statuses
): boolean =>
  canBeSentAgain(request.body) &&
  (byStatus[response.status] !== "unavailable" || idempotent.has(request.method) ||
    "idempotency-key" in request.headers)

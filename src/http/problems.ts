/**
 * The answers to refused requests: problem details (RFC 9457) that a client can decode again.
 *
 * @since 0.1.0
 */
import * as HttpApiError from "effect/http-api/HttpApiError"
import type { HttpServerResponse } from "effect/http/HttpServerResponse"
import * as Schema from "effect/Schema"
import { quotaExceeded, reducedCapacity } from "./internal/problem.ts"

const fields = {
  /** Seconds until it may be tried again, as in `Retry-After`; absent where trying again does not help. */
  retryAfter: Schema.optionalKey(Schema.Number),
  /** The names of the policies that stood in the way, as in `RateLimit-Policy`. */
  "violated-policies": Schema.Array(Schema.String)
}

/**
 * A refused request, as the option `onRejected` of `middleware` and `layerApi` receives it.
 *
 * @see {@link CommonOptions} for the option
 * @category models
 * @since 0.1.0
 */
export interface Rejection {
  /** The key that the request was counted for. */
  readonly key: string
  /** The status of the default answer. */
  readonly status: 429 | 503
  /** Seconds until the request may be repeated, an integer ≥ 1, as in `Retry-After`; undefined where that never helps. */
  readonly retryAfter: number | undefined
  /** The names of the policies that refused, as in `RateLimit-Policy`; none where the map is full or its store fails. */
  readonly violatedPolicies: ReadonlyArray<string>
  /** The default answer: the problem document, with `Retry-After` and `Cache-Control`. */
  readonly response: HttpServerResponse
}

/**
 * 429: this client has spent what it is allowed.
 *
 * **When to use**
 *
 * Declared through {@link errors} by an HttpApi; its clients then catch it with
 * `Effect.catchTag("TooManyRequests", …)`.
 *
 * **Details**
 *
 * `retryAfter` is in seconds, whole ones, at least 1. The body is `application/problem+json` with the type that the IETF
 * draft on rate limits registers for this.
 *
 * @see {@link ServiceUnavailable} for what is not this client's doing
 * @category errors
 * @since 0.1.0
 */
export class TooManyRequests extends HttpApiError.Problem<TooManyRequests>()(
  "TooManyRequests",
  quotaExceeded,
  fields
) {}

/**
 * 503: the server has no capacity left for anybody.
 *
 * **When to use**
 *
 * As {@link TooManyRequests}.
 *
 * **Details**
 *
 * Answers for a throttle that is being drained, for the `global` policy, for a map that is full of keys in use, for a store that fails where `onStoreError` is
 * "refuse", and, where `concurrencyStatus` is 503, for concurrency.
 *
 * @see {@link TooManyRequests} for what a client can change by asking less
 * @category errors
 * @since 0.1.0
 */
export class ServiceUnavailable extends HttpApiError.Problem<ServiceUnavailable>()(
  "ServiceUnavailable",
  reducedCapacity,
  fields
) {}

/**
 * What a throttled HttpApi fails with, for the `error` of its `HttpApiMiddleware.Service`.
 *
 * @see {@link layerApi} for the example
 * @category errors
 * @since 0.1.0
 */
export const errors = [TooManyRequests, ServiceUnavailable] as const

/**
 * The options of server throttles.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type { HttpServerResponse } from "effect/http/HttpServerResponse"
import type * as Throttle from "../Throttle.ts"
import type * as ThrottleMap from "../ThrottleMap.ts"
import type { Rejection, ServiceUnavailable, TooManyRequests } from "./problems.ts"

/**
 * Options of every server throttle.
 *
 * @category options
 * @since 0.1.0
 */
export interface CommonOptions<R = HttpServerRequest.HttpServerRequest, RA = never, EA = never> {
  /** The key that a request is counted for. Default: {@link clientAddress}. Of a key longer than 256 characters both ends count. */
  readonly key?: Effect.Effect<string, never, R> | undefined
  /** What a request costs its key. Default: one permit, which the policy has to count then. */
  readonly cost?: Throttle.Cost | ((request: HttpServerRequest.HttpServerRequest) => Throttle.Cost) | undefined
  /**
   * Whether a request counts for its key, by the response that is sent: `({ status }) => status === 401` counts failed
   * logins. A request is charged when it starts, and what it was charged is given back when the response does not count; so
   * no more run at once than could all be counted. Responses to errors count by their status; a client that hangs up gets
   * 499. A `global` policy counts them all. Default: every request counts.
   */
  readonly countIf?:
    | ((response: HttpServerResponse, request: HttpServerRequest.HttpServerRequest) => boolean)
    | undefined
  /**
   * A limit for all requests together, one permit each; logs and metrics call it by the policy's name, or "global". A request that its key's limit refuses does not count here, and one
   * that is refused here does not count for its key. Default: none.
   */
  readonly global?: Throttle.Policy<any> | undefined
  /**
   * How long a request may wait for its key, and once more for `global`; with `throttles` for `global` alone, which then has
   * to be there, since the map's policies say how long for a key. Default: not at all.
   */
  readonly maxWait?: Duration.Input | undefined
  /**
   * Requests that are let through without counting. The `url` of a request includes its query:
   * `({ url }) => url.split("?", 1)[0] === "/health"`. Default: none.
   */
  readonly skip?: ((request: HttpServerRequest.HttpServerRequest) => boolean) | undefined
  /**
   * Answers a refused request: a response, or an effect that gives one; with {@link layerApi} it may fail with the errors that
   * the api declares. `Retry-After` and `Cache-Control: no-store` are added where the response does not set them, the
   * `RateLimit` fields as to every answer. Default: a problem document (RFC 9457) with status 429 or 503.
   */
  readonly onRejected?:
    | ((rejection: Rejection) => HttpServerResponse | Effect.Effect<HttpServerResponse, EA, RA>)
    | undefined
  /** What clients and logs call the limit; give each of several a name of its own. Printable ASCII. Default: "default". */
  readonly name?: string | undefined
  /**
   * Which version of the `RateLimit` fields answers carry: "draft-10" of the IETF draft, the older "draft-7" or "draft-6",
   * which know one limit only, or "none". Default: "draft-10".
   */
  readonly fields?: "draft-10" | "draft-7" | "draft-6" | "none" | undefined
  /** The status of a refusal by a concurrency limit alone, whose end cannot be foreseen. Default: 429. */
  readonly concurrencyStatus?: 429 | 503 | undefined
  /** Whether requests are let in or refused where a store that counts them fails. Default: "allow". */
  readonly onStoreError?: "allow" | "refuse" | undefined
}

/**
 * Options of a server throttle that has a map of its own, with a budget for each key.
 *
 * @category options
 * @since 0.1.0
 */
export interface MapOptions<R = HttpServerRequest.HttpServerRequest, RA = never, EA = never>
  extends CommonOptions<R, RA, EA>
{
  /** The number of keys remembered at once. An integer ≥ 1. Default: 100,000. */
  readonly maxKeys?: number | undefined
  /**
   * What a new key does when there are `maxKeys` already. "evict": the idle one that was used longest ago is forgotten.
   * "refuse": it is answered with 503. Default: "evict".
   */
  readonly onFull?: "evict" | "refuse" | undefined
  /** Whether it only counts and logs what it would have done. Default: false. */
  readonly shadow?: boolean | undefined
}

/**
 * Options of a server throttle with the same policy for every key.
 *
 * @category options
 * @since 0.1.0
 */
export interface PolicyOptions<R = HttpServerRequest.HttpServerRequest, RA = never, EA = never>
  extends MapOptions<R, RA, EA>
{
  /** The policy of every key. Spacing that is aligned to the clock needs a `maxWait` of at least its interval. */
  readonly policy: Throttle.Policy<any>
  readonly lookup?: undefined
  readonly throttles?: undefined
}

/**
 * Options of a server throttle with a policy for each key.
 *
 * @category options
 * @since 0.1.0
 */
export interface LookupOptions<R = HttpServerRequest.HttpServerRequest, RA = never, EA = never>
  extends MapOptions<R, RA, EA>
{
  /**
   * The policy of a key. Give keys that are alike the same policy value, made once: each value costs some kilobytes. Spacing
   * that is aligned to the clock needs a `maxWait` of at least its interval.
   */
  readonly lookup: (key: string) => Throttle.Policy<any>
  readonly policy?: undefined
  readonly throttles?: undefined
}

/**
 * Options of a server throttle whose budgets are those of a map that others use as well.
 *
 * @category options
 * @since 0.1.0
 */
export interface ThrottlesOptions<
  R = HttpServerRequest.HttpServerRequest,
  EX = never,
  RX = never,
  RA = never,
  EA = never
> extends CommonOptions<R, RA, EA> {
  /**
   * The map, such as a `ThrottleMap.Service` class. Requests wait as long as its policies say. A handler that asks the same
   * key for permits which its own request holds would wait for itself: as everywhere, that is a defect, unless the part says
   * `nested: "pass"`.
   */
  readonly throttles: Effect.Effect<ThrottleMap.ThrottleMap<string>, EX, RX>
  readonly policy?: undefined
  readonly lookup?: undefined
  readonly maxKeys?: undefined
  readonly onFull?: undefined
  readonly shadow?: undefined
}

/**
 * Options of {@link middleware}. `R` is what `key` needs, `EX` and `RX` are those of `throttles`, `RA`
 * and `EA` those of `onRejected`.
 *
 * @category options
 * @since 0.1.0
 */
export type Options<R = HttpServerRequest.HttpServerRequest, EX = never, RX = never, RA = never, EA = never> =
  | PolicyOptions<R, RA, EA>
  | LookupOptions<R, RA, EA>
  | ThrottlesOptions<R, EX, RX, RA, EA>

/**
 * Options of {@link layerApi}, for a middleware that declares the errors `E`. Where those of {@link errors} are not among
 * them, `onRejected` is needed.
 *
 * @category options
 * @since 0.1.0
 */
export type ApiOptions<E, R = HttpServerRequest.HttpServerRequest, EX = never, RX = never, RA = never> =
  & Options<R, EX, RX, RA, E>
  & ([TooManyRequests | ServiceUnavailable] extends [E] ? unknown : { readonly onRejected: {} })

/**
 * The names of all header fields that tell clients of limits, for the `exposedHeaders` of a CORS middleware: without it a
 * page of another origin cannot read them.
 *
 * **Example**
 *
 * ```ts
 * import { Layer } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 *
 * // Outside the throttle: it answers preflights, which are then free, and refusals carry its fields.
 * const Cors = HttpRouter.cors({
 *   allowedOrigins: ["https://app.example"],
 *   exposedHeaders: HttpThrottle.exposedHeaders
 * })
 *
 * const InFront = HttpThrottle.middleware({ policy: Throttle.rate({ limit: 10, burst: 20 }) }, { global: true })
 *
 * const App = HttpRouter.add("GET", "/", HttpServerResponse.text("hello")).pipe(
 *   Layer.merge(InFront.pipe(Layer.provideMerge(Cors)))
 * )
 * ```
 *
 * @see {@link middleware} for what sends them
 * @category constants
 * @since 0.1.0
 */
export const exposedHeaders: ReadonlyArray<string> = [
  "RateLimit",
  "RateLimit-Policy",
  "RateLimit-Limit",
  "RateLimit-Remaining",
  "RateLimit-Reset",
  "Retry-After",
  "Retry-After-Ms"
]

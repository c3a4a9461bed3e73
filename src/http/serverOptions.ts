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
 * What every level has besides its policies.
 *
 * @category options
 * @since 0.2.0
 */
export interface CommonLevel<R = HttpServerRequest.HttpServerRequest> {
  /**
   * The key that a request is counted for at this level, such as the organisation of its user. Of a key longer than 256
   * characters both ends count.
   */
  readonly key: Effect.Effect<string, never, R>
  /** What a request costs this level. Default: one permit, which the policy has to count then. */
  readonly cost?: Throttle.Cost | ((request: HttpServerRequest.HttpServerRequest) => Throttle.Cost) | undefined
  /** What clients and logs call the level. Printable ASCII. Default: "level 2" for the first one, and so on. */
  readonly name?: string | undefined
}

/**
 * A level with the same policy for every key, or with a policy for each key.
 *
 * @category options
 * @since 0.2.0
 */
export type PolicyLevel<R = HttpServerRequest.HttpServerRequest> =
  & CommonLevel<R>
  & {
    /** The number of keys remembered at once. An integer ≥ 1. Default: 100,000. */
    readonly maxKeys?: number | undefined
    /** As for {@link MapOptions}. Default: "evict". */
    readonly onFull?: "evict" | "refuse" | undefined
    readonly throttles?: undefined
  }
  & (
    | {
      /** The policy of every key. */
      readonly policy: Throttle.Policy<any>
      readonly lookup?: undefined
    }
    | {
      /** The policy of a key. Give keys that are alike the same policy value, made once. */
      readonly lookup: (key: string) => Throttle.Policy<any>
      readonly policy?: undefined
    }
  )

/**
 * A level whose budgets are those of a map that others use as well.
 *
 * @category options
 * @since 0.2.0
 */
export interface ThrottlesLevel<R = HttpServerRequest.HttpServerRequest, EX = never, RX = never>
  extends CommonLevel<R>
{
  /** The map, of this process, such as a `ThrottleMap.Service` class. Requests wait as long as its policies say. */
  readonly throttles: Effect.Effect<ThrottleMap.ThrottleMap<string>, EX, RX>
  readonly policy?: undefined
  readonly lookup?: undefined
  readonly maxKeys?: undefined
  readonly onFull?: undefined
}

/**
 * A limit that a request has to pass besides that of its key: with another key, such as the organisation of its user.
 *
 * @see {@link CommonOptions} for `levels`
 * @category options
 * @since 0.2.0
 */
export type Level<R = HttpServerRequest.HttpServerRequest, EX = never, RX = never> =
  | PolicyLevel<R>
  | ThrottlesLevel<R, EX, RX>

/**
 * A list of levels.
 *
 * @category options
 * @since 0.2.0
 */
export type Levels = ReadonlyArray<Level<any, any, any>>

/** Whether two types are identical: `any` in one is no other type. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false

/**
 * What the keys of levels need; nothing for {@link Levels} itself, the type that is inferred where there are none.
 *
 * @category options
 * @since 0.2.0
 */
export type LevelServices<L extends Levels> = Same<L, Levels> extends true ? never :
  L[number] extends infer One ? One extends { readonly key: Effect.Effect<string, never, infer R> } ? R : never
  : never

/**
 * What the maps of levels need to be made.
 *
 * @category options
 * @since 0.2.0
 */
export type LevelMapServices<L extends Levels> = Same<L, Levels> extends true ? never :
  L[number] extends infer One ? One extends { readonly throttles: Effect.Effect<any, any, infer RX> } ? RX : never
  : never

/**
 * What the maps of levels may fail with when they are made.
 *
 * @category options
 * @since 0.2.0
 */
export type LevelMapError<L extends Levels> = Same<L, Levels> extends true ? never :
  L[number] extends infer One ? One extends { readonly throttles: Effect.Effect<any, infer EX, any> } ? EX : never
  : never

/**
 * Options of every server throttle.
 *
 * @category options
 * @since 0.1.0
 */
export interface CommonOptions<
  R = HttpServerRequest.HttpServerRequest,
  RA = never,
  EA = never,
  L extends Levels = ReadonlyArray<Level>,
  EG = never,
  RG = never
> {
  /** The key that a request is counted for. Default: {@link clientAddress}. Of a key longer than 256 characters both ends count. */
  readonly key?: Effect.Effect<string, never, R> | undefined
  /** What a request costs its key. Default: one permit, which the policy has to count then. */
  readonly cost?: Throttle.Cost | ((request: HttpServerRequest.HttpServerRequest) => Throttle.Cost) | undefined
  /**
   * Whether a request counts for its key, and for those of `levels`, by the response that is sent:
   * `({ status }) => status === 401` counts failed logins. A request is charged when it starts, and what it was charged is
   * given back when the response does not count; so no more run at once than could all be counted. Responses to errors count
   * by their status; a client that hangs up gets 499. The `global` limit counts them all. Default: every request counts.
   */
  readonly countIf?:
    | ((response: HttpServerResponse, request: HttpServerRequest.HttpServerRequest) => boolean)
    | undefined
  /**
   * A limit for all requests together, one permit each: a policy, which logs and metrics call by its name, or "global"; or a
   * throttle of this process that others use as well, such as a `Throttle.Service` class, whose own bounds say how long a
   * request waits for it. A request that its key's limit refuses does not count here, and one that is refused here does not
   * count for its key. Default: none.
   */
  readonly global?:
    | Throttle.Policy<any>
    | Throttle.Throttle
    | Effect.Effect<Throttle.Throttle, EG, RG>
    | undefined
  /**
   * Further limits with keys of their own, from the narrower to the wider: between that of `key` and the `global` one. All
   * limits are charged in one step, or none. Default: none.
   *
   * @since 0.2.0
   */
  readonly levels?: L | undefined
  /**
   * Whether throttles know whose call it is: with `true` the handler runs as within `Throttle.withCaller({ key })`, so that
   * those with the order "fair" are shared by client; so does the wait for the limits here. Or a function from the key of the
   * request, and those of its levels, to the caller: the caller's key is in events, logs and spans, so where the key of a
   * request is a secret, return another name. Default: false.
   *
   * @since 0.2.0
   */
  readonly setCaller?: boolean | ((key: string, levels: ReadonlyArray<string>) => Partial<Throttle.Caller>) | undefined
  /**
   * How long a request may wait, for all its limits together. A map of `throttles` decides itself how long for its keys; so
   * with `throttles` another limit has to be there. Default: not at all.
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
export interface MapOptions<
  R = HttpServerRequest.HttpServerRequest,
  RA = never,
  EA = never,
  L extends Levels = ReadonlyArray<Level>,
  EG = never,
  RG = never
> extends CommonOptions<R, RA, EA, L, EG, RG> {
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
export interface PolicyOptions<
  R = HttpServerRequest.HttpServerRequest,
  RA = never,
  EA = never,
  L extends Levels = ReadonlyArray<Level>,
  EG = never,
  RG = never
> extends MapOptions<R, RA, EA, L, EG, RG> {
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
export interface LookupOptions<
  R = HttpServerRequest.HttpServerRequest,
  RA = never,
  EA = never,
  L extends Levels = ReadonlyArray<Level>,
  EG = never,
  RG = never
> extends MapOptions<R, RA, EA, L, EG, RG> {
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
  EA = never,
  L extends Levels = ReadonlyArray<Level>,
  EG = never,
  RG = never
> extends CommonOptions<R, RA, EA, L, EG, RG> {
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
 * Options of {@link middleware}. `R` is what `key` needs, `EX` and `RX` are those of `throttles`, `RA` and `EA` those of
 * `onRejected`, `L` is the type of `levels`, and `EG` and `RG` are those of `global`.
 *
 * @category options
 * @since 0.1.0
 */
export type Options<
  R = HttpServerRequest.HttpServerRequest,
  EX = never,
  RX = never,
  RA = never,
  EA = never,
  L extends Levels = ReadonlyArray<Level>,
  EG = never,
  RG = never
> =
  | PolicyOptions<R, RA, EA, L, EG, RG>
  | LookupOptions<R, RA, EA, L, EG, RG>
  | ThrottlesOptions<R, EX, RX, RA, EA, L, EG, RG>

/**
 * Options of {@link layerApi}, for a middleware that declares the errors `E`. Where those of {@link errors} are not among
 * them, `onRejected` is needed.
 *
 * @category options
 * @since 0.1.0
 */
export type ApiOptions<
  E,
  R = HttpServerRequest.HttpServerRequest,
  EX = never,
  RX = never,
  RA = never,
  L extends Levels = ReadonlyArray<Level>,
  EG = never,
  RG = never
> =
  & Options<R, EX, RX, RA, E, L, EG, RG>
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

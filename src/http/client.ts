/**
 * An HTTP client that waits its turn, and learns from what servers say of their limits.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Throttle from "../Throttle.ts"
import type { ThrottleError } from "../ThrottleError.ts"
import type * as ThrottleMap from "../ThrottleMap.ts"
import { dialects } from "./dialects.ts"
import { canBeSentAgain, originOf } from "./internal/request.ts"
import { send, type Settings } from "./internal/send.ts"
import { gateOf, perClock, type Source } from "./internal/source.ts"
import type { Parser } from "./limits.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Options
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Options of {@link client}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClientOptions {
  /** What requests share a throttle by. One throttle for all does not look at it. Default: the origin of the URL. */
  readonly key?: ((request: HttpClientRequest.HttpClientRequest) => string) | undefined
  /** See {@link WeightedClientOptions}. Default: one permit. */
  readonly cost?: undefined
  /**
   * How often a request that was refused is sent again: a number, or a schedule, which is asked with the answer. The
   * delays of the schedule are waited where the answer names no time; with a number they are 1, 2, 4 … seconds. 0 for
   * never. A retry stands in line, so a policy with `maxQueue: 0`, or a `maxWait` below the pause, lets none wait: there
   * the refusal is the answer. Default: 3.
   */
  readonly retry?: number | Schedule.Schedule<unknown, HttpClientResponse.HttpClientResponse> | undefined
  /**
   * Whether this request may be sent again after this answer. A server's `should-retry: false` stands whatever this says.
   * Default: {@link isRepeatable}, and where the server says `should-retry: true`, whatever can be sent again.
   */
  readonly retryIf?:
    | ((request: HttpClientRequest.HttpClientRequest, response: HttpClientResponse.HttpClientResponse) => boolean)
    | undefined
  /** The dialects to read. One that throws says nothing. Default: {@link dialects}. */
  readonly parsers?: ReadonlyArray<Parser> | undefined
  /** No answer makes anybody wait longer, jitter included. A finite duration above 0. Default: 1 hour. */
  readonly maxPause?: Duration.Input | undefined
  /**
   * Up to this fraction is added to what is waited, 5 seconds at most, so that clients do not all come back at once. From
   * 0 to 1. Default: 0.1.
   */
  readonly jitter?: number | undefined
}

/**
 * Options of a client whose requests cost more than one permit, or amounts of several units.
 *
 * @category options
 * @since 0.1.0
 */
export interface WeightedClientOptions extends Omit<ClientOptions, "cost"> {
  /** What a request costs, each attempt again. */
  readonly cost: Throttle.Cost | ((request: HttpClientRequest.HttpClientRequest) => Throttle.Cost)
}

const known: ReadonlySet<string> = new Set(["key", "cost", "retry", "retryIf", "parsers", "maxPause", "jitter"])

const checked = (caller: string, options: ClientOptions | WeightedClientOptions): Settings => {
  const { cost, jitter = 0.1, key = originOf, maxPause = "1 hour", parsers = dialects, retry = 3 } = options
  const { retryIf = byDefault } = options
  const bad = (option: string, allowed: string, got: unknown) =>
    new RangeError(`${caller}: ${option} must be ${allowed}, got ${Formatter.format(got)}`)
  for (const option of Object.keys(options)) {
    if (known.has(option)) continue
    throw new RangeError(`${caller}: unknown option ${Formatter.format(option)}; it takes ${[...known].join(", ")}`)
  }
  if (typeof key !== "function") throw bad("key", "a function from a request to a string", key)
  if (!isCost(cost)) {
    throw bad("cost", "whole permits, a whole amount for each unit, or a function that gives one", cost)
  }
  if (typeof retryIf !== "function") throw bad("retryIf", "a function of a request and a response", retryIf)
  if (!Array.isArray(parsers) || parsers.some((parser) => typeof parser !== "function")) {
    throw bad("parsers", "an array of functions", parsers)
  }
  if (!Schedule.isSchedule(retry) && !(Number.isSafeInteger(retry) && retry >= 0)) {
    throw bad("retry", "a whole number of at least 0 or a schedule", retry)
  }
  if (!(jitter >= 0 && jitter <= 1)) throw bad("jitter", "a number from 0 to 1", jitter)
  const millis = typeof maxPause === "number"
    ? maxPause
    : Option.getOrElse(Option.map(Duration.fromInput(maxPause), Duration.toMillis), () => NaN)
  if (!(millis > 0 && millis < Infinity)) throw bad("maxPause", "a finite duration above 0", maxPause)
  return {
    key,
    cost: typeof cost === "function" ? cost : () => cost,
    retry: Schedule.isSchedule(retry) ? retry : Schedule.upTo(Schedule.exponential("1 second"), { times: retry }),
    retryIf,
    parsers,
    maxPause: millis,
    jitter
  }
}

const isCost = (cost: unknown): boolean => {
  if (cost === undefined || typeof cost === "function") return true
  const amounts = Predicate.isObject(cost) && !Array.isArray(cost) ? Object.values(cost) : [cost]
  return amounts.every((amount) => Number.isSafeInteger(amount) && (amount as number) >= 0)
}

/** The server may know better than a rule of ours, not than one of the program's own. */
const byDefault: Settings["retryIf"] = (request, response, wanted) =>
  isRepeatable(request, response) || (wanted === true && canBeSentAgain(request.body))

const idempotent: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PUT", "DELETE"])

/**
 * Whether a request may be sent again after this answer.
 *
 * **Details**
 *
 * The rule of {@link ClientOptions.retryIf}, where the server does not say `should-retry` itself. The body must be there to be
 * sent again: none, bytes, a text or form data, not a stream. And after a 503, which may come
 * from a gateway when the server behind it has done the work already, it must be a request that does no harm twice: an
 * idempotent method (GET, HEAD, OPTIONS, TRACE, QUERY, PUT, DELETE), or an `Idempotency-Key`. A 429 or 403 says that it was
 * not done, so any method will do.
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
  response: { readonly status: number }
): boolean =>
  canBeSentAgain(request.body) &&
  (response.status !== 503 || idempotent.has(request.method) || "idempotency-key" in request.headers)

// ---------------------------------------------------------------------------------------------------------------------
// The client
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What throttles a client; `E` and `R` are what it adds to the client's errors and requirements.
 *
 * @see {@link client} for where it comes from
 * @category models
 * @since 0.1.0
 */
export type Throttled<E, R> = <E1, R1>(
  self: HttpClient.HttpClient.With<E1, R1>
) => HttpClient.HttpClient.With<E1 | E, R1 | R>

/**
 * The ways to call {@link client} and {@link clientScoped}; `R` is what the latter needs besides.
 *
 * @category models
 * @since 0.1.0
 */
export interface MakeClient<R> {
  /** A policy for each key. */
  <E>(policy: Throttle.Policy<E>, options?: ClientOptions): Throttled<E, R>
  (policy: Throttle.Policy<any>, options: WeightedClientOptions): Throttled<ThrottleError, R>
  /** The throttle of a Service class. */
  <Self, E>(
    service: Context.Key<Self, Throttle.Throttle> & { readonly policy: Throttle.Policy<E> },
    options?: ClientOptions
  ): Throttled<E, R | Self>
  /** A throttle, or a map, that is provided. */
  <Self>(
    service: Context.Key<Self, Throttle.Throttle> | Context.Key<Self, ThrottleMap.ThrottleMap<string>>,
    options?: ClientOptions | WeightedClientOptions
  ): Throttled<ThrottleError, R | Self>
  /** A policy for each key of its own, a map, or a throttle. */
  (
    throttle: ThrottleMap.Options<string> | ThrottleMap.ThrottleMap<string> | Throttle.Throttle,
    options?: ClientOptions | WeightedClientOptions
  ): Throttled<ThrottleError, R>
}

/**
 * Throttles an HTTP client: each request waits its turn, and what servers say of their limits holds everybody back.
 *
 * **When to use**
 *
 * Around the client of an API with a quota, or of many. With a policy there is one throttle for each origin. Give the
 * options of a `ThrottleMap` where keys have policies of their own, a `Throttle.Service` class (or `Throttle.Throttle`)
 * where all requests share one throttle that is provided, a `ThrottleMap.Service` class for a map that is, or a throttle
 * or map that you made.
 *
 * **Details**
 *
 * The wait comes before each attempt, so it belongs inside of `HttpClient.retryTransient`. Permits are held until the head
 * of the answer is there; the body is read without them ({@link clientScoped} holds them longer). `HttpClient.mapRequest`
 * and `mapRequestEffect` run once, before the wait, wherever they stand: what must be fresh when it is sent, such as a
 * signature with a time, belongs in a client inside,
 * `HttpClient.make((request) => Effect.flatMap(sign(request), self.execute))`.
 *
 * An answer that says when to come back ({@link read}) pauses the throttle of its key, for those in line too; pauses only
 * lengthen, so the 429s of one burst count once. A request that was refused stands in line again, up to `retry` times and
 * if it may be repeated. After that the answer is what the client gives, as it came; so too where the policy refuses the
 * retry on arrival (`maxQueue`, `maxWait`). A refused request whose answer names no time waits as `retry` says: after a 429
 * with everybody, after a 503 alone. If somebody resumes the throttle, the refused request alone waits on, without a permit.
 *
 * While a retry waits, the body of the answer that is given up is read, for 1 second at most, so that its connection is
 * free. Where the policy refuses the retry after that (`timeout`), that body can be read as text, JSON or bytes if it was
 * there by then, not as a stream.
 *
 * `retryIf` and the schedule are asked after the pause has begun and the permits are back. Where the answer names no time
 * they decide how long the pause is, so then the permits are held while they are asked.
 *
 * State lives as that of an inline policy: one for each value that `client(…)` gives and Clock, so make it once, outside
 * the function that uses it. A policy's throttles remember 10,000 keys; beyond that the idle key that was used longest ago
 * is forgotten, and keys for which there is no room, since all are in use, share a throttle. Jitter is one draw of
 * Effect's `Random` for each such state: so answers of one burst agree on it.
 *
 * **Errors**
 *
 * Those of the policy: none without bounds. With a `cost`, a map or a generic `Throttle`, `ThrottleError`. Throws a
 * `RangeError` for bad options.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 * import { FetchHttpClient, HttpClient } from "effect/http"
 *
 * const polite = HttpThrottle.client(Throttle.all([
 *   Throttle.rate({ limit: 10, per: "1 second", burst: 5 }),
 *   Throttle.concurrency({ limit: 4 })
 * ]))
 *
 * // In one place: the app's client
 * const PoliteClient = Layer.effect(HttpClient.HttpClient, Effect.map(HttpClient.HttpClient, polite)).pipe(
 *   Layer.provide(FetchHttpClient.layer)
 * )
 *
 * const program = HttpClient.get("https://api.example/users").pipe(
 *   Effect.provide(PoliteClient)
 * )
 * ```
 *
 * @see {@link clientScoped} to hold permits while the body is read
 * @category client
 * @since 0.1.0
 */
export const client: MakeClient<never> = (source: Source, options?: ClientOptions | WeightedClientOptions) =>
  throttled("HttpThrottle.client", source, options, false)

/**
 * The same, holding permits until the scope closes: while the body is read.
 *
 * **When to use**
 *
 * Where a server counts answers that are under way, as with long downloads and streams, and the policy has a
 * `concurrency`. For policies that decide by time alone it makes no difference.
 *
 * **Details**
 *
 * Permits come back when the scope of the caller closes; at once those of an attempt that failed, was refused, or was
 * answered by a redirect (3xx with a `Location`). So `HttpClient.followRedirects` may stand outside, where each hop waits
 * its turn, or inside, where a request and its hops are one. Use one scope a request: a fiber that keeps the scope of one
 * open waits for itself if it asks for more than the policy has. `HttpClient.retryTransient` sends all attempts in one
 * scope, so repeat the scoped effect instead.
 *
 * **Errors**
 *
 * As {@link client}.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 * import { HttpClient } from "effect/http"
 *
 * const downloads = HttpThrottle.clientScoped(Throttle.concurrency({ limit: 2 }))
 *
 * const download = (client: HttpClient.HttpClient, url: string) =>
 *   downloads(client).get(url).pipe(
 *     Effect.flatMap((response) => response.arrayBuffer),
 *     Effect.scoped
 *   )
 * ```
 *
 * @see {@link client} to hold them until the head of the answer is there
 * @category client
 * @since 0.1.0
 */
export const clientScoped: MakeClient<Scope.Scope> = (
  source: Source,
  options?: ClientOptions | WeightedClientOptions
) => throttled("HttpThrottle.clientScoped", source, options, true)

const throttled = (
  caller: string,
  source: Source,
  options: ClientOptions | WeightedClientOptions = {},
  isScoped: boolean
): Throttled<any, any> => {
  const settings = checked(caller, options)
  const gateIn = gateOf(caller, source)
  const spreadIn = perClock((context) => Context.get(context, Random.Random).nextDoubleUnsafe())
  return (self) =>
    HttpClient.transform(self, (effect, request) =>
      Effect.withFiber((fiber) => {
        const [gate, spread, key] = [gateIn(fiber), spreadIn(fiber), settings.key(request)]
        return send<any, any>({ settings, gate, spread, isScoped, request, key, effect })
      }))
}

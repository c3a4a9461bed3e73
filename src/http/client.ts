/**
 * An HTTP client that is throttled, and learns the limits of servers.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type * as Throttle from "../Throttle.ts"
import type { ThrottleError } from "../ThrottleError.ts"
import type * as ThrottleMap from "../ThrottleMap.ts"
import type { ClientOptions, HttpErrorOptions, WeightedClientOptions } from "./clientOptions.ts"
import type { KeyStatistics } from "./clientStatistics.ts"
import * as Memory from "./internal/memory.ts"
import { timeOf } from "./internal/pacer.ts"
import { send } from "./internal/send.ts"
import { type AnyOptions, settingsOf } from "./internal/settings.ts"
import { gateOf, perClock, type Source } from "./internal/source.ts"

/**
 * A function that throttles a client; `E` and `R` are what it adds to the client's errors and requirements.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 *
 * const polite = HttpThrottle.client(Throttle.concurrency({ limit: 8 }))
 *
 * const rates = Effect.map(polite.statistics, (keys) => Array.from(keys, ([key, { rate }]) => `${key}: ${rate} per second`))
 * ```
 *
 * @see {@link client} for where it comes from
 * @category models
 * @since 0.1.0
 */
export interface Throttled<E, R> {
  /** Returns the client, throttled: its requests wait for their turn, and what was refused is repeated. */
  <E1, R1>(self: HttpClient.HttpClient.With<E1, R1>): HttpClient.HttpClient.With<E1 | E, R1 | R>
  /** What was learned of the server of each key that is remembered, and what became of its requests, on this `Clock`. */
  readonly statistics: Effect.Effect<ReadonlyMap<string, KeyStatistics>>
}

/**
 * The ways to call {@link client} and {@link clientScoped}; `R` is what the latter needs besides.
 *
 * @category models
 * @since 0.1.0
 */
export interface MakeClient<R> {
  /**
   * Throttles a client by a throttle or a map that is provided; a request that it rejects fails with an `HttpClientError`,
   * whose `cause` is the `ThrottleError`. Throws a `RangeError` for bad options.
   *
   * @see {@link HttpErrorOptions}
   */
  <Self>(
    service: Context.Key<Self, Throttle.Throttle> | Context.Key<Self, ThrottleMap.ThrottleMap<string>>,
    options: HttpErrorOptions
  ): Throttled<HttpClientError.HttpClientError, R | Self>
  /**
   * Throttles a client by a policy for each key, the options of a map, a map or a throttle; a request that it rejects fails
   * with an `HttpClientError`, whose `cause` is the `ThrottleError`. Throws a `RangeError` for bad options.
   *
   * @see {@link HttpErrorOptions}
   */
  (
    throttle:
      | Throttle.Policy<any, never>
      | ThrottleMap.Options<string>
      | ThrottleMap.ThrottleMap<string>
      | Throttle.Throttle,
    options: HttpErrorOptions
  ): Throttled<HttpClientError.HttpClientError, R>
  /**
   * Throttles a client by a policy: one throttle for each origin, or for each key that `key` gives. Adds the policy's errors.
   * @see {@link client} for what it does, with options, units and defaults in {@link ClientOptions}
   */
  <E>(policy: Throttle.Policy<E, never>, options?: ClientOptions): Throttled<E, R>
  /**
   * Throttles a client by a policy, with a cost for each request: one throttle for each origin, or for each key that `key`
   * gives. Adds `ThrottleError`, since a request may cost more than can ever be granted.
   * @see {@link client} for what it does, with options, units and defaults in {@link WeightedClientOptions}
   */
  (policy: Throttle.Policy<any, never>, options: WeightedClientOptions): Throttled<ThrottleError, R>
  /**
   * Throttles a client by a `Throttle.Service` class: one throttle for all requests, the one that is provided. Adds the errors
   * of the class's policy.
   * @see {@link client} for what it does, with options, units and defaults in {@link ClientOptions}
   */
  <Self, E>(
    service: Context.Key<Self, Throttle.Throttle> & { readonly policy: Throttle.Policy<E, never> },
    options?: ClientOptions
  ): Throttled<E, R | Self>
  /**
   * Throttles a client by a throttle or map at hand, by the options of a `ThrottleMap`, which give each key a policy of its
   * own, by what is provided under a key, or by any of the others with a cost. Adds `ThrottleError`.
   * @see {@link client} for what it does, with options, units and defaults in {@link WeightedClientOptions}
   */
  <Self = never>(
    source:
      | ThrottleMap.Options<string>
      | ThrottleMap.ThrottleMap<string>
      | Throttle.Throttle
      | Throttle.Policy<any, never>
      | Context.Key<Self, Throttle.Throttle>
      | Context.Key<Self, ThrottleMap.ThrottleMap<string>>,
    options?: ClientOptions | WeightedClientOptions
  ): Throttled<ThrottleError, R | Self>
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
 * The limit of each key's server is learned from its refusals and from fields that state what is left, and requests start no
 * faster than that: they wait for it before they ask the policy, so nothing is charged meanwhile. Without a refusal or a field
 * requests start as if nothing was learned. `adapt: false` turns this off.
 *
 * An answer that says when to come back ({@link read}) pauses the throttle of its key, for those in line too; pauses only
 * lengthen, so the 429s of one burst count once. A request that was refused is queued again, up to `retry` times, within
 * `retryBudget` and if it may be repeated. After that the answer is what the client gives, as it came; so too where the policy refuses the
 * retry on arrival (`maxQueue`, `maxWait`). A refused request whose answer names no time waits as `retry` says, alone; with
 * `adapt: false` and after a 429 all requests of the key do ({@link statuses}). If the throttle is resumed, the refused
 * request alone waits on, without a permit.
 *
 * While a retry waits, the body of the answer that is given up is read, so that its connection is free; one that is longer
 * than 128 KiB is cancelled. Where the policy rejects the retry after that (`timeout`), the answer is what the client gives,
 * with as much of its body.
 *
 * `retryIf` and the schedule are asked after the pause has begun and the permits are back. With `adapt: false` and an answer
 * that names no time they decide how long the pause is, so then the permits are held while they are asked.
 *
 * State lives as that of an inline policy: one for each value that `client(…)` gives and Clock, so make it once, outside
 * the function that uses it. A policy's throttles remember 10,000 keys; beyond that the idle key that was used longest ago
 * is forgotten, and keys for which there is no room, since all are in use, share a throttle. Jitter is one draw of
 * Effect's `Random` for each such state: so answers of one burst agree on it.
 *
 * **Errors**
 *
 * Those of the policy: none without bounds. With a `cost`, a map or a generic `Throttle`, `ThrottleError`. With
 * `rejectAs: "HttpClientError"` an `HttpClientError` instead, so that a client of any policy can be an app's `HttpClient`.
 * Throws a `RangeError` for bad options.
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
export const client =
  ((source: Source, options?: AnyOptions) => throttled("HttpThrottle.client", source, options, false)) as MakeClient<
    never
  >

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
export const clientScoped =
  ((source: Source, options?: AnyOptions) =>
    throttled("HttpThrottle.clientScoped", source, options, true)) as MakeClient<Scope.Scope>

const throttled = (
  caller: string,
  source: Source,
  options: AnyOptions = {},
  isScoped: boolean
): Throttled<any, any> => {
  const settings = settingsOf(caller, options)
  const gateIn = gateOf(caller, source)
  const spreadIn = perClock((context) => Context.get(context, Random.Random).nextDoubleUnsafe())
  const memoryIn = perClock(() => Memory.make(settings.adapt))
  const throttle = (self: HttpClient.HttpClient.With<any, any>) =>
    HttpClient.transform(self, (effect, request) =>
      Effect.withFiber((fiber) => {
        const [gate, memory, spread] = [gateIn(fiber), memoryIn(fiber), spreadIn(fiber)]
        const key = settings.key(request)
        return send<any, any>({ settings, gate, memory, spread, isScoped, request, key, effect, remembered: undefined })
      }))
  return Object.assign(throttle, {
    statistics: Effect.withFiber<ReadonlyMap<string, KeyStatistics>>((fiber) =>
      Effect.succeed(Memory.statistics(memoryIn(fiber), timeOf(fiber)))
    )
  })
}

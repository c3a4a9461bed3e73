/**
 * An HTTP client that waits its turn, and learns from what servers say of their limits.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import type * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import type * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Observe from "../internal/observe.ts"
import type * as Throttle from "../Throttle.ts"
import type { ThrottleError } from "../ThrottleError.ts"
import type * as ThrottleMap from "../ThrottleMap.ts"
import { type Gate, gateOf, perClock, type Source } from "./internal/gate.ts"
import { dialects, type Parser, read, type Verdict } from "./limits.ts"

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
   * never. Default: 3.
   */
  readonly retry?: number | Schedule.Schedule<unknown, HttpClientResponse.HttpClientResponse> | undefined
  /** Whether this request may be sent again after this answer. Default: {@link isRepeatable}. */
  readonly retryIf?:
    | ((request: HttpClientRequest.HttpClientRequest, response: HttpClientResponse.HttpClientResponse) => boolean)
    | undefined
  /** The dialects to read. Default: {@link dialects}. */
  readonly parsers?: ReadonlyArray<Parser> | undefined
  /** No answer makes anybody wait longer. A finite duration above 0. Default: 1 hour. */
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

interface Settings {
  readonly key: (request: HttpClientRequest.HttpClientRequest) => string
  readonly cost: (request: HttpClientRequest.HttpClientRequest) => Throttle.Cost | undefined
  readonly retry: Schedule.Schedule<unknown, HttpClientResponse.HttpClientResponse>
  readonly retryIf: NonNullable<ClientOptions["retryIf"]>
  readonly parsers: ReadonlyArray<Parser>
  readonly maxPause: number
  readonly jitter: number
}

const known: ReadonlySet<string> = new Set(["key", "cost", "retry", "retryIf", "parsers", "maxPause", "jitter"])

const checked = (caller: string, options: ClientOptions | WeightedClientOptions): Settings => {
  const { cost, jitter = 0.1, key = originOf, maxPause = "1 hour", parsers = dialects, retry = 3 } = options
  const { retryIf = isRepeatable } = options
  const bad = (option: string, allowed: string, got: unknown) =>
    new RangeError(`${caller}: ${option} must be ${allowed}, got ${Formatter.format(got)}`)
  for (const option of Object.keys(options)) {
    if (known.has(option)) continue
    throw new RangeError(`${caller}: unknown option ${Formatter.format(option)}; it takes ${[...known].join(", ")}`)
  }
  if (typeof key !== "function") throw bad("key", "a function from a request to a string", key)
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

/** A URL that is none has an origin of its own; the client says what is wrong with it. */
const originOf = (request: HttpClientRequest.HttpClientRequest): string =>
  Option.match(HttpClientRequest.toUrl(request), { onNone: () => "", onSome: (url) => url.origin })

const idempotent: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PUT", "DELETE"])

/**
 * Whether a request may be sent again after this answer.
 *
 * **Details**
 *
 * Its body must be there to be sent again: none, bytes, a text or form data, not a stream. And after a 503, which may come
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

const canBeSentAgain = (body: HttpBody.HttpBody): boolean =>
  body._tag === "Raw"
    ? typeof body.body === "string" || body.body instanceof ArrayBuffer || ArrayBuffer.isView(body.body)
    : body._tag !== "Stream"

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
 * of the answer is there; the body is read without them ({@link clientScoped} holds them longer).
 *
 * An answer that says when to come back ({@link read}) pauses the throttle of its key, for those in line too; pauses only
 * lengthen, so the 429s of one burst count once. A request that was refused stands in line again, up to `retry` times and
 * if it may be repeated. After that the answer is what the client gives, as it came; so too where the policy's bounds let
 * a retry not wait. A refused request whose answer names no time waits as `retry` says: after a 429 with everybody, after a
 * 503 alone. The bodies of answers that are given up are read, so that connections are free.
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
 * Permits come back when the scope of the caller closes; at once those of an attempt that failed, or that is to be made
 * again. Use one scope a request: a fiber that keeps the scope of one open waits for itself if it asks for more than the
 * policy has. `HttpClient.retryTransient` sends all attempts in one scope, so repeat the scoped effect instead.
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

// ---------------------------------------------------------------------------------------------------------------------
// How it works
// ---------------------------------------------------------------------------------------------------------------------

type Response = HttpClientResponse.HttpClientResponse

/** A request on its way: what it waits for, and what sends it. */
interface Sending<E, R> {
  readonly settings: Settings
  readonly gate: Gate
  /** Where this client comes back within the jitter, from 0 to 1. */
  readonly spread: number
  readonly isScoped: boolean
  readonly request: HttpClientRequest.HttpClientRequest
  readonly key: string
  readonly effect: Effect.Effect<Response, E, R>
}

/** When to send a request again, and whether: the schedule, as far as this request has come in it. */
type Step = Effect.Success<ReturnType<typeof Schedule.toStep<unknown, Response, never, never>>>

/** An attempt that was let in. */
interface Attempt<E> {
  readonly exit: Exit.Exit<Response, E>
  /** Set where the request is to be sent again. */
  readonly again: Again | undefined
}

interface Again {
  readonly response: Response
  /** Milliseconds that this request waits before it stands in line. */
  readonly alone: number
  /** The monotonic instant, in nanoseconds, before which it must not be sent. */
  readonly notBefore: number
  readonly step: Step
}

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
        const sending: Sending<any, any> = { settings, gate, spread, isScoped, request, key, effect }
        return Effect.flatMap(attempt(sending, undefined), (first) => sendAgain(sending, first))
      }))
}

/** Until the schedule ends, or an answer is one to give. */
const sendAgain = <E, R>(sending: Sending<E, R>, last: Attempt<E>): Effect.Effect<Response, E, R> => {
  const { again, exit } = last
  if (again === undefined) return exit
  return readOut(again.response).pipe(
    Effect.andThen(again.alone > 0 ? Effect.sleep(again.alone) : Effect.void),
    Effect.andThen(Effect.result(attempt(sending, again))),
    // The policy's bounds do not let it wait: then what it was answered stands.
    Effect.flatMap((next) => Result.isFailure(next) ? exit : sendAgain(sending, next.success))
  )
}

/**
 * Waits for the turn, sends, and hears what the answer says before the permits go back: those in line must not start
 * between the answer and the pause that it asks for. Fails where the throttle refuses.
 */
const attempt = <E, R>(
  sending: Sending<E, R>,
  before: Again | undefined
): Effect.Effect<Attempt<E>, ThrottleError, R> => {
  const { effect, gate, isScoped, key, request, settings } = sending
  const sent = Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(Effect.exit(restore(effect)), (exit) => {
      const response = responseOf(exit)
      const heard = response === undefined ? Effect.undefined : hear(sending, response, before?.step)
      return Effect.map(heard, (again): Attempt<E> => ({ exit, again }))
    })
  )
  return Effect.acquireUseRelease(
    isScoped ? Effect.flatMap(Scope.Scope, Scope.fork) : Scope.make(),
    (scope) =>
      Scope.provide(gate.take(key, settings.cost(request)), scope).pipe(
        Effect.andThen(before === undefined ? sent : Effect.andThen(sleepUntil(before.notBefore), sent))
      ),
    (scope, exit) => isScoped && isAnswered(exit) ? Effect.void : Scope.close(scope, exit)
  ) as Effect.Effect<Attempt<E>, ThrottleError, R>
}

/** Whether there is an answer whose body is still to be read. */
const isAnswered = (exit: Exit.Exit<Attempt<unknown>, unknown>): boolean =>
  Exit.isSuccess(exit) && exit.value.again === undefined && Exit.isSuccess(exit.value.exit)

/** The answer, also where the client has made an error of its status. */
const responseOf = (exit: Exit.Exit<Response, unknown>): Response | undefined => {
  if (Exit.isSuccess(exit)) return exit.value
  const error = Option.getOrUndefined(Exit.findErrorOption(exit))
  return HttpClientError.isHttpClientError(error) && error.reason._tag === "StatusCodeError"
    ? error.reason.response
    : undefined
}

/** Pauses the throttle as the answer asks, and says whether the request is to be sent again. */
const hear = <E, R>(
  sending: Sending<E, R>,
  response: Response,
  step: Step | undefined
): Effect.Effect<Again | undefined> =>
  Effect.clockWith((clock) => {
    const verdict = read(response, clock.currentTimeMillisUnsafe(), sending.settings.parsers)
    return verdict.refused || verdict.wait > 0 ? obey(sending, response, verdict, step) : Effect.undefined
  })

const obey = Effect.fnUntraced(function*<E, R>(
  sending: Sending<E, R>,
  response: Response,
  { from, refused, retry, wait }: Verdict,
  known: Step | undefined
) {
  const { request, settings } = sending
  const clock = yield* Clock.Clock
  const isWanted = refused && retry !== false &&
    (settings.retryIf(request, response) || (retry === true && canBeSentAgain(request.body)))
  const step = known ?? (yield* Schedule.toStep(settings.retry))
  const next = isWanted
    ? yield* Pull.catchDone(step(clock.currentTimeMillisUnsafe(), response), () => Effect.undefined)
    : undefined
  // A 503 without a time is no limit that others would meet as well.
  const isAlone = wait === 0 && response.status === 503
  const asked = wait > 0 || next === undefined ? wait : Duration.toMillis(next[1])
  const millis = later(sending, Math.min(settings.maxPause, asked))
  const notBefore = Number(clock.monotonicTimeNanosUnsafe()) + millis * 1e6
  if (millis > 0 && !isAlone) yield* pause(sending, response, from, millis)
  return next && { response, alone: isAlone ? millis : 0, notBefore, step }
})

/** No more than this is added, however long the wait. */
const mostJitter = 5_000

const later = ({ settings: { jitter }, spread }: Sending<any, any>, millis: number): number =>
  millis + spread * Math.min(millis * jitter, mostJitter)

/** A throttle that is closed, or has no room for the key any more, has nobody to hold back: the answer is an answer. */
const pause = ({ gate, key }: Sending<any, any>, response: Response, from: string | undefined, wait: number) =>
  Effect.andThen(
    Effect.exit(gate.pause(key, wait)),
    Effect.suspend(() =>
      Observe.tellPaused(Fiber.getCurrent()!, () => ({
        server: originOf(response.request),
        status: response.status,
        ...(from === undefined ? undefined : { from }),
        wait
      })) ?? Effect.void
    )
  )

/**
 * A throttle in shadow lets in at once, and so may one that somebody resumed: but the server has said when. Timers tick
 * in milliseconds, so what is less than one is nothing.
 */
const sleepUntil = (instant: number): Effect.Effect<void> =>
  Effect.clockWith((clock) => {
    const millis = (instant - Number(clock.monotonicTimeNanosUnsafe())) / 1e6
    return millis >= 1 ? Effect.sleep(millis) : Effect.void
  })

/**
 * Until its body is read, an answer keeps its connection. As bytes, since clients keep those: where the answer is the last
 * word after all, it can still be read.
 */
const readOut = (response: Response): Effect.Effect<void> =>
  response.arrayBuffer.pipe(Effect.timeoutOption("1 second"), Effect.ignore)

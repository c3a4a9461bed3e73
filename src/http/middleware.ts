/**
 * Throttles in front of a server's handlers.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import type * as HttpApiMiddleware from "effect/http-api/HttpApiMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import type { HttpServerResponse } from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import * as Limiter from "../internal/limiter.ts"
import * as Plan from "../internal/plan.ts"
import { partsOf } from "../internal/remaining.ts"
import * as Throttle from "../Throttle.ts"
import * as ThrottleMap from "../ThrottleMap.ts"
import { unknown } from "./internal/address.ts"
import * as Fields from "./internal/fields.ts"
import * as Gate from "./internal/gate.ts"
import { memoised } from "./internal/memoised.ts"
import { clientAddress } from "./keys.ts"
import type { errors, Rejection } from "./problems.ts"

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
   * Requests that are let through without counting, such as health checks. The `url` of a request has a query. Default: none.
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
 * Options of {@link middleware} and {@link layerApi}. `R` is what `key` needs, `EX` and `RX` are those of `throttles`, `RA`
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

// ---------------------------------------------------------------------------------------------------------------------
// The rules for options
// ---------------------------------------------------------------------------------------------------------------------

const oneOf = (...words: ReadonlyArray<unknown>): readonly [string, (value: any) => boolean] => [
  words.map((word) => Formatter.format(word)).join(" or "),
  (value) => words.includes(value)
]

const isFunction = (value: unknown): boolean => typeof value === "function"

const rules: Record<string, readonly [allowed: string, holds: (value: any) => boolean]> = {
  policy: ["a policy", Throttle.isPolicy],
  lookup: ["a function from a key to a policy", (value) => isFunction(value) && !Throttle.isPolicy(value)],
  throttles: ["an effect that gives a ThrottleMap", Effect.isEffect],
  key: ["an effect that gives a string", Effect.isEffect],
  cost: [
    "a cost, or a function from a request to a cost",
    (value) => ["number", "function"].includes(typeof value) || (typeof value === "object" && value !== null)
  ],
  global: ["a policy", Throttle.isPolicy],
  countIf: ["a function from a response and its request to a boolean", isFunction],
  skip: ["a function from a request to a boolean", isFunction],
  onRejected: ["a function from a rejection to a response, or to an effect that gives one", isFunction],
  name: ["a non-empty string of printable ASCII", (value) => typeof value === "string" && /^[\x20-\x7e]+$/.test(value)],
  fields: oneOf(...Fields.dialects),
  concurrencyStatus: oneOf(429, 503),
  onStoreError: oneOf("allow", "refuse"),
  maxWait: ["a finite duration > 0", (value) => {
    const millis = Option.getOrElse(Option.map(Duration.fromInput(value), Duration.toMillis), () => NaN)
    return millis > 0 && millis <= Number.MAX_SAFE_INTEGER
  }],
  maxKeys: ["an integer ≥ 1", (value) => Number.isSafeInteger(value) && value >= 1],
  onFull: oneOf("evict", "refuse"),
  shadow: oneOf(true, false)
}

/** Options of a map that the middleware makes itself. */
const ofOwnMap = ["maxKeys", "onFull", "shadow"]

/** The options of `caller` are wrong. */
const bad = (caller: string, what: string): RangeError => new RangeError(`${caller}: ${what}`)

const check = (caller: string, options: Readonly<Record<string, any>>): void => {
  for (const [option, value] of Object.entries(options)) {
    if (!Object.hasOwn(rules, option)) {
      throw bad(caller, `unknown option ${Formatter.format(option)}; it takes ${Object.keys(rules).join(", ")}`)
    }
    const [allowed, holds] = rules[option]!
    if (value !== undefined && !holds(value)) {
      throw bad(caller, `"${option}" must be ${allowed}, received ${Formatter.format(value)}`)
    }
  }
  if (["policy", "lookup", "throttles"].filter((option) => options[option] !== undefined).length !== 1) {
    throw bad(caller, `exactly one of "policy", "lookup" and "throttles" must be given`)
  }
  for (const option of ofOwnMap) {
    if (options["throttles"] !== undefined && options[option] !== undefined) {
      throw bad(caller, `"${option}" goes with "policy" and "lookup"; with "throttles" the map decides`)
    }
  }
  if (options["throttles"] !== undefined && options["maxWait"] !== undefined && options["global"] === undefined) {
    throw bad(caller, `"maxWait" goes with "policy", "lookup" and "global"; with "throttles" alone the map decides`)
  }
  for (const option of ["global", "policy"]) {
    const policy = options[option]
    if (policy !== undefined) {
      checkPolicy(caller, option, policy, option === "policy" ? options["cost"] : undefined, options["maxWait"])
    }
  }
}

/** A policy has to limit requests, and to be one that a server can answer by. */
const checkPolicy = (
  caller: string,
  option: string,
  policy: Throttle.Policy<any>,
  cost: unknown,
  maxWait: Duration.Input | undefined
): void => {
  const { units } = Plan.make(policy.data)
  // A policy of other units would cost a request nothing, and limit nobody.
  if (cost === undefined && units !== undefined && !units.has(Plan.permits)) {
    throw bad(
      caller,
      `"${option}" must count permits, since ${option === "global" ? "" : `without "cost" `}a request is one permit; ` +
        `received ${Formatter.format(policy)}`
    )
  }
  // A request that may not wait for a slot of the clock would have to arrive exactly at one, and no Retry-After could help.
  const interval = longestSlot(policy.data)
  if (interval > (maxWait === undefined ? 0 : Duration.toMillis(maxWait))) {
    throw bad(
      caller,
      `"${option}" must not align spacing to the clock unless "maxWait" is at least its interval, ` +
        `${
          Duration.format(Duration.millis(interval))
        }; use window({ limit: 1, per, kind: "fixed" }) to count by slots; ` +
        `received ${Formatter.format(policy)}`
    )
  }
}

/** The longest interval of spacing that is aligned to the clock, in milliseconds; 0 for none. */
const longestSlot = (data: Throttle.PolicyData): number => {
  switch (data._tag) {
    case "Spacing":
      return data.align ? data.interval : 0
    case "Shadow":
      return longestSlot(data.policy)
    case "All":
      return Math.max(0, ...data.policies.map(longestSlot))
    default:
      return 0
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// From options to a gate
// ---------------------------------------------------------------------------------------------------------------------

/** The policy with the bounds of a server: no request waits, or none waits for longer. */
const bounded = (policy: Throttle.Policy<any>, maxWait: Duration.Input | undefined): Throttle.Policy<any> => {
  const { data } = policy
  if (data._tag === "Shadow") return Throttle.shadow(bounded(Throttle.fromData(data.policy), maxWait))
  if (maxWait === undefined) return Throttle.all([policy], { maxQueue: 0 })
  // Where only concurrency decides, a wait cannot be foreseen.
  return Plan.make(data).timings.length === 0
    ? Throttle.all([policy], { timeout: maxWait })
    : Throttle.all([policy], { maxWait, timeout: maxWait })
}

const nameGiven = (data: Throttle.PolicyData): string | undefined =>
  data.name ?? (data._tag === "Shadow" ? nameGiven(data.policy) : undefined)

const makeGate = <R, EX, RX, RA, EA>(
  caller: string,
  options: Options<R, EX, RX, RA, EA>
): Effect.Effect<Gate.Gate<EA, RA>, EX, RX | Scope.Scope> => {
  check(caller, options)
  const { concurrencyStatus = 429, fields = "draft-10", global, maxWait, name = "default", shadow = false } = options
  const inForce = (policy: Throttle.Policy<any>): Throttle.Policy<any> => {
    const kept = bounded(policy, maxWait)
    return shadow && kept.data._tag !== "Shadow" ? Throttle.shadow(kept) : kept
  }
  const ofKey = memoised((policy: Throttle.Policy<any>) => {
    if (options.lookup !== undefined) checkPolicy(caller, "lookup", policy, options.cost, maxWait)
    return inForce(policy)
  })
  const everybody = global && inForce(global)
  const common = {
    name,
    globalName: (global && nameGiven(global.data)) ?? "global",
    shadow,
    dialect: fields,
    writerOf: fields === "none" ? undefined : memoised((plan: Plan.Plan) => Fields.writerOf(fields, plan, name)),
    namesOf: memoised((plan: Plan.Plan) => {
      const names = Fields.namesOf(plan, name)
      // Of parts of one name the first counts.
      return new Map(partsOf(plan).map((part, i) => [part.name, names[i]!] as const).toReversed())
    }),
    onStoreError: options.onStoreError ?? "allow",
    concurrencyStatus,
    onRejected: options.onRejected,
    countIf: options.countIf
  } as const
  return Effect.gen(function*() {
    const limit = everybody === undefined
      ? undefined
      : yield* Limiter.make({ ...Plan.make(everybody.data), name: common.globalName })
    if (options.throttles !== undefined) {
      // What the policies of this map hold is not known here.
      return { ...common, everybody: limit, map: yield* options.throttles, holds: () => true }
    }
    const { lookup, maxKeys = 100_000, onFull = "evict", policy } = options
    const policyOf = (key: string): Throttle.Policy<any> => {
      const given = policy ?? lookup(key)
      if (Throttle.isPolicy(given)) return given
      throw bad(caller, `"lookup" must return a policy, received ${Formatter.format(given)}`)
    }
    const holds = memoised((policy: Throttle.Policy<any>) => Plan.make(policy.data).holdings.length > 0)
    const map = yield* ThrottleMap.make({ lookup: (key: string) => ofKey(policyOf(key)), maxKeys, onFull, name })
    return { ...common, everybody: limit, map, holds: (key: string) => holds(policyOf(key)) }
  })
}

/** Longer keys are shortened: with 100,000 of them a header of 16 kB each would be 1.6 GB. */
const longestKey = 256

/**
 * Keeps both ends of a long key: tokens begin alike and end in their signature. `join` copies them; a concatenation would
 * keep the whole header in memory.
 */
const shortened = (key: string): string =>
  key.length <= longestKey ? key : [key.slice(0, longestKey / 2), key.slice(-longestKey / 2)].join("")

type Handler<E, R> = Effect.Effect<HttpServerResponse, E, R>

/** Puts a handler behind the gate. */
type Limit<R, E> = <E1, R1>(
  handler: Handler<E1, R1>
) => Handler<E1 | E, R1 | R | HttpServerRequest.HttpServerRequest | Scope.Scope>

const makeLimit = <R, EX, RX, RA, EA>(
  caller: string,
  options: Options<R, EX, RX, RA, EA>
): Effect.Effect<Limit<R | RA, EA>, EX, RX | Scope.Scope> => {
  const { cost, skip } = options
  const key: Effect.Effect<string, never, R> = options.key === undefined
    ? clientAddress() as Effect.Effect<string, never, any>
    : Effect.interruptible(options.key)
  const costOf = (): Throttle.Cost | undefined => {
    if (typeof cost !== "function") return cost
    const given: unknown = cost(currentRequest())
    if (Predicate.isPromiseLike(given)) throw bad(caller, `"cost" must return a cost, received a promise`)
    return given as Throttle.Cost
  }
  const isSkipped = (skip: NonNullable<typeof options.skip>): boolean => {
    const given: unknown = skip(currentRequest())
    if (typeof given === "boolean") return given
    throw bad(caller, `"skip" must return a boolean, received ${Formatter.format(given)}`)
  }
  return Effect.map(makeGate(caller, options), (gate): Limit<R | RA, EA> => {
    // Said once for each server, not for each request.
    let isUnknownAddressTold = false
    return (handler) => {
      const limited = Effect.flatMap(key, (key) => {
        if (typeof key !== "string") throw bad(caller, `"key" must give a string, received ${Formatter.format(key)}`)
        const pass = () => Gate.pass(gate, shortened(key), costOf(), handler)
        if (key !== unknown || isUnknownAddressTold) return pass()
        isUnknownAddressTold = true
        return Effect.andThen(unknownAddressWarning(gate.name), Effect.suspend(pass))
      })
      return skip === undefined ? limited : Effect.suspend(() => isSkipped(skip) ? handler : limited)
    }
  })
}

const unknownAddressWarning = (name: string): Effect.Effect<void> =>
  Effect.logWarning(
    `HttpThrottle: a request has no client address; all such requests share the budget of the key "${unknown}". ` +
      "Web handlers and Unix sockets have none: set `key`, or give the request its address."
  ).pipe(Effect.annotateLogs({ throttle: name }))

/** The request that the fiber of this step answers. */
const currentRequest = (): HttpServerRequest.HttpServerRequest =>
  Context.getUnsafe(Fiber.getCurrent()!.context, HttpServerRequest.HttpServerRequest)

// ---------------------------------------------------------------------------------------------------------------------
// Middleware
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Throttles the requests of a server, each client by itself.
 *
 * **When to use**
 *
 * For the routes of an `HttpRouter`: provided to some of them, or, with `{ global: true }`, in front of all, those that do
 * not exist included.
 *
 * **Details**
 *
 * Each key has its own budget and waiting line; the key is the client's address unless `key` says otherwise. A request
 * over the limit is answered at once, or after `maxWait`: with 429 if its key's limit refused it, with 503 if the
 * `global` one did, and with problem details (RFC 9457), `Retry-After` in whole seconds, rounded up, at least 1, and
 * `Cache-Control: no-store`; `onRejected` gives another answer. This throttle has then charged it nowhere; a throttle
 * further out has counted it, and its fields remain. Every other answer, also the handler's errors and every 429, carries
 * `RateLimit-Policy` and `RateLimit`, with what is left when it is sent; not, however, what `skip` lets through, what a
 * policy in shadow lets in, and what a map of another make counts, whose state cannot be seen.
 *
 * A request is charged once by each middleware that it passes: a layer provided to a route and to the routes around it is
 * one middleware, two calls of this function are two. HEAD costs what GET costs.
 *
 * Permits of a policy with concurrency are held until the response has been sent, bodies that stream included. A client
 * that hangs up while its request waits leaves the line and has cost nothing.
 *
 * Clients that invent keys get no further than `global` allows, and take no more memory than `maxKeys` keys.
 *
 * **Errors**
 *
 * Adds none: a refusal is a response. Throws a `RangeError` for bad options. A `key`, `skip`, `cost`, `lookup` or `onRejected`
 * that throws, dies or gives a value of another type is a defect: the request is answered with 500, and nothing is charged.
 * A `countIf` that does is logged, and the request counts.
 *
 * **Example**
 *
 * ```ts
 * import { Layer } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 *
 * const PerClient = HttpThrottle.middleware({
 *   policy: Throttle.rate({ limit: 1, per: "1 minute", burst: 1 }),
 *   // Web handlers are given no address of the client.
 *   key: HttpThrottle.header("x-tenant")
 * })
 *
 * const App = HttpRouter.add("GET", "/", HttpServerResponse.text("hello")).pipe(Layer.provide(PerClient.layer))
 *
 * const { dispose, handler } = HttpRouter.toWebHandler(App, { disableLogger: true })
 * const ask = () => handler(new Request("http://localhost/", { headers: { "x-tenant": "acme" } }))
 *
 * console.log((await ask()).headers.get("ratelimit")) // "default";r=1;t=60
 * console.log((await ask()).headers.get("ratelimit")) // "default";r=0;t=60
 * console.log((await ask()).status) // 429
 * await dispose()
 * ```
 *
 * @see {@link layerApi} for an HttpApi
 * @category middleware
 * @since 0.1.0
 */
export const middleware: {
  /**
   * Throttles the requests of a server, each client by itself: a middleware whose `layer` is provided to the routes that it
   * is for. A refused request is answered with 429 or 503; a `RangeError` is thrown for bad options.
   */
  <R = HttpServerRequest.HttpServerRequest, EX = never, RX = never, RA = never>(
    options: Options<R, EX, RX, RA>,
    which?: { readonly global?: false | undefined }
  ): HttpRouter.Middleware<{
    provides: never
    handles: never
    error: never
    requires: Exclude<R | RA, HttpRouter.Provided>
    layerError: EX
    layerRequires: Exclude<RX, Scope.Scope>
  }>
  /**
   * Throttles the requests of a server, each client by itself: a Layer that stands in front of all routes, those that do not
   * exist included. A refused request is answered with 429 or 503; a `RangeError` is thrown for bad options.
   */
  <R = HttpServerRequest.HttpServerRequest, EX = never, RX = never, RA = never>(
    options: Options<R, EX, RX, RA>,
    which: { readonly global: true }
  ): Layer.Layer<
    never,
    EX,
    | HttpRouter.HttpRouter
    | Exclude<RX, Scope.Scope>
    | HttpRouter.Request.From<"GlobalRequires", Exclude<R | RA, HttpRouter.GlobalProvided>>
  >
} = <R, EX, RX, RA>(options: Options<R, EX, RX, RA>, which?: { readonly global?: boolean | undefined }): any =>
  HttpRouter.middleware(
    Effect.map(
      makeLimit("HttpThrottle.middleware", options),
      (limit) => (handler: Handler<Types.unhandled, never>) => limit(handler)
    ),
    which
  )

/** The errors that a middleware of an api declares with these schemas. */
type ErrorOf<E> = E extends ReadonlyArray<Schema.Top> ? E[number]["Type"] : E extends Schema.Top ? E["Type"] : never

/** An api that does not declare the default errors has to give its own answer. */
type IfDefaultsAreDeclared<E> = [ErrorOf<typeof errors[number]>] extends [ErrorOf<E>] ? unknown
  : { readonly onRejected: {} }

/**
 * Throttles the endpoints of an HttpApi, as the Layer of a middleware that the api declares.
 *
 * **When to use**
 *
 * Where the limit is part of the api: the errors are then documented in its OpenAPI, and its clients catch them by their
 * tags. A service that another middleware provides, such as the user, may be the key; name it in `requires`.
 *
 * **Details**
 *
 * As {@link middleware}. A refusal is answered with the document that {@link errors} encode to, so clients of the api
 * decode it as `TooManyRequests` or `ServiceUnavailable`. A middleware that does not declare them has to give `onRejected`,
 * which may fail with the errors that it does declare. A middleware that an api, its groups and its endpoints declare charges a request once.
 *
 * **Errors**
 *
 * Throws a `RangeError` for bad options.
 *
 * **Example**
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { HttpThrottle } from "effect-throttle/http"
 * import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiMiddleware } from "effect/http-api"
 *
 * // What clients and servers share
 * class PerClient extends HttpApiMiddleware.Service<PerClient>()("app/PerClient", { error: HttpThrottle.errors }) {}
 *
 * const Api = HttpApi.make("api").add(
 *   HttpApiGroup.make("greetings")
 *     .add(HttpApiEndpoint.get("hello", "/hello", { success: Schema.String }))
 *     .middleware(PerClient)
 * )
 *
 * // What the server alone knows
 * const PerClientLive = HttpThrottle.layerApi(PerClient, { policy: Throttle.rate({ limit: 10, burst: 20 }) })
 * ```
 *
 * @see {@link middleware} for an HttpRouter
 * @category middleware
 * @since 0.1.0
 */
export const layerApi = <
  Id,
  E extends Schema.Top | ReadonlyArray<Schema.Top>,
  Requires,
  R extends Requires | HttpRouter.Provided = HttpServerRequest.HttpServerRequest,
  EX = never,
  RX = never,
  RA extends Requires | HttpRouter.Provided = never
>(
  service: Context.Service<Id, HttpApiMiddleware.HttpApiMiddleware<never, E, Requires>>,
  options: Options<R, EX, RX, RA, ErrorOf<E>> & IfDefaultsAreDeclared<E>
): Layer.Layer<Id, EX, Exclude<RX, Scope.Scope>> =>
  Layer.effect(
    service,
    Effect.map(
      makeLimit("HttpThrottle.layerApi", options as Options<R, EX, RX, RA, ErrorOf<E>>),
      (limit) => (handler: Handler<Types.unhandled, never>) => limit(handler)
    ) as any
  )

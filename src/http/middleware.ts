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
import * as ProblemDetails from "effect/http/ProblemDetails"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import * as Limiter from "../internal/limiter.ts"
import * as Plan from "../internal/plan.ts"
import * as Throttle from "../Throttle.ts"
import * as ThrottleMap from "../ThrottleMap.ts"
import * as Fields from "./internal/fields.ts"
import * as Gate from "./internal/gate.ts"
import { memoised } from "./internal/memoised.ts"
import { type Problem, quotaExceeded } from "./internal/problem.ts"
import { clientAddress } from "./keys.ts"
import { type errors, ServiceUnavailable, TooManyRequests } from "./problems.ts"

/**
 * What every server throttle takes.
 *
 * @category options
 * @since 0.1.0
 */
export interface CommonOptions<R = HttpServerRequest.HttpServerRequest> {
  /** Whom a request is counted for. Default: {@link clientAddress}. Of a key longer than 256 characters both ends count. */
  readonly key?: Effect.Effect<string, never, R> | undefined
  /** What a request costs its key. Default: one permit, which the policy has to count then. */
  readonly cost?: Throttle.Cost | ((request: HttpServerRequest.HttpServerRequest) => Throttle.Cost) | undefined
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
  /** Requests that are let through without counting, such as health checks. Default: none. */
  readonly skip?: ((request: HttpServerRequest.HttpServerRequest) => boolean) | undefined
  /** What clients and logs call the limit; give each of several a name of its own. Printable ASCII. Default: "default". */
  readonly name?: string | undefined
  /**
   * Which version of the `RateLimit` fields answers carry: "draft-10" of the IETF draft, the older "draft-7" or "draft-6",
   * which know one limit only, or "none". Default: "draft-10".
   */
  readonly fields?: "draft-10" | "draft-7" | "draft-6" | "none" | undefined
  /** The status where those who run stand in the way, so that nobody can know when it may be tried again. Default: 429. */
  readonly concurrencyStatus?: 429 | 503 | undefined
  /** Whether requests are let in or refused where a store that counts them fails. Default: "allow". */
  readonly onStoreError?: "allow" | "refuse" | undefined
}

/**
 * What a server throttle takes that has a map of its own, with a budget for each key.
 *
 * @category options
 * @since 0.1.0
 */
export interface MapOptions<R = HttpServerRequest.HttpServerRequest> extends CommonOptions<R> {
  /** So many keys are remembered at once. A whole number of at least 1. Default: 100,000. */
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
export interface PolicyOptions<R = HttpServerRequest.HttpServerRequest> extends MapOptions<R> {
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
export interface LookupOptions<R = HttpServerRequest.HttpServerRequest> extends MapOptions<R> {
  /** The policy of a key. Give keys that are alike the same policy value, made once: each value costs some kilobytes. */
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
export interface ThrottlesOptions<R = HttpServerRequest.HttpServerRequest, EX = never, RX = never>
  extends CommonOptions<R>
{
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
 * Options of {@link middleware} and {@link layerApi}.
 *
 * @category options
 * @since 0.1.0
 */
export type Options<R = HttpServerRequest.HttpServerRequest, EX = never, RX = never> =
  | PolicyOptions<R>
  | LookupOptions<R>
  | ThrottlesOptions<R, EX, RX>

// ---------------------------------------------------------------------------------------------------------------------
// The rules for options
// ---------------------------------------------------------------------------------------------------------------------

const oneOf = (...words: ReadonlyArray<unknown>): readonly [string, (value: any) => boolean] => [
  words.map((word) => Formatter.format(word)).join(" or "),
  (value) => words.includes(value)
]

const rules: Record<string, readonly [allowed: string, holds: (value: any) => boolean]> = {
  policy: ["a policy", Throttle.isPolicy],
  lookup: ["a function from a key to a policy", (value) => typeof value === "function" && !Throttle.isPolicy(value)],
  throttles: ["an effect that gives a ThrottleMap", Effect.isEffect],
  key: ["an effect that gives a string", Effect.isEffect],
  cost: [
    "a cost, or a function from a request to a cost",
    (value) => ["number", "function"].includes(typeof value) || (typeof value === "object" && value !== null)
  ],
  global: ["a policy", Throttle.isPolicy],
  skip: ["a function from a request to a boolean", (value) => typeof value === "function"],
  name: ["a non-empty string of printable ASCII", (value) => typeof value === "string" && /^[\x20-\x7e]+$/.test(value)],
  fields: oneOf(...Fields.dialects),
  concurrencyStatus: oneOf(429, 503),
  onStoreError: oneOf("allow", "refuse"),
  maxWait: ["a finite duration longer than 0", (value) => {
    const millis = Option.getOrElse(Option.map(Duration.fromInput(value), Duration.toMillis), () => NaN)
    return millis > 0 && millis <= Number.MAX_SAFE_INTEGER
  }],
  maxKeys: ["a whole number of at least 1", (value) => Number.isSafeInteger(value) && value >= 1],
  onFull: oneOf("evict", "refuse"),
  shadow: oneOf(true, false)
}

/** What makes no sense for a map that is there already. */
const ofOwnMap = ["maxKeys", "onFull", "shadow"]

const check = (options: Readonly<Record<string, any>>): void => {
  const bad = (what: string) => new RangeError(`HttpThrottle: ${what}`)
  for (const [option, value] of Object.entries(options)) {
    if (!Object.hasOwn(rules, option)) {
      throw bad(`unknown option ${Formatter.format(option)}; it takes ${Object.keys(rules).join(", ")}`)
    }
    const [allowed, holds] = rules[option]!
    if (value !== undefined && !holds(value)) {
      throw bad(`${option} must be ${allowed}, got ${Formatter.format(value)}`)
    }
  }
  if (["policy", "lookup", "throttles"].filter((option) => options[option] !== undefined).length !== 1) {
    throw bad("it takes one of policy, lookup and throttles")
  }
  for (const option of ofOwnMap) {
    if (options["throttles"] !== undefined && options[option] !== undefined) {
      throw bad(`${option} goes with policy and lookup, not with throttles, whose policies say it`)
    }
  }
  if (options["throttles"] !== undefined && options["maxWait"] !== undefined && options["global"] === undefined) {
    throw bad("maxWait goes with policy, lookup and global, not with throttles alone, whose policies say it")
  }
  for (const option of options["cost"] === undefined ? ["global", "policy"] : ["global"]) {
    if (options[option] !== undefined) checkCounted(option, options[option])
  }
}

/** A policy of other units would cost a request nothing, and limit nobody. */
const checkCounted = (what: string, policy: Throttle.Policy<any>): void => {
  const { units } = Plan.make(policy.data)
  if (units === undefined || units.has(Plan.permits)) return
  const why = what === "global" ? "a request is one permit" : "without a cost a request is one permit"
  throw new RangeError(`HttpThrottle: ${what} must count permits (${why}), got ${Formatter.format(policy)}`)
}

// ---------------------------------------------------------------------------------------------------------------------
// From options to a gate
// ---------------------------------------------------------------------------------------------------------------------

/** The policy with the bounds of a server: nobody waits, or nobody waits for longer. */
const bounded = (policy: Throttle.Policy<any>, maxWait: Duration.Input | undefined): Throttle.Policy<any> => {
  const { data } = policy
  if (data._tag === "Shadow") return Throttle.shadow(bounded(Throttle.fromData(data.policy), maxWait))
  if (maxWait === undefined) return Throttle.all([policy], { maxQueue: 0 })
  // Where only concurrency decides, nobody can foresee a wait.
  return Plan.make(data).timings.length === 0
    ? Throttle.all([policy], { timeout: maxWait })
    : Throttle.all([policy], { maxWait, timeout: maxWait })
}

const nameGiven = (data: Throttle.PolicyData): string | undefined =>
  data.name ?? (data._tag === "Shadow" ? nameGiven(data.policy) : undefined)

const makeGate = <R, EX, RX>(options: Options<R, EX, RX>): Effect.Effect<Gate.Gate, EX, RX | Scope.Scope> => {
  check(options)
  const { concurrencyStatus = 429, fields = "draft-10", global, maxWait, name = "default", shadow = false } = options
  const inForce = memoised((policy: Throttle.Policy<any>) => {
    if (options.lookup !== undefined && options.cost === undefined) checkCounted("what lookup gives", policy)
    const kept = bounded(policy, maxWait)
    return shadow && kept.data._tag !== "Shadow" ? Throttle.shadow(kept) : kept
  })
  const everybody = global === undefined ? undefined : inForce(global)
  const common = {
    name,
    globalName: (global && nameGiven(global.data)) ?? "global",
    shadow,
    dialect: fields,
    writerOf: fields === "none" ? undefined : memoised((plan: Plan.Plan) => Fields.writerOf(fields, plan, name)),
    onStoreError: options.onStoreError ?? "allow",
    concurrencyStatus
  } as const
  return Effect.gen(function*() {
    const limit = everybody === undefined
      ? undefined
      : yield* Limiter.make({ ...Plan.make(everybody.data), name: common.globalName })
    if (options.throttles !== undefined) {
      // What a map's policies hold is for the map to know.
      return { ...common, everybody: limit, map: yield* options.throttles, holds: () => true }
    }
    const { lookup, maxKeys = 100_000, onFull = "evict", policy } = options
    const policyOf = (key: string): Throttle.Policy<any> => {
      const given = policy ?? lookup(key)
      if (Throttle.isPolicy(given)) return given
      throw new RangeError(`HttpThrottle: lookup must give a policy, got ${Formatter.format(given)}`)
    }
    const holds = memoised((policy: Throttle.Policy<any>) => Plan.make(policy.data).holdings.length > 0)
    const map = yield* ThrottleMap.make({ lookup: (key: string) => inForce(policyOf(key)), maxKeys, onFull, name })
    return { ...common, everybody: limit, map, holds: (key: string) => holds(policyOf(key)) }
  })
}

/** So long may a key be: with 100,000 of them a header of 16 kB each would be 1.6 GB. */
const longestKey = 256

/**
 * Of a long key both ends count: tokens begin alike and end in their signature. `join` copies them; added together they
 * would keep the whole header in memory.
 */
const shortened = (key: string): string =>
  key.length <= longestKey ? key : [key.slice(0, longestKey / 2), key.slice(-longestKey / 2)].join("")

type Handler<E, R> = Effect.Effect<HttpServerResponse, E, R>

/** A handler behind the gate. `answer` is what becomes of a problem. */
type Limit<R> = <E1, R1, E2>(
  handler: Handler<E1, R1>,
  answer: (problem: Problem) => Handler<E2, never>
) => Handler<E1 | E2, R1 | R | HttpServerRequest.HttpServerRequest | Scope.Scope>

const makeLimit = <R, EX, RX>(options: Options<R, EX, RX>): Effect.Effect<Limit<R>, EX, RX | Scope.Scope> => {
  const { cost, skip } = options
  const key: Effect.Effect<string, never, R> = options.key === undefined
    ? clientAddress() as Effect.Effect<string, never, any>
    : Effect.interruptible(options.key)
  return Effect.map(makeGate(options), (gate): Limit<R> => (handler, answer) => {
    const limited = Effect.flatMap(
      key,
      (key) =>
        Gate.pass(gate, shortened(key), typeof cost === "function" ? cost(currentRequest()) : cost, handler, answer)
    )
    return skip === undefined ? limited : Effect.suspend(() => skip(currentRequest()) ? handler : limited)
  })
}

/** The request that this step's fiber answers. */
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
 * `Cache-Control: no-store`. This throttle has then charged it nowhere; a throttle further out has counted it, and its
 * fields remain. Every other answer, also the handler's errors and every 429, carries `RateLimit-Policy` and `RateLimit`,
 * with what is left when it is sent; not, however, what `skip` lets through, what a policy in shadow lets in, and what a map
 * of another make counts, whose state cannot be seen.
 *
 * Permits of a policy with concurrency are held until the response has been sent, bodies that stream included. A client
 * that hangs up while its request waits leaves the line and has cost nothing.
 *
 * Whoever invents keys gets no further than `global` allows, and takes no more memory than `maxKeys` keys.
 *
 * **Errors**
 *
 * Adds none: a refusal is a response. Throws a `RangeError` for bad options. A `lookup` that throws or gives no policy, and
 * a cost that makes no sense, are defects, and so answered with 500.
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
 *   policy: Throttle.rate({ limit: 1, per: "1 minute", burst: 1 })
 * })
 *
 * const App = HttpRouter.add("GET", "/", HttpServerResponse.text("hello")).pipe(Layer.provide(PerClient.layer))
 *
 * const { dispose, handler } = HttpRouter.toWebHandler(App, { disableLogger: true })
 * const ask = () => handler(new Request("http://localhost/"))
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
  <R = HttpServerRequest.HttpServerRequest, EX = never, RX = never>(
    options: Options<R, EX, RX>,
    which?: { readonly global?: false | undefined }
  ): HttpRouter.Middleware<{
    provides: never
    handles: never
    error: never
    requires: Exclude<R, HttpRouter.Provided>
    layerError: EX
    layerRequires: Exclude<RX, Scope.Scope>
  }>
  /**
   * Throttles the requests of a server, each client by itself: a Layer that stands in front of all routes, those that do not
   * exist included. A refused request is answered with 429 or 503; a `RangeError` is thrown for bad options.
   */
  <R = HttpServerRequest.HttpServerRequest, EX = never, RX = never>(
    options: Options<R, EX, RX>,
    which: { readonly global: true }
  ): Layer.Layer<
    never,
    EX,
    | HttpRouter.HttpRouter
    | Exclude<RX, Scope.Scope>
    | HttpRouter.Request.From<"GlobalRequires", Exclude<R, HttpRouter.GlobalProvided>>
  >
} = <R, EX, RX>(options: Options<R, EX, RX>, which?: { readonly global?: boolean | undefined }): any =>
  HttpRouter.middleware(
    Effect.map(
      makeLimit(options),
      (limit) => (handler: Handler<Types.unhandled, never>) =>
        limit(handler, ({ kind, members }) => Effect.succeed(ProblemDetails.toResponse({ ...kind, ...members })))
    ),
    which
  )

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
 * As {@link middleware}, except that a refusal is a failure with one of {@link errors}, which the api turns into a
 * response.
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
export const layerApi = <Id, Requires, R extends Requires | HttpRouter.Provided, EX = never, RX = never>(
  service: Context.Service<Id, HttpApiMiddleware.HttpApiMiddleware<never, typeof errors, Requires>>,
  options: Options<R, EX, RX>
): Layer.Layer<Id, EX, Exclude<RX, Scope.Scope>> => {
  const limit = makeLimit(options)
  return Layer.effect(
    service,
    Effect.map(
      limit,
      (limit) => (handler: Handler<Types.unhandled, never>) =>
        limit(
          handler,
          ({ kind, members }) =>
            Effect.fail(kind === quotaExceeded ? new TooManyRequests(members) : new ServiceUnavailable(members))
        )
    ) as any
  )
}

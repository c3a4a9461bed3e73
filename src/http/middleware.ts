/**
 * Throttles in front of a server's handlers.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
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
import * as Local from "../internal/local.ts"
import * as Plan from "../internal/plan.ts"
import { partsOf } from "../internal/remaining.ts"
import * as Throttle from "../Throttle.ts"
import * as ThrottleMap from "../ThrottleMap.ts"
import * as Address from "./internal/address.ts"
import * as Fields from "./internal/fields.ts"
import * as Gate from "./internal/gate.ts"
import { memoised } from "./internal/memoised.ts"
import * as Rules from "./internal/rules.ts"
import { clientAddress } from "./keys.ts"
import type { ApiOptions, Options } from "./serverOptions.ts"

// ---------------------------------------------------------------------------------------------------------------------
// From options to a gate
// ---------------------------------------------------------------------------------------------------------------------

const nameGiven = (data: Throttle.PolicyData): string | undefined =>
  data.name ?? (data._tag === "Shadow" ? nameGiven(data.policy) : undefined)

const makeGate = <R, EX, RX, RA, EA>(
  caller: string,
  options: Options<R, EX, RX, RA, EA>
): Effect.Effect<Gate.Gate<EA, RA>, EX, RX | Scope.Scope> => {
  Rules.check(caller, options)
  const { concurrencyStatus = 429, fields = "draft-10", global, maxWait, name = "default", shadow = false } = options
  const inForce = (policy: Throttle.Policy<any>): Throttle.Policy<any> => {
    const kept = Rules.bounded(policy, maxWait)
    return shadow && kept.data._tag !== "Shadow" ? Throttle.shadow(kept) : kept
  }
  const ofKey = memoised((policy: Throttle.Policy<any>) => {
    if (options.lookup !== undefined) Rules.checkPolicy(caller, "lookup", policy, options.cost, maxWait)
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
      : yield* Local.make({ ...Plan.make(everybody.data), name: common.globalName })
    if (options.throttles !== undefined) {
      // What the policies of this map hold is not known here.
      return { ...common, everybody: limit, map: yield* options.throttles, holds: () => true }
    }
    const { lookup, maxKeys = 100_000, onFull = "evict", policy } = options
    const policyOf = (key: string): Throttle.Policy<any> => {
      const given = policy ?? lookup(key)
      if (Throttle.isPolicy(given)) return given
      throw Rules.bad(caller, `"lookup" must return a policy, received ${Formatter.format(given)}`)
    }
    const holds = memoised((policy: Throttle.Policy<any>) => Plan.make(policy.data).pools.length > 0)
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
    if (Predicate.isPromiseLike(given)) throw Rules.bad(caller, `"cost" must return a cost, received a promise`)
    return given as Throttle.Cost
  }
  const isSkipped = (skip: NonNullable<typeof options.skip>): boolean => {
    const given: unknown = skip(currentRequest())
    if (typeof given === "boolean") return given
    throw Rules.bad(caller, `"skip" must return a boolean, received ${Formatter.format(given)}`)
  }
  return Effect.map(makeGate(caller, options), (gate): Limit<R | RA, EA> => {
    // Said once for each server, not for each request.
    let isUnknownAddressTold = false
    return (handler) => {
      const limited = Effect.flatMap(key, (key) => {
        if (typeof key !== "string") {
          throw Rules.bad(caller, `"key" must give a string, received ${Formatter.format(key)}`)
        }
        // A key may be made of the address.
        if (!isUnknownAddressTold && key.includes(Address.unknown) && hasNoAddress(currentRequest())) {
          isUnknownAddressTold = true
          return Effect.andThen(
            unknownAddressWarning(gate.name),
            Effect.suspend(() => Gate.pass(gate, shortened(key), costOf(), handler))
          )
        }
        return Gate.pass(gate, shortened(key), costOf(), handler)
      })
      return skip === undefined ? limited : Effect.suspend(() => isSkipped(skip) ? handler : limited)
    }
  })
}

/** Whether the key is not one of the app's own that happens to be the same. */
const hasNoAddress = ({ remoteAddress }: HttpServerRequest.HttpServerRequest): boolean =>
  Option.isNone(remoteAddress) || Address.toKey(remoteAddress.value, 128) === undefined

const unknownAddressWarning = (name: string): Effect.Effect<void> =>
  Effect.logWarning(
    `HttpThrottle: a request has no client address; all such requests share the budget of the key "${Address.unknown}". ` +
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
 * which may fail with the errors that it does declare. A middleware that an api, its groups and its endpoints declare charges
 * a request once.
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
  options: ApiOptions<HttpApiMiddleware.Error<Id>, R, EX, RX, RA>
): Layer.Layer<Id, EX, Exclude<RX, Scope.Scope>> =>
  Layer.effect(
    service,
    Effect.map(
      makeLimit("HttpThrottle.layerApi", options),
      (limit) => (handler: Handler<Types.unhandled, never>) => limit(handler)
    ) as any
  )

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
import * as Caller from "../internal/caller.ts"
import { demanding } from "../internal/keyed/engine.ts"
import { keyedOf } from "../internal/keyed/map.ts"
import type { Limiter } from "../internal/limiter.ts"
import * as Local from "../internal/local.ts"
import * as Plan from "../internal/plan.ts"
import { partsOf } from "../internal/remaining.ts"
import * as Throttle from "../Throttle.ts"
import * as ThrottleMap from "../ThrottleMap.ts"
import * as Address from "./internal/address.ts"
import type { Asked, Limit } from "./internal/announce.ts"
import * as Fields from "./internal/fields.ts"
import * as Gate from "./internal/gate.ts"
import { memoised } from "./internal/memoised.ts"
import * as Rules from "./internal/rules.ts"
import { clientAddress } from "./keys.ts"
import type {
  ApiOptions,
  Level,
  LevelMapError,
  LevelMapServices,
  Levels,
  LevelServices,
  Options
} from "./serverOptions.ts"

// ---------------------------------------------------------------------------------------------------------------------
// From options to a gate
// ---------------------------------------------------------------------------------------------------------------------

const nameGiven = (data: Throttle.PolicyData): string | undefined =>
  data.name ?? (data._tag === "Shadow" ? nameGiven(data.policy) : undefined)

/** The options of a limit: of the one of the clients' keys, or of a level. */
type LimitOptions = Pick<Options<any, any, any, any, any>, "policy" | "lookup" | "throttles"> & {
  readonly cost?: unknown
  readonly maxKeys?: number | undefined
  readonly onFull?: "evict" | "refuse" | undefined
}

interface Server {
  readonly caller: string
  readonly fields: NonNullable<Options["fields"]>
  readonly maxWait: Options["maxWait"]
  /** The policy as it is in force here. */
  readonly inForce: (policy: Throttle.Policy<any>) => Throttle.Policy<any>
}

const makeLimit = (
  { caller, fields, inForce, maxWait }: Server,
  name: string,
  options: LimitOptions
): Effect.Effect<Limit, any, any> => {
  const common = {
    name,
    writerOf: fields === "none" ? undefined : memoised((plan: Plan.Plan) => Fields.writerOf(fields, plan, name)),
    namesOf: memoised((plan: Plan.Plan) => {
      const names = Fields.namesOf(plan, name)
      // Of parts of one name the first counts.
      return new Map(partsOf(plan).map((part, i) => [part.name, names[i]!] as const).toReversed())
    })
  }
  const { cost, lookup, maxKeys = 100_000, onFull = "evict", policy, throttles } = options
  // What the policies of a map of others hold is not known here.
  if (throttles !== undefined) {
    return Effect.map(throttles, (map): Limit => ({ ...common, map, keyed: keyedOf(map), holds: () => true }))
  }
  const ofKey = memoised((policy: Throttle.Policy<any>) => {
    if (lookup !== undefined) Rules.checkPolicy(caller, "lookup", policy, cost, maxWait)
    return inForce(policy)
  })
  const policyOf = (key: string): Throttle.Policy<any> => {
    const given = policy ?? lookup!(key)
    if (Throttle.isPolicy(given)) return given
    throw Rules.bad(caller, `"lookup" must return a policy, received ${Formatter.format(given)}`)
  }
  const holds = memoised((policy: Throttle.Policy<any>) => Plan.make(policy.data).pools.length > 0)
  return Effect.map(
    ThrottleMap.make({ lookup: (key: string) => ofKey(policyOf(key)), maxKeys, onFull, name }),
    (map): Limit => ({ ...common, map, keyed: keyedOf(map), holds: (key) => holds(policyOf(key)) })
  )
}

const makeGate = <R, EX, RX, RA, EA, L extends Levels, EG, RG>(
  caller: string,
  options: Options<R, EX, RX, RA, EA, L, EG, RG>
): Effect.Effect<Gate.Gate<EA, RA>, EX | EG | LevelMapError<L>, RX | RG | LevelMapServices<L> | Scope.Scope> => {
  const { concurrencyStatus = 429, fields = "draft-10", global, maxWait, name = "default", shadow = false } = options
  const inForce = (policy: Throttle.Policy<any>): Throttle.Policy<any> => {
    const kept = Rules.bounded(policy, maxWait)
    return shadow && kept.data._tag !== "Shadow" ? Throttle.shadow(kept) : kept
  }
  const server: Server = { caller, fields, maxWait, inForce }
  const levels: Levels = options.levels ?? []
  const globalLimiter: Effect.Effect<Limiter | undefined, any, any> = global === undefined
    ? Effect.undefined
    : Throttle.isPolicy(global)
    ? Local.make({ ...Plan.make(inForce(global).data), name: nameGiven(global.data) ?? "global" })
    : Effect.map(
      Effect.isEffect(global) ? global : Effect.succeed(global as Throttle.Throttle),
      (throttle) => Rules.limiterOfGlobal(caller, throttle)
    )
  return Effect.gen(function*() {
    const limits = [yield* makeLimit(server, name, options)]
    for (const [i, level] of levels.entries()) {
      limits.push(
        yield* makeLimit({ ...server, caller: Rules.ofLevel(caller, i) }, level.name ?? Rules.nameOfLevel(i), level)
      )
    }
    if (levels.length > 0) Rules.checkMaps(caller, limits.map(({ keyed }) => keyed))
    return {
      shadow,
      limits,
      global: yield* globalLimiter,
      dialect: fields,
      onStoreError: options.onStoreError ?? "allow",
      concurrencyStatus,
      onRejected: options.onRejected,
      countIf: options.countIf
    }
  }) as Effect.Effect<Gate.Gate<EA, RA>, any, any>
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
type Throttled<R, E> = <E1, R1>(
  handler: Handler<E1, R1>
) => Handler<E1 | E, R1 | R | HttpServerRequest.HttpServerRequest | Scope.Scope>

const makeThrottled = <R, EX, RX, RA, EA, L extends Levels, EG, RG>(
  caller: string,
  options: Options<R, EX, RX, RA, EA, L, EG, RG>
): Effect.Effect<
  Throttled<R | RA | LevelServices<L>, EA>,
  EX | EG | LevelMapError<L>,
  RX | RG | LevelMapServices<L> | Scope.Scope
> => {
  Rules.check(caller, options)
  const { setCaller = false, skip } = options
  const levels: Levels = options.levels ?? []
  type Key = Effect.Effect<string, never, R | LevelServices<L>>
  const key: Key = options.key === undefined
    ? clientAddress() as Effect.Effect<string, never, any>
    : Effect.interruptible(options.key)
  const keysOfLevels = levels.map((level): Key => Effect.interruptible(level.key))
  const costs = [options.cost, ...levels.map(({ cost }) => cost)]
  const costOf = (level: number): Throttle.Cost | undefined => {
    const cost = costs[level]
    if (typeof cost !== "function") return cost
    const given: unknown = cost(currentRequest())
    if (Predicate.isPromiseLike(given)) {
      throw Rules.bad(Rules.ofLevel(caller, level - 1), `"cost" must return a cost, received a promise`)
    }
    return given as Throttle.Cost
  }
  const isSkipped = (skip: NonNullable<typeof options.skip>): boolean => {
    const given: unknown = skip(currentRequest())
    if (typeof given === "boolean") return given
    throw Rules.bad(caller, `"skip" must return a boolean, received ${Formatter.format(given)}`)
  }
  const callerOf = ([first, ...others]: ReadonlyArray<Asked>): Partial<Throttle.Caller> => {
    if (typeof setCaller !== "function") return { key: first!.key }
    const given: unknown = setCaller(first!.key, others.map(({ key }) => key))
    if (Predicate.isPromiseLike(given)) throw Rules.bad(caller, `"setCaller" must return a caller, received a promise`)
    return Caller.read(`${caller}: what "setCaller" returns`, given)
  }
  return Effect.map(makeGate(caller, options), (gate): Throttled<R | RA | LevelServices<L>, EA> => {
    // Said once for each server, not for each request.
    let isUnknownAddressTold = false
    const warnOnce = (asked: ReadonlyArray<Asked>): Effect.Effect<void> | undefined => {
      if (isUnknownAddressTold) return undefined
      // A key may be made of the address.
      const by = asked.find(({ key }) => key.includes(Address.unknown))
      if (by === undefined || !hasNoAddress(currentRequest())) return undefined
      isUnknownAddressTold = true
      return unknownAddressWarning(by.limit.name)
    }
    const askedAt = (key: unknown, level: number): Asked => {
      if (typeof key === "string") {
        const limit = gate.limits[level]!
        const cost = costOf(level)
        return { limit, key: shortened(key), keyed: limit.keyed, cost, demandOf: demanding(cost) }
      }
      const where = Rules.ofLevel(caller, level - 1)
      throw Rules.bad(where, `"key" must give a string, received ${Formatter.format(key)}`)
    }
    return (handler) => {
      const pass = (keys: ReadonlyArray<string>) => {
        const asked = keys.map(askedAt)
        const warning = warnOnce(asked)
        if (warning === undefined && setCaller === false) return Gate.pass(gate, asked, handler)
        const passed = Effect.suspend(() => Gate.pass(gate, asked, handler))
        const asCaller = setCaller === false ? passed : Throttle.withCaller(callerOf(asked))(passed)
        return warning === undefined ? asCaller : Effect.andThen(warning, asCaller)
      }
      const limited = levels.length === 0
        ? Effect.flatMap(key, (key) => pass([key]))
        : Effect.flatMap(Effect.all([key, ...keysOfLevels]), pass)
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
 * Each key has its own budget and waiting line; the key is the client's address unless `key` says otherwise. `levels` adds
 * limits with other keys, such as that of the user's organisation, and `global` one for all requests together; all of them
 * admit and charge a request in one step, or none does. A request over a limit is answered at once, or after `maxWait`:
 * with 429 if the limit of a key refused it, with 503 if the `global` one did, and with problem details (RFC 9457), `Retry-After` in whole seconds, rounded up, at least 1, and
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
  <
    R = HttpServerRequest.HttpServerRequest,
    EX = never,
    RX = never,
    RA = never,
    const L extends Levels = Levels,
    EG = never,
    RG = never
  >(
    options: Options<R, EX, RX, RA, never, L, EG, RG>,
    which?: { readonly global?: false | undefined }
  ): HttpRouter.Middleware<{
    provides: never
    handles: never
    error: never
    requires: Exclude<R | RA | LevelServices<L>, HttpRouter.Provided>
    layerError: EX | EG | LevelMapError<L>
    layerRequires: Exclude<RX | RG | LevelMapServices<L>, Scope.Scope>
  }>
  /**
   * Throttles the requests of a server, each client by itself: a Layer that stands in front of all routes, those that do not
   * exist included. A refused request is answered with 429 or 503; a `RangeError` is thrown for bad options.
   */
  <
    R = HttpServerRequest.HttpServerRequest,
    EX = never,
    RX = never,
    RA = never,
    const L extends Levels = Levels,
    EG = never,
    RG = never
  >(
    options: Options<R, EX, RX, RA, never, L, EG, RG>,
    which: { readonly global: true }
  ): Layer.Layer<
    never,
    EX | EG | LevelMapError<L>,
    | HttpRouter.HttpRouter
    | Exclude<RX | RG | LevelMapServices<L>, Scope.Scope>
    | HttpRouter.Request.From<"GlobalRequires", Exclude<R | RA | LevelServices<L>, HttpRouter.GlobalProvided>>
  >
} = <R, EX, RX, RA, L extends Levels, EG, RG>(
  options: Options<R, EX, RX, RA, never, L, EG, RG>,
  which?: { readonly global?: boolean | undefined }
): any =>
  HttpRouter.middleware(
    Effect.map(
      makeThrottled("HttpThrottle.middleware", options),
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
  RA extends Requires | HttpRouter.Provided = never,
  const L extends ReadonlyArray<Level<Requires | HttpRouter.Provided, any, any>> = Levels,
  EG = never,
  RG = never
>(
  service: Context.Service<Id, HttpApiMiddleware.HttpApiMiddleware<never, E, Requires>>,
  options: ApiOptions<HttpApiMiddleware.Error<Id>, R, EX, RX, RA, L, EG, RG>
): Layer.Layer<Id, EX | EG | LevelMapError<L>, Exclude<RX | RG | LevelMapServices<L>, Scope.Scope>> =>
  Layer.effect(
    service,
    Effect.map(
      makeThrottled("HttpThrottle.layerApi", options),
      (limit) => (handler: Handler<Types.unhandled, never>) => limit(handler)
    ) as any
  )

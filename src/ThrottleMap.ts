/**
 * One throttle a key: a budget for each host, each tenant, each user.
 *
 * @since 0.1.0
 * @module
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { type Ask, askFor } from "./internal/ask.ts"
import * as Keyed from "./internal/keyed.ts"
import { nextAvailable, pause, statisticsNow } from "./internal/limiter.ts"
import * as Observe from "./internal/observe.ts"
import * as Plan from "./internal/plan.ts"
import type { Limiter } from "./internal/state.ts"
import * as Throttle from "./Throttle.ts"
import type { ThrottleError } from "./ThrottleError.ts"

/**
 * A key that is a plain value. Any other value is a key as well: keys are compared by `Equal` and `Hash`.
 *
 * @category models
 * @since 0.1.0
 */
export type Key = string | number | bigint | boolean | symbol

/**
 * What a map is made of.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<K> {
  /**
   * The policy of a key; asked whenever the key has nothing spent and holds nothing, so that a change shows at the key's
   * next such call. Give keys that are alike the same policy value, made once: each value of its own costs some kilobytes.
   */
  readonly lookup: (key: K) => Throttle.Policy<any>
  /** So many keys are remembered at once. A whole number of at least 1. Default: no bound. */
  readonly maxKeys?: number | undefined
  /**
   * What a new key does when there are `maxKeys` already. "refuse": it fails with `KeysExhausted`, until one that is
   * as good as new is found. "evict": of the keys that nobody waits for, that hold nothing and are not paused, the one used
   * longest ago is forgotten, and what it has spent with it; if there is none, it fails too. Default: "refuse".
   */
  readonly onFull?: "refuse" | "evict" | undefined
  /** What logs, metrics and errors call it. Default: "throttleMap", or the key of the Service class. */
  readonly name?: string | undefined
}

/**
 * What a map has done so far, all keys together, and who waits and runs now.
 *
 * @category models
 * @since 0.1.0
 */
export interface Statistics extends Throttle.Statistics {
  /** Keys remembered now. */
  readonly keys: number
  /** Calls refused because there was no room for their key. */
  readonly keysRefused: number
  /** Keys forgotten to make room, before they were as good as new: those that lost what they had spent. */
  readonly keysEvicted: number
}

/**
 * Throttles by key: a budget and a waiting line each.
 *
 * **When to use**
 *
 * Where each of many has a limit of its own: requests per host, messages per chat, calls per tenant.
 *
 * **Details**
 *
 * A key comes to life with its first call and is dropped when it is as good as new: nobody waits, nothing is held, and
 * its meters could not be told from unused ones. That is found out by looking at two keys a call, without timers. An idle
 * key of one timing part takes about 200 bytes. Everything else is as with a single throttle: first come, first served
 * within a key, charged at the start, an interrupted call costs nothing. Keys do not wait for each other.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle, ThrottleMap } from "effect-throttle"
 *
 * const perHost = Throttle.rate({ limit: 10, burst: 5 })
 *
 * const program = Effect.gen(function*() {
 *   const hosts = yield* ThrottleMap.make({ lookup: (_host: string) => perHost })
 *   yield* Effect.succeed("fetched").pipe(hosts.withPermit("a.example"))
 *   return (yield* hosts.statistics).keys
 * })
 *
 * await Effect.runPromise(Effect.scoped(program)) // 1
 * ```
 *
 * @see {@link Service} for a class of it, provided at the app's edge
 * @category models
 * @since 0.1.0
 */
export interface ThrottleMap<in K> {
  /** Runs the effect when the key's throttle grants one permit. */
  readonly withPermit: (
    key: K
  ) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ThrottleError, R>
  /** Runs the effect when the key's throttle grants its cost. */
  readonly withPermits: (
    key: K,
    cost: Throttle.Cost
  ) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ThrottleError, R>
  /** Runs the effect now or not at all. */
  readonly withPermitsIfAvailable: (
    key: K,
    cost: Throttle.Cost
  ) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E | ThrottleError, R>
  /** Waits for the key's turn and holds nothing. */
  readonly wait: (key: K, cost?: Throttle.Cost) => Effect.Effect<void, ThrottleError>
  /** Holds permits of the key until the scope closes. */
  readonly takeScoped: (
    key: K,
    cost?: Throttle.Cost
  ) => Effect.Effect<Throttle.Permit, ThrottleError, Scope.Scope>
  /** Holds permits of the key while the function's effect runs, and settles them there. */
  readonly usePermits: (
    key: K,
    cost: Throttle.Cost
  ) => <A, E, R>(
    use: (permit: Throttle.Permit) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | ThrottleError, R>
  /** How long this cost would have to wait, if there is room for the key. */
  readonly nextAvailable: (key: K, cost?: Throttle.Cost) => Effect.Effect<Option.Option<Duration.Duration>>
  /** Lets nobody of this key start for so long; the key is remembered until then. */
  readonly pause: (key: K, duration: Duration.Input) => Effect.Effect<void, ThrottleError>
  /** Ends a pause of this key. */
  readonly resume: (key: K) => Effect.Effect<void>
  /**
   * Gives a key that has something spent, held or waiting other limits; what is spent stays spent, as with
   * `Throttle.update`. Once nothing of that is left, `lookup` is asked again; so a lasting change belongs there. Does
   * nothing for a key that has nothing to update. Dies with a `RangeError` for what is no policy.
   */
  readonly update: (key: K, policy: Throttle.Policy<any>) => Effect.Effect<void>
  /** What all keys together have done so far. */
  readonly statistics: Effect.Effect<Statistics>
  /** What a key that is waited for, held or paused has done since that began; zeros for any other. */
  readonly statisticsOf: (key: K) => Effect.Effect<Throttle.Statistics>
}

const known: ReadonlySet<string> = new Set(["lookup", "maxKeys", "onFull", "name"])

const checked = <K>(options: Options<K>): Keyed.Options => {
  const { maxKeys = Infinity, onFull = "refuse" } = options
  const bad = (option: string, allowed: string, got: unknown) =>
    new RangeError(`ThrottleMap: ${option} must be ${allowed}, got ${Formatter.format(got)}`)
  for (const key of Object.keys(options)) {
    if (known.has(key)) continue
    throw new RangeError(`ThrottleMap: unknown option ${Formatter.format(key)}; it takes ${[...known].join(", ")}`)
  }
  if (typeof options.lookup !== "function") throw bad("lookup", "a function from a key to a policy", options.lookup)
  if (maxKeys !== Infinity && !(Number.isSafeInteger(maxKeys) && maxKeys >= 1)) {
    throw bad("maxKeys", "a whole number of at least 1", maxKeys)
  }
  if (onFull !== "refuse" && onFull !== "evict") throw bad("onFull", "\"refuse\" or \"evict\"", onFull)
  if (options.name !== undefined && (typeof options.name !== "string" || options.name === "")) {
    throw bad("name", "a non-empty string", options.name)
  }
  return { maxKeys, onFull }
}

/** What an idle key has done since it came into use. */
const unused: Throttle.Statistics = {
  ...Observe.counters(),
  waited: Duration.zero,
  longestWait: Duration.zero
}

/** Under which a map of this module has what it counts with. */
const Own = Symbol("effect-throttle/OwnMap")

/** @internal */
export const keyedOf = <K>(map: ThrottleMap<K>): Keyed.Keyed<K> | undefined =>
  (map as { readonly [Own]?: Keyed.Keyed<K> })[Own]

/**
 * The limiter of a key, to be asked in this step and no later; undefined for a map that is not of this module.
 *
 * @internal
 */
export const peek = <K>(map: ThrottleMap<K>, key: K): Limiter | undefined => {
  const keyed = keyedOf(map)
  return keyed === undefined ? undefined : Keyed.peek(keyed, key)
}

/**
 * Charges a key, and another limiter with it where there is one, for a call that may start at once and that will hold nothing.
 * Where one of them does not let it, neither is charged.
 *
 * @internal
 */
export const startAtOnce = <K>(
  map: ThrottleMap<K>,
  key: K,
  cost: Throttle.Cost | undefined,
  other: Limiter | undefined
): boolean => {
  const keyed = keyedOf(map)
  return keyed !== undefined && Keyed.startAtOnce(keyed, key, asking(cost), other)
}

/**
 * The refusal of a call that may neither start now nor wait, without an error; undefined where that is not so, where somebody
 * hears of refusals, and for a map that is not of this module.
 *
 * @internal
 */
export const rejectAtOnce = <K>(
  map: ThrottleMap<K>,
  key: K,
  cost: Throttle.Cost | undefined,
  other: Limiter | undefined
): ReturnType<typeof Keyed.rejectAtOnce> => {
  const keyed = keyedOf(map)
  return keyed === undefined ? undefined : Keyed.rejectAtOnce(keyed, key, asking(cost), other)
}

/**
 * Takes permits of a key until the scope closes, which this fiber does or nobody needs it for: where it asks again before, it
 * would wait for itself. Tells `granted` in the region in which they are taken; of a map that is not of this module, right
 * after.
 *
 * @internal
 */
export const take = <K>(
  map: ThrottleMap<K>,
  key: K,
  cost: Throttle.Cost | undefined,
  granted: (permit: Throttle.Permit) => void
): Effect.Effect<void, ThrottleError, Scope.Scope> => {
  const keyed = keyedOf(map)
  return keyed === undefined
    ? Effect.map(map.takeScoped(key, cost), granted)
    : Effect.asVoid(
      Keyed.use(keyed, key, asking(cost), (limiter, ask) => Throttle.take(limiter, ask, "call", granted))
    )
}

const one = (limiter: Limiter): Ask => limiter.one

/** A cost as a key's limiter sees it. */
const asking = (cost: Throttle.Cost | undefined) =>
  cost === undefined ? one : (limiter: Limiter): Ask => askFor(limiter.plan, cost)

const fromKeyed = <K>(keyed: Keyed.Keyed<K>): ThrottleMap<K> => {
  const timingOnly = (askOf: (limiter: Limiter) => Ask) => (limiter: Limiter): Ask => {
    Throttle.refuseToHold(limiter)
    return askOf(limiter)
  }
  const map: ThrottleMap<K> = {
    withPermit: (key) => (self) => Effect.suspend(() => Keyed.beginFor(keyed, key, one, self)),
    withPermits: (key, cost) => (self) => Effect.suspend(() => Keyed.beginFor(keyed, key, asking(cost), self)),
    withPermitsIfAvailable: (key, cost) => (self) =>
      Effect.suspend(() => Keyed.runIfAvailableFor(keyed, key, asking(cost), self)),
    wait: (key, cost) => Effect.suspend(() => Keyed.beginFor(keyed, key, timingOnly(asking(cost)), Effect.void)),
    takeScoped: (key, cost) =>
      Keyed.use(keyed, key, asking(cost), (limiter, ask) => Throttle.take(limiter, ask, "scope")),
    usePermits: (key, cost) => (f) =>
      Keyed.use(keyed, key, asking(cost), (limiter, ask) => Throttle.usePermit(limiter, ask, f)),
    nextAvailable: (key, cost) =>
      Effect.sync(() => {
        const limiter = Keyed.peek(keyed, key)
        return keyed.closed ? Option.none() : nextAvailable(limiter, asking(cost)(limiter))
      }),
    pause: (key, duration) =>
      Effect.suspend(() => {
        const nanos = Throttle.nanosToPause(keyed.name, duration)
        return Keyed.use(keyed, key, one, (limiter) => pause(limiter, nanos))
      }),
    resume: (key) => Effect.sync(() => Keyed.resumeFor(keyed, key)),
    update: (key, policy) => Effect.sync(() => Keyed.updateFor(keyed, key, keyed.planFor(policy))),
    statistics: Effect.sync(() => {
      const { longestWait, waited, ...counted } = Keyed.total(keyed)
      return {
        ...counted,
        waited: Duration.millis(waited / 1e6),
        longestWait: Duration.millis(longestWait / 1e6),
        keys: Keyed.size(keyed),
        keysRefused: keyed.refused.count,
        keysEvicted: keyed.evicted.count
      }
    }),
    statisticsOf: (key) =>
      Effect.suspend(() => {
        const limiter = Keyed.busyLimiter(keyed, key)
        return limiter === undefined ? Effect.succeed(unused) : statisticsNow(limiter)
      })
  }
  // Not enumerable: whoever copies the map to change it has another map.
  return Object.defineProperty(map, Own, { value: keyed })
}

/**
 * Makes a map of throttles that lives until the scope closes; then those who wait are interrupted, and so are later
 * calls.
 *
 * **Errors**
 *
 * Throws a `RangeError` for bad options. A `lookup` that throws, or gives no policy, is a defect of the call.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle, ThrottleMap } from "effect-throttle"
 *
 * const free = Throttle.rate({ limit: 1 })
 * const paid = Throttle.rate({ limit: 100, burst: 20 })
 * const paying = new Set(["ada"])
 *
 * const program = Effect.gen(function*() {
 *   const users = yield* ThrottleMap.make({
 *     lookup: (user: string) => paying.has(user) ? paid : free,
 *     maxKeys: 100_000
 *   })
 *   yield* Effect.succeed("done").pipe(users.withPermit("ada"))
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * ```
 *
 * @see {@link Service} for a class of it
 * @category constructors
 * @since 0.1.0
 */
export const make = <K>(options: Options<K>): Effect.Effect<ThrottleMap<K>, never, Scope.Scope> => {
  const keyed = makeKeyed(options)
  return Effect.map(
    Effect.acquireRelease(
      Effect.withFiber((fiber) => Effect.succeed(keyed(fiber.context, fiber.getRef(Clock.Clock)))),
      (keyed) => Effect.sync(() => Keyed.closeAll(keyed))
    ),
    fromKeyed
  )
}

/**
 * A map without a scope: nobody closes it.
 *
 * @internal
 */
export const makeUnsafe = <K>(options: Options<K>) => {
  const keyed = makeKeyed(options)
  return (context: Context.Context<never>, clock: Clock.Clock): ThrottleMap<K> => fromKeyed(keyed(context, clock))
}

const makeKeyed = <K>(options: Options<K>) => {
  const bounds = checked(options)
  const { lookup, name = "throttleMap" } = options
  const plans = new WeakMap<Throttle.Policy<any>, Plan.Plan>()
  const planFor = (policy: unknown, what = "update needs"): Plan.Plan => {
    if (!Throttle.isPolicy(policy)) {
      throw new RangeError(`throttleMap "${name}": ${what} a policy, got ${Formatter.format(policy)}`)
    }
    let plan = plans.get(policy)
    if (plan === undefined) plans.set(policy, plan = Plan.make(policy.data))
    return plan
  }
  const planOf = (key: K) => planFor(lookup(key), "lookup must give")
  return (context: Context.Context<never>, clock: Clock.Clock) =>
    Keyed.make(name, planOf, planFor, bounds, context, clock)
}

/**
 * The class that {@link Service} gives: the key of a map of its own, with the combinators as statics.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServiceClass<Self, Id extends string, K> extends Context.ServiceClass<Self, Id, ThrottleMap<K>> {
  /** The options it was defined with. */
  readonly options: Options<K>
  /** The Layer of these options. */
  readonly layer: Layer.Layer<Self>
  /** The Layer of other options: `layerWith({ lookup: () => Throttle.none })` in a test. */
  readonly layerWith: (options: Options<K>) => Layer.Layer<Self>
  /** Runs the piped effect when the key's throttle grants one permit, first come, first served within the key. */
  readonly withPermit: (
    key: K
  ) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ThrottleError, R | Self>
  /** Runs the piped effect when the key's throttle grants its cost, first come, first served within the key. */
  readonly withPermits: (
    key: K,
    cost: Throttle.Cost
  ) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ThrottleError, R | Self>
  /** Runs the piped effect if the key's throttle can grant its cost now; otherwise returns `Option.none()`. */
  readonly withPermitsIfAvailable: (
    key: K,
    cost: Throttle.Cost
  ) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E | ThrottleError, R | Self>
  /** Waits for the key's turn and holds nothing; costs one permit by default. */
  readonly wait: (key: K, cost?: Throttle.Cost) => Effect.Effect<void, ThrottleError, Self>
  /** Takes permits of the key, one by default, and holds them until the scope closes. */
  readonly takeScoped: (
    key: K,
    cost?: Throttle.Cost
  ) => Effect.Effect<Throttle.Permit, ThrottleError, Self | Scope.Scope>
  /** Takes permits of the key, then runs the effect that a function makes of the permit, which may be settled there. */
  readonly usePermits: (
    key: K,
    cost: Throttle.Cost
  ) => <A, E, R>(
    use: (permit: Throttle.Permit) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | ThrottleError, R | Self>
  /** Estimates how long this cost, one permit by default, would have to wait for the key; takes nothing. */
  readonly nextAvailable: (
    key: K,
    cost?: Throttle.Cost
  ) => Effect.Effect<Option.Option<Duration.Duration>, never, Self>
  /** Lets no call of this key start for so long, those in line included; the key is remembered until then. */
  readonly pause: (key: K, duration: Duration.Input) => Effect.Effect<void, ThrottleError, Self>
  /** Ends a pause of this key. */
  readonly resume: (key: K) => Effect.Effect<void, never, Self>
  /** Gives a key other limits for as long as it has something spent or held; see {@link ThrottleMap}. */
  readonly update: (key: K, policy: Throttle.Policy<any>) => Effect.Effect<void, never, Self>
  /** What all keys together have done so far, and how many are remembered. */
  readonly statistics: Effect.Effect<Statistics, never, Self>
  /** What a key that is waited for, held or paused has done since that began; zeros for any other. */
  readonly statisticsOf: (key: K) => Effect.Effect<Throttle.Statistics, never, Self>
}

/**
 * A map of throttles with a key of its own, to be provided at the app's edge.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle, ThrottleMap } from "effect-throttle"
 *
 * const perTenant = Throttle.all([Throttle.rate({ limit: 50, burst: 10 }), Throttle.concurrency({ limit: 5 })])
 *
 * class Tenants extends ThrottleMap.Service<Tenants>()("app/Tenants", {
 *   lookup: (_tenant: string) => perTenant,
 *   maxKeys: 10_000,
 *   onFull: "evict"
 * }) {}
 *
 * const handle = (tenant: string) => Effect.succeed(`hello ${tenant}`).pipe(Tenants.withPermit(tenant))
 *
 * await Effect.runPromise(handle("acme").pipe(Effect.provide(Tenants.layer)))
 * await Effect.runPromise(handle("acme").pipe(Effect.provide(Tenants.layerWith({ lookup: () => Throttle.none }))))
 * ```
 *
 * @see {@link make} for a map without a class
 * @category services
 * @since 0.1.0
 */
export const Service =
  <Self>() => <const Id extends string, K>(id: Id, options: Options<K>): ServiceClass<Self, Id, K> => {
    checked(options)
    const key = Context.Service<Self, ThrottleMap<K>>()(id)
    const layerWith = (options: Options<K>): Layer.Layer<Self> => Layer.effect(key, make({ name: id, ...options }))
    const use = <A, E, R>(f: (map: ThrottleMap<K>) => Effect.Effect<A, E, R>) => Effect.flatMap(key, f)
    return Object.assign(key, {
      options,
      layer: layerWith(options),
      layerWith,
      withPermit: (one: K) => <A, E, R>(self: Effect.Effect<A, E, R>) => use((map) => map.withPermit(one)(self)),
      withPermits: (one: K, cost: Throttle.Cost) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
        use((map) => map.withPermits(one, cost)(self)),
      withPermitsIfAvailable: (one: K, cost: Throttle.Cost) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
        use((map) => map.withPermitsIfAvailable(one, cost)(self)),
      wait: (one: K, cost?: Throttle.Cost) => use((map) => map.wait(one, cost)),
      takeScoped: (one: K, cost?: Throttle.Cost) => use((map) => map.takeScoped(one, cost)),
      usePermits: (one: K, cost: Throttle.Cost) => <A, E, R>(f: (permit: Throttle.Permit) => Effect.Effect<A, E, R>) =>
        use((map) => map.usePermits(one, cost)(f)),
      nextAvailable: (one: K, cost?: Throttle.Cost) => use((map) => map.nextAvailable(one, cost)),
      pause: (one: K, duration: Duration.Input) => use((map) => map.pause(one, duration)),
      resume: (one: K) => use((map) => map.resume(one)),
      update: (one: K, policy: Throttle.Policy<any>) => use((map) => map.update(one, policy)),
      statistics: use((map) => map.statistics),
      statisticsOf: (one: K) => use((map) => map.statisticsOf(one))
    })
  }

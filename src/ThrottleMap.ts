/**
 * Throttles by key: a budget and a queue for each host, tenant or user.
 *
 * @since 0.1.0
 * @module
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Maps from "./internal/keyed/map.ts"
import type { KeyedOperations, Options, ThrottleMap } from "./internal/keyed/service.ts"
import * as Operations from "./internal/operations.ts"

export type { Key, KeyedOperations, Options, Statistics, ThrottleMap } from "./internal/keyed/service.ts"

/**
 * Makes a map of throttles that lives until the scope closes; then waiting calls are interrupted, and so are later
 * calls.
 *
 * **Errors**
 *
 * Throws a `RangeError` for invalid options. A call whose `lookup` throws, or returns no policy, dies.
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
export const make = <K>(options: Options<K>): Effect.Effect<ThrottleMap<K>, never, Scope.Scope> => Maps.make(options)

/**
 * The class that {@link Service} returns: the service key of a map, with the operations as statics.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServiceClass<Self, Id extends string, K>
  extends Context.ServiceClass<Self, Id, ThrottleMap<K>>, KeyedOperations<K, Self>
{
  /** The options that the class was defined with. */
  readonly options: Options<K>
  /** The Layer of the class's options. */
  readonly layer: Layer.Layer<Self>
  /**
   * Returns the Layer of other options: `layerWith({ lookup: () => Throttle.none })` in a test. Throws a `RangeError`
   * for invalid options.
   */
  readonly layerWith: (options: Options<K>) => Layer.Layer<Self>
}

/**
 * Defines a map of throttles with a service key of its own.
 *
 * **When to use**
 *
 * To provide the map at the app's edge, and another one in a test. Throws a `RangeError` for invalid options.
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
    Maps.check(options)
    const key = Context.Service<Self, ThrottleMap<K>>()(id)
    const layerWith = (options: Options<K>): Layer.Layer<Self> => Layer.effect(key, make({ name: id, ...options }))
    const use = <A, E, R>(f: (map: ThrottleMap<K>) => Effect.Effect<A, E, R>) => Effect.flatMap(key, f)
    const operations = Operations.deriveByKey<ThrottleMap<K>, KeyedOperations<K, Self>>(use)
    return Object.assign(key, operations, {
      options,
      layer: layerWith(options),
      layerWith,
      statistics: use((map) => map.statistics),
      statisticsOf: (one: K) => use((map) => map.statisticsOf(one)),
      drain: (deadline?: Duration.Input) => use((map) => map.drain(deadline)),
      drainOf: (one: K, deadline?: Duration.Input) => use((map) => map.drainOf(one, deadline)),
      awaitIdle: use((map) => map.awaitIdle),
      awaitIdleOf: (one: K) => use((map) => map.awaitIdleOf(one))
    })
  }

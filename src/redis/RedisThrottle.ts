/**
 * One budget for many processes: the policies of `Throttle` on Redis.
 *
 * A policy is the same value as in memory; {@link layer} provides it from Redis instead. Each process keeps a queue of its
 * own; Redis decides, in one script and on its own clock, when the next call may start.
 *
 * @since 0.1.0
 * @module RedisThrottle
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { Redis } from "effect/persistence/Redis"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as PolicyValue from "../internal/policy.ts"
import type * as Throttle from "../Throttle.ts"
import type { ThrottleError } from "../ThrottleError.ts"
import type * as ThrottleMap from "../ThrottleMap.ts"
import * as Backend from "./internal/backend.ts"
import * as Client from "./internal/client.ts"
import * as Fallback from "./internal/fallback.ts"
import { CurrentLease, lostOf } from "./internal/leases.ts"
import type { Limiter } from "./internal/limiter.ts"
import * as Map from "./internal/map.ts"
import * as Checked from "./internal/options.ts"
import { undistributable } from "./internal/rules.ts"
import { throttleOf } from "./internal/throttle.ts"
import * as RedisStore from "./RedisStore.ts"
import type { ThrottleStore } from "./ThrottleStore.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Options
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What becomes of a call when the store gives no decision.
 *
 * - "fail": it fails with a `ThrottleError` whose reason is `StoreError`. The default: the limit holds.
 * - "allow": it starts as if there were no throttle.
 * - `{ local: share }`: this process throttles by itself, by that share of the limits, above 0 and at most 1; on a map each
 *   key by itself. With four processes, a quarter.
 *
 * @category options
 * @since 0.1.0
 */
export type OnStoreError = "fail" | "allow" | { readonly local: number }

/**
 * How a store is used.
 *
 * @category options
 * @since 0.1.0
 */
export interface StoreOptions {
  /** Begins every key and every channel in Redis. Default: "throttle:". */
  readonly prefix?: string | undefined
  /** Default: "fail"; nothing else is allowed where a part limits running calls. */
  readonly onStoreError?: OnStoreError | undefined
  /**
   * How long to wait for a decision of the store. After that it counts as not made, though the permits may have been
   * spent. At least 1 millisecond; default: 100 milliseconds.
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * For `concurrency`: how long permits stay with a process that does not renew them. They are renewed after a third of it. At
   * least 100 milliseconds; default: 10 seconds. When Redis fails, two thirds of a lease are left at least, and the breaker
   * alone takes a second: below 3 seconds a short outage may cost the work.
   */
  readonly leaseTtl?: Duration.Input | undefined
  /**
   * How long after its start a call's cost may be settled or cancelled; later, the requested cost stands. At least
   * 1 millisecond; default: 10 minutes.
   */
  readonly settleWithin?: Duration.Input | undefined
}

/**
 * Options of {@link layer}, {@link layerFor} and {@link make}.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends StoreOptions {
  /**
   * Names the budget, together with the policy's name, or a Service class's key where the policy has no name. Throttles
   * share a budget if prefix, name and key are equal. Keys that begin with one hash tag, such as "{acme}:ada", are in one hash
   * slot, as `Throttle.levels` needs it.
   */
  readonly key: string
}

/**
 * A policy that several processes cannot share: `shadow`, `spacing` from the end, several parts on the clock, a bucket with
 * an `initial` fill.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotDistributable extends Schema.TaggedError<NotDistributable>()("NotDistributable", {
  /** The throttle's name. */
  throttle: Schema.String,
  /** The part that cannot be shared. */
  part: Schema.String,
  why: Schema.String
}) {
  override get message(): string {
    return `throttle "${this.throttle}": several processes cannot share "${this.part}": ${this.why}`
  }
}

const notDistributable = (throttle: string, why: { readonly part: string; readonly why: string }) =>
  new NotDistributable({ throttle, ...why })

// ---------------------------------------------------------------------------------------------------------------------
// Throttles
// ---------------------------------------------------------------------------------------------------------------------

/** `mayReject`: whether the type of the calls of a policy has an error. */
const limiterOf = (
  where: string,
  policy: Throttle.Policy<any>,
  options: Options,
  mayReject: (policy: Throttle.Policy<any>) => boolean,
  className?: string
): (client: Client.Client) => Effect.Effect<Limiter, NotDistributable, Scope.Scope> => {
  const checked = Checked.ofThrottle(where, options)
  const found = Checked.planOf(where, policy, checked)
  const name = policy.data.name ?? className
  const plan = name === undefined ? found : { ...found, name }
  const { key, onStoreError } = checked
  return (client) =>
    Effect.gen(function*() {
      const why = undistributable(plan)
      if (why !== undefined) return yield* notDistributable(plan.name, why)
      const fallback = typeof onStoreError === "string"
        ? onStoreError
        : yield* Fallback.make(policy.data, plan.name, onStoreError.local, mayReject(policy))
      return yield* Backend.make(plan, Checked.settings(checked, client, name, key, fallback), mayReject(policy))
    })
}

/** What the Layer of the policy provides, by a limiter on a store. */
const provide = (policy: Throttle.Policy<any>, limiter: Limiter): Context.Context<Throttle.Throttle> => {
  const throttle = throttleOf(limiter)
  const inline: PolicyValue.Inline = limiter.mayReject
    ? throttle.withPermit
    // Its type has no error of the store: there it is a defect, and errors of the effect itself are none.
    : (self) => Effect.flatten(Effect.orDie(throttle.withPermit(Effect.exit(self))))
  return PolicyValue.provide(policy, throttle, inline)
}

/** One client for all throttles of a Layer graph on the same `Redis`, and so one subscription and one breaker. */
const clientOf = Effect.gen(function*() {
  const redis = yield* Redis
  const nodeOf = yield* RedisStore.NodeOf
  return yield* Client.shared(redis, () => ({ ...RedisStore.make(redis), nodeOf }))
})

/**
 * Provides a policy that all processes with the same key share, through Redis.
 *
 * **When to use**
 *
 * Where several processes use one quota: workers, servers behind a load balancer, jobs. In place of the policy itself at
 * the app's edge; the program does not change.
 *
 * **Details**
 *
 * Within a process calls start first come, first served; processes take turns. Redis decides in one script, on its own
 * clock, so the clocks of the processes do not matter. Calls that arrive together are asked for in one request. For the head
 * of the queue a slot is reserved; if it is interrupted while it waits, it leaves the queue and the slot goes to the next call.
 * A start comes after its instant, by the delay of the answer and of a timer, never before.
 *
 * Used inline below this Layer, the policy value is this throttle too. Inline use of a policy without bounds has no
 * error in its type: where the store fails, it dies with the `ThrottleError`, also where the value is declared as
 * `Throttle.Policy`. Give the policy a bound, use the service, or an `onStoreError` other than "fail". A policy from data has
 * the error in its type, and fails with it.
 *
 * For `concurrency` permits are leases: renewed while the effect runs, in a fiber of its own, which is interrupted with
 * `LeaseLost` when the lease is lost. A sliding `window` of more than 1,000 permits is kept in steps of a thousandth of its
 * length, counted at their ends: it never admits more than in memory.
 *
 * **Errors**
 *
 * `NotDistributable` for what several processes cannot share: `shadow`, `spacing` from the end, several parts on the
 * clock, a bucket with an `initial` fill. Calls fail with the reasons that they have in memory, and with `StoreError` and `LeaseLost`. Throws a
 * `RangeError` for bad options.
 *
 * **Example**
 *
 * ```ts no-run
 * import { NodeRedis } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { RedisThrottle } from "effect-throttle/redis"
 *
 * const fetchTeam = (id: string) => Effect.succeed(`team ${id}`).pipe(Throttle.withPermit)
 *
 * const github = Throttle.rate({ limit: 10, burst: 5 })
 *
 * const GitHubLive = RedisThrottle.layer(github, { key: "github" }).pipe(
 *   Layer.provide(RedisThrottle.layerClient((preset) => NodeRedis.layer({ url: "redis://localhost:6379", ...preset })))
 * )
 *
 * await Effect.runPromise(fetchTeam("a").pipe(Effect.provide(GitHubLive)))
 * ```
 *
 * @see {@link layerFor} for Service classes, {@link make} for a throttle without a Layer
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  policy: Throttle.Policy<any>,
  options: Options
): Layer.Layer<Throttle.Throttle, NotDistributable, Redis> => {
  const make = limiterOf("RedisThrottle.layer", policy, options, PolicyValue.mayReject)
  return Layer.effectContext(
    Effect.map(Effect.flatMap(clientOf, make), (limiter) => provide(policy, limiter))
  ).pipe(Layer.provide(Client.layer))
}

/**
 * Options of a class whose policy has no bounds: its calls have no error, so a failing store must be none.
 *
 * @category options
 * @since 0.1.0
 */
export interface NeverFailing extends Options {
  readonly onStoreError: Exclude<OnStoreError, "fail">
}

/**
 * Provides a `Throttle.Service` class, with its own policy, on Redis.
 *
 * **Details**
 *
 * As {@link layer}. The class's calls must be able to fail: give its policy a bound, or declare it as `Throttle.Policy`,
 * which may fail. A class whose calls cannot fail needs an `onStoreError` of "allow" or `{ local }`.
 *
 * **Errors**
 *
 * As {@link layer}.
 *
 * **Example**
 *
 * ```ts no-run
 * import { NodeRedis } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { RedisThrottle } from "effect-throttle/redis"
 *
 * const policy: Throttle.Policy = Throttle.rate({ limit: 10 })
 *
 * class GitHub extends Throttle.Service<GitHub>()("app/GitHub", policy) {}
 *
 * const GitHubLive = RedisThrottle.layerFor(GitHub, { key: "github" }).pipe(Layer.provide(NodeRedis.layer()))
 *
 * await Effect.runPromise(Effect.succeed("repo").pipe(GitHub.withPermit, Effect.provide(GitHubLive)))
 * ```
 *
 * @see {@link layer} for the generic service
 * @category layers
 * @since 0.1.0
 */
export const layerFor: {
  /**
   * Makes the Layer of a `Throttle.Service` class whose calls may fail with `ThrottleError`: its own policy, on Redis. Fails
   * with `NotDistributable` for a policy that several processes cannot share; throws a `RangeError` for bad options.
   */
  <Self, Id extends string, U extends string>(
    service: Throttle.ServiceClass<Self, Id, ThrottleError, U>,
    options: Options
  ): Layer.Layer<Self, NotDistributable, Redis>
  /**
   * Makes the Layer of a `Throttle.Service` class whose calls cannot fail: its own policy, on Redis. So `onStoreError` must be
   * "allow" or `{ local }`. Fails with `NotDistributable` for a policy that several processes cannot share; throws a
   * `RangeError` for bad options.
   */
  <Self, Id extends string, U extends string>(
    service: Throttle.ServiceClass<Self, Id, never, U>,
    options: NeverFailing
  ): Layer.Layer<Self, NotDistributable, Redis>
} = <Self, Id extends string>(
  service: Throttle.ServiceClass<Self, Id, ThrottleError> | Throttle.ServiceClass<Self, Id, never>,
  options: Options
): Layer.Layer<Self, NotDistributable, Redis> => {
  const { policy } = service
  const make = limiterOf("RedisThrottle.layerFor", policy, options, PolicyValue.mayReject, service.key)
  return Layer.effectContext(
    Effect.map(
      Effect.flatMap(clientOf, make),
      (limiter) => PolicyValue.underKey<Self>(service, policy, provide(policy, limiter))
    )
  ).pipe(Layer.provide(Client.layer))
}

/**
 * Makes a throttle on a store that lives until the scope closes. Then waiting calls are interrupted, work under a lease fails
 * with `LeaseLost`, and the leases are released.
 *
 * **When to use**
 *
 * For a store of your own choice, such as `MemoryStore` in a test, or without a Layer.
 *
 * **Errors**
 *
 * As {@link layer}.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
 *
 * const program = Effect.gen(function*() {
 *   const throttle = yield* RedisThrottle.make(Throttle.rate({ limit: 10 }), { key: "github" })
 *   return yield* throttle.withPermit(Effect.succeed("done"))
 * })
 *
 * await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(MemoryStore.layer))) // "done"
 * ```
 *
 * @see {@link layer} for the Layer of it
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  policy: Throttle.Policy<any>,
  options: Options
): Effect.Effect<Throttle.Throttle, NotDistributable, ThrottleStore | Scope.Scope> => {
  const limiter = limiterOf("RedisThrottle.make", policy, options, () => true)
  return Effect.map(Effect.flatMap(Client.make, limiter), (limiter) => throttleOf(limiter))
}

// ---------------------------------------------------------------------------------------------------------------------
// Maps
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Options of {@link makeMap} and {@link layerMap}.
 *
 * A key's budget is in Redis, under the prefix, the map's name and the key as text (so 1 and "1" are one), and expires
 * there when its state equals the initial state. A process remembers a key only while its calls wait or run, or a pause of it
 * could not be reported. So there is no `maxKeys`, and an `update` of a key lasts only as long: then `lookup` is asked again.
 *
 * @category options
 * @since 0.1.0
 */
export interface MapOptions<K extends Exclude<ThrottleMap.Key, symbol>> extends StoreOptions {
  /** The policy of a key. */
  readonly lookup: (key: K) => Throttle.Policy<any>
  /**
   * Names the map in logs, metrics and errors, and in its keys in Redis: maps share budgets if prefix and name are equal.
   * Default of {@link layerMap}: the key of the Service class.
   */
  readonly name: string
}

/**
 * Makes a map of throttles on a store that lives until the scope closes: a budget for each key, shared by all processes.
 *
 * **Errors**
 *
 * Throws a `RangeError` for bad options. A `lookup` that returns a policy which cannot be shared, or none, is a defect of the
 * call.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
 *
 * const perUser = Throttle.rate({ limit: 5, burst: 5 })
 *
 * const program = Effect.gen(function*() {
 *   const users = yield* RedisThrottle.makeMap({ lookup: (_user: string) => perUser, name: "users" })
 *   return yield* Effect.succeed("hello ada").pipe(users.withPermit("ada"))
 * })
 *
 * await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(MemoryStore.layer))) // "hello ada"
 * ```
 *
 * @see {@link layerMap} for a `ThrottleMap.Service` class
 * @category constructors
 * @since 0.1.0
 */
export const makeMap = <K extends Exclude<ThrottleMap.Key, symbol>>(
  options: MapOptions<K>
): Effect.Effect<ThrottleMap.ThrottleMap<K>, never, ThrottleStore | Scope.Scope> =>
  Effect.flatMap(Client.make, Map.make<K>("RedisThrottle.makeMap", options, notDistributable))

/**
 * Provides a `ThrottleMap.Service` class on Redis, with its own `lookup` unless another is given. Its `maxKeys` and `onFull`
 * are about the memory of one process and have no effect here.
 *
 * **Errors**
 *
 * As {@link makeMap}.
 *
 * **Example**
 *
 * ```ts no-run
 * import { NodeRedis } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 * import { Throttle, ThrottleMap } from "effect-throttle"
 * import { RedisThrottle } from "effect-throttle/redis"
 *
 * const perTenant = Throttle.rate({ limit: 50, burst: 10 })
 *
 * class Tenants extends ThrottleMap.Service<Tenants>()("app/Tenants", { lookup: (_tenant: string) => perTenant }) {}
 *
 * const TenantsLive = RedisThrottle.layerMap(Tenants).pipe(Layer.provide(NodeRedis.layer()))
 *
 * await Effect.runPromise(Effect.succeed("hello").pipe(Tenants.withPermit("acme"), Effect.provide(TenantsLive)))
 * ```
 *
 * @see {@link makeMap} for a map without a class
 * @category layers
 * @since 0.1.0
 */
export const layerMap = <Self, Id extends string, K extends Exclude<ThrottleMap.Key, symbol>>(
  service: ThrottleMap.ServiceClass<Self, Id, K>,
  options: Partial<MapOptions<K>> = {}
): Layer.Layer<Self, never, Redis> => {
  const { lookup, name = service.key } = service.options
  const make = Map.make<K>("RedisThrottle.layerMap", { lookup, name, ...options }, notDistributable)
  return Layer.effect(service, Effect.flatMap(clientOf, make)).pipe(Layer.provide(Client.layer))
}

// ---------------------------------------------------------------------------------------------------------------------
// Leases
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The right to run of a call whose permits are leased.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lease {
  /**
   * The fencing number: larger than that of the former holders of these permits. Pass it to the system that the work writes
   * to, and let that reject smaller ones than it has seen; then a process that was suspended while its lease ended can do no
   * harm. It outlives a lost key, unless the server's clock goes back.
   */
  readonly fence: number
  /** Fails with `LeaseLost` as soon as the lease is lost. */
  readonly lost: Effect.Effect<never, ThrottleError>
}

/**
 * Returns the fencing number of the lease under which this effect runs, if there is one: within `withPermit`, `withPermits`,
 * `withPermitsIfAvailable` and `usePermits` of a throttle with `concurrency` on a store.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
 *
 * const program = Effect.gen(function*() {
 *   const one = yield* RedisThrottle.make(Throttle.concurrency({ limit: 1 }), { key: "report" })
 *   return yield* one.withPermit(RedisThrottle.currentFence)
 * })
 *
 * console.log(Option.isSome(await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(MemoryStore.layer)))))
 * ```
 *
 * @see {@link leaseOf} for permits that are held for a scope
 * @category leases
 * @since 0.1.0
 */
export const currentFence: Effect.Effect<Option.Option<number>> = Effect.map(
  CurrentLease,
  (lease) => lease === undefined ? Option.none() : Option.some(lease.fence)
)

/**
 * Returns the lease of a permit that is held for a scope; none where nothing is leased. Work under it is not interrupted when
 * the lease is lost: race it with `lost`.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import { Throttle } from "effect-throttle"
 * import { MemoryStore, RedisThrottle } from "effect-throttle/redis"
 *
 * const program = Effect.gen(function*() {
 *   const one = yield* RedisThrottle.make(Throttle.concurrency({ limit: 1 }), { key: "report" })
 *   const permit = yield* one.takeScoped()
 *   const lease = Option.getOrThrow(RedisThrottle.leaseOf(permit))
 *   return yield* Effect.raceFirst(Effect.succeed(lease.fence), lease.lost)
 * })
 *
 * await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(MemoryStore.layer)))
 * ```
 *
 * @see {@link currentFence} inside the effect
 * @category leases
 * @since 0.1.0
 */
export const leaseOf = (permit: Throttle.Permit): Option.Option<Lease> => {
  const leases = (permit as Backend.LeasedPermit)[Backend.Leased]
  return leases === undefined ? Option.none() : Option.some({ fence: leases[0].fence, lost: lostOf(leases) })
}

// ---------------------------------------------------------------------------------------------------------------------
// The client, and metrics
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Options for a node-redis client with which a throttle fails fast.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClientPreset {
  /** Without a connection, commands fail at once. By default they are queued, and sent when no call waits any more. */
  readonly disableOfflineQueue: true
  readonly socket: {
    /** Reconnects after 25, 50, … at most 250 ms; by default after up to 2 s. */
    readonly reconnectStrategy: (retries: number, cause: Error) => number | Error
  }
}

/**
 * Provides a Redis client that fails fast without a connection, and reconnects within a quarter of a second. The first
 * connection must succeed, or building the Layer fails.
 *
 * **Example**
 *
 * ```ts no-run
 * import { NodeRedis } from "@effect/platform-node"
 * import { RedisThrottle } from "effect-throttle/redis"
 *
 * export const RedisLive = RedisThrottle.layerClient((preset) =>
 *   NodeRedis.layer({ ...preset, socket: { ...preset.socket, host: "localhost", port: 6379 } })
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerClient = <A, E, R>(client: (preset: ClientPreset) => Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
  Layer.suspend(() => {
    let isReady = false
    const reconnectStrategy = (retries: number, cause: Error): number | Error =>
      isReady ? Math.min(25 * (retries + 1), 250) : cause
    return Layer.tap(client({ disableOfflineQueue: true, socket: { reconnectStrategy } }), () =>
      Effect.sync(() => {
        isReady = true
      }))
  })

/**
 * The metrics of all stores. `Throttle.metrics` count here as in memory.
 *
 * | metric | |
 * |---|---|
 * | `throttle_store_requests_total` | requests to the store, by `outcome`: "answered", "refused", "timeout", "unavailable", "open" |
 * | `throttle_store_fallbacks_total` | calls without a decision, by `throttle` and `kind`: "failed", "allowed", "local" |
 *
 * @see {@link OnStoreError} for what becomes of calls without a decision
 * @category observing
 * @since 0.1.0
 */
export const metrics = { requests: Client.requests, fallbacks: Client.fallbacks } as const

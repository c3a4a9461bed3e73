/**
 * One budget for many processes: the policies of `Throttle` on Redis.
 *
 * A policy is the same value as in memory; {@link layer} provides it from Redis instead. Each process keeps its own
 * waiting line, in order; Redis decides, in one script and on its own clock, when the next one may start.
 *
 * @since 0.1.0
 * @module RedisThrottle
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { Redis } from "effect/persistence/Redis"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { askFor, type Cost } from "../internal/ask.ts"
import * as Core from "../internal/limiter.ts"
import * as Observe from "../internal/observe.ts"
import * as Plan from "../internal/plan.ts"
import * as Throttle from "../Throttle.ts"
import type { ThrottleError } from "../ThrottleError.ts"
import * as ThrottleMap from "../ThrottleMap.ts"
import * as Client from "./internal/client.ts"
import * as Fallback from "./internal/fallback.ts"
import { CurrentLease, lost } from "./internal/leases.ts"
import * as Limiter from "./internal/limiter.ts"
import { undistributable } from "./internal/rules.ts"
import { type Limiter as Shared, rest, type Settings } from "./internal/state.ts"
import { Leased, type LeasedPermit, throttleOf } from "./internal/throttle.ts"
import { channelOf } from "./internal/wakeups.ts"
import * as RedisStore from "./RedisStore.ts"
import type { ThrottleStore } from "./ThrottleStore.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Options
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What becomes of a call when the store gives no decision.
 *
 * - "fail": it fails with a `ThrottleError` whose reason is `StoreError`. The default: a quota of somebody else is kept.
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
  /** Default: "fail"; nothing else is allowed where a part counts those who run. */
  readonly onStoreError?: OnStoreError | undefined
  /**
   * How long to wait for a decision of the store. After that it counts as not made, though the permits may have been
   * spent. Default: 100 milliseconds.
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * For `concurrency`: how long permits stay with a process that is not heard of any more. They are renewed after a third
   * of it. At least 100 milliseconds; default: 10 seconds. When Redis fails, two thirds of a lease are left at least, and
   * the breaker alone takes a second: below 3 seconds a short outage may cost the work.
   */
  readonly leaseTtl?: Duration.Input | undefined
  /**
   * How long after its start a call's cost may be settled or cancelled; later, the cost that it asked for stands. At least
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
   * share a budget if prefix, name and key are equal.
   */
  readonly key: string
}

/**
 * A policy that several processes cannot share: `shadow`, `spacing` from the end, several parts on the clock.
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

const shared = ["prefix", "onStoreError", "timeout", "leaseTtl", "settleWithin"]
const known: ReadonlySet<string> = new Set(["key", ...shared])
const knownOfMap: ReadonlySet<string> = new Set(["lookup", "name", ...shared])

interface Checked {
  readonly prefix: string
  readonly onStoreError: OnStoreError
  readonly timeout: number
  readonly leaseTtl: number
  readonly settleWithin: number
}

const checked = (where: string, options: StoreOptions & { readonly key?: unknown }, names = known): Checked => {
  const { leaseTtl = "10 seconds", onStoreError = "fail", prefix = "throttle:" } = options
  const { settleWithin = "10 minutes", timeout = "100 millis" } = options
  const bad = (option: string, allowed: string, got: unknown) =>
    new RangeError(`RedisThrottle.${where}: ${option} must be ${allowed}, got ${Formatter.format(got)}`)
  for (const key of Object.keys(options)) {
    if (names.has(key)) continue
    const all = [...names].join(", ")
    throw new RangeError(`RedisThrottle.${where}: unknown option ${Formatter.format(key)}; it takes ${all}`)
  }
  if (names.has("key") && (typeof options.key !== "string" || options.key === "")) {
    throw bad("key", "a non-empty string", options.key)
  }
  if (typeof prefix !== "string" || prefix.includes("{")) throw bad("prefix", "a string without \"{\"", prefix)
  if (onStoreError !== "fail" && onStoreError !== "allow" && !isShare(onStoreError)) {
    throw bad("onStoreError", "\"fail\", \"allow\" or { local: a share above 0 and at most 1 }", onStoreError)
  }
  const millisOf = (given: Duration.Input): number =>
    typeof given === "number"
      ? given
      : Option.getOrElse(Option.map(Duration.fromInput(given), Duration.toMillis), () => NaN)
  const nanos = (option: string, allowed: string, least: number, given: Duration.Input): number => {
    const millis = millisOf(given)
    if (!(millis >= least && millis < Infinity)) throw bad(option, allowed, given)
    return millis * 1e6
  }
  const settleMillis = millisOf(settleWithin)
  if (!(settleMillis >= 1 && settleMillis < Infinity)) {
    throw new RangeError(
      `RedisThrottle.${where}: "settleWithin" must be a finite duration of at least 1 millisecond, received ` +
        Formatter.format(settleWithin)
    )
  }
  return {
    prefix,
    onStoreError,
    timeout: nanos("timeout", "a finite duration of at least 1 millisecond", 1, timeout),
    leaseTtl: nanos("leaseTtl", "a finite duration of at least 100 milliseconds", 100, leaseTtl),
    settleWithin: settleMillis * 1e6
  }
}

const isShare = (given: unknown): given is { readonly local: number } =>
  typeof given === "object" && given !== null && "local" in given && typeof given.local === "number" &&
  given.local > 0 && given.local <= 1

/** Throws a RangeError where a policy cannot be used like this. */
const checkHolding = (where: string, { data }: Throttle.Policy<any>, { onStoreError }: Checked): Plan.Plan => {
  const plan = Plan.make(data)
  if (plan.holdings.length > 0 && onStoreError !== "fail") {
    throw new RangeError(
      `RedisThrottle.${where}: onStoreError must be "fail" where a part counts those who run ` +
        `("${plan.holdings[0]!.name}"): nobody else knows how many do, got ${Formatter.format(onStoreError)}`
    )
  }
  return plan
}

const policyOf = (where: string, policy: unknown): Throttle.Policy<any> => {
  if (Throttle.isPolicy(policy)) return policy
  throw new RangeError(`RedisThrottle.${where}: a policy is needed here, got ${Formatter.format(policy)}`)
}

// ---------------------------------------------------------------------------------------------------------------------
// Throttles
// ---------------------------------------------------------------------------------------------------------------------

const distributed = (plan: Plan.Plan): Effect.Effect<Plan.Plan, NotDistributable> => {
  const why = undistributable(plan)
  return why === undefined ? Effect.succeed(plan) : Effect.fail(new NotDistributable({ throttle: plan.name, ...why }))
}

const encoded = (text: string, special: RegExp): string => text.replace(special, (one) => encodeURIComponent(one))

/**
 * The key of a budget in the store: prefix, the throttle's identity if it has one, and the key in braces. The text in the
 * first braces decides the hash slot, unless it is empty. So "{" of the name and "}" of the key are encoded, and "%"
 * stands for an empty key; ":" of the name is encoded so that no two pairs of prefix and name are the same text.
 */
const keyIn = (prefix: string, identity: string | undefined, key: string): string =>
  `${prefix}${identity === undefined ? "" : `${encoded(identity, /[%{:]/g)}:`}{${
    key === "" ? "%" : encoded(key, /[%}]/g)
  }}`

const settingsOf = (
  identity: string | undefined,
  key: string,
  { leaseTtl, prefix, settleWithin, timeout }: Checked,
  client: Client.Client,
  onStoreError: Settings["onStoreError"]
): Settings => ({
  key: keyIn(prefix, identity, key),
  channel: channelOf(prefix),
  client,
  timeout,
  ttl: leaseTtl,
  settleWithin,
  onStoreError
})

const limiterOf = (
  where: string,
  policy: Throttle.Policy<any>,
  options: Options,
  className?: string
): (client: Client.Client) => Effect.Effect<Shared, NotDistributable, Scope.Scope> => {
  const checkedOptions = checked(where, options)
  const found = checkHolding(where, policy, checkedOptions)
  const identity = policy.data.name ?? className
  const plan = identity === undefined ? found : { ...found, name: identity }
  return (client) =>
    Effect.gen(function*() {
      yield* distributed(plan)
      const { onStoreError } = checkedOptions
      const settings = settingsOf(
        identity,
        options.key,
        checkedOptions,
        client,
        typeof onStoreError === "string"
          ? onStoreError
          : yield* Fallback.make(policy.data, plan.name, onStoreError.local)
      )
      return yield* Limiter.make(plan, settings)
    })
}

/** What uses a policy inline may not know of its errors. */
const inlineOf = (limiter: Shared) => {
  const isInline = !Plan.isBounded(limiter.plan)
  return <A, E, R>(self: Effect.Effect<A, E, R>) => Limiter.begin(limiter, limiter.one, self, isInline)
}

/** One client for all throttles of a Layer graph on the same `Redis`, and so one connection for wakeups and one breaker. */
const clientOf = Effect.gen(function*() {
  const redis = yield* Redis
  const nodeOf = yield* RedisStore.NodeOf
  return yield* Client.shared(redis, () => ({ ...RedisStore.make(redis), nodeOf }))
})

/**
 * The Layer of a policy that all processes with the same key share, through Redis.
 *
 * **When to use**
 *
 * Where several processes use one quota: workers, servers behind a load balancer, jobs. In place of the policy itself at
 * the app's edge; the program does not change.
 *
 * **Details**
 *
 * Within a process calls start first come, first served; between processes each has a turn. Redis decides in one script,
 * on its own clock, so the clocks of the processes do not matter. Calls that come together are asked for in one request.
 * A call that has to wait is given a slot; interrupted while it waits, it leaves the line and the slot goes to the next.
 * Starts may come later than their instant, by the way of the answer and the lateness of a timer, never earlier.
 *
 * Used inline below this Layer, the policy value is this throttle too. An inline use of a policy without bounds has no
 * error in its type: where the store fails, it dies with the `ThrottleError`, also where the value is declared as
 * `Throttle.Policy`. Give the policy a bound, use the service, or let `onStoreError` be something else than "fail".
 *
 * For `concurrency` permits are leases: renewed while the effect runs, in a fiber of its own, which is interrupted with
 * `LeaseLost` when the lease is lost. A sliding `window` of more than 1,000 permits is kept in steps of a thousandth of its
 * length, counted at their ends: it never lets more start than in memory.
 *
 * **Errors**
 *
 * `NotDistributable` for what several processes cannot share: `shadow`, `spacing` from the end, several parts on the
 * clock. Calls fail with the reasons that they have in memory, and with `StoreError` and `LeaseLost`. Throws a
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
  const make = limiterOf("layer", policyOf("layer", policy), options)
  return Layer.effectContext(
    Effect.map(
      Effect.flatMap(clientOf, make),
      (limiter) => Throttle.provideElsewhere(policy, throttleOf(limiter), inlineOf(limiter))
    )
  ).pipe(Layer.provide(Client.layer))
}

/**
 * What a class whose policy has no bounds takes: its calls know no error, so a failing store must be none.
 *
 * @category options
 * @since 0.1.0
 */
export interface NeverFailing extends Options {
  readonly onStoreError: Exclude<OnStoreError, "fail">
}

/**
 * The Layer of a `Throttle.Service` class, with its own policy, on Redis.
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
  const make = limiterOf("layerFor", policyOf("layerFor", service.policy), options, service.key)
  return Layer.effectContext(
    Effect.map(
      Effect.flatMap(clientOf, make),
      (limiter) =>
        Throttle.provideServiceElsewhere(
          service as Throttle.ServiceClass<Self, Id, any>,
          throttleOf(limiter),
          inlineOf(limiter)
        )
    )
  ).pipe(Layer.provide(Client.layer))
}

/**
 * Makes a throttle on a store that lives until the scope closes; then those who wait are interrupted, work under a lease
 * loses it, and the store is told.
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
  const limiter = limiterOf("make", policyOf("make", policy), options)
  return Effect.map(Effect.flatMap(Client.make, limiter), throttleOf)
}

// ---------------------------------------------------------------------------------------------------------------------
// Maps
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Options of {@link makeMap} and {@link layerMap}.
 *
 * A key's budget is in Redis, under the prefix, the map's name and the key as text (so 1 and "1" are one), and expires
 * there when it is as good as new; a process remembers a key only while it waits for it or holds its permits. So there are no `maxKeys`.
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

interface Keys<K> {
  readonly limiters: Map<K, Shared>
  readonly past: Shared["counters"]
  closed: boolean
}

const addTo = (all: Shared["counters"], one: Shared["counters"]): void => {
  all.admitted += one.admitted
  all.interrupted += one.interrupted
  all.waiting += one.waiting
  all.running += one.running
  all.waited += one.waited
  all.longestWait = Math.max(all.longestWait, one.longestWait)
  for (const reason in all.rejected) {
    all.rejected[reason as Observe.Rejection] += one.rejected[reason as Observe.Rejection]
  }
}

const noCounters = (): Shared["counters"] => ({ ...Observe.counters(), waited: 0, longestWait: 0 })

const mapOn = <K extends Exclude<ThrottleMap.Key, symbol>>(
  where: string,
  options: MapOptions<K>
): (client: Client.Client) => Effect.Effect<ThrottleMap.ThrottleMap<K>, never, Scope.Scope> => {
  const checkedOptions = checked(where, options, knownOfMap)
  const { lookup, name } = options
  if (typeof lookup !== "function") {
    throw new RangeError(
      `RedisThrottle.${where}: lookup must be a function from a key to a policy, got ${Formatter.format(lookup)}`
    )
  }
  if (typeof name !== "string" || name === "") {
    throw new RangeError(
      `RedisThrottle.${where}: "name" must be a non-empty string, received ${Formatter.format(name)}`
    )
  }
  const { onStoreError } = checkedOptions
  interface Known {
    readonly plan: Plan.Plan
    /** What this process keeps while the store gives no decision. */
    readonly share: Throttle.Policy<any> | undefined
  }
  const plans = new WeakMap<Throttle.Policy<any>, Known>()
  const planOf = (key: K): Known => {
    const policy = policyOf(where, lookup(key))
    let known = plans.get(policy)
    if (known === undefined) {
      const plan = { ...checkHolding(where, policy, checkedOptions), name }
      const why = undistributable(plan)
      if (why !== undefined) throw new NotDistributable({ throttle: name, ...why })
      const share = typeof onStoreError === "string"
        ? undefined
        : Throttle.fromData(Fallback.shareOf(policy.data, onStoreError.local))
      plans.set(policy, known = { plan, share })
    }
    return known
  }
  return (client) =>
    Effect.gen(function*() {
      const context = yield* Effect.context<never>()
      const series = yield* Effect.acquireRelease(
        Effect.sync(() => Observe.acquire(context, name)),
        (series) => Effect.sync(() => Observe.release(series))
      )
      // It outlives the limiters of idle keys: what a key has used of its share is not forgotten with them.
      const shares = typeof onStoreError === "string"
        ? undefined
        : yield* ThrottleMap.make({ name, lookup: (key: K) => planOf(key).share! })
      const shared: Keys<K> = { limiters: new Map(), past: noCounters(), closed: false }
      let round = shared.limiters.values()
      /** Drops limiters that a pause has kept here, once it is over: each call looks at two. */
      const sweep = () => {
        for (let looks = 0; looks < 2; looks++) {
          const next = round.next()
          if (next.done === true) {
            round = shared.limiters.values()
            return
          }
          rest(next.value)
        }
      }
      const limiterFor = (key: K): Shared => {
        sweep()
        const found = shared.limiters.get(key)
        if (found !== undefined) return found
        const limiter: Shared = Limiter.makeUnsafe(
          planOf(key).plan,
          settingsOf(
            name,
            String(key),
            checkedOptions,
            client,
            typeof onStoreError === "string" ? onStoreError : Fallback.ofKey(shares!, key, onStoreError.local)
          ),
          context,
          series,
          () => {
            // What it has counted is the map's from now on; a call that still knows it may begin yet.
            addTo(shared.past, limiter.counters)
            Object.assign(limiter.counters, noCounters())
            if (shared.limiters.get(key) === limiter) shared.limiters.delete(key)
          }
        )
        limiter.closed = shared.closed
        shared.limiters.set(key, limiter)
        return limiter
      }
      yield* Effect.addFinalizer(() => {
        shared.closed = true
        return Effect.forEach([...shared.limiters.values()], Limiter.close, { discard: true, concurrency: "unbounded" })
      })
      return mapOf(shared, limiterFor)
    })
}

const mapOf = <K extends Exclude<ThrottleMap.Key, symbol>>(
  { limiters, past }: Keys<K>,
  limiterFor: (key: K) => Shared
): ThrottleMap.ThrottleMap<K> => {
  const use = <A, E, R>(
    key: K,
    f: (throttle: Throttle.Throttle) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      const limiter = limiterFor(key)
      return Effect.ensuring(f(throttleOf(limiter)), Effect.sync(() => rest(limiter)))
    })
  const total = () => {
    const all = noCounters()
    addTo(all, past)
    for (const { counters } of limiters.values()) addTo(all, counters)
    return all
  }
  return {
    withPermit: (key) => (self) =>
      Effect.suspend(() => {
        const limiter = limiterFor(key)
        return Limiter.begin(limiter, limiter.one, self)
      }),
    withPermits: (key, cost) => (self) =>
      Effect.suspend(() => {
        const limiter = limiterFor(key)
        return Limiter.begin(limiter, askFor(limiter.plan, cost), self)
      }),
    withPermitsIfAvailable: (key, cost) => (self) =>
      use(key, (throttle) => throttle.withPermitsIfAvailable(self, cost)),
    wait: (key, cost) => use(key, (throttle) => throttle.wait(cost)),
    takeScoped: (key, cost) => use(key, (throttle) => throttle.takeScoped(cost)),
    usePermits: (key, cost) => (f) => use(key, (throttle) => throttle.usePermits(f, cost)),
    nextAvailable: (key, cost?: Cost) => use(key, (throttle) => throttle.nextAvailable(cost)),
    pause: (key, duration) => use(key, (throttle) => throttle.pause(duration)),
    resume: (key) => use(key, (throttle) => throttle.resume),
    update: (key, policy) => use(key, (throttle) => throttle.update(policy)),
    statistics: Effect.suspend(() => {
      limiters.forEach(rest)
      return Effect.map(Core.statistics({ counters: total() }), (statistics) => ({
        ...statistics,
        keys: limiters.size,
        keysRefused: 0,
        keysEvicted: 0
      }))
    }),
    statisticsOf: (key) =>
      Effect.suspend(() => Core.statistics({ counters: limiters.get(key)?.counters ?? noCounters() }))
  }
}

/**
 * A map of throttles on a store: a budget a key, shared by all processes, that lives until the scope closes.
 *
 * **Errors**
 *
 * As {@link layer}; a `lookup` that gives a policy which cannot be shared is a defect of the call.
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
  Effect.flatMap(Client.make, mapOn("makeMap", options))

/**
 * The Layer of a `ThrottleMap.Service` class on Redis, with its own `lookup` unless another is given. Its `maxKeys` and
 * `onFull` are those of one process's memory and do not count here.
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
  const make = mapOn("layerMap", { lookup, name, ...options })
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
   * The fencing number: larger than that of whoever held these permits before. Hand it to what the work writes to, and let
   * that refuse smaller ones than it has seen; then a process that was asleep while its lease ran out can do no harm. It
   * outlives a lost key, unless the server's clock goes back.
   */
  readonly fence: number
  /** Fails with `LeaseLost` as soon as the lease is lost. */
  readonly lost: Effect.Effect<never, ThrottleError>
}

/**
 * The fencing number of the lease under which this effect runs, if it does: within `withPermit`, `withPermits`,
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
 * The lease of a permit that is held for a scope; none where nothing is leased. Work under it is not interrupted by itself
 * when the lease is lost: race it with `lost`.
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
  const leased = (permit as LeasedPermit)[Leased]
  return leased === undefined ? Option.none() : Option.some({
    fence: leased.lease.fence,
    lost: lost(leased.limiter, leased.lease, false)
  })
}

// ---------------------------------------------------------------------------------------------------------------------
// The client, and seeing it
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What a node-redis client should be told.
 *
 * @category options
 * @since 0.1.0
 */
export interface ClientPreset {
  /** While there is no connection, commands fail at once. By default they queue up and are sent when nobody waits. */
  readonly disableOfflineQueue: true
  readonly socket: {
    /** Again after 25, 50, … at most 250 ms; by default a healed connection goes unnoticed for up to 2 s. */
    readonly reconnectStrategy: (retries: number, cause: Error) => number | Error
  }
}

/**
 * The Layer of a Redis client as a throttle needs it: it fails fast while there is no connection, and is back within a
 * quarter of a second. The first connection must succeed, or building the Layer fails.
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
 * The metrics of all stores, beside `Throttle.metrics`, which count here as in memory.
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
export const metrics = { requests: Client.decisions, fallbacks: Client.fallbacks } as const

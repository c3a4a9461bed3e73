/**
 * Types of a map of throttles. `ThrottleMap.ts` exports them.
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { ThrottleError } from "../../ThrottleError.ts"
import type * as Counts from "../counts.ts"
import type { Cost, Permit, Policy, Remaining, Throttle } from "../service.ts"

/**
 * A key that is a plain value. Other values may be keys too: keys are compared by `Equal` and `Hash`.
 *
 * @category models
 * @since 0.1.0
 */
export type Key = string | number | bigint | boolean | symbol

/**
 * Options of a map.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<K> {
  /**
   * Returns the policy of a key. It is called whenever the key has nothing spent, held or waiting, so a change applies
   * from the next such call on. Return policy values made once, outside: each value of its own takes some kilobytes.
   */
  readonly lookup: (key: K) => Policy<any>
  /** Maximum number of remembered keys. An integer ≥ 1. Default: no bound. */
  readonly maxKeys?: number | undefined
  /**
   * The result for a new key when there are `maxKeys`. "refuse": its call fails with `KeysExhausted` until a key can be
   * dropped, because its state equals the initial state. "evict": the idle key that was used longest ago is dropped,
   * and its spent budget with it; keys with waiting calls, held permits or a pause are not idle, and if no key is, the
   * call fails. Default: "refuse".
   */
  readonly onFull?: "refuse" | "evict" | undefined
  /** The map's name in logs, metrics and errors. Default: "throttleMap", or the key of the Service class. */
  readonly name?: string | undefined
}

/**
 * The numbers of all keys together.
 *
 * @see {@link ThrottleMap}, whose `statistics` returns them
 * @category models
 * @since 0.1.0
 */
export interface Statistics extends Counts.Statistics {
  /** Keys remembered now. */
  readonly keys: number
  /** Calls rejected because the map had no room for their key. */
  readonly keysRefused: number
  /** Keys evicted before their state was the initial one again. */
  readonly keysEvicted: number
}

/**
 * The operations of a map for each key, and the statics of a {@link Service} class. `R` is the required service (none
 * for a map at hand). Each is the operation of the key's throttle, {@link ThrottleMap.get}, in its data-last form.
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyedOperations<in K, out R> {
  /** Runs the piped effect once the key's throttle grants one permit, first come, first served within the key. */
  readonly withPermit: (
    key: K
  ) => <A, E, R1>(self: Effect.Effect<A, E, R1>) => Effect.Effect<A, E | ThrottleError, R1 | R>
  /** Runs the piped effect once the key's throttle grants its cost, first come, first served within the key. */
  readonly withPermits: (
    key: K,
    cost: Cost
  ) => <A, E, R1>(self: Effect.Effect<A, E, R1>) => Effect.Effect<A, E | ThrottleError, R1 | R>
  /** Runs the piped effect only if no wait is needed; otherwise returns `Option.none()`. */
  readonly withPermitsIfAvailable: (
    key: K,
    cost: Cost
  ) => <A, E, R1>(self: Effect.Effect<A, E, R1>) => Effect.Effect<Option.Option<A>, E | ThrottleError, R1 | R>
  /** Waits until a call of the key may start, and holds nothing. Default: one permit. */
  readonly wait: (key: K, cost?: Cost) => Effect.Effect<void, ThrottleError, R>
  /**
   * Charges a call of the key now if it may start at once, and returns whether it did; never waits. Default: one permit.
   * Fails with `KeysExhausted` if there is no room for the key.
   */
  readonly allow: (key: K, cost?: Cost) => Effect.Effect<boolean, ThrottleError, R>
  /** Takes permits of the key and holds them until the scope closes. Default: one permit. */
  readonly takeScoped: (
    key: K,
    cost?: Cost
  ) => Effect.Effect<Permit, ThrottleError, R | Scope.Scope>
  /** Takes permits of the key, then runs the effect that a function makes of the {@link Permit}. */
  readonly usePermits: (
    key: K,
    cost: Cost
  ) => <A, E, R1>(
    use: (permit: Permit) => Effect.Effect<A, E, R1>
  ) => Effect.Effect<A, E | ThrottleError, R1 | R>
  /**
   * Estimates how long a call of the key would wait, if there is room for the key. Takes nothing. Default: one permit.
   */
  readonly estimateWait: (
    key: K,
    cost?: Cost
  ) => Effect.Effect<Option.Option<Duration.Duration>, never, R>
  /** Returns what is left of each part of the key's policy. Takes nothing, and makes the map remember nothing. */
  readonly remaining: (key: K) => Effect.Effect<ReadonlyArray<Remaining>, never, R>
  /**
   * Lets no call of the key start for a duration, waiting ones included; the key is remembered until then. Fails with
   * `KeysExhausted` if there is no room for the key.
   */
  readonly pause: (key: K, duration: Duration.Input) => Effect.Effect<void, ThrottleError, R>
  /** Ends a pause of the key. */
  readonly resume: (key: K) => Effect.Effect<void, never, R>
  /**
   * Replaces the policy of a key that has something spent, held or waiting; what is spent stays spent, as with
   * `Throttle.update`. Once nothing of that is left, `lookup` returns the policy again, so a lasting change belongs
   * there. Does nothing for any other key. Dies with a `RangeError` for a value that is not a policy.
   */
  readonly update: (key: K, policy: Policy<any>) => Effect.Effect<void, never, R>
  /**
   * Forgets what a key has spent and owes; its held permits, waiting calls and pause stay, as with `Throttle.reset`.
   * Does nothing for a key that the map does not remember.
   */
  readonly reset: (key: K) => Effect.Effect<void, never, R>
  /** Returns the numbers of all keys together. */
  readonly statistics: Effect.Effect<Statistics, never, R>
  /**
   * Returns the numbers of a key since its calls began to wait or hold permits, or it was paused; zeros if none of that
   * is the case.
   */
  readonly statisticsOf: (key: K) => Effect.Effect<Counts.Statistics, never, R>
  /**
   * Refuses newcomers of every key with the reason `Draining`, and lets the calls of all keys that wait or run finish; at
   * the deadline, if there is one, it interrupts the rest. Returns the number of calls that it interrupted. The map keeps
   * refusing newcomers. See `Throttle.drain`.
   *
   * @since 0.2.0
   */
  readonly drain: (deadline?: Duration.Input) => Effect.Effect<number, never, R>
  /**
   * Drains one key, as `drain` does for all, and refuses newcomers of the key until its calls have ended. A key without
   * waiting and running calls is left as it is, and a pause of the key lasts: what refuses a key for good is a policy of
   * `lookup`.
   *
   * @since 0.2.0
   */
  readonly drainOf: (key: K, deadline?: Duration.Input) => Effect.Effect<number, never, R>
  /**
   * Waits until no call of any key waits or holds permits.
   *
   * @since 0.2.0
   */
  readonly awaitIdle: Effect.Effect<void, never, R>
  /**
   * Waits until no call of the key waits or holds permits.
   *
   * @since 0.2.0
   */
  readonly awaitIdleOf: (key: K) => Effect.Effect<void, never, R>
  /**
   * Waits until at least `n` calls of the key wait. Dies with a `RangeError` if `n` is not an integer ≥ 1.
   *
   * @since 0.2.0
   */
  readonly awaitQueue: (key: K, n: number) => Effect.Effect<void, never, R>
}

/**
 * A map of throttles: each key has a budget and a queue of its own.
 *
 * **When to use**
 *
 * For a limit that applies to each host, chat, tenant or user separately.
 *
 * **Details**
 *
 * A key is remembered from its first call on, and dropped when its state equals the initial state: no call waits,
 * nothing is held, and its meters have recovered. Each call examines two keys for that, without timers. An idle key of
 * one time-based part takes about 200 bytes. Within a key the guarantees are those of a single throttle: calls start
 * first come, first served, are charged when they start, and an interrupted waiting call is charged nothing. Keys do
 * not wait for each other.
 *
 * **Errors**
 *
 * `ThrottleError`: the reasons of a single throttle, and `KeysExhausted` if the map has no room for a key.
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
 * @see {@link Service} for a class of it
 * @category models
 * @since 0.1.0
 */
export interface ThrottleMap<in K> extends KeyedOperations<K, never> {
  /**
   * Returns the throttle of a key, with every operation in both argument orders.
   *
   * It is a view that keeps nothing alive, so it may be kept or made for each call. Its `statistics` are those of
   * `statisticsOf`. Its `pause` has no effect if the map has no room for the key, whereas the map's own `pause` fails.
   */
  readonly get: (key: K) => Throttle
}

/**
 * Types of a throttle: the cost of a call, the operations, the service's key, and a policy. `Throttle.ts` exports them.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Types from "effect/Types"
import type { ThrottleError } from "../ThrottleError.ts"
import type * as Counts from "./counts.ts"
import type { PolicyData } from "./data/schema.ts"
import type { Cost as AnyCost } from "./demand.ts"
import type { PartRemaining } from "./remaining.ts"

/**
 * The cost of a call: a number of permits, or an amount for each unit.
 *
 * **Details**
 *
 * A part with `unit: "tokens"` is charged `cost.tokens`, by default 0. A part without a unit is charged `cost.permits`,
 * by default 1. Amounts are integers ≥ 0. A part that is charged 0 neither delays the call nor is charged.
 *
 * **Errors**
 *
 * A unit that no part counts is a defect: the call dies with a `RangeError` that lists the known units. If the compiler
 * knows the units `U`, as in a {@link Service} class, such a cost does not compile.
 *
 * @category models
 * @since 0.1.0
 */
export type Cost<U extends string = any> = string extends U ? AnyCost
  : ("permits" extends U ? number : never) | { readonly [unit in U]?: number }

/**
 * Permits that are held until a scope closes or an effect ends, and whose cost may be settled until then.
 *
 * **Details**
 *
 * Only the first `settle` or `cancel` has an effect, and none after the permits are released. Without one of them the
 * call has cost what it requested, also if it fails or is interrupted. `U` is the units in which it may be settled.
 *
 * @see {@link takeScoped} and {@link usePermits}, which return one
 * @category models
 * @since 0.1.0
 */
export interface Permit<U extends string = any> {
  /** The requested cost. */
  readonly cost: Cost
  /**
   * Replaces the requested cost with the actual one, in each time-based part.
   *
   * More is charged on top, even above a part's capacity, and delays later calls, never this one. Less is refunded, as
   * if it had never been charged; waiting calls that may now start do so at once. Units that are absent stay as
   * requested. Held permits are not settled: all of them are released at the end. Dies with a `RangeError` for an
   * invalid cost; then the permit can still be settled.
   */
  readonly settle: (actual: Cost<U>) => Effect.Effect<void>
  /** Refunds everything the call was charged, and releases its permits at once, as if it had never been admitted. */
  readonly cancel: Effect.Effect<void>
}

/**
 * The numbers of a throttle: calls admitted, rejected and interrupted so far, calls waiting and running now, and waits.
 *
 * @see {@link statistics}, which returns them
 * @category models
 * @since 0.1.0
 */
export type Statistics = Counts.Statistics

/**
 * What is left of one part of a policy: its `name`, `unit` and `kind`, the `limit` and how much of it is `remaining`
 * now, the time until more is left (`untilMore`) and until all is left again (`untilFull`), if no other call comes.
 *
 * **Details**
 *
 * `kind` is "rate" for `rate` and `tokenBucket`, "sliding" or "fixed" for `window`, "spacing" or "concurrency". `limit`
 * is the most that can be left: the capacity of a bucket, the limit of a window, 1 for spacing. `remaining` is what
 * could start now, all at once, as far as this part decides. A time is undefined if it depends on the end of a running
 * call or of a pause without an end, and while newcomers are refused; `untilFull` is zero, and `untilMore` undefined, if
 * all is left.
 *
 * @see {@link remaining}, which returns it for each part
 * @category models
 * @since 0.2.0
 */
export interface Remaining extends PartRemaining {}

/**
 * Both forms of {@link withPermits}: of the module, of a throttle and of a {@link Service} class. `R` is the required
 * service (none for a throttle at hand), `U` the units that a cost may name.
 *
 * @category models
 * @since 0.1.0
 */
export interface WithPermitsForms<R = never, U extends string = any> {
  /**
   * Runs the piped effect once the throttle grants its {@link Cost}: a number of permits, or an amount for each unit.
   *
   * **Details**
   *
   * Calls start first come, first served: light calls do not overtake a heavy one at the head of the queue. A call that
   * is interrupted while it waits leaves the queue and is charged nothing. Permits of concurrency are released when the
   * effect ends in any way. A call of cost 0 waits for its turn in the queue and is charged nothing.
   *
   * **Errors**
   *
   * `ThrottleError`: `PermitsExceedCapacity` at once for more than the policy can ever grant; `QueueFull`,
   * `WaitTooLong` or `TimedOut` if the policy has that bound. Dies with a `RangeError` for an amount that is not an
   * integer ≥ 0, and for a unit that no part counts.
   */
  (cost: Cost<U>): <A, E, R1>(self: Effect.Effect<A, E, R1>) => Effect.Effect<A, E | ThrottleError, R1 | R>
  /**
   * Runs an effect once the throttle grants its {@link Cost}: a number of permits, or an amount for each unit.
   * `withPermits(effect, 3)` is `effect.pipe(withPermits(3))`.
   *
   * Calls start first come, first served. A call that is interrupted while it waits is charged nothing. Permits of
   * concurrency are released when the effect ends. Fails with `ThrottleError`: `PermitsExceedCapacity`, and the reasons
   * of the policy's bounds. Dies with a `RangeError` for an invalid cost.
   */
  <A, E, R1>(self: Effect.Effect<A, E, R1>, cost: Cost<U>): Effect.Effect<A, E | ThrottleError, R1 | R>
}

/**
 * Both forms of {@link withPermitsIfAvailable}; `R` and `U` as in {@link WithPermitsForms}.
 *
 * @category models
 * @since 0.1.0
 */
export interface WithPermitsIfAvailableForms<R = never, U extends string = any> {
  /**
   * Runs the piped effect only if no wait is needed, and returns its value as `Option.some`; otherwise returns
   * `Option.none()` and runs nothing.
   *
   * It never overtakes waiting calls, and is charged only if it starts. Fails with `PermitsExceedCapacity` for more
   * than the policy can ever grant. Dies with a `RangeError` for an invalid cost, as {@link withPermits} does.
   */
  (
    cost: Cost<U>
  ): <A, E, R1>(self: Effect.Effect<A, E, R1>) => Effect.Effect<Option.Option<A>, E | ThrottleError, R1 | R>
  /**
   * Runs an effect only if no wait is needed, and returns its value as `Option.some`; otherwise returns `Option.none()`
   * and runs nothing.
   *
   * It never overtakes waiting calls, and is charged only if it starts. Fails with `PermitsExceedCapacity` for more
   * than the policy can ever grant. Dies with a `RangeError` for an invalid cost, as {@link withPermits} does.
   */
  <A, E, R1>(
    self: Effect.Effect<A, E, R1>,
    cost: Cost<U>
  ): Effect.Effect<Option.Option<A>, E | ThrottleError, R1 | R>
}

/**
 * Both forms of {@link usePermits}; `R` and `U` as in {@link WithPermitsForms}.
 *
 * @category models
 * @since 0.1.0
 */
export interface UsePermitsForms<R = never, U extends string = any> {
  /**
   * Takes permits, then runs the effect that a function makes of the {@link Permit}. The permit may be settled for the
   * actual cost until that effect ends.
   *
   * For costs that can only be estimated: tokens of a language model, points of an API, bytes of a response. A call
   * that fails or is interrupted before it is settled has cost what it requested. Waits, fails and dies as {@link
   * withPermits}.
   */
  (
    cost: Cost<U>
  ): <A, E, R1>(
    use: (permit: Permit<U>) => Effect.Effect<A, E, R1>
  ) => Effect.Effect<A, E | ThrottleError, R1 | R>
  /**
   * Takes permits, then runs the effect that a function makes of the {@link Permit}. The permit may be settled for the
   * actual cost until that effect ends.
   *
   * A call that fails or is interrupted before it is settled has cost what it requested. Waits, fails and dies as
   * {@link withPermits}.
   */
  <A, E, R1>(
    use: (permit: Permit<U>) => Effect.Effect<A, E, R1>,
    cost: Cost<U>
  ): Effect.Effect<A, E | ThrottleError, R1 | R>
}

/**
 * The operations of a throttle, which are also those of this module and the statics of a {@link Service} class.
 *
 * `E` is the error that `withPermit` adds, `R` the required service (none for a throttle at hand), `U` the units that a
 * cost may name.
 *
 * @category models
 * @since 0.1.0
 */
export interface Operations<E, R, U extends string = any> {
  /** Runs an effect once the throttle grants one permit, first come, first served. See {@link withPermit}. */
  readonly withPermit: <A, E1, R1>(self: Effect.Effect<A, E1, R1>) => Effect.Effect<A, E1 | E, R1 | R>
  /** Runs an effect once the throttle grants its cost. See {@link withPermits}. */
  readonly withPermits: WithPermitsForms<R, U>
  /** Runs an effect only if no wait is needed. See {@link withPermitsIfAvailable}. */
  readonly withPermitsIfAvailable: WithPermitsIfAvailableForms<R, U>
  /**
   * Waits until a call of this cost may start, charges it and holds nothing. Default: one permit. Dies with a
   * `RangeError` if a part limits running calls: use `takeScoped` there. See {@link wait}.
   */
  readonly wait: (cost?: Cost<U>) => Effect.Effect<void, ThrottleError, R>
  /**
   * Charges a call of this cost now if it may start at once, and returns whether it did; never waits and holds nothing.
   * Default: one permit. Dies with a `RangeError` if a part limits running calls. See {@link allow}.
   */
  readonly allow: (cost?: Cost<U>) => Effect.Effect<boolean, ThrottleError, R>
  /** Takes permits and holds them until the scope closes. Default: one permit. See {@link takeScoped}. */
  readonly takeScoped: (cost?: Cost<U>) => Effect.Effect<Permit<U>, ThrottleError, R | Scope.Scope>
  /** Takes permits, then runs the effect that a function makes of the {@link Permit}. See {@link usePermits}. */
  readonly usePermits: UsePermitsForms<R, U>
  /**
   * Estimates how long a call of this cost would wait if it came now; `Option.none()` if that is unknown. Takes
   * nothing. Default: one permit. See {@link estimateWait}.
   */
  readonly estimateWait: (cost?: Cost<U>) => Effect.Effect<Option.Option<Duration.Duration>, never, R>
  /** Returns what is left of each part of the policy for calls that come now. Takes nothing. See {@link remaining}. */
  readonly remaining: Effect.Effect<ReadonlyArray<Remaining>, never, R>
  /** Lets no call start for a duration, waiting calls included. See {@link pause}. */
  readonly pause: (duration: Duration.Input) => Effect.Effect<void, never, R>
  /** Ends a pause. See {@link resume}. */
  readonly resume: Effect.Effect<void, never, R>
  /**
   * Replaces the throttle's policy; what is spent stays spent. The new policy must not add errors if the present one
   * adds none, and must count the units that calls may name. See {@link update}.
   */
  readonly update: (policy: Policy<E, U>) => Effect.Effect<void, never, R>
  /** Forgets what is spent and owed; held permits, waiting calls and a pause stay. See {@link reset}. */
  readonly reset: Effect.Effect<void, never, R>
  /** Returns the numbers of the throttle. See {@link statistics}. */
  readonly statistics: Effect.Effect<Statistics, never, R>
  /**
   * Refuses newcomers with the reason `Draining`, and lets the calls that wait or run finish; at the deadline, if there
   * is one, it interrupts the rest. Returns the number of calls that it interrupted. See {@link drain}.
   *
   * @since 0.2.0
   */
  readonly drain: (deadline?: Duration.Input) => Effect.Effect<number, never, R>
  /**
   * Waits until no call waits or holds permits. See {@link awaitIdle}.
   *
   * @since 0.2.0
   */
  readonly awaitIdle: Effect.Effect<void, never, R>
  /**
   * Waits until at least `n` calls wait. Dies with a `RangeError` if `n` is not an integer ≥ 1. See {@link awaitQueue}.
   *
   * @since 0.2.0
   */
  readonly awaitQueue: (n: number) => Effect.Effect<void, never, R>
}

/**
 * A throttle: the runtime state of one policy, with one queue.
 *
 * **When to use**
 *
 * Require this service in code that leaves the policy to the app, and provide a policy at the app's edge. In an app
 * with several throttles define a class for each with {@link Service}.
 *
 * **Details**
 *
 * Calls start first come, first served, whatever they cost. A call is charged when it starts, not when it arrives, and
 * runs in the caller's own fiber. Interrupted while it waits, it leaves the queue and is charged nothing; interrupted
 * while it runs, it releases its permits. When the throttle's scope closes, waiting calls and all later ones are
 * interrupted.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const fetchTeam = (id: string) => Effect.succeed(`team ${id}`).pipe(Throttle.withPermit)
 *
 * const program = Effect.forEach(["a", "b"], fetchTeam, { concurrency: "unbounded" })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 30, per: "1 second", burst: 5 }))))
 * ```
 *
 * @see {@link make} to make one
 * @see {@link inline} for the throttle of inline use
 * @category models
 * @since 0.1.0
 */
export interface Throttle extends Operations<ThrottleError, never> {}

/**
 * The service key of the generic throttle.
 *
 * @see {@link Service} for a class with a key of its own
 * @category services
 * @since 0.1.0
 */
export const Throttle: Context.Service<Throttle, Throttle> = Context.Service<Throttle>("effect-throttle/Throttle")

export const TypeId = "~effect-throttle/Policy"

/**
 * A throttling policy: a function that throttles an effect, and the Layer of a {@link Throttle}.
 *
 * `E` is the error that it adds to an effect: `never` without bounds, `ThrottleError` with them. `U` is the units that
 * it counts: "permits", unless each part has a `unit` of its own; `any` if the compiler does not know them.
 *
 * **Details**
 *
 * A policy is a description. The limiter that counts calls is made
 *
 * - when its Layer is built: one limiter for each build, on the Clock of the fiber that builds it;
 * - at the first inline use where the policy is not provided: one limiter for each policy value and Clock. Programs on
 *   the live clock share it; each test with its own TestClock has a new one.
 *
 * Inline use where the same policy value is provided uses the provided limiter.
 *
 * **Gotchas**
 *
 * Make a policy once, outside the function that uses it. `(id) => get(id).pipe(Throttle.rate({ limit: 1 }))` makes a
 * limiter for each call, and throttles nothing.
 *
 * @see {@link inline} for the throttle of inline use
 * @category models
 * @since 0.1.0
 */
export interface Policy<out E = ThrottleError, in U extends string = any> extends Layer.Layer<Throttle> {
  /**
   * Runs the effect once this policy grants one permit: in the limiter of its Layer if that is provided, otherwise in
   * that of the current Clock.
   */
  <A, E1, R>(self: Effect.Effect<A, E1, R>): Effect.Effect<A, E1 | E, R>
  readonly [TypeId]: { readonly _E: Types.Covariant<E>; readonly _U: Types.Contravariant<U> }
  /** The policy as data: JSON, durations in milliseconds, defaults filled in. */
  readonly data: PolicyData
}

/**
 * Tests whether a value is a policy.
 *
 * @category guards
 * @since 0.1.0
 */
export const isPolicy = (u: unknown): u is Policy<ThrottleError> => Predicate.hasProperty(u, TypeId)

/**
 * The error that a policy adds to an effect.
 *
 * @category models
 * @since 0.1.0
 */
export type ErrorOf<P> = P extends Policy<infer E> ? E : never

/**
 * The units that a policy counts.
 *
 * @category models
 * @since 0.1.0
 */
export type UnitOf<P> = P extends Policy<any, infer U> ? U : never

/**
 * The units that an {@link all} of these policies counts; `U` is the unit of its parts without a unit.
 *
 * @category models
 * @since 0.1.0
 */
export type UnitsOfAll<P, U extends string = "permits"> = [P] extends [never] ? string
  : "permits" extends UnitOf<P> ? Exclude<UnitOf<P>, "permits"> | U
  : UnitOf<P>

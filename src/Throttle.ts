/**
 * Decides when an effect may start, and how many may run.
 *
 * A policy ({@link rate}, {@link tokenBucket}, {@link window}, {@link concurrency}, {@link spacing}, {@link none}, or
 * several of them in {@link all}) is a value, made once. Piped, it throttles that effect. It is also a Layer: code deep
 * inside asks for the {@link Throttle} service, the edge of the app provides the policy.
 *
 * If you know Effect's `Semaphore`, you know this module: the same verbs, with time added.
 *
 * @since 0.1.0
 * @module
 */
import * as Clock from "effect/Clock"
import type * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import * as Inspectable from "effect/Inspectable"
import * as Layer from "effect/Layer"
import type * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Types from "effect/Types"
import { type Ask, askActual, askFor, type Cost as AskedCost } from "./internal/ask.ts"
import * as Limiter from "./internal/limiter.ts"
import * as Observe from "./internal/observe.ts"
import * as Plan from "./internal/plan.ts"
import * as Settle from "./internal/settle.ts"
import * as State from "./internal/state.ts"
import * as Time from "./internal/time.ts"
import * as Update from "./internal/update.ts"
import * as PolicyModule from "./Policy.ts"
import type { ThrottleError } from "./ThrottleError.ts"

// ---------------------------------------------------------------------------------------------------------------------
// The service
// ---------------------------------------------------------------------------------------------------------------------

/**
 * What a call costs: a number of permits, or an amount for each unit.
 *
 * A part with `unit: "tokens"` is charged `cost.tokens`, or 0 if that is missing; a part without a unit is charged
 * `cost.permits`, or 1 if that is missing. Amounts are whole numbers of at least 0. A part that is charged 0 neither
 * delays the call nor is charged. A unit that no part counts is a mistake in the program: the call dies with a
 * `RangeError` that names the units known. Where the compiler knows the units, as in a {@link Service} class, `U` is
 * them, and such a cost does not compile.
 *
 * @category models
 * @since 0.1.0
 */
export type Cost<U extends string = any> = string extends U ? AskedCost
  : ("permits" extends U ? number : never) | { readonly [unit in U]?: number }

/**
 * Permits that are held until a scope closes, and may be settled until then.
 *
 * **Details**
 *
 * The first `settle` or `cancel` counts; later ones, and those after the scope has closed, change nothing. Without one of
 * them what was asked for stands: also when the call fails or is interrupted.
 *
 * `U` is the units in which it may be settled.
 *
 * @see {@link takeScoped} and {@link usePermits} for where it comes from
 * @category models
 * @since 0.1.0
 */
export interface Permit<U extends string = any> {
  /** What was asked for. */
  readonly cost: Cost
  /**
   * Charges what the call has cost over what was asked for, or returns what it has cost less, to each timing part; calls
   * that may start by that start. What is charged above the capacity delays those to come, never the call itself. What is
   * returned is what would still be there had it never been charged. Permits that are held are not settled: all of them
   * come back at the end. A unit that is not named stays as it was asked for. Dies with a `RangeError` for a cost that makes no sense, and is then still to be settled.
   */
  readonly settle: (actual: Cost<U>) => Effect.Effect<void>
  /** As if the call had never been let in: returns all it was charged, and gives back what it holds at once. */
  readonly cancel: Effect.Effect<void>
}

/**
 * What a throttle has done so far, and who waits and runs now.
 *
 * @see {@link statistics} for where it comes from
 * @category models
 * @since 0.1.0
 */
export type Statistics = Limiter.Statistics

/**
 * The two forms of {@link withPermits}, of the module, of a throttle and of a {@link Service} class. `R` is the service that
 * is required (none for a throttle at hand), `U` the units that a cost may name.
 *
 * @category models
 * @since 0.1.0
 */
export interface WithPermitsForms<R = never, U extends string = any> {
  /**
   * Runs the piped effect when the throttle grants its {@link Cost}: a number of permits, or an amount for each unit.
   *
   * **Details**
   *
   * Calls start first come, first served: a heavy call at the head of the line is not overtaken by light ones. Interrupted
   * while it waits, a call leaves the line and has cost nothing; permits of concurrency come back when the effect ends in
   * any way. Cost 0 asks without taking: it waits its place in line and is charged nothing.
   *
   * **Errors**
   *
   * `ThrottleError`: `PermitsExceedCapacity` at once for more than the policy can ever grant, and `QueueFull`,
   * `WaitTooLong` or `TimedOut` where the policy has these bounds. Dies with a `RangeError` for a cost that is not a whole
   * number, is negative, or is in a unit that no part counts.
   */
  (cost: Cost<U>): <A, E, R1>(self: Effect.Effect<A, E, R1>) => Effect.Effect<A, E | ThrottleError, R1 | R>
  /**
   * Runs an effect when the throttle grants its {@link Cost}: a number of permits, or an amount for each unit. The same as
   * the form to be piped: `withPermits(effect, 3)` is `effect.pipe(withPermits(3))`.
   *
   * First come, first served; an interrupted call has cost nothing; permits of concurrency come back when the effect ends.
   * Fails with `ThrottleError` (`PermitsExceedCapacity`, and the reasons of the policy's bounds), and dies with a
   * `RangeError` for a cost that makes no sense.
   */
  <A, E, R1>(self: Effect.Effect<A, E, R1>, cost: Cost<U>): Effect.Effect<A, E | ThrottleError, R1 | R>
}

/**
 * The two forms of {@link withPermitsIfAvailable}; `R` and `U` as in {@link WithPermitsForms}.
 *
 * @category models
 * @since 0.1.0
 */
export interface WithPermitsIfAvailableForms<R = never, U extends string = any> {
  /**
   * Runs the piped effect if the throttle can grant its cost now, and returns its value as `Option.some`; otherwise returns
   * `Option.none()` without having run anything.
   *
   * It never waits, never overtakes calls that do, and is charged only if it starts. Fails with `PermitsExceedCapacity` for
   * more than the policy can ever grant. Dies with a `RangeError` for a cost that makes no sense, as {@link withPermits}.
   */
  (
    cost: Cost<U>
  ): <A, E, R1>(self: Effect.Effect<A, E, R1>) => Effect.Effect<Option.Option<A>, E | ThrottleError, R1 | R>
  /**
   * Runs an effect if the throttle can grant its cost now, and returns its value as `Option.some`; otherwise returns
   * `Option.none()` without having run anything. The same as the form to be piped.
   *
   * It never waits, never overtakes calls that do, and is charged only if it starts. Fails with `PermitsExceedCapacity` for
   * more than the policy can ever grant. Dies with a `RangeError` for a cost that makes no sense, as {@link withPermits}.
   */
  <A, E, R1>(
    self: Effect.Effect<A, E, R1>,
    cost: Cost<U>
  ): Effect.Effect<Option.Option<A>, E | ThrottleError, R1 | R>
}

/**
 * The two forms of {@link usePermits}; `R` and `U` as in {@link WithPermitsForms}.
 *
 * @category models
 * @since 0.1.0
 */
export interface UsePermitsForms<R = never, U extends string = any> {
  /**
   * Takes the cost, then runs the effect that a function makes of the {@link Permit}, which may be settled for what the call
   * has really cost until that effect ends.
   *
   * For estimates: tokens of a language model, points of an API, bytes of an answer. A call that fails or is interrupted
   * before it was settled has cost what was asked for. Waiting, errors and defects are those of {@link withPermits}.
   */
  (
    cost: Cost<U>
  ): <A, E, R1>(
    use: (permit: Permit<U>) => Effect.Effect<A, E, R1>
  ) => Effect.Effect<A, E | ThrottleError, R1 | R>
  /**
   * Takes the cost, then runs the effect that a function makes of the {@link Permit}, which may be settled for what the call
   * has really cost until that effect ends. The same as the form that takes the cost first.
   *
   * A call that fails or is interrupted before it was settled has cost what was asked for. Waiting, errors and defects are
   * those of {@link withPermits}.
   */
  <A, E, R1>(
    use: (permit: Permit<U>) => Effect.Effect<A, E, R1>,
    cost: Cost<U>
  ): Effect.Effect<A, E | ThrottleError, R1 | R>
}

/**
 * The operations of a throttle: those of the service {@link Throttle}, and the statics of a {@link Service} class.
 *
 * `E` is what `withPermit` adds to the errors, `R` the service that is required (none for a throttle at hand), `U` the units
 * that a cost may name.
 *
 * @category models
 * @since 0.1.0
 */
export interface Operations<E, R, U extends string = any> {
  /** Runs an effect when the throttle grants one permit, first come, first served; see {@link withPermit}. */
  readonly withPermit: <A, E1, R1>(self: Effect.Effect<A, E1, R1>) => Effect.Effect<A, E1 | E, R1 | R>
  /** Runs an effect when the throttle grants its cost; see {@link withPermits}. */
  readonly withPermits: WithPermitsForms<R, U>
  /** Runs an effect now or not at all; see {@link withPermitsIfAvailable}. */
  readonly withPermitsIfAvailable: WithPermitsIfAvailableForms<R, U>
  /**
   * Waits for the turn and holds nothing; costs one permit by default. Dies where a part counts running calls: there use
   * `takeScoped`. See {@link wait}.
   */
  readonly wait: (cost?: Cost<U>) => Effect.Effect<void, ThrottleError, R>
  /** Takes permits, one by default, and holds them until the scope closes; see {@link takeScoped}. */
  readonly takeScoped: (cost?: Cost<U>) => Effect.Effect<Permit<U>, ThrottleError, R | Scope.Scope>
  /** Holds permits while the function's effect runs, and settles them there; see {@link usePermits}. */
  readonly usePermits: UsePermitsForms<R, U>
  /**
   * Estimates how long this cost, one permit by default, would have to wait if it were asked now; `Option.none()` where
   * that cannot be known. Takes nothing. See {@link nextAvailable}.
   */
  readonly nextAvailable: (cost?: Cost<U>) => Effect.Effect<Option.Option<Duration.Duration>, never, R>
  /** Lets no call start for so long, those in line included; pauses only lengthen. See {@link pause}. */
  readonly pause: (duration: Duration.Input) => Effect.Effect<void, never, R>
  /** Ends a pause; see {@link resume}. */
  readonly resume: Effect.Effect<void, never, R>
  /**
   * Gives the throttle new limits; what is spent stays spent. The policy must not be able to fail where uses of the throttle
   * cannot, and must count what they may ask for. See {@link update}.
   */
  readonly update: (policy: Policy<E, U>) => Effect.Effect<void, never, R>
  /** What it has done so far, and which calls wait and run now; see {@link statistics}. */
  readonly statistics: Effect.Effect<Statistics, never, R>
}

/**
 * A throttle that is alive: one budget, one waiting line.
 *
 * **When to use**
 *
 * Ask for this service where the policy is somebody else's decision, and provide a policy at the app's edge. An app with
 * several throttles gives each its own class with {@link Service}.
 *
 * **Details**
 *
 * Calls start first come, first served, weighted ones included: nobody passes the head of the line. A call is charged
 * when it starts, not when it arrives, in the caller's own fiber. Interrupted while it waits, it leaves the line and has
 * cost nothing; interrupted while it runs, it gives its permits back. When the throttle's scope closes, those who wait
 * are interrupted, and so is every later call.
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
 * @see {@link make} to build one yourself
 * @see {@link of} for the one that a policy used inline has
 * @category models
 * @since 0.1.0
 */
export interface Throttle extends Operations<ThrottleError, never> {}

/**
 * The service's key.
 *
 * @category services
 * @since 0.1.0
 */
export const Throttle: Context.Service<Throttle, Throttle> = Context.Service<Throttle>("effect-throttle/Throttle")

/** A throttle, and what it counts with. */
type Live =
  | { readonly throttle: Throttle; readonly limiter: State.Limiter }
  /** Made elsewhere. Inline use goes through a function of its own, since it may add no error to those of the effect. */
  | { readonly throttle: Throttle; readonly limiter: undefined; readonly inline: Inline }

type Inline = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ThrottleError, R>

/** Under which a `withPermit` of this module has its limiter. Of this copy of the module: another one has its own. */
const Own = Symbol("effect-throttle/Own")

interface OwnWithPermit {
  readonly [Own]?: { readonly withPermit: unknown; readonly limiter: State.Limiter }
}

/** The limiter of a throttle whose `withPermit` is this module's. One that was put in its place must be the one called. */
const limiterOf = ({ withPermit }: Throttle): State.Limiter | undefined => {
  const own = (withPermit as OwnWithPermit)[Own]
  // Whoever copies or forwards a function's properties, as mocks do, has the properties but is not the function.
  return own !== undefined && own.withPermit === withPermit ? own.limiter : undefined
}

/**
 * The plan of a throttle that is this module's, as it is now.
 *
 * @internal
 */
export const planOf = (throttle: Throttle): Plan.Plan | undefined => limiterOf(throttle)?.plan

/** Costs come from code at run time: one that makes no sense is a defect of the call, not of the app. */
const asking = <A, E, R>(
  limiter: State.Limiter,
  cost: Cost | undefined,
  f: (ask: Ask) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => Effect.suspend(() => f(cost === undefined ? limiter.one : askFor(limiter.plan, cost)))

/**
 * Waiting holds nothing, so nothing must be there to be held.
 *
 * @internal
 */
export const refuseToHold = ({ plan, parts: { gates: [gate] } }: Pick<State.Limiter, "plan"> & {
  readonly parts: { readonly gates: ReadonlyArray<{ readonly name: string }> }
}): void => {
  if (gate === undefined) return
  throw new RangeError(
    `throttle "${plan.name}": wait holds nothing, but "${gate.name}" counts those who run; use takeScoped or withPermit`
  )
}

/**
 * Takes permits until the scope closes. `granted` is told of them in the region in which they are taken: an interruption
 * never comes between.
 *
 * @internal
 */
export const take = (
  limiter: State.Limiter,
  ask: Ask,
  tie: State.Tie,
  granted?: (permit: Permit) => void
): Effect.Effect<Permit, ThrottleError, Scope.Scope> => {
  const permitOf = (grant: Limiter.Grant): Permit => ({
    cost: ask.cost,
    settle: (actual) => Effect.sync(() => Settle.settle(limiter, grant, askActual(limiter.plan, ask, actual))),
    cancel: Settle.cancel(limiter, grant)
  })
  const noted = granted === undefined ? undefined : (grant: Limiter.Grant) => granted(permitOf(grant))
  return Effect.map(Limiter.takeScoped(limiter, ask, tie, noted), permitOf)
}

/** @internal */
export const usePermit = <A, E, R>(
  limiter: State.Limiter,
  ask: Ask,
  use: (permit: Permit) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.acquireUseRelease(
    Scope.make(),
    (scope) => Effect.flatMap(Effect.provideService(take(limiter, ask, "permit"), Scope.Scope, scope), use),
    Scope.close
  )

/**
 * `mayRefuse`: whether an update may give it bounds. Not where the type of a policy that is piped adds no error.
 *
 * @internal
 */
export const live = (
  limiter: State.Limiter,
  mayRefuse: boolean
): Extract<Live, { readonly limiter: State.Limiter }> => {
  const withPermits = <A, E, R>(self: Effect.Effect<A, E, R>, cost: Cost) =>
    asking(limiter, cost, (ask) => Limiter.begin(limiter, ask, self))
  const withPermitsIfAvailable = <A, E, R>(self: Effect.Effect<A, E, R>, cost: Cost) =>
    asking(limiter, cost, (ask) => Limiter.runIfAvailable(limiter, ask, self))
  const withPermit: Throttle["withPermit"] = (self) => Effect.suspend(() => Limiter.begin(limiter, limiter.one, self))
  // Not enumerable: whoever prints a context wants to see no clockwork.
  Object.defineProperty(withPermit, Own, { value: { withPermit, limiter } })
  const throttle: Throttle = {
    withPermit,
    withPermits: eitherWay(withPermits),
    withPermitsIfAvailable: eitherWay(withPermitsIfAvailable),
    wait: (cost) =>
      asking(limiter, cost, (ask) => {
        refuseToHold(limiter)
        return Limiter.begin(limiter, ask, Effect.void)
      }),
    takeScoped: (cost) => asking(limiter, cost, (ask) => take(limiter, ask, "scope")),
    usePermits: eitherWayUse((use, cost) => asking(limiter, cost, (ask) => usePermit(limiter, ask, use))),
    // In the step in which the cost is worked out: one step later the policy may be another.
    nextAvailable: (cost) => asking(limiter, cost, (ask) => Effect.succeed(Limiter.nextAvailable(limiter, ask))),
    pause: (duration) => Effect.suspend(() => Limiter.pause(limiter, nanosToPause(limiter.plan.name, duration))),
    resume: Effect.sync(() => Limiter.resume(limiter)),
    update: (policy) =>
      Effect.sync(() => {
        const plan = Plan.make(impl(policy).data)
        if (Plan.isBounded(plan) && !mayRefuse) {
          throw new RangeError(
            `throttle "${limiter.plan.name}": its type has no ThrottleError, so an update must have no bounds ` +
              `(got "${plan.description}")`
          )
        }
        Update.update(limiter, plan)
      }),
    statistics: Limiter.statisticsNow(limiter)
  }
  return { throttle, limiter }
}

/** @internal */
export const nanosToPause = (name: string, duration: Duration.Input): number => {
  // A number is taken as it is: what is none would become a duration of 0.
  const millis = typeof duration === "number"
    ? duration
    : Option.getOrElse(Option.map(Duration.fromInput(duration), Duration.toMillis), () => NaN)
  if (millis >= 0) return millis * 1e6
  throw new RangeError(
    `throttle "${name}": a pause must be a duration of at least 0, got ${Formatter.format(duration)}`
  )
}

/**
 * The same for what is done with a permit: both `f(cost)(use)` and `f(use, cost)`.
 *
 * @internal
 */
export const eitherWayUse = (f: (use: (permit: Permit) => Effect.Effect<any, any, any>, cost: Cost) => any): any =>
(
  first: unknown,
  cost: Cost
) => typeof first === "function" ? f(first as any, cost) : (use: any) => f(use, first as Cost)

/**
 * Both `f(cost)(self)` and `f(self, cost)`. Told apart by what comes first, since some callers pass more arguments.
 *
 * @internal
 */
export const eitherWay =
  (f: (self: Effect.Effect<any, any, any>, cost: Cost) => Effect.Effect<any, any, any>): any =>
  (first: unknown, cost: Cost) =>
    Effect.isEffect(first) ? f(first, cost) : (self: Effect.Effect<any, any, any>) => f(self, first as Cost)

// ---------------------------------------------------------------------------------------------------------------------
// Policies
// ---------------------------------------------------------------------------------------------------------------------

const TypeId = "~effect-throttle/Policy"

/**
 * A throttling policy: a function that throttles an effect, and the Layer of a {@link Throttle}.
 *
 * `E` is what it adds to an effect's errors: `never` without bounds, `ThrottleError` with them. `U` is the units that it
 * counts: "permits", unless a part has a `unit` of its own; any where the compiler does not know them.
 *
 * **Details**
 *
 * A policy is a description; the limiter that counts comes to life
 *
 * - when its Layer is built: one limiter a build, on the Clock of the fiber that builds it;
 * - when it is used inline where it is not provided: one limiter for each policy value and Clock. So programs on the
 *   live clock share it, and each test with its TestClock starts afresh.
 *
 * Inline where the same policy value is provided, it is the provided limiter: one value, one budget.
 *
 * **Gotchas**
 *
 * Make it once, outside the function that uses it. `(id) => get(id).pipe(Throttle.rate({ limit: 1 }))` makes a limiter
 * for each call and throttles nothing.
 *
 * @see {@link of} for the limiter that inline use has
 * @category models
 * @since 0.1.0
 */
export interface Policy<out E = ThrottleError, in U extends string = any> extends Layer.Layer<Throttle> {
  /**
   * Runs the effect when this policy grants one permit, in the limiter that the policy has where the effect runs: that of
   * its Layer where it is provided, otherwise that of the current Clock.
   */
  <A, E1, R>(self: Effect.Effect<A, E1, R>): Effect.Effect<A, E1 | E, R>
  readonly [TypeId]: { readonly _E: Types.Covariant<E>; readonly _U: Types.Contravariant<U> }
  /** The policy as data: JSON, durations in milliseconds, defaults filled in. */
  readonly data: PolicyModule.PolicyData
}

/**
 * What a policy adds to the errors of an effect.
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
 * The units that an {@link all} of these policies counts; `U` is what its parts without a unit count.
 *
 * @category models
 * @since 0.1.0
 */
export type UnitsOfAll<P, U extends string = "permits"> = [P] extends [never] ? string
  : "permits" extends UnitOf<P> ? Exclude<UnitOf<P>, "permits"> | U
  : UnitOf<P>

interface PolicyImpl<E> extends Policy<E> {
  /** The Layer of it, with another name for a policy that has none of its own. */
  readonly named: (name: string) => Layer.Layer<Throttle>
  /** The limiter that inline use has in this fiber. */
  readonly find: (fiber: Fiber.Fiber<unknown, unknown>) => Live
  /** Under which its Layer provides it for inline use. */
  readonly key: Context.Key<never, Live>
  /** Whether its type adds an error. */
  readonly mayRefuse: boolean
  /** A throttle as its Layer provides it: the service, and for inline use. */
  readonly provided: (alive: Live) => Context.Context<Throttle>
}

/**
 * Tells whether a value is a policy.
 *
 * @category guards
 * @since 0.1.0
 */
export const isPolicy = (u: unknown): u is Policy<ThrottleError> => Predicate.hasProperty(u, TypeId)

/** `mayFail`: whether its type adds an error; that of a policy from outside does, bounds or not. */
const fromChecked = <E>(data: PolicyModule.PolicyData, mayFail?: boolean): Policy<E> => {
  const plan = Plan.make(data)
  const mayRefuse = mayFail ?? Plan.isBounded(plan)
  const description = plan.description
  // A key that nobody else can have. Contexts compare keys by identity, so a symbol will do, and needs no counter.
  const key = Context.Service<never, Live>(Symbol(plan.name) as unknown as string)
  const inline = new WeakMap<Clock.Clock, Live>()
  // A look-up of a key that nobody provided would take 60 ns, a sixth of a call.
  let everProvided = false

  const provided = (alive: Live) => {
    everProvided = true
    return Context.add(Context.make(Throttle, alive.throttle), key, alive)
  }
  const build = (name: string) =>
    Effect.map(Limiter.make({ ...plan, name }), (limiter) => provided(live(limiter, mayRefuse)))
  const layer: Layer.Layer<Throttle> = Layer.effectContext(build(plan.name))
  const named = (name: string): Layer.Layer<Throttle> => {
    if (data.name !== undefined) return layer
    // What limits nothing has no budget to share: each has its own, with its own name and numbers.
    if (plan.units === undefined) return Layer.effectContext(build(name))
    // Memoised as the policy's own Layer: one policy value is one limiter a build, under whatever name.
    return Layer.fromBuild((memoMap, scope) =>
      memoMap.getOrElseMemoize(layer, scope, (_, scope) => Effect.provideService(build(name), Scope.Scope, scope))
    )
  }

  const find = (fiber: Fiber.Fiber<unknown, unknown>): Live => {
    if (everProvided) {
      const provided = Context.getOrUndefined(fiber.context as Context.Context<any>, key)
      if (provided !== undefined) return provided
    }
    const clock = fiber.getRef(Clock.Clock)
    let found = inline.get(clock)
    if (found === undefined) {
      found = live(State.makeUnsafe(plan, Observe.acquire(fiber.context, plan.name), Time.make(clock)), mayRefuse)
      inline.set(clock, found)
    }
    return found
  }

  // Code that asks `typeof policy === "function"` may call it with no effect to get a Layer: it gets the plain one.
  const policy = (self: unknown): unknown => {
    if (!Effect.isEffect(self)) return layer
    if (plan.holdings.length === 0) {
      return Effect.withFiber((fiber) => {
        const found = find(fiber)
        const { limiter } = found
        return limiter === undefined ? found.inline(self) : Limiter.begin(limiter, limiter.one, self)
      })
    }
    // What holds permits runs in a masked region anyway: one step less than by way of `begin`.
    return Effect.uninterruptibleMask((restore) => {
      const found = find(Fiber.getCurrent()!)
      const { limiter } = found
      return limiter === undefined
        ? restore(found.inline(self))
        : Limiter.beginMasked(limiter, limiter.one, self, restore)
    })
  }

  // Layer's members are copied, with those of its prototype: a changed prototype would break `flow` and the like.
  const members: Record<string, unknown> = {}
  for (const member in layer) members[member] = layer[member as keyof typeof layer]
  return Object.assign(policy, members, {
    [TypeId]: { _E: (e: never) => e },
    data,
    named,
    find,
    key,
    mayRefuse,
    provided,
    toString: () => `Throttle(${description})`,
    toJSON: () => ({ _id: "effect-throttle/Policy", description, data }),
    [Inspectable.NodeInspectSymbol]: () => `Throttle(${description})`
  }) as unknown as Policy<E>
}

const impl = <E>(policy: Policy<E>): PolicyImpl<E> => {
  if (isPolicy(policy)) return policy as PolicyImpl<E>
  throw new RangeError(`Throttle: a policy is needed here, got ${Formatter.format(policy)}`)
}

/**
 * What the Layer of a policy provides, with a throttle that was made elsewhere.
 *
 * @internal
 */
export const provideElsewhere = (policy: Policy<any>, throttle: Throttle, inline: Inline): Context.Context<Throttle> =>
  impl(policy).provided({ throttle, limiter: undefined, inline })

/**
 * The same for a Service class.
 *
 * @internal
 */
export const provideServiceElsewhere = <Self>(
  service: ServiceClass<Self, any, any>,
  throttle: Throttle,
  inline: Inline
): Context.Context<Self> =>
  underKey(service, service.policy, impl(service.policy).provided({ throttle, limiter: undefined, inline }))

/** What a policy's Layer provides, under the key of a Service class, and still for inline use. */
const underKey = <Self>(
  key: Context.Key<Self, Throttle>,
  policy: Policy<any>,
  context: Context.Context<Throttle>
): Context.Context<Self> => {
  const inline = impl(policy).key
  return Context.make(key, Context.get(context, Throttle)).pipe(
    Context.add(inline, Context.getUnsafe(context as Context.Context<any>, inline))
  )
}

/**
 * The absence of {@link Bounds}: a policy without them adds no error.
 *
 * @category options
 * @since 0.1.0
 */
export interface Unbounded {
  readonly maxQueue?: undefined
  readonly maxWait?: undefined
  readonly timeout?: undefined
}

/**
 * What every policy takes.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<out U extends string = string> extends Unbounded {
  /** What logs, spans, metrics and errors call it. Default: the kind of policy, or the key of its Service class. */
  readonly name?: string | undefined
  /** What it counts, such as "tokens". Default: permits, 1 a call. */
  readonly unit?: U | undefined
}

/**
 * How long calls may wait, and how many. They are checked for a call that has to wait: when it arrives, and `maxWait` also
 * when a pause or an update makes its wait longer.
 *
 * A policy with a bound adds `ThrottleError` to the errors of the effects it throttles.
 *
 * @category options
 * @since 0.1.0
 */
export interface Bounds {
  /** So many calls may wait; 0 = none, never wait. Fails with `QueueFull`. Default: no bound. */
  readonly maxQueue?: number | undefined
  /**
   * A call whose expected wait is longer is refused at once, with `WaitTooLong`: when it arrives, or when a pause or an
   * update makes the whole wait longer than this. Where permits are held too, only the wait that is still to come is compared
   * then. Default: no bound. A `RangeError` where only concurrency decides: nobody knows when a running call ends.
   */
  readonly maxWait?: Duration.Input | undefined
  /**
   * A call that was not admitted after so long fails with `TimedOut`; one that is due exactly then starts. The run
   * itself is not counted. Default: no bound.
   */
  readonly timeout?: Duration.Input | undefined
}

/**
 * Options of a policy with {@link Bounds}.
 *
 * @category options
 * @since 0.1.0
 */
export type Bounded<O extends Unbounded> = Omit<O, keyof Bounds> & Bounds

/**
 * Options of {@link rate}.
 *
 * @category options
 * @since 0.1.0
 */
export interface RateOptions<out U extends string = string> extends Options<U> {
  /** Permits per `per`. A whole number of at least 1. */
  readonly limit: number
  /** Default: 1 second. */
  readonly per?: Duration.Input | undefined
  /** Permits on top that may start at once; won back only by unused time. A whole number. Default: 0. */
  readonly burst?: number | undefined
}

/**
 * One start every `per / limit`, and `burst` more at once after a pause.
 *
 * @see {@link tokenBucket} for the same algorithm with the bucket's whole size in one number
 * @see {@link window} where the quota counts "any second" exactly
 * @category policies
 * @since 0.1.0
 */
export const rate: {
  /**
   * One start every `per / limit`, and `burst` more at once after a pause.
   *
   * **When to use**
   *
   * To keep to a documented quota smoothly. `burst: 3` lets four start at once on an idle throttle; from then on the
   * schedule holds, and the credit comes back only with unused time.
   *
   * **Details**
   *
   * The generic cell rate algorithm (ITU-T I.371) with a capacity of `1 + burst`. In any span of time t at most
   * `capacity + (t + 10 ms) · limit / per` permits start: timers wake late, and a call that waited is charged at the instant
   * at which it was due, as long as that is not more than 10 ms ago, so that the asked rate is reached. First come, first
   * served; interrupted while waiting, a call has cost nothing.
   *
   * **Errors**
   *
   * None without bounds. With them `ThrottleError`: `QueueFull`, `WaitTooLong`, `TimedOut`. Throws a `RangeError` for bad
   * options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const limited = Throttle.rate({ limit: 100, per: "1 second", burst: 2 })
   *
   * const fetchUser = (id: number) => Effect.succeed({ id }).pipe(limited)
   *
   * // Three at once, the fourth 10 ms later
   * await Effect.runPromise(Effect.forEach([1, 2, 3, 4], fetchUser, { concurrency: "unbounded" }))
   * ```
   *
   * @see {@link tokenBucket} for the same algorithm with the bucket's whole size in one number
   * @see {@link window} where the quota counts "any second" exactly
   */
  <const U extends string = "permits">(options: RateOptions<U>): Policy<never, NoInfer<U>>
  /**
   * One start every `per / limit`, and `burst` more at once after a pause. With bounds: a call that would exceed one of them
   * is rejected.
   *
   * The bounds are checked for a call that has to wait: `maxQueue` is how many calls may wait, `maxWait` the longest wait
   * that may be expected, on arrival and when a pause or an update makes it longer, `timeout` the longest wait.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`, and `PermitsExceedCapacity` for more than can
   * ever be granted; a rejected call has been charged nothing. Throws a `RangeError` for bad options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const search = Throttle.rate({ limit: 10, maxQueue: 100, timeout: "5 seconds" })
   *
   * const find = (text: string) =>
   *   Effect.succeed([text]).pipe(search, Effect.catchTag("ThrottleError", () => Effect.succeed(["busy"])))
   *
   * await Effect.runPromise(find("throttle"))
   * ```
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(options: Bounded<RateOptions<U>>): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<RateOptions>): Policy<never> => fromChecked(PolicyModule.construct("Rate", options))

/**
 * Options of {@link tokenBucket}.
 *
 * @category options
 * @since 0.1.0
 */
export interface TokenBucketOptions<out U extends string = string> extends Options<U> {
  /** The size of the bucket, which starts full: the most that can start at once. A whole number of at least 1. */
  readonly capacity: number
  /** Permits that flow back per `per`, continuously. A whole number of at least 1. */
  readonly refill: number
  /** Default: 1 second. */
  readonly per?: Duration.Input | undefined
}

/**
 * A bucket of `capacity` permits that starts full and refills continuously by `refill` every `per`.
 *
 * @see {@link rate} for an even pace with little burst
 * @category policies
 * @since 0.1.0
 */
export const tokenBucket: {
  /**
   * A bucket of `capacity` permits that starts full and refills continuously by `refill` every `per`.
   *
   * **When to use**
   *
   * For quotas that are written in these words, such as requests and tokens per minute of a model provider, with a `unit`
   * where calls have different weights.
   *
   * **Details**
   *
   * The same algorithm as {@link rate} in its other words (a leaky bucket, ITU-T I.371), with the same bound and the same
   * fairness: a heavy call at the head of the line is not overtaken by light ones. The bucket starts full, so up to
   * `capacity + refill` permits start in its first `per`: against a server that counts windows keep that sum below its limit.
   *
   * **Errors**
   *
   * None without bounds; with them `ThrottleError`. A cost above `capacity` fails at once with `PermitsExceedCapacity`.
   * Throws a `RangeError` for bad options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * // For a quota of 90,000 in any minute
   * const tokens = Throttle.tokenBucket({ capacity: 10_000, refill: 75_000, per: "1 minute", unit: "tokens" })
   *
   * const complete = (prompt: string) =>
   *   Effect.succeed(prompt.toUpperCase()).pipe(Throttle.withPermits({ tokens: prompt.length }))
   *
   * await Effect.runPromise(complete("hello").pipe(Effect.provide(tokens)))
   * ```
   *
   * @see {@link rate} for an even pace with little burst
   */
  <const U extends string = "permits">(options: TokenBucketOptions<U>): Policy<never, NoInfer<U>>
  /**
   * A bucket of `capacity` permits that starts full and refills continuously by `refill` every `per`. With bounds: a call that
   * would exceed one of them is rejected.
   *
   * The bounds are checked for a call that has to wait: `maxQueue` is how many calls may wait, `maxWait` the longest wait
   * that may be expected, on arrival and when a pause or an update makes it longer, `timeout` the longest wait.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`, and `PermitsExceedCapacity` for more than can
   * ever be granted; a rejected call has been charged nothing. Throws a `RangeError` for bad options.
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(options: Bounded<TokenBucketOptions<U>>): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<TokenBucketOptions>): Policy<never> => fromChecked(PolicyModule.construct("TokenBucket", options))

/**
 * Options of {@link window}.
 *
 * @category options
 * @since 0.1.0
 */
export interface WindowOptions<out U extends string = string> extends Options<U> {
  /** Permits in each window. A whole number of at least 1. */
  readonly limit: number
  /** The length of the window. No default. */
  readonly per: Duration.Input
  /** "sliding": any stretch of that length. "fixed": the windows of the wall clock. Default: "sliding". */
  readonly kind?: "sliding" | "fixed" | undefined
}

/**
 * At most `limit` permits in a window of length `per`.
 *
 * @see {@link rate} for an even pace at constant memory
 * @category policies
 * @since 0.1.0
 */
export const window: {
  /**
   * At most `limit` permits in a window of length `per`.
   *
   * **When to use**
   *
   * Sliding where a server counts "at most n in any minute" and a refusal is expensive: there is no stretch of that length
   * with more. Fixed where a quota resets at the full minute: up to `2 · limit` may start around a window's edge, as the
   * quota allows.
   *
   * **Details**
   *
   * Sliding is an exact log of starts, not an estimate; it remembers at most `limit` starts. Fixed counts in the windows
   * [k·per, (k+1)·per) of the wall clock; when a window opens, its end is fixed in monotonic time, so a clock that is set
   * back neither frees nor locks anyone. Starts are charged when they really happen, so no catch-up loosens the bound.
   * First come, first served; interrupted while waiting, a call has cost nothing.
   *
   * **Errors**
   *
   * None without bounds; with them `ThrottleError`. To foresee a wait for `maxWait` costs time in proportion to the line
   * where calls have different weights. Throws a `RangeError` for bad options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const limited = Throttle.window({ limit: 3, per: "50 millis" })
   *
   * await Effect.runPromise(Effect.forEach([1, 2, 3, 4], (n) => Effect.succeed(n).pipe(limited)))
   * ```
   *
   * @see {@link rate} for an even pace at constant memory
   */
  <const U extends string = "permits">(options: WindowOptions<U>): Policy<never, NoInfer<U>>
  /**
   * At most `limit` permits in a window of length `per`, any stretch of that length or, with `kind: "fixed"`, those of the
   * clock. With bounds: a call that would exceed one of them is rejected.
   *
   * The bounds are checked for a call that has to wait: `maxQueue` is how many calls may wait, `maxWait` the longest wait
   * that may be expected, on arrival and when a pause or an update makes it longer, `timeout` the longest wait. For calls of different weights a
   * wait is estimated in time proportional to the line.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`, and `PermitsExceedCapacity` for more than can
   * ever be granted; a rejected call has been charged nothing. Throws a `RangeError` for bad options.
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(options: Bounded<WindowOptions<U>>): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<WindowOptions>): Policy<never> => fromChecked(PolicyModule.construct("Window", options))

/**
 * Options of {@link concurrency}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConcurrencyOptions<out U extends string = string> extends Options<U> {
  /** Permits that may be held at once. A whole number of at least 1. */
  readonly limit: number
  /**
   * What becomes of a call that would wait for ever, since its own fiber holds the permits it asks for and nobody else
   * could give back enough: "die" with an error that says so, or "pass": run without asking. Default: "die".
   */
  readonly nested?: "die" | "pass" | undefined
}

/**
 * At most `limit` permits held at once.
 *
 * @see {@link all} to limit the rate as well
 * @category policies
 * @since 0.1.0
 */
export const concurrency: {
  /**
   * At most `limit` permits held at once.
   *
   * **When to use**
   *
   * For what is limited by how much runs, not by when it starts: connections, memory, a server's "5 at a time".
   *
   * **Details**
   *
   * The permits are those of an Effect `Semaphore`, with a waiting line in front: first come, first served, also for
   * weighted calls, where a bare `Semaphore` lets a light call overtake a heavy one, and O(1) a call however many wait.
   * A call that succeeds, fails, dies or is interrupted gives its permits back.
   *
   * **Errors**
   *
   * None without bounds; with `maxQueue` or `timeout` `ThrottleError`. Throws a `RangeError` for bad options, `maxWait`
   * among them: nobody knows when a running call ends.
   *
   * **Gotchas**
   *
   * An effect that holds a permit and asks the same throttle for another may wait for itself; where that is certain it dies
   * with an error that says so, or runs without asking with `nested: "pass"`. What a child fiber asks is not seen.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const connections = Throttle.concurrency({ limit: 2 })
   *
   * const query = (n: number) => Effect.succeed(n).pipe(Effect.delay("5 millis"), connections)
   *
   * await Effect.runPromise(Effect.forEach([1, 2, 3, 4], query, { concurrency: "unbounded" }))
   * ```
   *
   * @see {@link all} to limit the rate as well
   */
  <const U extends string = "permits">(options: ConcurrencyOptions<U>): Policy<never, NoInfer<U>>
  /**
   * At most `limit` permits held at once. With bounds: a call that would exceed one of them is rejected.
   *
   * The bounds are checked for a call that has to wait: `maxQueue` is how many calls may wait, `timeout` the longest wait. `maxWait` throws a `RangeError`: when a running call ends cannot be known.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull` or `TimedOut`, and `PermitsExceedCapacity` for more than can
   * ever be granted; a rejected call has been charged nothing. Throws a `RangeError` for bad options.
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(options: Bounded<ConcurrencyOptions<U>>): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<ConcurrencyOptions>): Policy<never> => fromChecked(PolicyModule.construct("Concurrency", options))

/**
 * Options of {@link spacing}.
 *
 * @category options
 * @since 0.1.0
 */
export interface SpacingOptions<out U extends string = string> extends Options<U> {
  /** The least time between two starts. */
  readonly interval: Duration.Input
  /** Start only on multiples of `interval` of the wall clock, the first call too. Default: false. */
  readonly align?: boolean | undefined
  /** "start": from one start to the next. "end": from an end to the next start; then only one runs. Default: "start". */
  readonly from?: "start" | "end" | undefined
  /**
   * From the end: what becomes of a call that would wait for ever, since its own fiber is the one that runs: "die" with
   * an error that says so, or "pass": run without asking. Default: "die".
   */
  readonly nested?: "die" | "pass" | undefined
}

/**
 * At least `interval` between one start and the next, also for callers that come at once.
 *
 * @see {@link rate} where a little burst is welcome and late timers should be made up for
 * @category policies
 * @since 0.1.0
 */
export const spacing: {
  /**
   * At least `interval` between one start and the next, also for callers that come at once.
   *
   * **When to use**
   *
   * For pollers and polite crawlers. `align` for jobs that belong on the full minute; `from: "end"` where the other side
   * needs a rest after each call, however long it took.
   *
   * **Details**
   *
   * Any cost above 0 is one start. The gap is strict: starts are charged when they really happen. With `align` a start
   * comes on a multiple of `interval` of the wall clock and is charged to that slot even if a timer woke late, by less than
   * an interval, so no slot is lost; the slot is fixed in monotonic time when the call becomes the head. With `from: "end"` a call that
   * ends in any way, interruption included, starts the interval. First come, first served.
   *
   * **Errors**
   *
   * None without bounds; with them `ThrottleError`. Throws a `RangeError` for bad options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const polite = Throttle.spacing({ interval: "10 millis" })
   *
   * await Effect.runPromise(Effect.forEach([1, 2, 3], (n) => Effect.succeed(n).pipe(polite), { concurrency: "unbounded" }))
   * ```
   *
   * @see {@link rate} where a little burst is welcome and late timers should be made up for
   */
  <const U extends string = "permits">(options: SpacingOptions<U>): Policy<never, NoInfer<U>>
  /**
   * At least `interval` between one start and the next, also for callers that come at once. With bounds: a call that would
   * exceed one of them is rejected.
   *
   * The bounds are checked for a call that has to wait: `maxQueue` is how many calls may wait, `maxWait` the longest wait
   * that may be expected, on arrival and when a pause or an update makes it longer, `timeout` the longest wait.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`; a rejected call has been charged nothing.
   * Throws a `RangeError` for bad options.
   *
   * @see {@link Bounds} for each bound
   */
  <const U extends string = "permits">(options: Bounded<SpacingOptions<U>>): Policy<ThrottleError, NoInfer<U>>
} = (options: Bounded<SpacingOptions>): Policy<never> => fromChecked(PolicyModule.construct("Spacing", options))

/**
 * No limit: every call starts at once, and every unit is accepted.
 *
 * **When to use**
 *
 * In tests and configurations where the throttle is to be switched off: `GitHub.layerWith(Throttle.none)`.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * await Effect.runPromise(Effect.succeed(1).pipe(Throttle.withPermits({ tokens: 9 }), Effect.provide(Throttle.none)))
 * ```
 *
 * @category policies
 * @since 0.1.0
 */
export const none: Policy<never, string> = fromChecked(PolicyModule.construct("None", {}))

/**
 * Several policies as one: an effect starts when every part would let it start, at one instant.
 *
 * @category policies
 * @since 0.1.0
 */
export const all: {
  /**
   * Several policies as one: an effect starts when every part would let it start, at one instant.
   *
   * **When to use**
   *
   * For a quota with several sides: requests per minute, tokens per minute and calls at once. Piping an effect through two
   * policies instead makes it wait in two lines, one after the other: calls pass the first at its pace, gather before the
   * second and start in a bunch that breaks the first, or are charged by the first and refused by the second.
   *
   * **Details**
   *
   * There is one waiting line. Its head waits until it finds every permit free and every timing part ready, and then is
   * charged by all of them in the same step; whoever is refused, times out or is interrupted has been charged nothing. The
   * parts' bounds bound the whole: the smallest of each kind. Parts are read as data: each `all` has meters and permits
   * of its own, also for a part value that is used elsewhere too. `unit` is what parts without a unit count.
   *
   * **Errors**
   *
   * None if neither a part nor the whole has a bound; otherwise `ThrottleError`. Throws a `RangeError` for bad options.
   *
   * **Example**
   *
   * ```ts
   * import { Effect } from "effect"
   * import { Throttle } from "effect-throttle"
   *
   * const openai = Throttle.all([
   *   // For a quota of 500 requests and 90,000 tokens in any minute
   *   Throttle.tokenBucket({ capacity: 50, refill: 400, per: "1 minute" }),
   *   Throttle.tokenBucket({ capacity: 10_000, refill: 75_000, per: "1 minute", unit: "tokens" }),
   *   Throttle.concurrency({ limit: 20 })
   * ], { name: "openai", maxQueue: 1_000 })
   *
   * const complete = (prompt: string) =>
   *   Effect.succeed(prompt.length).pipe(Throttle.withPermits({ tokens: prompt.length }))
   *
   * await Effect.runPromise(complete("hello").pipe(Effect.provide(openai)))
   * ```
   */
  <P extends Policy<any>, const U extends string = "permits">(
    policies: ReadonlyArray<P>,
    options?: Options<U>
  ): Policy<ErrorOf<P>, UnitsOfAll<P, NoInfer<U>>>
  /**
   * Several policies as one, with bounds: an effect starts when every part would let it start, at one instant, and a call that
   * would exceed a bound is rejected.
   *
   * The bounds of the whole and of its parts count, the smallest of each kind. They are checked for a
   * call that has to wait: when it arrives, and `maxWait` also when a pause or an update makes its wait longer.
   *
   * **Errors**
   *
   * `ThrottleError`, with the reason `QueueFull`, `WaitTooLong` or `TimedOut`, and `PermitsExceedCapacity` for more than can
   * ever be granted; a rejected call has been charged nothing. Throws a `RangeError` for bad options.
   *
   * @see {@link Bounds} for each bound
   */
  <P extends Policy<any>, const U extends string = "permits">(
    policies: ReadonlyArray<P>,
    options: Bounded<Options<U>>
  ): Policy<ThrottleError, UnitsOfAll<P, NoInfer<U>>>
} = (policies: ReadonlyArray<Policy<any>>, options: Bounded<Options> = {}): Policy<never> => {
  if (!Array.isArray(policies)) throw new RangeError(`Throttle.all: policies must be an array of policies`)
  const parts = Array.from(policies, (part: unknown, i) => {
    if (isPolicy(part)) return part.data
    throw new RangeError(`Throttle.all: policies[${i}] must be a policy, got ${Formatter.format(part)}`)
  })
  const data = PolicyModule.construct("All", options, { policies: parts })
  return fromChecked(data, policies.some((part) => impl(part).mayRefuse) || Plan.isBounded(Plan.make(data)))
}

/**
 * A policy that only counts, logs and measures what it would do: nobody waits, nobody is refused.
 *
 * **When to use**
 *
 * To try a limit on real traffic before it is put in force, beside the one that is: pipe the effect through both. It is
 * the whole policy that is in shadow; a part of an {@link all} cannot be.
 *
 * **Details**
 *
 * It keeps a simulated queue: a call that would wait is charged at the instant at which it would have started, and those
 * after it find it ahead of them; it holds permits from then on, for as long as it really runs. One that would be refused
 * is charged nothing. Statistics and metrics count what would have happened: `admitted`, `rejected`, `waited`. Log lines and events of calls
 * that would wait or be refused have `shadow: true`.
 *
 * **Errors**
 *
 * None. Throws a `RangeError` for a policy that is in shadow already.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const candidate = Throttle.shadow(Throttle.rate({ limit: 5, maxQueue: 0 }))
 *
 * const program = Effect.gen(function*() {
 *   yield* Effect.forEach([1, 2, 3], (n) => Effect.succeed(n).pipe(candidate))
 *   return yield* (yield* Throttle.of(candidate)).statistics
 * })
 *
 * await Effect.runPromise(program) // { admitted: 1, rejected: { QueueFull: 2, … }, … }
 * ```
 *
 * @see {@link none} for no limit and no judgement
 * @category policies
 * @since 0.1.0
 */
export const shadow = <U extends string>(
  policy: Policy<any, U>,
  options: { readonly name?: string | undefined } = {}
): Policy<never, U> => fromChecked(PolicyModule.construct("Shadow", options, { policy: impl(policy).data }))

// ---------------------------------------------------------------------------------------------------------------------
// Policies as data
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The schema of policies as data.
 *
 * @see {@link decode} and {@link fromData} for the way from data to a policy
 * @category data
 * @since 0.1.0
 */
export const PolicyData: Schema.Codec<PolicyModule.PolicyData, PolicyModule.PolicyEncoded> = PolicyModule.PolicyData

/**
 * A policy as data: plain JSON, durations in milliseconds, defaults filled in.
 *
 * @category data
 * @since 0.1.0
 */
export type PolicyData = PolicyModule.PolicyData

/**
 * The policy that this data describes: the one dispatcher.
 *
 * Since data is read at run time, its bounds are not known to the type checker: the policy is one that may fail with
 * `ThrottleError`. Throws a `RangeError` for what is not a policy's data; every constructor's checks hold.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const limited = Throttle.fromData({ _tag: "Rate", limit: 30, per: "1 minute" })
 *
 * await Effect.runPromise(Effect.succeed(1).pipe(limited))
 * ```
 *
 * @see {@link decode} for data from outside
 * @category data
 * @since 0.1.0
 */
export const fromData = (data: PolicyModule.PolicyEncoded): Policy<ThrottleError> =>
  fromChecked(PolicyModule.constructData(data), true)

/**
 * Reads a policy from data that came from outside, such as JSON.
 *
 * Fails with a `SchemaError` that says where and why: unknown tags and options, values that are not allowed.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Throttle.decode(JSON.parse(`{ "_tag": "Concurrency", "limit": 5 }`)).pipe(
 *   Effect.map(Throttle.describe)
 * )
 *
 * await Effect.runPromise(program) // "at most 5 at once"
 * ```
 *
 * @see {@link layerConfig} to read it from the app's configuration
 * @category data
 * @since 0.1.0
 */
export const decode = (input: unknown): Effect.Effect<Policy<ThrottleError>, Schema.SchemaError> =>
  Effect.map(PolicyModule.decode(input), (data) => fromChecked<ThrottleError>(data, true))

/**
 * A policy's sentence: "30 per second, burst 10; at most 5 at once".
 *
 * @category data
 * @since 0.1.0
 */
export const describe = (policy: Policy<any> | PolicyModule.PolicyData): string =>
  PolicyModule.describe(typeof policy === "function" ? policy.data : policy)

/**
 * The Layer of a policy that stands in the app's configuration.
 *
 * The setting is JSON in one value, `GITHUB_THROTTLE={"_tag":"Rate","limit":30}`, or a structure where the provider has
 * structures of its own (`ConfigProvider.fromUnknown`). Fails with a `ConfigError` when it is missing or no policy.
 * Unknown options are refused in JSON; in a structure only the known ones are asked for, so the others are not seen.
 *
 * **Example**
 *
 * ```ts
 * import { ConfigProvider, Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const env = ConfigProvider.fromEnv({ env: { GITHUB_THROTTLE: `{"_tag":"Rate","limit":30}` } })
 *
 * const program = Effect.succeed("fetched").pipe(
 *   Throttle.withPermit,
 *   Effect.provide(Throttle.layerConfig("GITHUB_THROTTLE")),
 *   Effect.provideService(ConfigProvider.ConfigProvider, env)
 * )
 *
 * await Effect.runPromise(program) // "fetched"
 * ```
 *
 * @see {@link decode} for data from elsewhere
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (name: string): Layer.Layer<Throttle, Config.ConfigError> =>
  Layer.unwrap(Effect.map(PolicyModule.config(name), (data): Layer.Layer<Throttle> => fromChecked(data, true)))

// ---------------------------------------------------------------------------------------------------------------------
// Throttles
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Makes a throttle that lives until the scope closes.
 *
 * **When to use**
 *
 * Where a throttle belongs to something else: one for each connection, each job. For services, provide the policy: it is
 * a Layer.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   const throttle = yield* Throttle.make(Throttle.concurrency({ limit: 2 }))
 *   yield* throttle.withPermit(Effect.void)
 *   return yield* throttle.statistics
 * })
 *
 * await Effect.runPromise(Effect.scoped(program)) // { admitted: 1, … }
 * ```
 *
 * @see {@link of} for the throttle that a policy used inline has
 * @category constructors
 * @since 0.1.0
 */
export const make = (policy: Policy<any>): Effect.Effect<Throttle, never, Scope.Scope> => makeNamed(policy)

const makeNamed = (policy: Policy<any>, name?: string): Effect.Effect<Throttle, never, Scope.Scope> => {
  const plan = Plan.make(impl(policy).data)
  return Effect.map(Limiter.make({ ...plan, name: name ?? plan.name }), (limiter) => live(limiter, true).throttle)
}

/**
 * The throttle that this policy has when it is used inline here: the provided one where the policy is provided,
 * otherwise that of the current Clock.
 *
 * **When to use**
 *
 * To read the statistics of an inline policy, or to give it a weighted call.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const limited = Throttle.rate({ limit: 10 })
 *
 * const program = Effect.gen(function*() {
 *   yield* limited(Effect.void)
 *   const throttle = yield* Throttle.of(limited)
 *   return (yield* throttle.statistics).admitted
 * })
 *
 * await Effect.runPromise(program) // 1
 * ```
 *
 * @see {@link make} for a throttle of its own
 * @category constructors
 * @since 0.1.0
 */
export const of = (policy: Policy<any>): Effect.Effect<Throttle> =>
  Effect.withFiber((fiber) => Effect.succeed(impl(policy).find(fiber).throttle))

// ---------------------------------------------------------------------------------------------------------------------
// Combinators: what asks for the service
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Runs the effect when the provided throttle grants it one permit.
 *
 * Waits in line, first come, first served; interrupted while it waits, it has cost nothing. Permits of concurrency come
 * back when the effect ends in any way. Fails with `ThrottleError` if the provided policy has bounds and refuses.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const fetchTeam = Effect.succeed("team").pipe(Throttle.withPermit)
 *
 * await Effect.runPromise(fetchTeam.pipe(Effect.provide(Throttle.concurrency({ limit: 5 }))))
 * ```
 *
 * @see {@link withPermits} for a call that costs more
 * @category combinators
 * @since 0.1.0
 */
export const withPermit = <A, E, R>(
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R | Throttle> => withPermitOf(Throttle)(self)

/**
 * Runs the effect when the provided throttle grants its {@link Cost}: a number of permits, or an amount for each unit. Order,
 * interruption and errors are those of {@link WithPermitsForms}.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const upload = Effect.succeed("done").pipe(Throttle.withPermits(3))
 *
 * await Effect.runPromise(upload.pipe(Effect.provide(Throttle.rate({ limit: 10, burst: 9 }))))
 * ```
 *
 * @see {@link withPermitsIfAvailable} for a call that must not wait
 * @category combinators
 * @since 0.1.0
 */
export const withPermits: WithPermitsForms<Throttle> = eitherWay((self, cost) =>
  Effect.flatMap(Throttle, (throttle) => throttle.withPermits(self, cost))
)

/**
 * Runs the effect if the provided throttle can grant its cost now, and gives `Option.none` otherwise, without having run
 * anything. It never waits and never passes those who do.
 *
 * Fails with `PermitsExceedCapacity` for more than the policy can ever grant. Dies as {@link withPermits} does.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Option } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const refresh = Effect.succeed("fresh").pipe(
 *   Throttle.withPermitsIfAvailable(1),
 *   Effect.map(Option.getOrElse(() => "from the cache"))
 * )
 *
 * await Effect.runPromise(refresh.pipe(Effect.provide(Throttle.rate({ limit: 1 })))) // "fresh"
 * ```
 *
 * @see {@link withPermits} for the variant that waits
 * @category combinators
 * @since 0.1.0
 */
export const withPermitsIfAvailable: WithPermitsIfAvailableForms<Throttle> = eitherWay((self, cost) =>
  Effect.flatMap(Throttle, (throttle) => throttle.withPermitsIfAvailable(self, cost))
)

/**
 * Waits for the turn and holds nothing: for timing policies, where the start is all that counts. Costs one permit unless
 * told otherwise.
 *
 * Fails with `ThrottleError` where the policy has bounds or the cost exceeds its capacity. Dies with a `RangeError` where
 * a part counts those who run (concurrency, or spacing from the end), since there would be no end to see.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.wait()
 *   return "my turn"
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 10 }))))
 * ```
 *
 * @see {@link takeScoped} to hold permits without wrapping an effect
 * @category combinators
 * @since 0.1.0
 */
export const wait = (cost?: Cost): Effect.Effect<void, ThrottleError, Throttle> =>
  Effect.flatMap(Throttle, (throttle) => throttle.wait(cost))

/**
 * Takes permits and holds them until the scope closes. Costs one permit unless told otherwise.
 *
 * The wait can be interrupted; taking the permits and promising them back to the scope cannot, so none is lost. Fails and
 * dies as {@link withPermits} does.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.scoped(Effect.gen(function*() {
 *   yield* Throttle.takeScoped()
 *   return "holding one of two"
 * }))
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.concurrency({ limit: 2 }))))
 * ```
 *
 * @see {@link withPermit} for permits around one effect
 * @category combinators
 * @since 0.1.0
 */
export const takeScoped = (cost?: Cost): Effect.Effect<Permit, ThrottleError, Throttle | Scope.Scope> =>
  Effect.flatMap(Throttle, (throttle) => throttle.takeScoped(cost))

/**
 * Runs an effect that knows its permit, so that what was asked for can be settled for what it has cost.
 *
 * **When to use**
 *
 * Where the cost is an estimate: tokens of a language model, points of an API, bytes of an answer.
 *
 * **Details**
 *
 * The permits are held while the effect runs, as with {@link withPermits}, and the permit may be settled until it ends.
 * A call that fails or is interrupted before it was settled has cost what was asked for. Waiting, errors and defects are
 * those of {@link withPermits}.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const ask = (prompt: string) => Effect.succeed({ text: prompt.toUpperCase(), tokens: 12 })
 *
 * const complete = (prompt: string) =>
 *   Throttle.usePermits({ tokens: 1_000 })((permit) =>
 *     Effect.tap(ask(prompt), (answer) => permit.settle({ tokens: answer.tokens }))
 *   )
 *
 * const perMinute = Throttle.tokenBucket({ capacity: 10_000, refill: 75_000, per: "1 minute", unit: "tokens" })
 *
 * await Effect.runPromise(complete("hello").pipe(Effect.provide(perMinute)))
 * ```
 *
 * @see {@link takeScoped} for a permit that lives as long as a scope
 * @category combinators
 * @since 0.1.0
 */
export const usePermits: UsePermitsForms<Throttle> = eitherWayUse((use, cost) =>
  Effect.flatMap(Throttle, (throttle) => throttle.usePermits(use, cost))
)

/**
 * Lets nobody start for so long, those in line included.
 *
 * **When to use**
 *
 * When a server says "not now" to one call (`Retry-After`): everybody holds back, not only that call.
 *
 * **Details**
 *
 * A pause that ends later than this one stays as it is: pausing again only lengthens. Bounds hold meanwhile: `maxWait`
 * counts the pause, `timeout` runs on, the line fills up to `maxQueue`. Those who run are not touched. An infinite pause
 * lasts until somebody resumes. Dies with a `RangeError` for what is no duration of at least 0.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.pause("20 millis")
 *   yield* Throttle.wait() // 20 ms later
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 10 }))))
 * ```
 *
 * @see {@link resume} to end it
 * @category combinators
 * @since 0.1.0
 */
export const pause = (duration: Duration.Input): Effect.Effect<void, never, Throttle> =>
  Effect.flatMap(Throttle, (throttle) => throttle.pause(duration))

/**
 * Ends a pause: those in line are judged again at once. Without a pause it does nothing.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.pause("1 hour")
 *   yield* Throttle.resume
 *   yield* Throttle.wait() // at once
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 10 }))))
 * ```
 *
 * @see {@link pause}
 * @category combinators
 * @since 0.1.0
 */
export const resume: Effect.Effect<void, never, Throttle> = Effect.flatMap(Throttle, (throttle) => throttle.resume)

/**
 * Gives the provided throttle new limits, or other parts, while it is at work.
 *
 * **When to use**
 *
 * When limits change at run time: a new plan, another configuration, a server that tells what is left.
 *
 * **Details**
 *
 * What is spent stays spent. A part is carried over to the new part of its kind, unit and name (of several alike, in
 * their order): a bucket keeps the permits it has given, never more than the new capacity; a window keeps its log; permits
 * that are held stay held, and a lower limit lets nobody in until enough came back. A part without a predecessor starts
 * afresh, one without a successor is forgotten. Those in line keep their places and are judged again at once by the new
 * limits; one that asks for more than can now ever be granted fails with `PermitsExceedCapacity`; what it asks in a unit
 * that nothing counts any more costs nothing. The throttle keeps its name. The next build of a Layer starts with the
 * policy's own limits again.
 *
 * Dies with a `RangeError` if the new policy has bounds and the type of the throttle's policy has no `ThrottleError`:
 * inline uses of it need not expect one. A policy from `fromData` or `decode`, a Service class whose policy has bounds and
 * a throttle of {@link make} take bounds.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.wait()
 *   yield* Throttle.update(Throttle.rate({ limit: 1_000 }))
 *   yield* Throttle.wait() // 1 ms later, not 1 s
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 1 }))))
 * ```
 *
 * @see {@link pause} to let nobody in for a while
 * @category combinators
 * @since 0.1.0
 */
export const update = (policy: Policy<any>): Effect.Effect<void, never, Throttle> =>
  Effect.flatMap(Throttle, (throttle) => throttle.update(policy))

/**
 * Throttles a stream, element by element: a chunk is not an element.
 *
 * **Details**
 *
 * Each element is pulled when the one before it has been emitted, and emitted when the policy lets it start; upstream
 * feels the backpressure. `cost` says what an element costs, one permit unless told otherwise. Permits of concurrency
 * are given back as soon as the element is emitted. Inline use of the policy elsewhere shares its budget.
 *
 * **Errors**
 *
 * Those of the policy; with `cost` `ThrottleError`, since an element may cost more than can ever be granted.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Stream.range(1, 3).pipe(
 *   Throttle.stream(Throttle.spacing({ interval: "5 millis" })),
 *   Stream.runCollect
 * )
 *
 * await Effect.runPromise(program) // [1, 2, 3], 5 ms from one to the next
 * ```
 *
 * @see {@link withPermit} inside `Stream.mapEffect` to throttle what is done with the elements
 * @category combinators
 * @since 0.1.0
 */
export const stream: {
  /**
   * Throttles a stream element by element, one permit each: a chunk is not an element. Each element is pulled when the one
   * before it has been emitted; upstream feels the backpressure. Adds the policy's errors: none without bounds.
   */
  <P>(policy: Policy<P>): <A, E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | P, R>
  /**
   * Throttles a stream element by element, with a cost for each: a chunk is not an element. Each element is pulled when the
   * one before it has been emitted; upstream feels the backpressure. Adds `ThrottleError`, since an element may cost more
   * than can ever be granted.
   */
  <A>(
    policy: Policy<any>,
    options: { readonly cost: (element: NoInfer<A>) => Cost }
  ): <E, R>(self: Stream.Stream<A, E, R>) => Stream.Stream<A, E | ThrottleError, R>
} = (policy: Policy<any>, options?: { readonly cost: (element: any) => Cost }) => {
  const { find } = impl(policy)
  const pass = (element: any): Effect.Effect<any, any> =>
    options === undefined
      ? policy(Effect.succeed(element))
      : Effect.withFiber((fiber) => find(fiber).throttle.withPermits(Effect.succeed(element), options.cost(element)))
  return (self: Stream.Stream<any, any, any>): Stream.Stream<any, any, any> => Stream.mapEffect(self, pass)
}

/**
 * How long this cost (one permit unless told otherwise) would have to wait if it were asked now, behind those who wait
 * already: `Option.some` of zero if it could start at once, `Option.none` where nobody can know or it could never start.
 * Nobody can know while calls hold the permits it needs, nor, where a part counts those who run, while anyone waits.
 * Nothing is taken.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.gen(function*() {
 *   yield* Throttle.wait()
 *   return yield* Throttle.nextAvailable()
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 1 })))) // just under a second
 * ```
 *
 * @see {@link withPermitsIfAvailable} to start if it can be now
 * @category combinators
 * @since 0.1.0
 */
export const nextAvailable = (cost?: Cost): Effect.Effect<Option.Option<Duration.Duration>, never, Throttle> =>
  Effect.flatMap(Throttle, (throttle) => throttle.nextAvailable(cost))

/**
 * What the provided throttle has done so far, and who waits and runs now.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.andThen(Throttle.wait(), Throttle.statistics)
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Throttle.rate({ limit: 10 })))) // { admitted: 1, … }
 * ```
 *
 * @see {@link metrics} for the same as Effect metrics
 * @category combinators
 * @since 0.1.0
 */
export const statistics: Effect.Effect<Statistics, never, Throttle> = Effect.flatMap(
  Throttle,
  (throttle) => throttle.statistics
)

/** One permit of the throttle under this key, in a step of the calling fiber. */
const withPermitOf =
  <Self>(key: Context.Key<Self, Throttle>) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | ThrottleError, R | Self> =>
    Effect.withFiber((fiber) => {
      const throttle = Context.getUnsafe(fiber.context, key)
      const limiter = limiterOf(throttle)
      // A throttle of our own begins in this step; by way of its `withPermit` it would be a step more, 70 ns.
      return limiter === undefined ? throttle.withPermit(self) : Limiter.begin(limiter, limiter.one, self)
    })

// ---------------------------------------------------------------------------------------------------------------------
// Service classes
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The class that {@link Service} gives: the key of a throttle of its own, with the {@link Operations} as statics.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServiceClass<Self, Id extends string, E, U extends string = any>
  extends Context.ServiceClass<Self, Id, Throttle>, Operations<E, Self, U>
{
  /** The policy it was defined with. */
  readonly policy: Policy<E, U>
  /** The Layer of its policy. */
  readonly layer: Layer.Layer<Self>
  /**
   * The Layer of another policy, which must not be able to fail where its own cannot, and must count what calls may ask
   * for: `Throttle.none` counts everything.
   */
  readonly layerWith: (policy: Policy<E, U>) => Layer.Layer<Self>
}

/**
 * A throttle with a key of its own, for apps with several: the normal case.
 *
 * **When to use**
 *
 * One class for each thing that has a quota. The compiler then knows which throttle an effect needs, and a test replaces
 * one without touching the others.
 *
 * **Details**
 *
 * Logs and metrics call it by its policy's `name`, or by the class's key. Its Layer is that of the policy: memoised with
 * it, one limiter for each policy value and build, and inline use of that policy value below it is the same limiter. So
 * two classes with one policy value share a budget (and the name of the one that is built first): give each a policy of
 * its own. (A class whose policy has bounds, provided with one that has none, has a limiter of its own: it may be given
 * bounds by an update, and inline use of that policy cannot fail.) Provide a class by `layer` or `layerWith`, which keep
 * its errors exact.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * class GitHub extends Throttle.Service<GitHub>()("app/GitHub", Throttle.rate({ limit: 10, per: "1 second" })) {}
 *
 * const fetchRepo = Effect.succeed("repo").pipe(GitHub.withPermit)
 *
 * await Effect.runPromise(fetchRepo.pipe(Effect.provide(GitHub.layer)))
 * await Effect.runPromise(fetchRepo.pipe(Effect.provide(GitHub.layerWith(Throttle.none)))) // in a test
 * ```
 *
 * @see {@link Throttle} for the one generic service
 * @category services
 * @since 0.1.0
 */
export const Service =
  <Self>() =>
  <const Id extends string, E, U extends string>(id: Id, policy: Policy<E, U>): ServiceClass<Self, Id, E, U> => {
    const key = Context.Service<Self, Throttle>()(id)
    const use = <A, E1, R>(f: (throttle: Throttle) => Effect.Effect<A, E1, R>) => Effect.flatMap(key, f)
    // The same Layer for the same policy, which so is one limiter a build.
    const apart = new WeakMap<Policy<E>, Layer.Layer<Self>>()
    const layerWith = (given: Policy<E>): Layer.Layer<Self> => {
      // Uses of the class may fail, inline uses of this policy may not: they cannot share a limiter that may get bounds.
      if (impl(policy).mayRefuse && !impl(given).mayRefuse) {
        const known = apart.get(given) ?? Layer.effect(key, makeNamed(given, given.data.name ?? id))
        apart.set(given, known)
        return known
      }
      const layer = impl(given).named(id)
      return Layer.fromBuild((memoMap, scope) =>
        Effect.map(Layer.buildWithMemoMap(layer, memoMap, scope), (context) => underKey(key, given, context))
      )
    }
    // Which units it counts, and how it may fail, only its type says.
    const service: ServiceClass<Self, Id, E> = Object.assign(key, {
      policy,
      layer: layerWith(policy),
      layerWith,
      withPermit: withPermitOf(key) as ServiceClass<Self, Id, E>["withPermit"],
      withPermits: eitherWay((self, cost) => use((throttle) => throttle.withPermits(self, cost))),
      withPermitsIfAvailable: eitherWay((self, cost) => use((throttle) => throttle.withPermitsIfAvailable(self, cost))),
      wait: (cost?: Cost) => use((throttle) => throttle.wait(cost)),
      takeScoped: (cost?: Cost) => use((throttle) => throttle.takeScoped(cost)),
      usePermits: eitherWayUse((f, cost) => use((throttle) => throttle.usePermits(f, cost))),
      nextAvailable: (cost?: Cost) => use((throttle) => throttle.nextAvailable(cost)),
      pause: (duration: Duration.Input) => use((throttle) => throttle.pause(duration)),
      resume: use((throttle) => throttle.resume),
      update: (policy: Policy<any>) => use((throttle) => throttle.update(policy)),
      statistics: use((throttle) => throttle.statistics)
    })
    return service
  }

// ---------------------------------------------------------------------------------------------------------------------
// Seeing it
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Something that happened to a call that had to wait, or was refused. Times are milliseconds.
 *
 * @see {@link Observer} for who hears it
 * @category observing
 * @since 0.1.0
 */
export type Event = Observe.Event

/**
 * Who hears of calls that wait, are let in after waiting, are refused, or are interrupted while waiting.
 *
 * Give your own at the app's edge to do with the events what you like; by default nobody hears them. It runs in the fiber
 * of the call, so keep it short: during `Waiting` the call keeps its place in line, and if it is the head those behind it
 * wait with it, their timeouts included; at `Admitted` the call has been charged, and its effect begins after. For slow
 * work offer the event to a queue. Logs, spans and metrics are not affected by it. A call that need not wait is no event.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const events: Array<string> = []
 *
 * const program = Effect.void.pipe(
 *   Throttle.spacing({ interval: "5 millis" }),
 *   Effect.repeat({ times: 1 }),
 *   Effect.provideService(Throttle.Observer, (event) => Effect.sync(() => void events.push(event._tag)))
 * )
 *
 * await Effect.runPromise(program)
 * console.log(events) // ["Waiting", "Admitted"]
 * ```
 *
 * @see {@link metrics} for counts
 * @category observing
 * @since 0.1.0
 */
export const Observer: Context.Reference<(event: Event) => Effect.Effect<void>> = Observe.Observer

/**
 * The level at which waits are logged: a line `throttle.waiting` when a call has to wait, one `throttle.admitted` when it
 * is let in, and one `throttle.paused` when a pause begins or becomes longer. Default: "Debug". "None" for no lines.
 * Refusals and interruptions are always at Debug.
 *
 * **Example**
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const program = Effect.void.pipe(
 *   Throttle.rate({ limit: 10 }),
 *   Effect.provideService(Throttle.WaitLogLevel, "Info")
 * )
 *
 * await Effect.runPromise(program)
 * ```
 *
 * @category observing
 * @since 0.1.0
 */
export const WaitLogLevel: Context.Reference<LogLevel.LogLevel> = Observe.WaitLogLevel

/**
 * The metrics of all throttles, always on, with the attribute `throttle` (its name) and for refusals `reason`.
 *
 * | metric | |
 * |---|---|
 * | `throttle_admitted_total` | calls let in |
 * | `throttle_rejected_total` | calls refused, by `reason` |
 * | `throttle_interrupted_total` | calls interrupted while waiting |
 * | `throttle_waiting` | calls waiting now |
 * | `throttle_running` | calls holding permits now |
 * | `throttle_wait_seconds` | histogram of the waits of admitted calls that had to wait |
 *
 * Throttles of one name add up. Counters are plain numbers that a snapshot reads, so a call costs no metric update.
 *
 * **Example**
 *
 * ```ts
 * import { Effect, Metric } from "effect"
 * import { Throttle } from "effect-throttle"
 *
 * const limited = Throttle.rate({ limit: 10, name: "github" })
 *
 * const program = Effect.gen(function*() {
 *   yield* limited(Effect.void)
 *   return yield* Metric.value(Throttle.metrics.admitted.pipe(Metric.withAttributes({ throttle: "github" })))
 * })
 *
 * await Effect.runPromise(program) // { count: 1, incremental: true }
 * ```
 *
 * @see {@link statistics} for one throttle's numbers
 * @category observing
 * @since 0.1.0
 */
export const metrics = Observe.metrics

/**
 * Runs calls on a limiter, over its backend: an effect, an effect that must not wait, or permits for a scope.
 *
 * Invariant: a call takes permits and installs the hook that releases them in one uninterruptible region; only
 * `restore` makes a part of it interruptible. (In an interruptible region a fiber may be interrupted between any two
 * steps.)
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { ThrottleError } from "../ThrottleError.ts"
import type { Call, Host, Restore, Waiter } from "./backend.ts"
import * as Demand from "./demand.ts"
import { type EndedBy, type Grant, noGrant, type Settlement } from "./grant.ts"
import * as Waiters from "./waiter.ts"

type LimiterOf<Self> = Self & Host<Self>

const callOf = (
  { plan }: Host<any>,
  demand: Demand.Demand,
  self: Effect.Effect<any, any, any>,
  endedBy: EndedBy,
  settlement: Settlement | undefined,
  ifAvailable: boolean
): Call => ({
  // An update may have replaced the plan since the cost was resolved, one step earlier.
  demand: Demand.forPlan(plan, demand),
  fiber: Fiber.getCurrent()!,
  self,
  endedBy,
  settlement,
  ifAvailable
})

// ---------------------------------------------------------------------------------------------------------------------
// An effect
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Runs an effect once it may start. Must be called in a step of the fiber that will run the effect.
 *
 * The fast path: if the call holds nothing and may start now, it is charged in this step, and the effect itself is
 * returned without a hook.
 */
export const run = <Self, A, E, R>(
  limiter: LimiterOf<Self>,
  demand: Demand.Demand,
  self: Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  limiter.backend.startHoldingNothing(limiter, demand)
    ? self
    : Effect.uninterruptibleMask((restore) => runMasked(limiter, demand, self, restore))

/** Runs an effect once it may start. Must be called in an uninterruptible region. */
export const runMasked = <Self, A, E, R>(
  limiter: LimiterOf<Self>,
  demand: Demand.Demand,
  self: Effect.Effect<A, E, R>,
  restore: Restore
): Effect.Effect<A, E | ThrottleError, R> => {
  const { backend } = limiter
  const call = callOf(limiter, demand, self, "call", undefined, false)
  const grant = backend.tryStart(limiter, call)
  if (grant !== undefined) return runGranted(limiter, grant, self, restore)
  const waiter = backend.enqueueOrReject(limiter, call)
  return Waiters.isWaiter(waiter) ? runWaiter(limiter, waiter, restore) : restore(waiter)
}

/** Waits until a waiter may start, and runs what it runs. To be called in a region that cannot be interrupted. */
export const runWaiter = <Self>(
  limiter: LimiterOf<Self>,
  waiter: Waiter,
  restore: Restore
): Effect.Effect<any, any, any> =>
  Effect.onExitPrimitive(restore(Waiters.waitAndRun(limiter, waiter)), (exit) => {
    const notice = waiter.state === "waiting" ? Waiters.abandon(limiter, waiter) : undefined
    if (waiter.state === "started") limiter.backend.release(limiter, waiter, exit, true)
    limiter.afterCall?.()
    return notice
  }, true)

const runGranted = <Self, A, E, R>(
  limiter: LimiterOf<Self>,
  grant: Grant,
  self: Effect.Effect<A, E, R>,
  restore: Restore
): Effect.Effect<A, E, R> =>
  grant === noGrant
    ? restore(self)
    : Effect.onExitPrimitive(limiter.backend.runHolding(limiter, grant, restore(self)), (exit) => {
      limiter.backend.release(limiter, grant, exit, true)
      limiter.afterCall?.()
      return undefined
    }, true)

/**
 * Runs an effect only if no wait is needed, and returns its value as `Option.some`; otherwise returns `Option.none()`.
 */
export const runIfAvailable = <Self, A, E, R>(
  limiter: LimiterOf<Self>,
  demand: Demand.Demand,
  self: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E | ThrottleError, R> =>
  Effect.uninterruptibleMask((restore) => runIfAvailableMasked(limiter, demand, self, restore))

/** The same; must be called in an uninterruptible region. */
export const runIfAvailableMasked = <Self, A, E, R>(
  limiter: LimiterOf<Self>,
  demand: Demand.Demand,
  self: Effect.Effect<A, E, R>,
  restore: Restore
): Effect.Effect<Option.Option<A>, E | ThrottleError, R> => {
  const call = callOf(limiter, demand, self, "call", undefined, true)
  const grant = limiter.backend.tryStart(limiter, call)
  return grant === undefined
    ? limiter.backend.resolveIfAvailable(limiter, call, restore) ?? Effect.succeedNone
    : runGranted(limiter, grant, Effect.asSome(self), restore)
}

/** The results of {@link allow}, made once. */
const allowed = Effect.succeed(true)
const notAllowed = Effect.succeed(false)

/** Charges a call that holds nothing, if it may start in this step; returns whether it did. */
export const allow = <Self>(limiter: LimiterOf<Self>, demand: Demand.Demand): Effect.Effect<boolean, ThrottleError> => {
  const { backend } = limiter
  if (backend.startHoldingNothing(limiter, demand)) return allowed
  if (backend.mayAllow?.(limiter, demand) === false) return notAllowed
  return Effect.uninterruptibleMask((restore) => allowMasked(limiter, demand, restore))
}

/** {@link allow} in an uninterruptible region. */
export const allowMasked = <Self>(
  limiter: LimiterOf<Self>,
  demand: Demand.Demand,
  restore: Restore
): Effect.Effect<boolean, ThrottleError> =>
  Effect.map(runIfAvailableMasked(limiter, demand, Effect.void, restore), Option.isSome)

// ---------------------------------------------------------------------------------------------------------------------
// A scope
// ---------------------------------------------------------------------------------------------------------------------

/** @see Throttle.Permit */
export interface Permit {
  readonly cost: Demand.Cost
  readonly settle: (actual: Demand.Cost) => Effect.Effect<void>
  readonly cancel: Effect.Effect<void>
}

export type OnGranted = (permit: Permit, grant: Grant) => void

/**
 * Takes permits until the scope closes.
 *
 * `onGranted` receives the permit in the region in which it is taken, even if the call is interrupted as it starts. A
 * caller that runs an effect afterwards can thus cancel it if that effect has not begun.
 */
export const take = <Self>(
  limiter: LimiterOf<Self>,
  demand: Demand.Demand,
  endedBy: EndedBy,
  onGranted?: OnGranted
): Effect.Effect<Permit, ThrottleError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) => {
    const { backend } = limiter
    // Dies here without a scope, before anything is charged.
    const scope = Context.getUnsafe(Fiber.getCurrent()!.context, Scope.Scope)
    const settlement: Settlement = { state: "open", tickets: [], semaphores: "none" }
    const call = callOf(limiter, demand, Effect.void, endedBy, settlement, false)
    const grant = backend.tryStart(limiter, call)
    if (grant !== undefined) return keep(limiter, demand, grant, scope, onGranted)
    const waiter = backend.enqueueOrReject(limiter, call)
    if (!Waiters.isWaiter(waiter)) return Effect.as(restore(waiter), permitOf(limiter, demand, noGrant))
    const admitted = Effect.onExitPrimitive(restore(Waiters.waitAndRun(limiter, waiter)), (exit) => {
      if (waiter.state === "started") {
        if (Exit.isSuccess(exit)) return undefined
        if (onGranted === undefined) return end(limiter, waiter, exit)
        onGranted(permitOf(limiter, demand, waiter), waiter)
        return undefined
      }
      const notice = waiter.state === "waiting" ? Waiters.abandon(limiter, waiter) : undefined
      limiter.afterCall?.()
      return notice
    }, true)
    return Effect.flatMap(
      admitted,
      (permit?: Permit) =>
        permit === undefined ? keep(limiter, demand, waiter, scope, onGranted) : Effect.succeed(permit)
    )
  })

/** Adds the release of a grant to the scope, and returns its permit. */
const keep = <Self>(
  limiter: LimiterOf<Self>,
  demand: Demand.Demand,
  grant: Grant,
  scope: Scope.Scope,
  onGranted: OnGranted | undefined
): Effect.Effect<Permit> => {
  const permit = permitOf(limiter, demand, grant)
  if (grant === noGrant) return Effect.succeed(permit)
  const kept = (): Effect.Effect<Permit> => {
    onGranted?.(permit, grant)
    return Effect.as(Scope.addFinalizerExit(scope, (exit) => end(limiter, grant, exit)), permit)
  }
  const held = limiter.backend.takeForScope(limiter, grant)
  return held === undefined ? kept() : Effect.flatMap(held, kept)
}

/** Releases a grant once: when the scope closes, or when it is cancelled before. */
const end = <Self>(
  limiter: LimiterOf<Self>,
  grant: Grant,
  exit: Exit.Exit<unknown, unknown>
): Effect.Effect<void> => {
  const { backend } = limiter
  const settlement = grant.settlement!
  const { state } = settlement
  if (state === "closed") return Effect.void
  settlement.state = "closed"
  const release = () => {
    backend.release(limiter, grant, exit, state !== "cancelled")
    limiter.afterCall?.()
  }
  const ended = backend.returnFromScope(limiter, grant)
  if (ended !== undefined) return Effect.andThen(ended, Effect.sync(release))
  release()
  return Effect.void
}

/** Makes the permit of a grant that has a settlement. */
export const permitOf = <Self>(limiter: LimiterOf<Self>, demand: Demand.Demand, grant: Grant): Permit => {
  const { backend } = limiter
  const isOpen = (): boolean => grant.settlement?.state === "open"
  const permit: Permit = {
    cost: demand.cost,
    settle: (actual) =>
      Effect.sync(() => {
        const settled = Demand.actual(limiter.plan, demand, actual)
        if (!isOpen()) return
        grant.settlement!.state = "settled"
        backend.settle(limiter, grant, settled)
      }),
    cancel: Effect.uninterruptible(Effect.suspend(() => {
      if (!isOpen()) return Effect.void
      grant.settlement!.state = "cancelled"
      backend.cancel(limiter, grant)
      return end(limiter, grant, Exit.void)
    }))
  }
  return backend.describePermit === undefined ? permit : backend.describePermit(limiter, grant, permit)
}

/** Takes permits, runs the effect that a function makes of the permit, and releases them when that effect ends. */
export const use = <Self, A, E, R>(
  limiter: LimiterOf<Self>,
  demand: Demand.Demand,
  f: (permit: Permit) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ThrottleError, R> =>
  Effect.acquireUseRelease(
    Scope.make(),
    (scope) => Effect.flatMap(Effect.provideService(take(limiter, demand, "permit"), Scope.Scope, scope), f),
    Scope.close
  )

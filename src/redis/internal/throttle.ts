/**
 * The {@link Throttle.Throttle} that a limiter on a store is for its users.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Formatter from "effect/Formatter"
import * as Scope from "effect/Scope"
import { type Ask, askActual, askFor, type Cost } from "../../internal/ask.ts"
import * as Core from "../../internal/limiter.ts"
import * as Plan from "../../internal/plan.ts"
import * as Throttle from "../../Throttle.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import { underLease } from "./leases.ts"
import * as Limiter from "./limiter.ts"
import { undistributable } from "./rules.ts"
import type { Lease, Limiter as Shared } from "./state.ts"

/** Under which a permit has its lease. */
export const Leased = Symbol("effect-throttle/redis/Leased")

export interface LeasedPermit extends Throttle.Permit {
  readonly [Leased]?: { readonly limiter: Shared; readonly lease: Lease }
}

const permitOf = (limiter: Shared, ask: Ask, kept: Limiter.Kept): LeasedPermit => {
  const lease = kept._tag === "Kept" ? kept.grant.lease : undefined
  return {
    cost: ask.cost,
    settle: (actual) => Effect.suspend(() => Limiter.settle(limiter, kept, askActual(limiter.plan, ask, actual))),
    cancel: Limiter.cancel(limiter, kept),
    ...(lease === undefined ? undefined : { [Leased]: { limiter, lease } })
  }
}

/** Waiting holds nothing, so nothing must be there to be held. */
const timingOnly = (limiter: Shared) =>
  Throttle.refuseToHold({ plan: limiter.plan, parts: { gates: limiter.plan.holdings } })

export const throttleOf = (limiter: Shared): Throttle.Throttle => {
  const asking = <A, E, R>(cost: Cost | undefined, f: (ask: Ask) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => f(cost === undefined ? limiter.one : askFor(limiter.plan, cost)))
  const takeScoped = (cost?: Cost): Effect.Effect<LeasedPermit, ThrottleError, Scope.Scope> =>
    asking(cost, (ask) => Effect.map(Limiter.takeScoped(limiter, ask), (kept) => permitOf(limiter, ask, kept)))
  const mayRefuse = Plan.isBounded(limiter.plan)
  return {
    withPermit: (self) => Limiter.begin(limiter, limiter.one, self),
    withPermits: Throttle.eitherWay((self, cost) => asking(cost, (ask) => Limiter.begin(limiter, ask, self))),
    withPermitsIfAvailable: Throttle.eitherWay((self, cost) =>
      asking(cost, (ask) => Limiter.runIfAvailable(limiter, ask, self))
    ),
    wait: (cost) =>
      asking(cost, (ask) => {
        timingOnly(limiter)
        return Limiter.begin(limiter, ask, Effect.void)
      }),
    takeScoped,
    usePermits: Throttle.eitherWayUse((use, cost) =>
      Effect.acquireUseRelease(
        Scope.make(),
        (scope) =>
          Effect.flatMap(Effect.provideService(takeScoped(cost), Scope.Scope, scope), (permit: LeasedPermit) => {
            const leased = permit[Leased]
            return leased === undefined ? use(permit) : underLease(limiter, leased.lease, use(permit), false)
          }),
        (scope, exit) => Scope.close(scope, exit as Exit.Exit<unknown, unknown>)
      )
    ),
    nextAvailable: (cost) => asking(cost, (ask) => Limiter.nextAvailable(limiter, ask)),
    pause: (duration) =>
      Effect.suspend(() => Limiter.pause(limiter, Throttle.nanosToPause(limiter.plan.name, duration))),
    resume: Limiter.resume(limiter),
    update: (policy) =>
      Effect.suspend(() => {
        if (!Throttle.isPolicy(policy)) {
          throw new RangeError(`Throttle: a policy is needed here, got ${Formatter.format(policy)}`)
        }
        const plan = Plan.make(policy.data)
        const why = undistributable(plan)
        if (why !== undefined) {
          throw new RangeError(`throttle "${limiter.plan.name}": it cannot be shared: "${why.part}": ${why.why}`)
        }
        if (plan.holdings.length > 0 && limiter.settings.onStoreError !== "fail") {
          throw new RangeError(`throttle "${limiter.plan.name}": with concurrency, onStoreError must be "fail"`)
        }
        if (Plan.isBounded(plan) && !mayRefuse) {
          throw new RangeError(
            `throttle "${limiter.plan.name}": it was made without bounds, so an update must have none either ` +
              `(got "${plan.description}")`
          )
        }
        return Limiter.update(limiter, plan, policy.data)
      }),
    statistics: Core.statistics(limiter)
  }
}

/**
 * Makes throttles in this process: a limiter, and the operations on it.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Formatter from "effect/Formatter"
import type * as Scope from "effect/Scope"
import * as Control from "./control.ts"
import * as Demand from "./demand.ts"
import * as Engine from "./engine.ts"
import * as Finish from "./finish.ts"
import * as Arrival from "./levels/arrival.ts"
import type { Limiter } from "./limiter.ts"
import * as Local from "./local.ts"
import * as Operations from "./operations.ts"
import * as Plan from "./plan.ts"
import { isPolicy, type Policy, type Throttle } from "./service.ts"
import * as Watch from "./watch.ts"

export interface LocalThrottle {
  readonly throttle: Throttle
  readonly limiter: Limiter
}

interface LocalEngine extends Engine.Engine {
  readonly limiter: Limiter
}

/**
 * Makes the throttle of a limiter. `mayReject`: whether an update may add bounds; it may not if the type of inline use
 * adds no error.
 */
export const make = (limiter: Limiter, mayReject: boolean): LocalThrottle => ({
  throttle: Operations.make(engine(limiter, mayReject)),
  limiter
})

/** Makes a throttle that closes with the scope. */
export const makeScoped = (plan: Plan.Plan, mayReject: boolean): Effect.Effect<LocalThrottle, never, Scope.Scope> =>
  Effect.map(Local.make(plan, mayReject), (limiter) => make(limiter, mayReject))

const engine = (limiter: Limiter, mayReject: boolean): LocalEngine => ({
  limiter,
  open: () => ({ limiter, close: () => {} }),
  arrival: (demand) => Arrival.ofLimiter(limiter, Demand.forPlan(limiter.plan, demand)),
  ...Engine.ofLimiter(limiter, {
    estimateWait: (demand) => Effect.succeed(Control.estimateWait(limiter, demand)),
    remaining: () => Effect.succeed(Control.remaining(limiter)),
    pause: (nanos) => Control.pause(limiter, Fiber.getCurrent()!, nanos) ?? Effect.void,
    resume: () => {
      Control.resume(limiter)
      return Effect.void
    },
    update: (policy) => {
      const plan = planOf(policy)
      if (Plan.isBounded(plan) && !mayReject) {
        throw new RangeError(
          `throttle ${
            Formatter.format(limiter.plan.name)
          }: the type of its calls has no ThrottleError, so an update must add no ` +
            `bounds, received ${Formatter.format(plan.description)}`
        )
      }
      Control.update(limiter, plan)
      return Effect.void
    },
    reset: () => {
      Control.reset(limiter)
      return Effect.void
    },
    statistics: () => Effect.succeed(Control.statistics(limiter)),
    drain: (nanos) => Finish.drain(Finish.ofLimiter(limiter, mayReject), nanos),
    awaitIdle: () => Watch.until(limiter.counts.watchers, () => Finish.isIdle(limiter)),
    awaitQueue: (calls) => Watch.until(limiter.counts.watchers, () => Finish.hasQueue(limiter, calls))
  })
})

/** The limiter of a throttle of this process; undefined for any other throttle. */
export const limiterOf = (throttle: Throttle): Limiter | undefined =>
  (Operations.engineOf(throttle) as LocalEngine | undefined)?.limiter

/** Makes the plan of a policy. Throws a `RangeError` for any other value. */
export const planOf = (policy: Policy<any>, where = "Throttle"): Plan.Plan => {
  if (isPolicy(policy)) return Plan.make(policy.data)
  throw new RangeError(`${where}: "policy" must be a policy, received ${Formatter.format(policy)}`)
}

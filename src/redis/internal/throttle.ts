/**
 * The operations of a limiter on a store.
 */
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import * as Admission from "../../internal/admission.ts"
import * as Counts from "../../internal/counts.ts"
import * as Engine from "../../internal/engine.ts"
import * as Operations from "../../internal/operations.ts"
import * as Plan from "../../internal/plan.ts"
import type { Throttle } from "../../internal/service.ts"
import { planOf } from "../../internal/throttle.ts"
import * as Watch from "../../internal/watch.ts"
import { Leased, type LeasedPermit } from "./backend.ts"
import * as Control from "./control.ts"
import * as Finish from "./finish.ts"
import { underLease } from "./leases.ts"
import { shared } from "./levelsEngine.ts"
import type { Limiter } from "./limiter.ts"
import { undistributable } from "./rules.ts"

export const engine = (limiter: Limiter): Engine.Engine => {
  const { name } = limiter.plan
  const isBounded = Plan.isBounded(limiter.plan)
  const invalid = (message: string) => new RangeError(`throttle ${Formatter.format(name)}: ${message}`)
  return {
    ...Engine.ofLimiter(limiter, {
      estimateWait: (demand) => Control.estimateWait(limiter, demand),
      remaining: () => Control.remaining(limiter),
      pause: (nanos) => Control.pause(limiter, nanos),
      resume: () => Control.resume(limiter),
      update: (policy) => {
        const plan = planOf(policy)
        const why = undistributable(plan)
        if (why !== undefined) {
          throw invalid(`several processes cannot share ${Formatter.format(why.part)}: ${why.why}`)
        }
        if (plan.pools.length > 0 && limiter.settings.onStoreError !== "fail") {
          throw invalid("with a part that limits running calls \"onStoreError\" must be \"fail\"")
        }
        if (Plan.isBounded(plan) && !isBounded) {
          throw invalid(
            `it was made without bounds, so an update must add none, received ${Formatter.format(plan.description)}`
          )
        }
        return Control.update(limiter, plan, policy.data)
      },
      reset: () => Control.reset(limiter),
      statistics: () => Effect.succeed(Counts.statistics(limiter.counts.own)),
      drain: (nanos) => {
        const { onStoreError } = limiter.settings
        const fallback = typeof onStoreError === "string" ? undefined : onStoreError.throttle
        return Finish.drain(Finish.ofLimiter(limiter, limiter.mayReject), fallback, nanos)
      },
      awaitIdle: () => Watch.until(limiter.counts.watchers, () => Finish.isIdle(limiter)),
      awaitQueue: (calls) => Watch.until(limiter.counts.watchers, () => Finish.hasQueue(limiter, calls))
    }),
    use: (use, cost) =>
      Admission.use(limiter, Engine.demandOf(limiter, cost), (permit: LeasedPermit) => {
        const leases = permit[Leased]
        return leases === undefined ? use(permit) : underLease(leases, use(permit))
      })
  }
}

export const throttleOf = (limiter: Limiter): Throttle => {
  const { client: { store }, key } = limiter.settings
  return Operations.make(shared(engine(limiter), { store, key, open: () => ({ limiter, close: () => {} }) }))
}

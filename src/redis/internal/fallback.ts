/**
 * The throttle by which a process decides while the store gives no decision: a share of the policy.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { PolicyData } from "../../internal/data/schema.ts"
import * as PolicyValue from "../../internal/policy.ts"
import type { Policy, Throttle } from "../../internal/service.ts"
import { makeScoped, planOf } from "../../internal/throttle.ts"

export interface Fallback {
  readonly throttle: Throttle
  readonly share: number
}

/** A throttle that closes with the scope. `mayReject`: whether the type of its calls has an error. */
export const make = (
  data: PolicyData,
  name: string,
  share: number,
  mayReject: boolean
): Effect.Effect<Fallback, never, Scope.Scope> =>
  Effect.map(makeScoped({ ...planOf(shareOf(data, share)), name }, mayReject), ({ throttle }) => ({ throttle, share }))

/** A policy with a share of the limits of another: as many permits at a time, less often. */
export const shareOf = (data: PolicyData, share: number): Policy<any> => PolicyValue.make(sharedData(data, share), true)

const sharedData = (data: PolicyData, share: number): PolicyData => {
  switch (data._tag) {
    case "Rate":
      return { ...data, per: data.per / share, burst: Math.floor(data.burst * share) }
    case "TokenBucket":
      return { ...data, per: data.per / share, capacity: Math.max(1, Math.floor(data.capacity * share)) }
    case "Window": {
      const limit = Math.max(1, Math.floor(data.limit * share))
      return data.kind === "calendar"
        ? { ...data, limit }
        : { ...data, limit, per: data.per * limit / (data.limit * share) }
    }
    case "Spacing":
      return { ...data, interval: data.interval / share }
    case "All":
      return { ...data, policies: data.policies.map((part) => sharedData(part, share)) }
    default:
      return data
  }
}

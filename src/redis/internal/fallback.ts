/**
 * The share of a policy that a process keeps by itself while the store gives no decision.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { type Ask, type Cost, spelled } from "../../internal/ask.ts"
import type { PolicyData } from "../../Policy.ts"
import * as Throttle from "../../Throttle.ts"
import type { ThrottleError } from "../../ThrottleError.ts"
import type * as ThrottleMap from "../../ThrottleMap.ts"

/** A throttle in this process: that of one policy, or that of one key of a map. */
export interface Fallback {
  readonly withPermits: (
    cost: Cost
  ) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | ThrottleError, R>
  readonly withPermitsIfAvailable: (
    cost: Cost
  ) => <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<Option.Option<A>, E | ThrottleError, R>
  readonly takeScoped: (cost: Cost) => Effect.Effect<Throttle.Permit, ThrottleError, Scope.Scope>
  readonly pause: (nanos: number) => Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Keeps the same share of another policy. */
  readonly update: (data: PolicyData) => Effect.Effect<void>
}

/** A policy with a share of its limits: as many permits at a time, less often. */
export const shareOf = (data: PolicyData, share: number): PolicyData => {
  switch (data._tag) {
    case "Rate":
      return { ...data, per: data.per / share, burst: Math.floor(data.burst * share) }
    case "TokenBucket":
      return { ...data, per: data.per / share, capacity: Math.max(1, Math.floor(data.capacity * share)) }
    case "Window": {
      const limit = Math.max(1, Math.floor(data.limit * share))
      return { ...data, limit, per: data.per * limit / (data.limit * share) }
    }
    case "Spacing":
      return { ...data, interval: data.interval / share }
    case "All":
      return { ...data, policies: data.policies.map((part) => shareOf(part, share)) }
    default:
      return data
  }
}

/** A cost in the units that the current policy counts; what an update has taken out costs nothing. */
export const costOf = ({ cost, plan: { units } }: Ask): Cost =>
  units === undefined || (typeof cost === "number" && units.has("permits"))
    ? cost
    : Object.fromEntries(Object.entries(spelled(cost)).filter(([unit]) => units.has(unit)))

/** A throttle of one policy, which is closed with the scope. */
export const make = (data: PolicyData, name: string, share: number): Effect.Effect<Fallback, never, Scope.Scope> => {
  const policyOf = (data: PolicyData) => Throttle.fromData({ ...shareOf(data, share), name })
  return Effect.map(Throttle.make(policyOf(data)), (throttle) => ({
    withPermits: throttle.withPermits,
    withPermitsIfAvailable: throttle.withPermitsIfAvailable,
    takeScoped: throttle.takeScoped,
    pause: (nanos) => throttle.pause(Duration.millis(nanos / 1e6)),
    resume: throttle.resume,
    update: (data) => throttle.update(policyOf(data))
  }))
}

/** The throttle of one key of a map. */
export const ofKey = <K>(map: ThrottleMap.ThrottleMap<K>, key: K, share: number): Fallback => ({
  withPermits: (cost) => map.withPermits(key, cost),
  withPermitsIfAvailable: (cost) => map.withPermitsIfAvailable(key, cost),
  takeScoped: (cost) => map.takeScoped(key, cost),
  pause: (nanos) => Effect.ignore(map.pause(key, Duration.millis(nanos / 1e6))),
  resume: map.resume(key),
  update: (data) => map.update(key, Throttle.fromData(shareOf(data, share)))
})

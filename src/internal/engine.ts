/**
 * The interface behind the operations of a throttle, and its implementation for a limiter in this process or on a
 * store. (`keyed/engine.ts` implements it for the keys of a map.)
 *
 * Each function is called in a step of the fiber that runs the operation. An undefined cost is one permit.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Formatter from "effect/Formatter"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { ThrottleError } from "../ThrottleError.ts"
import * as Admission from "./admission.ts"
import type { Host } from "./backend.ts"
import type * as Counts from "./counts.ts"
import * as Demand from "./demand.ts"
import type { Arrival } from "./levels/arrival.ts"
import type { Limiter } from "./limiter.ts"
import type { Plan } from "./plan.ts"
import type { PartRemaining } from "./remaining.ts"
import type { Policy } from "./service.ts"

type Cost = Demand.Cost | undefined

export interface Engine {
  readonly name: string
  /** The current plan; undefined if there is no policy, as in the recorder of `effect-throttle/testing`. */
  readonly plan: () => Plan | undefined
  readonly run: <A, E, R>(
    self: Effect.Effect<A, E, R>,
    cost: Cost
  ) => Effect.Effect<A, E | ThrottleError, R>
  readonly runIfAvailable: <A, E, R>(
    self: Effect.Effect<A, E, R>,
    cost: Cost
  ) => Effect.Effect<Option.Option<A>, E | ThrottleError, R>
  readonly wait: (cost: Cost) => Effect.Effect<void, ThrottleError>
  readonly allow: (cost: Cost) => Effect.Effect<boolean, ThrottleError>
  readonly take: (cost: Cost) => Effect.Effect<Admission.Permit, ThrottleError, Scope.Scope>
  readonly use: <A, E, R>(
    use: (permit: Admission.Permit) => Effect.Effect<A, E, R>,
    cost: Cost
  ) => Effect.Effect<A, E | ThrottleError, R>
  readonly estimateWait: (cost: Cost) => Effect.Effect<Option.Option<Duration.Duration>>
  readonly remaining: () => Effect.Effect<ReadonlyArray<PartRemaining>>
  readonly pause: (nanos: number) => Effect.Effect<void, ThrottleError>
  readonly resume: () => Effect.Effect<void>
  readonly update: (policy: Policy<any>) => Effect.Effect<void>
  readonly reset: () => Effect.Effect<void>
  readonly statistics: () => Effect.Effect<Counts.Statistics>
  readonly drain: (nanos: number) => Effect.Effect<number>
  readonly awaitIdle: () => Effect.Effect<void>
  readonly awaitQueue: (calls: number) => Effect.Effect<void>
  /**
   * Opens the limiter for a call of several levels: until it is closed again, it is that of the same key. Returns an effect
   * that replaces the call, if there is no room for the key. Absent where the limiter is not in this process.
   */
  readonly open?: (demand: Demand.Demand) => Opened | Effect.Effect<never, ThrottleError>
  /** Whether `open` would have to make room for the key. Absent where there are no keys. */
  readonly needsRoom?: () => boolean
  /** A call of several levels at this one, to be used in this step. Present where `open` is. */
  readonly arrival?: (demand: Demand.Demand) => Arrival
  /** Makes the levels of which this is one. Absent where the limiter is in this process. */
  readonly levels?: (engines: ReadonlyArray<Engine>) => Engine
}

export interface Opened<L = Limiter> {
  readonly limiter: L
  readonly close: () => void
}

/** The operations of an engine that admit no calls. */
export type Controls =
  & Pick<
    Engine,
    "remaining" | "pause" | "resume" | "update" | "reset" | "statistics" | "drain" | "awaitIdle" | "awaitQueue"
  >
  & {
    readonly estimateWait: (demand: Demand.Demand) => Effect.Effect<Option.Option<Duration.Duration>>
  }

/** Makes the engine of a limiter. */
export const ofLimiter = <Self>(limiter: Self & Host<Self>, controls: Controls): Engine => ({
  ...controls,
  name: limiter.plan.name,
  plan: () => limiter.plan,
  run: (self, cost) => Admission.run(limiter, demandOf(limiter, cost), self),
  runIfAvailable: (self, cost) => Admission.runIfAvailable(limiter, demandOf(limiter, cost), self),
  wait: (cost) => {
    const demand = demandOf(limiter, cost)
    checkHoldsNothing(limiter.plan, "wait")
    return Admission.run(limiter, demand, Effect.void)
  },
  allow: (cost) => {
    const demand = demandOf(limiter, cost)
    checkHoldsNothing(limiter.plan, "allow")
    return Admission.allow(limiter, demand)
  },
  take: (cost) => Admission.take(limiter, demandOf(limiter, cost), "scope"),
  use: (use, cost) => Admission.use(limiter, demandOf(limiter, cost), use),
  // In the step that resolves the cost: an update may replace the plan before the next step.
  estimateWait: (cost) => controls.estimateWait(demandOf(limiter, cost))
})

/**
 * Resolves a call's cost for the limiter's plan. Throws a `RangeError` for an invalid cost, which becomes a defect of
 * that call alone.
 */
export const demandOf = ({ one, plan }: Pick<Host<never>, "one" | "plan">, cost: Cost): Demand.Demand =>
  cost === undefined ? one : Demand.make(plan, cost)

/** Throws a `RangeError` if a part of the plan limits running calls, since `wait` and `allow` never release permits. */
export const checkHoldsNothing = ({ name, pools: [pool] }: Plan, operation: "wait" | "allow"): void => {
  if (pool === undefined) return
  throw new RangeError(
    `throttle ${Formatter.format(name)}: ${operation} holds no permits, but ${
      Formatter.format(pool.name)
    } limits running calls; ` +
      "use takeScoped or withPermit"
  )
}

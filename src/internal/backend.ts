/**
 * The interface between the code that runs calls (`admission.ts`, `waiter.ts`) and the code that decides about them:
 * this process (`local.ts`), or a store that processes share.
 *
 * A *step* is a synchronous run of code within a fiber: no interruption takes effect before it ends, and no other fiber
 * runs, unless the step resumes one. A resumed fiber runs at once until it parks or ends, so the state is consistent
 * whenever a fiber is resumed.
 */
import type * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Option from "effect/Option"
import type { ThrottleError } from "../ThrottleError.ts"
import type * as Bounds from "./bounds.ts"
import type * as Caller from "./caller.ts"
import type * as Counts from "./counts.ts"
import type { Demand } from "./demand.ts"
import type { AnyFiber, EndedBy, Grant, LiveMeter, Settlement } from "./grant.ts"
import type * as Heap from "./heap.ts"
import type * as List from "./list.ts"
import type { Pauses } from "./pauses.ts"
import type { Plan } from "./plan.ts"
import type { Pool } from "./pool.ts"
import type { Queued } from "./queue/queue.ts"
import type { Time } from "./time.ts"

/** The state of a limiter that admission and waiters use. */
export interface Host<Self> {
  readonly backend: Backend<Self>
  plan: Plan
  meters: ReadonlyArray<LiveMeter>
  pools: ReadonlyArray<Pool>
  /** The demand of a call that names no cost: one permit. */
  one: Demand
  readonly time: Time
  readonly counts: Counts.Counts
  readonly pauses: Pauses
  /** The waiting calls, by arrival. */
  readonly waiters: List.List<Waiter>
  /** The number of waiting calls of each caller, if the plan asks for callers. */
  readonly callers: Caller.Counts
  /** The waiting calls that have bounds of their own, by deadline. */
  readonly bounded: Heap.Heap<Waiter>
  /** Whether calls may be rejected by bounds of their own, since their type has the error. */
  readonly mayReject: boolean
  /** Runs after each call that held permits or waited. A map uses it to take the limiter of an idle key back. */
  afterCall: (() => void) | undefined
}

/** Decides about the calls of a limiter. */
export interface Backend<in Self> {
  /** Starts a call that will hold nothing, if it may start in this step; returns whether it did. */
  readonly startHoldingNothing: (limiter: Self, demand: Demand) => boolean
  /** Whether a call that `startHoldingNothing` did not start may still be allowed, or fail; absent: it may. */
  readonly mayAllow?: (limiter: Self, demand: Demand) => boolean
  /** Starts a call, if it may start in this step, and returns what it holds; otherwise undefined. */
  readonly tryStart: (limiter: Self, call: Call) => Grant | undefined
  /**
   * Handles a call that cannot start in this step: makes it a waiter, or returns the effect that replaces it, such as a
   * rejection.
   */
  readonly enqueueOrReject: (limiter: Self, call: Call) => Waiter | Effect.Effect<any, any, any>
  /**
   * Handles a call that cannot start in this step and must not wait. Returns the effect that replaces it; undefined to
   * run nothing. It is called in an uninterruptible region; `restore` makes an effect interruptible.
   */
  readonly resolveIfAvailable: (
    limiter: Self,
    call: Call,
    restore: Restore
  ) => Effect.Effect<Option.Option<any>, any, any> | undefined

  /** Called when the fiber of a waiter is parked. */
  readonly onPark: (limiter: Self, waiter: Waiter) => void
  /** Starts a waiter in the step in which its effect begins; returns false if it still has to wait. */
  readonly startIfReady: (limiter: Self, waiter: Waiter) => boolean
  /** Whether a call that was resumed still waits for the same. Absent if it never does. */
  readonly waitsOn?: (limiter: Self, waiter: Waiter) => boolean
  /** Removes a waiter that does not start from the queue, or gives back what it was granted. */
  readonly leave: (limiter: Self, waiter: Waiter) => void

  /**
   * Wraps the effect of a started call, so that it runs while its permits are held. Another throttle may take the call over:
   * a waiter that is "left" by then releases nothing here, and for a scope the effect returns the permit of that throttle.
   */
  readonly runHolding: <A, E, R>(limiter: Self, grant: Grant, self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Takes the permits of a started call for a scope; undefined if there is nothing to take. */
  readonly takeForScope: (limiter: Self, grant: Grant) => Effect.Effect<unknown> | undefined
  /** Returns the permits that `takeForScope` took; undefined if there is nothing to return. */
  readonly returnFromScope: (limiter: Self, grant: Grant) => Effect.Effect<unknown> | undefined
  /** Replaces the estimated cost of a call with the actual one. */
  readonly settle: (limiter: Self, grant: Grant, actual: Demand) => void
  /** Refunds everything a call was charged. */
  readonly cancel: (limiter: Self, grant: Grant) => void
  /** Adds to the permit of a call what only the backend knows of it; absent where there is nothing to add. */
  readonly describePermit?: <P extends object>(limiter: Self, grant: Grant, permit: P) => P
  /**
   * Releases what a call holds, at its end. `isCharged`: whether meters that are charged on release count it; false for
   * a cancelled call.
   */
  readonly release: (limiter: Self, grant: Grant, exit: Exit.Exit<unknown, unknown>, isCharged: boolean) => void
}

/** Makes an effect interruptible inside an uninterruptible region. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A call that arrives. */
export interface Call {
  readonly demand: Demand
  readonly fiber: AnyFiber
  readonly self: Effect.Effect<any, any, any>
  readonly endedBy: EndedBy
  readonly settlement: Settlement | undefined
  /** Whether it must not wait. */
  readonly ifAvailable: boolean
}

/** A waiting call. Once started it is its own grant, so that a start allocates nothing. */
export interface Waiter extends Grant, Omit<Queued, "settlement"> {
  prev: Waiter | undefined
  next: Waiter | undefined
  /** The effect to run when it starts. */
  readonly self: Effect.Effect<any, any, any>
  /** "left": it was removed from the queue without a start. */
  state: "waiting" | "started" | "left"
  /** Undefined if it has no bounds of its own. */
  own: Bounds.Own<Waiter> | undefined
  /** Undefined if nothing observes the wait. */
  observation: Observation | undefined
  /** Resumes its fiber. Set only while the fiber is parked. */
  resume: ((effect: Effect.Effect<any, ThrottleError, any>) => void) | undefined
  /** The effect with which the fiber continues, if that was decided before the fiber was parked. */
  outcome: Effect.Effect<any, any, any> | undefined
  /** Whether its call was ready here and waits for a wider limiter now, which resumes it (see `levels/levels.ts`). */
  isAhead: boolean
}

/** What is reported about a wait by the log, the span or the observer. */
export interface Observation {
  readonly hasSpan: boolean
  readonly isNotified: boolean
  /** The number of waiting calls on arrival, this one included. */
  readonly queued: number
  /** The estimated wait in nanoseconds; undefined if it cannot be estimated. */
  readonly expected: number | undefined
  /** Total nanoseconds of pauses before the arrival. */
  readonly pausedBefore: number
}

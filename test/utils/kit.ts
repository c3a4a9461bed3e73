/**
 * What tests of a throttle have in common. The only file of the tests that looks into a limiter.
 */
import { assert } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Option, Scope } from "effect"
import { Throttle, ThrottleError, type ThrottleMap } from "effect-throttle"
import { TestClock } from "effect/testing"
import * as Budget from "../../src/internal/budget.ts"
import { peek } from "../../src/internal/keyed/map.ts"
import type { Limiter } from "../../src/internal/limiter.ts"
import * as List from "../../src/internal/list.ts"
import * as Pool from "../../src/internal/pool.ts"
import { remaining } from "../../src/internal/remaining.ts"
import * as Local from "../../src/internal/throttle.ts"
import * as Time from "../../src/internal/time.ts"
import type * as Simulator from "./simulator.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Calls and time
// ---------------------------------------------------------------------------------------------------------------------

/** Forks a call and runs it up to its first wait. */
export const fork = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.forkChild(self, { startImmediately: true })

/** Lets everything happen that happens at this instant. */
export const settled = TestClock.adjust(0)

/** The monotonic time of the TestClock, in milliseconds. */
export const now = TestClock.testClockWith((clock) => Effect.sync(() => Number(clock.monotonicTimeNanosUnsafe()) / 1e6))

/** Forks so many calls of one permit. The instants of their starts, in whole milliseconds, are added as they come. */
export const startsOf = (throttle: Throttle.Throttle, calls: number) =>
  Effect.gen(function*() {
    const starts: Array<number> = []
    for (let i = 0; i < calls; i++) {
      yield* fork(throttle.withPermit(Effect.map(now, (at) => void starts.push(Math.round(at)))))
    }
    return starts
  })

/** The estimated wait in milliseconds; undefined where it cannot be estimated. */
export const estimateOf = (throttle: Throttle.Throttle, cost?: Throttle.Cost) =>
  Effect.map(throttle.estimateWait(cost), (wait) => Option.getOrUndefined(Option.map(wait, Duration.toMillis)))

/** A throttle on the clock of a simulator. */
export const throttleIn = (
  simulator: Simulator.Simulator,
  policy: Throttle.Policy<any>,
  scope = Scope.makeUnsafe()
): Throttle.Throttle => {
  let throttle!: Throttle.Throttle
  simulator.fork(Effect.map(Scope.provide(Throttle.make(policy), scope), (made) => void (throttle = made)))
  simulator.run()
  return throttle
}

// ---------------------------------------------------------------------------------------------------------------------
// How calls end
// ---------------------------------------------------------------------------------------------------------------------

type AnyExit = Exit.Exit<unknown, unknown> | undefined

/** The defect that a call died with; undefined for any other end. */
export const defectOf = (exit: AnyExit): unknown =>
  exit !== undefined && Exit.isFailure(exit) ? exit.cause.reasons.find(Cause.isDieReason)?.defect : undefined

/** The message of the RangeError that a call died with; the test fails for any other end. */
export const rangeErrorOf = (exit: AnyExit): string => {
  const defect = defectOf(exit)
  assert.instanceOf(defect, RangeError, `no RangeError: ${exit}`)
  return (defect as RangeError).message
}

/** The error that a call failed with; undefined for any other end. */
export const errorOf = (exit: AnyExit): unknown =>
  exit === undefined ? undefined : Option.getOrUndefined(Exit.findErrorOption(exit))

/** The ThrottleError that a call was rejected with; the test fails for any other end. */
export const throttleErrorOf = (exit: AnyExit): ThrottleError => {
  const error = errorOf(exit)
  assert.instanceOf(error, ThrottleError, `no ThrottleError: ${exit}`)
  return error as ThrottleError
}

/** The ThrottleError that a call is rejected with; the test fails for any other end. */
export const rejectionOf = <A, E, R>(call: Effect.Effect<A, E, R>) => Effect.map(Effect.exit(call), throttleErrorOf)

/** The tag of the reason that a call was rejected for; undefined for any other end. */
export const reasonOf = (exit: AnyExit): ThrottleError["reason"]["_tag"] | undefined => {
  const error = errorOf(exit)
  return error instanceof ThrottleError ? error.reason._tag : undefined
}

// ---------------------------------------------------------------------------------------------------------------------
// Statistics
// ---------------------------------------------------------------------------------------------------------------------

/** Statistics with each duration in milliseconds. */
export const inMillis = ({ longestWait, waited, ...others }: Throttle.Statistics) => ({
  ...others,
  waited: Duration.toMillis(waited),
  longestWait: Duration.toMillis(longestWait)
})

/** The numbers of rejections where no call was rejected. */
export const noRejections = { QueueFull: 0, WaitTooLong: 0, TimedOut: 0, PermitsExceedCapacity: 0, Draining: 0 }

// ---------------------------------------------------------------------------------------------------------------------
// The inside of a limiter
// ---------------------------------------------------------------------------------------------------------------------

/** The limiter of a throttle. */
export const limiterOf = (throttle: Throttle.Throttle): Limiter => {
  const limiter = Local.limiterOf(throttle)
  if (limiter === undefined) throw new Error("not a throttle of this process")
  return limiter
}

/** The name of a throttle, the description of its current policy, and the units that this counts (undefined: all). */
export const policyOf = (throttle: Throttle.Throttle) => {
  const { description, name, units } = limiterOf(throttle).plan
  return { description, name, units }
}

/** What is left of calls when none waits, holds permits or may be settled any more: nothing, or what is wrong. */
export const leftOf = (
  { bounded, callers, counts, holders, meters, pools, queue, scheduler, unsettled, waiters }: Limiter
) => {
  const { own, series } = counts
  const left = {
    "waiting calls": waiters.size > 0 || waiters.first !== undefined || waiters.last !== undefined,
    "a head of the queue": queue.peek() !== undefined,
    "calls that count as waiting": own.waiting !== 0,
    "calls that count as running": own.running !== 0,
    "waiting callers": callers.size > 0,
    "bounds of calls": bounded.nodes.length > 0,
    "a drain that does not end": scheduler.isDraining,
    "a timer": scheduler.timer !== undefined,
    "holders": holders.size > 0 || List.values(holders).next().done !== true,
    "unsettled calls": unsettled !== 0,
    "the demand of waiting calls": meters.some(({ waitingCalls, waitingCost }) =>
      waitingCalls !== 0 || waitingCost !== 0
    ),
    "permits": pools.some(({ held }) => held !== 0),
    "permits of a Semaphore": pools.some(({ limit, semaphore }) => {
      if (!Effect.runSync(semaphore.takeIfAvailable(limit))) return true
      const isTooLarge = Effect.runSync(semaphore.takeIfAvailable(1))
      Effect.runSync(semaphore.release(isTooLarge ? limit + 1 : limit))
      return isTooLarge
    }),
    "negative numbers": series.waiting < 0 || series.running < 0
  }
  return Object.entries(left).filter(([, is]) => is).map(([what]) => what)
}

/** No call waits, holds permits or may be settled any more. */
export const assertIdle = (throttle: Throttle.Throttle, where = "at the end"): void =>
  assert.deepStrictEqual(leftOf(limiterOf(throttle)), [], where)

/** The numbers of a throttle now. */
export const statisticsOf = (throttle: Throttle.Throttle): Throttle.Statistics => Effect.runSync(throttle.statistics)

/** For each part that is held while calls run, its name and the permits that are free. */
export const freeOf = (throttle: Throttle.Throttle): ReadonlyArray<readonly [name: string, free: number]> =>
  limiterOf(throttle).pools.map((pool) => [pool.part.name, Pool.free(pool)])

/** The free permits of the only part that is held while calls run, which are also those of its Semaphore. */
export const onlyFreeOf = (throttle: Throttle.Throttle): number => {
  const [pool] = limiterOf(throttle).pools
  return Pool.free(pool!)
}

/** The meter of the first part that decides by time. */
export const firstMeterOf = (throttle: Throttle.Throttle) => limiterOf(throttle).plan.meters[0]!.meter

/** What each part that decides by time has left now. */
export const remainingOf = (throttle: Throttle.Throttle): ReadonlyArray<number> => {
  const { charged, plan, time, wall } = limiterOf(throttle)
  return plan.meters.map(({ meter }, i) =>
    meter.remaining(Budget.stateOf(plan, charged.ref.current, i), Time.now(time), wall)
  )
}

/** The waiting calls, by arrival. */
export const waitersOf = (throttle: Throttle.Throttle) => List.values(limiterOf(throttle).waiters)

/** What each part of a key has left now. */
export const remainingOfKey = <K>(map: ThrottleMap.ThrottleMap<K>, key: K) => {
  const { now, view } = peek(map, key)!
  return remaining(view, now)
}

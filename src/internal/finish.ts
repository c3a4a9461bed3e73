/**
 * The operation `drain`: a throttle refuses newcomers while its other calls finish. (In the core, to drain is to admit
 * waiters from the head of the queue.) Also `awaitIdle`, which waits for the same end.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Control from "./control.ts"
import type { Watchers } from "./counts.ts"
import type { Grant } from "./grant.ts"
import type { Limiter } from "./limiter.ts"
import * as List from "./list.ts"
import * as Metrics from "./metrics.ts"
import type { Plan } from "./plan.ts"
import * as Waiters from "./waiter.ts"
import * as Watch from "./watch.ts"

/** What can be drained: a throttle, a map of throttles. */
export interface Finishing {
  readonly clock: Clock.Clock
  readonly watchers: Watchers
  readonly refuseNewcomers: () => void
  /** Whether no call waits or holds permits. */
  readonly isIdle: () => boolean
  /** Interrupts the calls that wait or run; returns how many. */
  readonly interruptRest: () => number
  /** Whether all calls that `interruptRest` interrupts have ended. */
  readonly isRestOver: () => boolean
}

/**
 * Refuses newcomers, and waits until no call waits or holds permits. After `nanos` it interrupts the rest, and waits
 * until they have ended. Returns the number of calls that it interrupted.
 */
export const drain = (finishing: Finishing, nanos: number): Effect.Effect<number> =>
  Effect.suspend(() => {
    const { clock, interruptRest, isIdle, isRestOver, refuseNewcomers, watchers } = finishing
    refuseNewcomers()
    return Effect.flatMap(Watch.untilOrAfter(watchers, isIdle, clock, nanos), (isOver) => {
      if (isOver) return Effect.succeed(0)
      const interrupted = interruptRest()
      return Effect.as(Watch.until(watchers, isRestOver), interrupted)
    })
  })

// ---------------------------------------------------------------------------------------------------------------------
// A limiter in this process
// ---------------------------------------------------------------------------------------------------------------------

/** A limiter in shadow holds no call back, and is always idle. (A call that starts is counted before it leaves the queue.) */
export const isIdle = ({ counts: { own }, phase }: Limiter): boolean =>
  phase === "shadow" || (own.waiting === 0 && own.running === 0)

export const hasQueue = ({ counts: { own }, phase }: Limiter, calls: number): boolean =>
  phase !== "shadow" && own.waiting >= calls

/**
 * Lets a limiter refuse newcomers. `mayReject`: whether the type of its calls has an error; otherwise newcomers are
 * interrupted. A policy in shadow is put in force, so that the calls that run are known.
 */
export const refuseNewcomers = (limiter: Limiter, mayReject: boolean): void => {
  if (limiter.phase === "closed") return
  if (limiter.phase === "shadow") Control.update(limiter, { ...limiter.plan, shadow: false })
  limiter.phase = mayReject ? "draining" : "closing"
  if (mayReject) Metrics.countDraining(limiter.counts.series)
}

/** Lets a limiter admit newcomers again, by `plan`: a drain has put one in shadow in force. */
export const admitNewcomers = (limiter: Limiter, plan: Plan): void => {
  limiter.phase = "inForce"
  if (plan.shadow) Control.update(limiter, plan)
}

/**
 * Interrupts the waiting calls, and the fibers of those that run. Permits for a scope are released by their scope, which
 * may be one that closes only after this.
 */
export const interruptRest = (limiter: Limiter): number => {
  const waiting = Array.from(List.values(limiter.waiters))
  const running = Array.from(List.values(limiter.holders)).filter(isRunning)
  for (const waiter of waiting) if (waiter.state === "waiting") Waiters.interrupt(limiter, waiter)
  for (const { fiber } of running) fiber.interruptUnsafe()
  return waiting.length + running.length
}

export const isRestOver = ({ holders, waiters }: Limiter): boolean => {
  if (waiters.size > 0) return false
  for (const holder of List.values(holders)) if (isRunning(holder)) return false
  return true
}

/** Whether a fiber runs a call and releases its permits at its end. */
const isRunning = ({ endedBy, fiber }: Grant): boolean => endedBy !== "scope" && fiber.pollUnsafe() === undefined

export const ofLimiter = (limiter: Limiter, mayReject: boolean): Finishing => ({
  clock: limiter.time.clock,
  watchers: limiter.counts.watchers,
  refuseNewcomers: () => refuseNewcomers(limiter, mayReject),
  isIdle: () => isIdle(limiter),
  interruptRest: () => interruptRest(limiter),
  isRestOver: () => isRestOver(limiter)
})

// ---------------------------------------------------------------------------------------------------------------------
// Several
// ---------------------------------------------------------------------------------------------------------------------

/** Tests a condition on all members. It looks first at the one that did not meet it last time. */
export const all = <A>(members: () => Iterable<A>, holds: (member: A) => boolean): () => boolean => {
  let last: A | undefined
  return () => {
    if (last !== undefined && !holds(last)) return false
    last = undefined
    for (const member of members()) {
      if (holds(member)) continue
      last = member
      return false
    }
    return true
  }
}

export const sum = <A>(members: Iterable<A>, f: (member: A) => number): number =>
  Array.from(members).reduce((total, member) => total + f(member), 0)

/**
 * The operation `drain` of a throttle on a store: the calls of this process finish, and newcomers in it are refused.
 */
import * as Effect from "effect/Effect"
import * as Finish from "../../internal/finish.ts"
import * as Metrics from "../../internal/metrics.ts"
import type { Throttle } from "../../internal/service.ts"
import * as Time from "../../internal/time.ts"
import * as Waiters from "../../internal/waiter.ts"
import { type Lease, type Limiter, queuedCalls, waitersOf } from "./limiter.ts"

/** Calls that the store has not answered yet count as waiting here. */
export const isIdle = ({ counts: { own }, leases, waiters }: Limiter): boolean =>
  waiters.size === 0 && leases.size === 0 && own.running === 0

export const hasQueue = (limiter: Limiter, calls: number): boolean => queuedCalls(limiter) >= calls

export const refuseNewcomers = (limiter: Limiter, mayReject: boolean): void => {
  if (limiter.phase === "closed") return
  limiter.phase = mayReject ? "draining" : "closing"
  if (mayReject) Metrics.countDraining(limiter.counts.series)
}

/** Interrupts the waiting calls and the work under leases. Permits for a scope end with their scope. */
export const interruptRest = (limiter: Limiter): number => {
  const waiting = waitersOf(limiter)
  const running = [...limiter.leases].filter(isWorking)
  for (const waiter of waiting) if (waiter.state === "waiting") Waiters.interrupt(limiter, waiter)
  for (const { fiber } of running) fiber?.interruptUnsafe()
  return waiting.length + running.length
}

export const isRestOver = ({ leases, waiters }: Limiter): boolean => waiters.size === 0 && ![...leases].some(isWorking)

const isWorking = ({ fiber }: Lease): boolean => fiber !== undefined && fiber.pollUnsafe() === undefined

export const ofLimiter = (limiter: Limiter, mayReject: boolean): Finish.Finishing => ({
  clock: limiter.time.clock,
  watchers: limiter.counts.watchers,
  refuseNewcomers: () => refuseNewcomers(limiter, mayReject),
  isIdle: () => isIdle(limiter),
  interruptRest: () => interruptRest(limiter),
  isRestOver: () => isRestOver(limiter)
})

/** Drains, and then what decides in place of the store, which has taken waiting calls over until then. */
export const drain = (
  finishing: Finish.Finishing,
  fallback: Pick<Throttle, "drain"> | undefined,
  nanos: number
): Effect.Effect<number> =>
  Effect.suspend(() => {
    const time = Time.make(finishing.clock)
    const end = Time.now(time) + nanos
    const drained = Finish.drain(finishing, nanos)
    if (fallback === undefined) return drained
    return Effect.flatMap(drained, (interrupted) => {
      const left = Math.max(0, end - Time.now(time)) / 1e6
      return Effect.map(fallback.drain(left), (more) => interrupted + more)
    })
  })

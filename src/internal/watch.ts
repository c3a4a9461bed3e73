/**
 * Waits until a condition on the waiting and running calls of a throttle holds.
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Watchers } from "./counts.ts"

/** Waits until a condition holds. */
export const until = (watchers: Watchers, holds: () => boolean): Effect.Effect<void> =>
  Effect.asVoid(untilOrAfter(watchers, holds, undefined, Infinity))

/**
 * Waits until a condition holds, at most for some nanoseconds; returns whether it holds.
 *
 * The timer is a fiber of its own, and no race, so that this ends in time in an uninterruptible region too, such as a
 * finalizer.
 */
export const untilOrAfter = (
  watchers: Watchers,
  holds: () => boolean,
  clock: Clock.Clock | undefined,
  nanos: number
): Effect.Effect<boolean> =>
  Effect.withFiber(({ context }) =>
    Effect.callback((resume) => {
      if (holds()) return resume(Effect.succeed(true))
      const timer = clock === undefined || nanos === Infinity
        ? undefined
        : Effect.runForkWith(context)(clock.sleep(Duration.millis(nanos / 1e6)))
      const stop = () => {
        const index = watchers.indexOf(look)
        if (index < 0) return false
        watchers.splice(index, 1)
        timer?.interruptUnsafe()
        return true
      }
      const end = (isHeld: boolean) => {
        // It continues in another step than that of the change.
        if (stop()) resume(Effect.as(Effect.yieldNow, isHeld))
      }
      const look = () => {
        if (holds()) end(true)
      }
      watchers.push(look)
      timer?.addObserver(() => end(holds()))
      return Effect.sync(stop)
    })
  )

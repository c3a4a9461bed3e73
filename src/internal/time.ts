/**
 * The time of a limiter, on Effect's Clock: monotonic nanoseconds for measuring, and the wall clock for policies that
 * depend on it.
 */
import type * as Clock from "effect/Clock"

export interface Time {
  readonly clock: Clock.Clock
  /** The latest reading, in nanoseconds. */
  read: number
  /** Nanoseconds by which readings are ahead of the monotonic clock, because it stepped back. */
  ahead: number
  /**
   * Returns the wall-clock time at a monotonic instant, in milliseconds. It assumes that the wall clock showed its
   * present time at the latest reading of the monotonic clock: a new reading would be some microseconds later, and an
   * instant on a boundary would seem to lie before it.
   */
  readonly wall: (at: number) => number
}

export const make = (clock: Clock.Clock): Time => {
  const time: Time = {
    clock,
    read: -Infinity,
    ahead: 0,
    wall: (at) => clock.currentTimeMillisUnsafe() + (at - time.read) / 1e6
  }
  return time
}

/**
 * Reads the clock, once for each decision. Invariant: readings never decrease. If the monotonic clock steps back, as on
 * some virtual machines, readings continue from the latest one, so no call has to wait until the clock has caught up.
 */
export const now = (time: Time): number => {
  const at = Number(time.clock.monotonicTimeNanosUnsafe()) + time.ahead
  if (at >= time.read) return time.read = at
  time.ahead += time.read - at
  return time.read
}

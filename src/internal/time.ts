/**
 * The time of a limiter, on Effect's Clock: monotonic nanoseconds for measuring, and the wall clock where a policy is about
 * the wall clock.
 */
import type * as Clock from "effect/Clock"

export interface Time {
  readonly clock: Clock.Clock
  /** The instant at which it was read last. */
  read: number
  /** By how much it is ahead of the monotonic clock. */
  ahead: number
  /**
   * What the wall clock shows at an instant, in milliseconds. The two clocks are read as one: what the wall clock shows now,
   * it showed when the other one was read. Were that read again, some microseconds would have passed, and an instant on a
   * boundary would seem to lie before it.
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
 * Reads the clock: once for a decision. It never goes back: where a monotonic clock does, as some virtual machines' do, this
 * one goes on from where it was, and nothing is locked until the other has caught up.
 */
export const now = (time: Time): number => {
  const at = Number(time.clock.monotonicTimeNanosUnsafe()) + time.ahead
  if (at >= time.read) return time.read = at
  time.ahead += time.read - at
  return time.read
}

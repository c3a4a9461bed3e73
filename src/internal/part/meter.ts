/**
 * A meter: the pure algorithm of a time-based part, as functions of a state.
 *
 * Instants are monotonic nanoseconds as plain numbers. Costs are integers from 1 to the meter's capacity; a meter is
 * not asked about a cost of 0, or about one that it can never grant. Files in this folder import nothing from outside
 * it, not even Effect: time is an argument.
 */
export interface Meter<S, Ticket = unknown> {
  /** The state in which nothing is spent. */
  readonly initial: S
  /** Returns the first state of a limiter that is made at `at`, if it is another. */
  readonly startingAt?: (at: number) => S
  /** The largest cost that can ever be granted. */
  readonly capacity: number
  /**
   * Maximum nanoseconds by which a start may be late and still be charged at the instant at which it was ready, so that
   * late timers do not slow down the schedule. 0 for meters that guarantee the gap between starts.
   */
  readonly lateness: number
  /** Returns the earliest instant, at or after `from`, at which `cost` may start. */
  readonly readyAt: (state: S, from: number, cost: number, wall: Wall) => number
  /** Returns the state after `cost` started at `at`. */
  readonly charge: (state: S, at: number, cost: number, wall: Wall) => S
  /**
   * Returns the state after `cost` started at `now`; undefined if it is not ready. `readyAt` and `charge` in one call.
   */
  readonly tryCharge: (state: S, now: number, cost: number, wall: Wall) => S | undefined
  /**
   * Makes the charge that led from `before` to `state` refundable until it is closed. The ticket identifies the charge.
   */
  readonly open: (state: S, before: S) => { readonly state: S; readonly ticket: Ticket }
  readonly close: (state: S, ticket: Ticket) => S
  /**
   * Returns the state as if the charge had been less by `cost`. What has drained or left the window since the charge is
   * not refunded.
   */
  readonly refund: (state: S, ticket: Ticket, now: number, cost: number) => S
  /** Carries over the state of another meter of the same kind: what is spent stays spent. */
  readonly adopt: (state: S, from: Meter<S, Ticket>, now: number) => S
  /** The unit of the state in nanoseconds: the interval between two permits, or the length of a window. */
  readonly interval: number
  /** The name of the windows whose ends are in the state; undefined for a meter without such. */
  readonly windows?: string
  /** Returns the permits that could start at `now`, all at once. */
  readonly remaining: (state: S, now: number, wall: Wall) => number
  /** Whether the state acts as the initial one from `now` on. */
  readonly isInitial: (state: S, now: number) => boolean
  /** Whether no charge affects decisions any more. (The state may still contain the end of a past window.) */
  readonly isUnspent: (state: S, now: number) => boolean
  /** Returns `readyAt` behind all waiting calls; undefined if that takes examining each of them. */
  readonly readyBehind: (state: S, from: number, cost: number, waiting: Backlog, wall: Wall) => number | undefined
}

/** The calls that wait for a meter: their number, their total cost, and the cost of each in order. */
export interface Backlog {
  readonly calls: number
  readonly total: number
  readonly costs: Iterable<number>
}

/**
 * How late a start may be and still be charged at the instant at which it was ready: 10 ms.
 *
 * Timers tick in milliseconds and wake late; without a tolerance each late start would delay all that follow. 10 ms is
 * several ticks of a busy event loop. It also bounds what can start above the schedule: 10 ms worth of permits.
 */
export const latenessTolerance = 10e6

/** Returns the wall-clock time at a monotonic instant, in milliseconds of Unix time, as far as it is known now. */
export type Wall = (at: number) => number

/**
 * Estimates when `cost` could start if it arrived at `from` behind all waiting calls, each of which starts as soon as
 * it may; undefined if that takes examining more than `maxCalls` of them.
 */
export const estimateReadyAt = <S>(
  meter: Meter<S, any>,
  state: S,
  from: number,
  cost: number,
  waiting: Backlog,
  wall: Wall,
  maxCalls = Infinity
): number | undefined => {
  const known = meter.readyBehind(state, from, cost, waiting, wall)
  if (known !== undefined) return known
  if (waiting.calls > maxCalls) return undefined
  let at = from
  for (const next of waiting.costs) {
    at = meter.readyAt(state, at, next, wall)
    state = meter.charge(state, at, next, wall)
  }
  return meter.readyAt(state, at, cost, wall)
}

/** Returns the first instant, at or after `from`, at which the wall clock shows a multiple of `period` nanoseconds. */
export const boundary = (from: number, period: number, wall: Wall): number => {
  const past = pastBoundary(from, period, wall)
  return past < grain ? from : from + (period - past)
}

/** Returns the nanoseconds since the wall clock showed a multiple of `period`. */
export const pastBoundary = (at: number, period: number, wall: Wall): number => {
  const millis = period / 1e6
  return (((wall(at) % millis) + millis) % millis) * 1e6
}

/**
 * Unix time in milliseconds is a number with a resolution of 0.25 µs, so an instant within 1 µs of a multiple lies on
 * it. Nanoseconds.
 */
export const grain = 1_000

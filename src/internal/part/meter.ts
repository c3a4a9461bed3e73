/**
 * What every timing policy is made of: pure functions over a state.
 *
 * All instants are monotonic nanoseconds as plain numbers; all costs are whole
 * numbers from 1 to the meter's capacity (a part that is charged 0, or more than it
 * can ever grant, is never asked). Nothing in this folder imports anything outside
 * it, not even Effect: time is an argument.
 */
export interface Meter<S, Ticket = unknown> {
  /** The state of a throttle that nobody has used yet. */
  readonly initial: S
  /** The largest cost that can ever be granted. */
  readonly capacity: number
  /**
   * How far in the past a late start may be charged, so that timers that wake
   * late do not slow the schedule down. 0 where the gap between starts is itself
   * the promise.
   */
  readonly lateness: number
  /** The earliest instant at or after `from` at which `cost` may start. */
  readonly readyAt: (state: S, from: number, cost: number, wall: Wall) => number
  /** The state after `cost` started at `at`. */
  readonly charge: (state: S, at: number, cost: number, wall: Wall) => S
  /** The state after `cost` started at `now`; undefined if it is not due yet. What `due` and `charge` say, in one call. */
  readonly tryCharge: (state: S, now: number, cost: number, wall: Wall) => S | undefined
  /**
   * Notes that the charge that led from `before` to `state` may be refunded later, until it is closed. The ticket names
   * the charge.
   */
  readonly open: (state: S, before: S) => { readonly state: S; readonly ticket: Ticket }
  readonly close: (state: S, ticket: Ticket) => S
  /**
   * The state had the charge been less by `cost`: what has drained or left the window since the charge would have done so
   * without it, so that does not come back.
   */
  readonly refund: (state: S, ticket: Ticket, now: number, cost: number) => S
  /** The state of another meter of this kind carried over: what is spent stays spent. */
  readonly adopt: (state: S, from: Meter<S, Ticket>, now: number) => S
  /** What the state measures a permit by; only to be compared with that of another meter of its kind. */
  readonly interval: number
  /** How many permits could start at `now`, all at once. */
  readonly remaining: (state: S, now: number, wall: Wall) => number
  /** Whether no call from now on could tell the state from that of a throttle that nobody has used yet. */
  readonly isInitial: (state: S, now: number) => boolean
  /** Like `due`, behind those who wait already, where that can be said without going through the line. */
  readonly readyBehind: (state: S, from: number, cost: number, ahead: Ahead, wall: Wall) => number | undefined
}

/** Those who wait for a meter: how many calls, what they cost together, and each one's cost in order. */
export interface Ahead {
  readonly calls: number
  readonly total: number
  readonly costs: Iterable<number>
}

/** What the wall clock shows at a monotonic instant, in milliseconds of Unix time, as far as is known now. */
export type Wall = (at: number) => number

/**
 * When `cost` could start if it queued at `from` behind all who wait already, each starting as soon as it may;
 * undefined if that takes going through more than `patience` of them.
 */
export const foresee = <S>(
  meter: Meter<S, any>,
  state: S,
  from: number,
  cost: number,
  ahead: Ahead,
  wall: Wall,
  patience = Infinity
): number | undefined => {
  const known = meter.readyBehind(state, from, cost, ahead, wall)
  if (known !== undefined) return known
  if (ahead.calls > patience) return undefined
  let at = from
  for (const next of ahead.costs) {
    at = meter.readyAt(state, at, next, wall)
    state = meter.charge(state, at, next, wall)
  }
  return meter.readyAt(state, at, cost, wall)
}

/** The first instant at or after `from` at which the wall clock shows a multiple of `period` nanoseconds. */
export const boundary = (from: number, period: number, wall: Wall): number => {
  const past = pastBoundary(from, period, wall)
  return past < grain ? from : from + (period - past)
}

/** Nanoseconds since the wall clock showed a multiple of `period`. */
export const pastBoundary = (at: number, period: number, wall: Wall): number => {
  const millis = period / 1e6
  return (((wall(at) % millis) + millis) % millis) * 1e6
}

/** Unix time in milliseconds is a number with a grain of 0.25 µs: what is closer to a multiple than 1 µs is on it. */
export const grain = 1_000

import { boundary, type Meter, type Wall } from "./meter.ts"

/** The last instant that was charged: a start, or an end. */
export interface SpacingState {
  readonly last: number
}

/** What a start is taken back by, as long as no other came after it. */
interface Ticket {
  readonly before: SpacingState
  readonly last: number
}

/**
 * At least `interval` nanoseconds from one charge to the next, whatever the cost.
 *
 * Aligned, a start is due on a multiple of `interval` of the wall clock. Timers wake
 * late, so an aligned start is charged at its slot as long as it is less than an
 * interval late; charged when it really came, each late start would lose a slot.
 */
export const spacing = (options: {
  readonly interval: number
  readonly align: boolean
  /** Charged at the ends of calls, not at their starts. */
  readonly fromEnd: boolean
}): Meter<SpacingState, Ticket> => {
  const { align, fromEnd, interval } = options
  // The wall clock is read in whole milliseconds, so two slots (an end is none) may seem this much too close.
  const jitter = fromEnd ? 0 : Math.min(2e6, interval / 2)
  const readyAt = (state: SpacingState, from: number, wall: Wall) =>
    align
      ? boundary(Math.max(from, state.last + interval - jitter), interval, wall)
      : Math.max(from, state.last + interval)
  return {
    initial: { last: -Infinity },
    capacity: Infinity,
    lateness: align ? interval : 0,
    readyAt: (state, from, _cost, wall) => readyAt(state, from, wall),
    charge: (_state, at) => ({ last: at }),
    tryCharge: (state, now, _cost, wall) => readyAt(state, now, wall) > now ? undefined : { last: now },
    open: (state, before) => ({ state, ticket: { before, last: state.last } }),
    close: (state) => state,
    refund: (state, { before, last }) => state.last === last ? before : state,
    adopt: (state) => state,
    interval,
    remaining: (state, now, wall) => readyAt(state, now, wall) > now ? 0 : 1,
    isInitial: (state, now) => state.last + interval <= now,
    readyBehind: (state, from, _cost, ahead, wall) => readyAt(state, from, wall) + ahead.calls * interval
  }
}

import { boundary, grain, type Meter, pastBoundary, type Wall } from "./meter.ts"

export interface FixedState {
  /** When the current window ends. */
  readonly end: number
  readonly used: number
  /** Whether `end` is a boundary of other windows, from before an update. */
  readonly isForeign?: boolean
}

/**
 * Windows of the wall clock, [k·per, (k+1)·per), each with `limit` permits.
 *
 * A window's end is fixed in monotonic time when it opens; the wall clock is read
 * again only then, so a clock that is set back neither reopens nor prolongs it.
 */
export const fixed = (options: { readonly limit: number; readonly per: number }): Meter<FixedState, number> => {
  const { limit, per } = options
  // The wall clock shows whole milliseconds, so the end of a window is known too late by up to one.
  const rounding = per < 2e6 ? 0 : Math.min(1e6, per / 4)
  /** By so much the wall clock may be set back right behind a boundary before an unused state opens the window again: 1 s. */
  const lag = Math.min(1e9, per / 2)
  /**
   * Whether the window is over at `at`: by the monotonic clock, or in its last millisecond by the wall clock. What is just
   * before a boundary is on it, for a window that is open as for one that opens.
   */
  const isOver = (state: FixedState, at: number, wall: Wall): boolean =>
    state.end - at < grain ||
    (at >= state.end - rounding && state.isForeign !== true && pastBoundary(at, per, wall) < per / 2)
  /** The window that `at` falls in. */
  const windowAt = (state: FixedState, at: number, wall: Wall): FixedState => {
    if (!isOver(state, at, wall)) return state
    const next = boundary(at, per, wall)
    // On a boundary, or just before it, begins the window behind it.
    const end = next - at < grain ? next + per : next
    // Right behind another window and shorter than half of one: the wall clock lags, this is the same boundary.
    return { end: end - state.end < per / 2 && state.isForeign !== true ? end + per : end, used: 0 }
  }
  const readyAt = (state: FixedState, from: number, cost: number, wall: Wall): number =>
    state.used + cost <= limit || isOver(state, from, wall) ? from : state.end
  const charge = (state: FixedState, at: number, cost: number, wall: Wall): FixedState => {
    const window = windowAt(state, at, wall)
    return withUsed(window, window.used + cost)
  }
  const withUsed = ({ end, isForeign }: FixedState, used: number): FixedState =>
    isForeign === true ? { end, used, isForeign } : { end, used }
  return {
    initial: { end: -Infinity, used: 0 },
    capacity: limit,
    lateness: 0,
    readyAt,
    charge,
    tryCharge: (state, now, cost, wall) =>
      readyAt(state, now, cost, wall) > now ? undefined : charge(state, now, cost, wall),
    open: (state) => ({ state, ticket: state.end }),
    close: (state) => state,
    refund: (state, end, _now, cost) => state.end === end ? withUsed(state, Math.max(0, state.used - cost)) : state,
    // A window that is open ends when it would have.
    adopt: (state, from) => from.interval === per ? state : { end: state.end, used: state.used, isForeign: true },
    interval: per,
    remaining: (state, now, wall) => isOver(state, now, wall) ? limit : Math.max(0, limit - state.used),
    // One that was charged nothing in the end, too: otherwise those whom another limit refuses would fill a map.
    // Right behind its end a wall clock that is set back would open a window twice: so not before that can be foreseen.
    isInitial: (state, now) => (state.used === 0 && state.isForeign !== true) || now >= state.end + lag,
    readyBehind: (state, from, cost, ahead, wall) => {
      const { end, used } = windowAt(state, from, wall)
      const left = Math.max(0, limit - used)
      const all = ahead.total + cost
      if (all <= left) return from
      // Calls that cost 1 each fill window after window.
      return all === ahead.calls + 1 ? end + Math.floor((all - left - 1) / limit) * per : undefined
    }
  }
}

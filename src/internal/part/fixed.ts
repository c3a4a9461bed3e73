/**
 * The meter of a fixed window: when it opens and ends, and what is charged in it.
 */
import { boundary, grain, type Meter, pastBoundary, type Wall } from "./meter.ts"

export interface FixedRule {
  readonly kind: "fixed"
  readonly limit: number
  readonly per: number
}

export interface FixedState {
  /** When the current window ends, in monotonic nanoseconds. */
  readonly end: number
  readonly used: number
  /** Whether `end` is a boundary of windows of another length, from before an update. */
  readonly isForeign?: boolean
}

/**
 * Counts in windows of the wall clock, [k·per, (k+1)·per), each with `limit` permits.
 *
 * The end of a window is fixed in monotonic time when it opens, and the wall clock is read again only then. A wall
 * clock that is set back therefore neither reopens nor prolongs a window.
 */
export const fixed = ({ limit, per }: FixedRule): Meter<FixedState, number> => {
  // The wall clock shows whole milliseconds, so the known end of a window is late by up to one.
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
  /** Returns the window that contains `at`. */
  const windowAt = (state: FixedState, at: number, wall: Wall): FixedState => {
    if (!isOver(state, at, wall)) return state
    const next = boundary(at, per, wall)
    // An instant on a boundary, or just before it, belongs to the window after it.
    const end = next - at < grain ? next + per : next
    // If this window would last less than half of `per` after the previous one, the wall clock lags: it is still before
    // the boundary at which the previous window ended.
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
    // An open window ends as planned.
    adopt: (state, from) => from.interval === per ? state : { end: state.end, used: state.used, isForeign: true },
    interval: per,
    remaining: (state, now, wall) => isOver(state, now, wall) ? limit : Math.max(0, limit - state.used),
    // Also if all charges were refunded: otherwise keys whose calls another limit rejects would fill a map. Not right behind
    // the end, since a wall clock that is set back would open the window a second time.
    isInitial: (state, now) => (state.used === 0 && state.isForeign !== true) || now >= state.end + lag,
    isUnspent: (state, now) => state.used === 0 || now >= state.end,
    readyBehind: (state, from, cost, waiting, wall) => {
      const { end, used } = windowAt(state, from, wall)
      const left = Math.max(0, limit - used)
      const all = waiting.total + cost
      if (all <= left) return from
      // Calls that cost 1 each fill one window after the other.
      return all === waiting.calls + 1 ? end + Math.floor((all - left - 1) / limit) * per : undefined
    }
  }
}

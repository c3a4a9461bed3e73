/**
 * The meter of a fixed window: when it opens and ends, and what is charged in it.
 */
import { grain, type Meter, pastBoundary, type Wall } from "./meter.ts"

export interface FixedRule {
  readonly kind: "fixed"
  readonly limit: number
  readonly per: number
}

export interface FixedState {
  /** When the current window ends, in monotonic nanoseconds. */
  readonly end: number
  readonly used: number
  /** Whether `end` is an edge of other windows, from before an update. */
  readonly isForeign?: boolean
}

/** Windows of the wall clock, one after the other. */
export interface Windows {
  /** Windows of one name have the same edges. */
  readonly name: string
  /** The usual length, in nanoseconds. */
  readonly length: number
  /**
   * A window that would last less than that after the previous one, in nanoseconds, is none of its own: the wall clock
   * lags, and is still before the edge at which the previous window ended.
   */
  readonly shortest: number
  /**
   * Returns, in monotonic nanoseconds, an edge near `at`, where the wall clock shows it: 0 is the edge at which the
   * window that contains `at` begins, 1 the one at which it ends, and so on. An instant less than `grain` before an
   * edge belongs to the window after it.
   */
  readonly edge: (at: number, n: number, wall: Wall) => number
}

/** Counts in windows of the wall clock, [k·per, (k+1)·per), each with `limit` permits. */
export const fixed = ({ limit, per }: FixedRule): Meter<FixedState, number> =>
  inWindows(limit, {
    name: String(per),
    length: per,
    shortest: per / 2,
    edge: (at, n, wall) => {
      const past = pastBoundary(at, per, wall)
      return past < grain ? at + n * per : at - (per - past < grain ? past - per : past) + n * per
    }
  })

/**
 * Counts in windows of the wall clock, each with `limit` permits.
 *
 * The end of a window is fixed in monotonic time when it opens, and the wall clock is read again only then. A wall
 * clock that is set back therefore neither reopens nor prolongs a window.
 */
export const inWindows = (limit: number, { edge, length, name, shortest }: Windows): Meter<FixedState, number> => {
  // The wall clock shows whole milliseconds, so the known end of a window is late by up to one.
  const rounding = length < 2e6 ? 0 : Math.min(1e6, length / 4)
  /** By so much the wall clock may be set back right behind an edge before an unused state opens the window again: 1 s. */
  const lag = Math.min(1e9, length / 2)
  /**
   * Whether the window is over at `at`: by the monotonic clock, or in its last millisecond by the wall clock. What is just
   * before an edge is on it, for a window that is open as for one that opens.
   */
  const isOver = (state: FixedState, at: number, wall: Wall): boolean =>
    state.end - at < grain ||
    (at >= state.end - rounding && state.isForeign !== true && at - edge(at, 0, wall) < edge(at, 1, wall) - at)
  /** Returns the window that contains `at`. */
  const windowAt = (state: FixedState, at: number, wall: Wall): FixedState => {
    if (!isOver(state, at, wall)) return state
    return { end: endAfter(state, at, 0, wall), used: 0 }
  }
  /** Returns the end of the window that contains `at`, after the one of a state, or the n-th end after it. */
  const endAfter = (state: FixedState, at: number, n: number, wall: Wall): number => {
    const end = edge(at, 1, wall)
    const isLagging = state.isForeign !== true && end - state.end < shortest
    return isLagging || n > 0 ? edge(at, isLagging ? n + 2 : n + 1, wall) : end
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
    adopt: (state, from) => from.windows === name ? state : { end: state.end, used: state.used, isForeign: true },
    interval: length,
    windows: name,
    remaining: (state, now, wall) => isOver(state, now, wall) ? limit : Math.max(0, limit - state.used),
    // Also if all charges were refunded: otherwise keys whose calls another limit rejects would fill a map. Not right behind
    // the end, since a wall clock that is set back would open the window a second time.
    isInitial: (state, now) => (state.used === 0 && state.isForeign !== true) || now >= state.end + lag,
    isUnspent: (state, now) => state.used === 0 || now >= state.end,
    readyBehind: (state, from, cost, waiting, wall) => {
      const window = windowAt(state, from, wall)
      const left = Math.max(0, limit - window.used)
      const all = waiting.total + cost
      if (all <= left) return from
      if (all !== waiting.calls + 1) return undefined
      // Calls that cost 1 each fill one window after the other.
      const filled = Math.floor((all - left - 1) / limit)
      return filled === 0 ? window.end : endAfter(window, window.end, filled - 1, wall)
    }
  }
}

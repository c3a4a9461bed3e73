import { boundary, type Meter, type Wall } from "./meter.ts"

/** A list of starts that still count. */
interface List {
  readonly at: number
  /** All that had started up to and including this one. */
  readonly sum: number
  readonly next: List | undefined
}

/**
 * The log of starts as a queue of two lists, so that it is immutable and still
 * costs O(1) on average: `front` has the oldest first, `back` the newest first.
 * `front` is empty only if there is nothing in the log.
 */
export interface SlidingState {
  readonly front: List | undefined
  readonly back: List | undefined
  /** All that ever started. */
  readonly sum: number
  /** All that has left the window. */
  readonly gone: number
}

const reverse = (list: List | undefined): List | undefined => {
  let out: List | undefined
  for (; list !== undefined; list = list.next) out = { at: list.at, sum: list.sum, next: out }
  return out
}

/**
 * The exact sliding log: fewer than `limit` permits started in the last `per`
 * nanoseconds. It remembers every start of the last `per`, at most `limit` of them.
 */
export const sliding = (options: { readonly limit: number; readonly per: number }): Meter<SlidingState> => {
  const { limit, per } = options
  const due = (state: SlidingState, from: number, cost: number) => {
    // All up to this sum must have left the window before `cost` fits in.
    const target = state.sum + cost - limit
    if (target <= state.gone) return from
    let list = state.front
    while (list !== undefined && list.sum < target) list = list.next
    if (list === undefined) {
      list = reverse(state.back)
      while (list !== undefined && list.sum < target) list = list.next
    }
    return list === undefined ? from : Math.max(from, list.at + per)
  }
  const charge = (state: SlidingState, at: number, cost: number): SlidingState => {
    let { back, front, gone } = state
    while (front !== undefined && front.at + per <= at) {
      gone = front.sum
      front = front.next
      if (front === undefined) {
        front = reverse(back)
        back = undefined
      }
    }
    const sum = state.sum + cost
    return front === undefined
      ? { front: { at, sum, next: undefined }, back: undefined, sum, gone }
      : { front, back: { at, sum, next: back }, sum, gone }
  }
  return {
    initial: { front: undefined, back: undefined, sum: 0, gone: 0 },
    capacity: limit,
    grace: 0,
    due,
    behind: (state, from, cost, ahead) => {
      const all = ahead.total + cost
      if (all <= limit) return due(state, from, all)
      // Of calls that cost 1 each, one starts exactly `per` after the one `limit` places before it.
      if (all !== ahead.calls + 1) return undefined
      return due(state, from, (all - 1) % limit + 1) + Math.floor((all - 1) / limit) * per
    },
    charge,
    take: (state, now, cost) => due(state, now, cost) > now ? undefined : charge(state, now, cost)
  }
}

export interface FixedState {
  /** When the current window ends. */
  readonly end: number
  readonly used: number
}

/**
 * Windows of the wall clock, [k·per, (k+1)·per), each with `limit` permits.
 *
 * A window's end is fixed in monotonic time when it opens; the wall clock is read
 * again only then, so a clock that is set back neither reopens nor prolongs it.
 */
export const fixed = (options: { readonly limit: number; readonly per: number }): Meter<FixedState> => {
  const { limit, per } = options
  /** The window that `at` falls in. */
  const windowAt = (state: FixedState, at: number, wall: Wall): FixedState => {
    if (at < state.end) return state
    const opened = boundary(at, per, wall)
    const end = opened === at ? at + per : opened
    // Right behind another window and shorter than half of one: the wall clock lags, this is the same boundary.
    return { end: end - state.end < per / 2 ? end + per : end, used: 0 }
  }
  const due = (state: FixedState, from: number, cost: number): number =>
    from >= state.end || state.used + cost <= limit ? from : state.end
  const charge = (state: FixedState, at: number, cost: number, wall: Wall): FixedState => {
    const { end, used } = windowAt(state, at, wall)
    return { end, used: used + cost }
  }
  return {
    initial: { end: -Infinity, used: 0 },
    capacity: limit,
    grace: 0,
    due,
    charge,
    take: (state, now, cost, wall) => due(state, now, cost) > now ? undefined : charge(state, now, cost, wall),
    behind: (state, from, cost, ahead, wall) => {
      const { end, used } = windowAt(state, from, wall)
      const left = limit - used
      const all = ahead.total + cost
      if (all <= left) return from
      // Calls that cost 1 each fill window after window.
      return all === ahead.calls + 1 ? end + Math.floor((all - left - 1) / limit) * per : undefined
    }
  }
}

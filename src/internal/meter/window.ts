import { boundary, grain, type Meter, pastBoundary, type Wall } from "./meter.ts"

/** A list of starts that still count. */
interface List {
  readonly at: number
  readonly cost: number
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
  /** What all in the log cost together. */
  readonly sum: number
}

const reverse = (list: List | undefined): List | undefined => {
  let out: List | undefined
  for (; list !== undefined; list = list.next) out = { at: list.at, cost: list.cost, next: out }
  return out
}

/** The list without `amount` of what started at this instant, or as much of it as is there. */
const without = (list: List | undefined, at: number, amount: number): List | undefined => {
  const kept: Array<List> = []
  for (; list !== undefined && amount > 0; list = list.next) {
    const less = list.at === at ? Math.min(amount, list.cost) : 0
    amount -= less
    if (list.cost > less) kept.push({ ...list, cost: list.cost - less })
  }
  return kept.reduceRight((next, { at, cost }) => ({ at, cost, next }), list)
}

/** The list with nothing later than an instant. */
const upTo = (list: List | undefined, at: number): List | undefined => {
  const all: Array<List> = []
  for (; list !== undefined; list = list.next) all.push(list)
  return all.reduceRight<List | undefined>(
    (next, one) => ({ at: Math.min(one.at, at), cost: one.cost, next }),
    undefined
  )
}

/** The last to start: the first of `back`, or the last of `front`. */
const newest = ({ back, front }: SlidingState): List | undefined => {
  if (back !== undefined) return back
  let last = front
  while (last?.next !== undefined) last = last.next
  return last
}

const total = (list: List | undefined): number => {
  let sum = 0
  for (; list !== undefined; list = list.next) sum += list.cost
  return sum
}

/**
 * The exact sliding log: fewer than `limit` permits started in the last `per`
 * nanoseconds. It remembers every start of the last `per`, at most `limit` of them.
 */
export const sliding = (options: { readonly limit: number; readonly per: number }): Meter<SlidingState> => {
  const { limit, per } = options
  const due = (state: SlidingState, from: number, cost: number) => {
    // So much must have left the window before `cost` fits in.
    let missing = state.sum + cost - limit
    if (missing <= 0) return from
    for (let list = state.front; list !== undefined; list = list.next) {
      missing -= list.cost
      if (missing <= 0) return Math.max(from, list.at + per)
    }
    for (let list = reverse(state.back); list !== undefined; list = list.next) {
      missing -= list.cost
      if (missing <= 0) return Math.max(from, list.at + per)
    }
    return from
  }
  const charge = (state: SlidingState, at: number, cost: number): SlidingState => {
    let { back, front, sum } = state
    while (front !== undefined && front.at + per <= at) {
      sum -= front.cost
      front = front.next
      if (front === undefined) {
        front = reverse(back)
        back = undefined
      }
    }
    sum += cost
    return front === undefined
      ? { front: { at, cost, next: undefined }, back: undefined, sum }
      : { front, back: { at, cost, next: back }, sum }
  }
  /** Those that started at one instant are alike: it does not matter which of them the amount is taken from. */
  const takeBack = (state: SlidingState, charged: SlidingState, amount: number): SlidingState => {
    const { at } = (charged.back ?? charged.front)!
    const front = without(state.front, at, amount)
    const left = amount - (total(state.front) - total(front))
    const back = without(state.back, at, left)
    const sum = total(front) + total(back)
    return front === undefined ? { front: reverse(back), back: undefined, sum } : { front, back, sum }
  }
  return {
    initial: { front: undefined, back: undefined, sum: 0 },
    capacity: limit,
    grace: 0,
    interval: per,
    due,
    behind: (state, from, cost, ahead) => {
      const all = ahead.total + cost
      if (all <= limit) return due(state, from, all)
      // Of calls that cost 1 each, one starts exactly `per` after the one `limit` places before it.
      if (all !== ahead.calls + 1) return undefined
      return due(state, from, (all - 1) % limit + 1) + Math.floor((all - 1) / limit) * per
    },
    charge,
    take: (state, now, cost) => due(state, now, cost) > now ? undefined : charge(state, now, cost),
    settle: (state, charged, now, more) =>
      more < 0
        ? takeBack(state, charged, -more)
        // The log is in order, also where a policy in shadow has starts in it that are still to come.
        : charge(state, Math.max(now, newest(state)?.at ?? now), more),
    undo: (state, _before, charged, _now, cost) => takeBack(state, charged, cost),
    watch: (state) => state,
    unwatch: (state) => state,
    // A policy in shadow charges starts that are still to come: they count as of now.
    left: ({ back, front, sum }, now) => {
      let left = limit - sum
      // The oldest of `front` have left the window first; those of `back` only once all of `front` have.
      for (; front !== undefined && front.at + per <= now; front = front.next) left += front.cost
      if (front !== undefined) return Math.max(0, left)
      for (; back !== undefined; back = back.next) if (back.at + per <= now) left += back.cost
      return Math.max(0, left)
    },
    adopt: ({ back, front, sum }, _from, now) => ({ front: upTo(front, now), back: upTo(back, now), sum }),
    // The oldest first: while that still counts, nobody need look for the newest.
    isFresh: (state, now) =>
      state.front === undefined || (state.front.at + per <= now && newest(state)!.at + per <= now)
  }
}

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
export const fixed = (options: { readonly limit: number; readonly per: number }): Meter<FixedState> => {
  const { limit, per } = options
  // The wall clock shows whole milliseconds, so the end of a window is known too late by up to one.
  const rounding = per < 2e6 ? 0 : Math.min(1e6, per / 4)
  /** Whether the window is over at `at`: by the monotonic clock, or in its last millisecond by the wall clock. */
  const isOver = (state: FixedState, at: number, wall: Wall): boolean =>
    at >= state.end ||
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
  const due = (state: FixedState, from: number, cost: number, wall: Wall): number =>
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
    grace: 0,
    due,
    charge,
    take: (state, now, cost, wall) => due(state, now, cost, wall) > now ? undefined : charge(state, now, cost, wall),
    settle: (state, charged, now, more, wall) =>
      more > 0
        ? charge(state, now, more, wall)
        : state.end === charged.end
        ? withUsed(state, Math.max(0, state.used + more))
        : state,
    undo: (state, _before, charged, _now, cost) =>
      state.end === charged.end ? withUsed(state, Math.max(0, state.used - cost)) : state,
    watch: (state) => state,
    unwatch: (state) => state,
    adopt: (state, from, now) => {
      // A policy in shadow opens windows that are still to come. One that is open ends when it would have.
      if (state.isForeign !== true && state.end > now + from.interval) {
        return { end: now + per, used: state.used, isForeign: true }
      }
      return from.interval === per ? state : { end: state.end, used: state.used, isForeign: true }
    },
    interval: per,
    left: (state, now, wall) => isOver(state, now, wall) ? limit : Math.max(0, limit - state.used),
    // One that was charged nothing in the end, too: otherwise those whom another limit refuses would fill a map.
    isFresh: (state, now) => (state.used === 0 && state.isForeign !== true) || now >= state.end + per / 2,
    behind: (state, from, cost, ahead, wall) => {
      const { end, used } = windowAt(state, from, wall)
      const left = Math.max(0, limit - used)
      const all = ahead.total + cost
      if (all <= left) return from
      // Calls that cost 1 each fill window after window.
      return all === ahead.calls + 1 ? end + Math.floor((all - left - 1) / limit) * per : undefined
    }
  }
}

import type { Meter } from "./meter.ts"

/** How full the bucket was at an instant. The level is time, not permits: the nanoseconds until it is empty. */
export interface RateState {
  readonly level: number
  readonly at: number
  /** Only while calls may be settled later: how low the bucket was since. (Two fields in place of three save a call 10 ns.) */
  readonly lows?: Low | undefined
  /** Permits that fell away since then because the bucket was made too small for them. */
  readonly fallen?: number | undefined
}

/**
 * The lowest level before any charge since the call that opened it was charged, and until the next one was opened; newest
 * first. One that is no lower than a newer one tells nothing and becomes part of that, and one that no open call goes back
 * to becomes part of the next older one, so there are at most as many as open calls.
 */
interface Low {
  readonly level: number
  readonly opened: number
  /** How many open calls go back to this one, and not to an older one. */
  readonly calls: number
  readonly next: Low | undefined
}

const note = (low: Low, level: number): Low => {
  if (level >= low.level) return low
  let { calls, next } = low
  for (; next !== undefined && next.level >= level; next = next.next) calls += next.calls
  return { level, opened: low.opened, calls, next }
}

/** The list with other levels, as far back as a call. */
const mapped = (lows: Low | undefined, since: number, f: (level: number) => number): Low | undefined => {
  const newer: Array<Low> = []
  for (; lows !== undefined && lows.opened >= since; lows = lows.next) newer.push(lows)
  return newer.reduceRight<Low | undefined>(
    (next, { calls, level, opened }) => ({ level: f(level), opened, calls, next }),
    lows
  )
}

/** The list without a call that is settled no more. */
const closed = (lows: Low | undefined, since: number): Low | undefined => {
  const newer: Array<Low> = []
  for (; lows !== undefined && lows.opened >= since; lows = lows.next) newer.push(lows)
  const own = newer.pop()
  if (own === undefined) return lows
  const rest = own.calls > 1
    ? { ...own, calls: own.calls - 1, next: lows }
    : lows && { ...lows, level: Math.min(lows.level, own.level) }
  return newer.reduceRight<Low | undefined>((next, low) => ({ ...low, next }), rest)
}

/**
 * The generic cell rate algorithm (ITU-T I.371) in its form as a continuous-state
 * leaky bucket: a permit pours `interval` into the bucket, the bucket drains by a
 * nanosecond each nanosecond and holds `capacity` permits.
 *
 * The level is kept rather than the theoretical arrival time because it stays small
 * and so exact: after a year of uptime a number of nanoseconds has a grain of 4 ns,
 * and adding an interval of 333.3 ns to such a number over and over would drift.
 */
export const rate = (options: {
  /** Nanoseconds between two permits. */
  readonly interval: number
  /** Permits that may start at once. */
  readonly capacity: number
  readonly grace: number
}): Meter<RateState> => {
  const { capacity, grace, interval } = options
  const level = (state: RateState, at: number) => {
    const left = state.level - (at - state.at)
    return left < -grain ? 0 : left
  }
  const due = (state: RateState, from: number, cost: number) =>
    from + Math.max(0, level(state, from) - (capacity - cost) * interval)
  const poured = (state: RateState, before: number, cost: number, at: number): RateState =>
    state.lows === undefined
      ? { level: before + cost * interval, at }
      : { level: before + cost * interval, at, lows: note(state.lows, before), fallen: state.fallen }
  /**
   * Had it not poured this much, the bucket would be lower by as much, but never below empty: so by no more than the
   * lowest level that it has had since then.
   */
  const takeBack = (state: RateState, charged: RateState, now: number, amount: number): RateState => {
    const before = level(state, now)
    const since = charged.lows?.opened ?? Infinity
    let lowest = before
    for (let low = state.lows; low !== undefined && low.opened >= since; low = low.next) {
      lowest = Math.min(lowest, low.level)
    }
    // What has fallen away would have been the first to do so.
    const left = amount - ((state.fallen ?? 0) - (charged.fallen ?? 0))
    const back = Math.max(0, Math.min(left * interval, lowest))
    const lows = back === 0 ? state.lows : mapped(state.lows, since, (level) => level - back)
    return { level: before - back, at: now, lows, fallen: state.fallen }
  }
  return {
    initial: { level: 0, at: -Infinity },
    capacity,
    grace,
    interval,
    due,
    charge: (state, at, cost) => poured(state, level(state, at), cost, at),
    take: (state, now, cost) => {
      const before = level(state, now)
      return before > (capacity - cost) * interval ? undefined : poured(state, before, cost, now)
    },
    settle: (state, charged, now, more) =>
      more < 0
        ? takeBack(state, charged, now, -more)
        : poured(state, level(state, now), more, now),
    undo: (state, _before, charged, now, cost) => takeBack(state, charged, now, cost),
    watch: ({ at, fallen = 0, level, lows }) => ({
      level,
      at,
      lows: { level: Infinity, opened: (lows?.opened ?? 0) + 1, calls: 1, next: lows },
      fallen
    }),
    unwatch: (state, charged) => {
      const lows = closed(state.lows, charged.lows?.opened ?? Infinity)
      return lows === undefined ? { level: state.level, at: state.at } : { ...state, lows }
    },
    adopt: (state, from, now) => {
      // What was let in counts for at most what could be now; what was settled for more than there was stays owed. (A
      // policy in shadow charges starts that are still to come: they count as of now.)
      const spent = level(state, Math.max(now, state.at)) / from.interval
      const above = Math.max(0, Math.min(spent, from.capacity) - capacity) * interval
      const scaled = spent * interval - above
      if (state.lows === undefined) return { level: scaled, at: now }
      const lows = mapped(state.lows, -Infinity, (level) => level * interval / from.interval - above)
      return { level: scaled, at: now, lows, fallen: (state.fallen ?? 0) + above / interval }
    },
    isFresh: (state, now) => level(state, now) <= 0,
    // Those ahead start as soon as they may, so the bucket never runs empty in between: their sum is enough.
    behind: (state, from, cost, ahead) => due(state, from, ahead.total + cost)
  }
}

/**
 * An instant in nanoseconds is rounded by up to this much, for two years of uptime. A bucket that seems this much emptier
 * than empty is kept so: cut off at 0, what each start loses by rounding up is lost for good; at 3,000,000 a second that
 * was 0.2 %.
 */
const grain = 8

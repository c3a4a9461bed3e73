import type { Meter } from "./meter.ts"

/** How full the bucket was at an instant. The level is time, not permits: the nanoseconds until it is empty. */
export interface RateState {
  readonly level: number
  readonly at: number
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
  return {
    initial: { level: 0, at: -Infinity },
    capacity,
    grace,
    due,
    charge: (state, at, cost) => ({ level: level(state, at) + cost * interval, at }),
    take: (state, now, cost) => {
      const before = level(state, now)
      return before > (capacity - cost) * interval ? undefined : { level: before + cost * interval, at: now }
    },
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
